"""A worker as a process, seen and hurt from outside; and the one way in which the tests wait."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from driftline.streams.local.service import LocalService

ROOT: Final = Path(__file__).parents[2]
# Two busy cores start a worker in 10 s; a step that takes ten times that hangs.
PATIENCE_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.02
_FROZEN_SECONDS_MAX: Final = 120.0


class Stuck(AssertionError):
    """Something that must happen did not; the message holds the end of the log."""


class WorkerProcess:
    """A worker that was started; what sort of worker says the subclass.

    Attributes
    ----------
    name : what messages call it.
    expected : exit codes that are no failure; a kill or a stop of ours adds its own.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path, expected: Iterable[int] = ()) -> None:
        self.name, self.log_path = name, log
        self.expected = {0, *expected}
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def code(self) -> int | None:
        """The exit code; None while it lives."""
        return self._process.poll()

    @property
    def asleep(self) -> bool:
        """Whether a SIGSTOP holds it."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        except FileNotFoundError:
            return False

    @property
    def rss_bytes(self) -> int:
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def send_signal(self, number: signal.Signals) -> None:
        if self.code is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash does."""
        self.expected.add(-signal.SIGKILL)
        self._process.kill()
        self._process.wait(30)

    def sleep(self) -> None:
        """Stop every thread of it, as a frozen machine does."""
        self.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Let go on what a SIGSTOP or a failpoint holds."""
        self.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it in order."""
        # Before it handles signals, this ends it all the same.
        self.expected.add(-signal.SIGTERM)
        self.send_signal(signal.SIGTERM)
        self.until_dead()

    def until_asleep(self) -> None:
        """Return when a failpoint has stopped it."""
        self.until(lambda: self.asleep, "stop at its failpoint")

    def until_logged(self, text: str, *, after: int = 0, seconds: float = PATIENCE_SECONDS) -> None:
        """Return when its log holds a text beyond the first `after` characters."""
        self.until(lambda: text in self.log[after:], f'log "{text}"', seconds)

    def until_dead(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Its exit code, once it has ended, however."""
        until(lambda: self.code is not None, lambda: f"{self.name} did not end:\n{self.tail()}", seconds)
        assert self.code is not None
        return self.code

    def until(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for a condition while it lives."""

        def met() -> bool:
            if condition():
                return True
            if self.code is not None:
                raise Stuck(f"{self.name} ended with {self.code} and did not {what}:\n{self.tail()}")
            return False

        until(met, lambda: f"{self.name} did not {what}:\n{self.tail()}", seconds)

    def tail(self, lines: int = 25) -> str:
        """The end of its log."""
        return "\n".join(self.log.splitlines()[-lines:])


def surprises(workers: Iterable[WorkerProcess]) -> list[str]:
    """Those that ended by themselves, with the end of what they said."""
    ended = [worker for worker in workers if worker.code is not None and worker.code not in worker.expected]
    return [f"{worker.name} ended with {worker.code}:\n{worker.tail(8)}" for worker in ended]


def read_ready(port: int) -> tuple[bool, list[str]]:
    """What a worker's /readyz says: whether it is ready, and why not."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            state = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        state = json.loads(error.read())
    except OSError as error:
        return False, [f"no page: {error}"]
    return bool(state["ready"]), list(state["reasons"])


@contextmanager
def frozen(pid: int | None) -> Iterator[None]:
    """A process that stands still meanwhile."""
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    # Whatever becomes of the run, nothing may stay asleep.
    alarm = threading.Timer(_FROZEN_SECONDS_MAX, os.kill, (pid, signal.SIGCONT))
    alarm.start()
    try:
        yield
    finally:
        alarm.cancel()
        os.kill(pid, signal.SIGCONT)


@contextmanager
def away(server: LocalService, *, killed: bool = False) -> Iterator[None]:
    """A service that is stopped meanwhile, in order or as a crash does it."""
    if killed:
        server.kill()
    else:
        server.stop()
    try:
        yield
    finally:
        server.start()


def until(condition: Callable[[], bool], message: Callable[[], str], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for a condition.

    Raises
    ------
    Stuck : it did not come true in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Stuck(f"after {seconds:.0f} s: {message()}")
        time.sleep(_POLL_SECONDS)
