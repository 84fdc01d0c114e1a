"""A service as a child process: started with its own log, watched, stopped cleanly, gone when we are."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

LOOPBACK = "127.0.0.1"
# Below the range from which the kernel takes ports for outgoing connections (32768 up on Linux), so that a service
# that is killed and started again on its port does not find it taken by a client.
# Whoever runs beside others gives each of them a part of it: a port is free until somebody listens, seconds later.
PORTS = range(20_000, 32_000)
# What this process was told is free and may not listen on yet: five listeners of one broker were once told two same ports.
_given: set[int] = set()


class LocalServiceError(RuntimeError):
    """A local service cannot be had; the message says what is missing and what to do."""


def port_taken(port: int) -> bool:
    """Whether something listens on the loopback port, or holds it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return True
    return False


def free_port(count: int = 1) -> int:
    """The first of `count` loopback ports in a row that nobody holds now and that no earlier call has named.

    Raises
    ------
    LocalServiceError : 200 random places were all taken.
    """
    generator = random.SystemRandom()
    if 2 * len(_given) > len(PORTS):
        _given.clear()   # the oldest are long in use, or given up
    for _ in range(200):
        first = generator.choice(PORTS[: len(PORTS) - count + 1])
        ports = range(first, first + count)
        if _given.isdisjoint(ports) and not any(map(port_taken, ports)):
            _given.update(ports)
            return first
    raise LocalServiceError(f"no free loopback port between {PORTS.start} and {PORTS.stop}")


class ServiceProcess:
    """One child process with a log file.

    Parameters
    ----------
    log : the file that takes its standard output and error, appended to.
    detached : lives on when this process ends (`make services`); otherwise it is killed then, however we end.
    """

    def __init__(self, log: Path, *, detached: bool = False) -> None:
        self.log = log
        self._detached = detached
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, command: Sequence[str], *, cwd: Path, environment: Mapping[str, str] | None = None) -> None:
        """Start the command in a session of its own, so that Ctrl-C in our terminal does not reach it first."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        if not self._detached:
            # The shell waits for the end of a pipe that only we hold: it ends when we do, even by kill -9.
            self._watcher = subprocess.Popen(
                ["/bin/sh", "-c", 'read -r _; kill -9 "$0"', str(self._process.pid)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def stop(self, *, timeout_seconds: float = 30) -> None:
        """End it with SIGTERM; with SIGKILL when it has not gone in time."""
        if self._process is not None and self.alive:
            self._process.terminate()
            try:
                self._process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._reap()

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        if self._process is not None and self.alive:
            self._process.kill()
        self._reap()

    def send_signal(self, number: signal.Signals) -> None:
        """Send any signal, for instance SIGSTOP and SIGCONT to freeze it."""
        if self._process is not None and self.alive:
            self._process.send_signal(number)

    def tail(self, lines: int = 15) -> str:
        """The end of the log, for error messages."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _reap(self) -> None:
        # The watcher first: the process id must not be free for others while it may still kill it.
        if self._watcher is not None:
            self._watcher.kill()
            self._watcher.wait()
            if self._watcher.stdin is not None:
                self._watcher.stdin.close()
            self._watcher = None
        if self._process is not None:
            self._process.wait()
            self._process = None
