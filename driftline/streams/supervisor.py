"""One process a processor: start them, stop them together, and drain them in order when the input has ended.

`run --until-idle` ends from the front: ingest stops by itself when its topics are quiet, then SIGUSR1 tells the next
processor that no more input will come, so that it reads to the end of its topics and exits, and so on.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

DRAIN_SIGNAL = signal.SIGUSR1
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Command:
    """How to start one processor."""

    name: str
    arguments: tuple[str, ...]


@dataclass(slots=True)
class _Child:
    command: Command
    process: subprocess.Popen[bytes]
    drained: bool = field(default=False)


class Supervisor:
    """Runs processors, in the order in which events pass them.

    Parameters
    ----------
    until_idle : the first processor ends by itself; drain the others after it, one by one.
    grace_seconds : from SIGTERM to SIGKILL. Above the runner's transaction timeout, or a commit under way is cut off.
    """

    def __init__(self, commands: Sequence[Command], *, until_idle: bool = False, grace_seconds: float = 30.0) -> None:
        self._commands = tuple(commands)
        self._until_idle = until_idle
        self._grace_seconds = grace_seconds
        self._children: list[_Child] = []
        self._stop = threading.Event()

    def run(self) -> int:
        """Start all, wait, and give the exit code: that of the first child that failed, else 0."""
        code = 0
        try:
            for command in self._commands:
                self._children.append(_Child(command, _start(command)))
                log.info("processor_started processor=%s pid=%d", command.name, self._children[-1].process.pid)
            code = self._watch()
        finally:
            self._end()
        return code

    def stop(self) -> None:
        """Ask for the end; safe in a signal handler."""
        self._stop.set()

    def _watch(self) -> int:
        running = list(self._children)
        while running and not self._stop.wait(_POLL_SECONDS):
            for child in list(running):
                code = child.process.poll()
                if code is None:
                    continue
                running.remove(child)
                if code != 0:
                    log.error("processor_failed processor=%s exit=%d", child.command.name, code)
                    return code if code > 0 else 1
                log.info("processor_stopped processor=%s", child.command.name)
                if not self._until_idle:
                    return 0
            if self._until_idle and running and running[0] is not self._children[0]:
                self._drain(running[0])
        return 0

    def _drain(self, child: _Child) -> None:
        """Tell the first one still running that everything before it has ended."""
        if not child.drained:
            child.drained = True
            log.info("processor_draining processor=%s", child.command.name)
            child.process.send_signal(DRAIN_SIGNAL)

    def _end(self) -> None:
        """SIGTERM to all that run, SIGKILL to what is left after the grace."""
        running = [child for child in self._children if child.process.poll() is None]
        for child in running:
            child.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._grace_seconds
        for child in running:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
                log.info("processor_stopped processor=%s", child.command.name)
            except subprocess.TimeoutExpired:
                log.error("processor_killed processor=%s after_seconds=%.0f", child.command.name, self._grace_seconds)
                child.process.kill()
                child.process.wait()
        for child in self._children:
            if child.process.stdin is not None:
                child.process.stdin.close()


def _start(command: Command) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, so that Ctrl-C reaches the supervisor alone and ends things in order.

    The drain signal is blocked while the child starts: its default action would kill a child that has no handler yet;
    blocked, it waits for `relay_drain`. The pipe on stdin closes when the supervisor dies, however it dies.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {DRAIN_SIGNAL})
    try:
        return subprocess.Popen(command.arguments, stdin=subprocess.PIPE, start_new_session=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def relay_drain() -> None:
    """In a child, before anything slow: keep a drain signal that comes early for the handler that comes later."""

    def early(_number: int, _frame: object) -> None:
        threading.Thread(target=again, name="relay-drain", daemon=True).start()

    def again() -> None:
        while signal.getsignal(DRAIN_SIGNAL) is early:
            time.sleep(_POLL_SECONDS)
        os.kill(os.getpid(), DRAIN_SIGNAL)

    signal.signal(DRAIN_SIGNAL, early)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {DRAIN_SIGNAL})


def watch_parent(stop: Callable[[], None]) -> None:
    """In a child: call `stop` when the supervisor is gone, so that no orphan goes on consuming."""

    def wait() -> None:
        while os.read(0, 4_096):
            pass
        log.warning("supervisor_gone")
        stop()

    threading.Thread(target=wait, name="watch-parent", daemon=True).start()
