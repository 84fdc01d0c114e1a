"""Workers as processes: started with a name and a failpoint, watched, killed, put to sleep and woken, drained."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from driftline.streams.supervisor import DRAIN_SIGNAL

Stage = Literal["ingest", "join", "detect"]
STAGES: Final[tuple[Stage, ...]] = ("ingest", "join", "detect")

ROOT: Final = Path(__file__).parents[2]
# Two busy cores start a worker in 10 s; a step that takes ten times that hangs.
PATIENCE_SECONDS: Final = 120.0
_DRAIN_SECONDS: Final = 600.0
_POLL_SECONDS: Final = 0.02
_STARTED = re.compile(r"task_started task=(\S+)")


class Stuck(AssertionError):
    """Something that must happen did not; the message holds the end of the log."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How a worker is started.

    Attributes
    ----------
    instance : its name, for transactions and static membership.
    failpoint : as in `driftline.streams.runner.failpoint`, empty for none.
    without : a rule of the protocol to switch off in the worker's code (`switches.py`).
    clock : a file with the seconds by which the worker's clock is off.
    arguments : more of the command line.
    """

    instance: str = "a"
    failpoint: str = ""
    without: str = ""
    clock: Path | None = None
    arguments: Sequence[str] = ()


class Worker:
    """One `driftline run CONFIG --processors STAGE`.

    Attributes
    ----------
    expected : exit codes that are no failure; a kill or a stop of ours adds its own.
    """

    def __init__(self, stage: Stage, config: Path, log: Path, launch: Launch) -> None:
        self.stage, self.launch, self.log_path = stage, launch, log
        self.started_at = time.time()
        self.expected = {0}
        patched = bool(launch.without or launch.clock)
        command = [sys.executable, "-m", "tests.chaos.worker" if patched else "driftline", "run", str(config)]
        # Supervised: it ends when this program does, however that ends, and keeps a drain that comes before it is ready.
        command += ["--processors", stage, "--instance", launch.instance, "--supervised", *launch.arguments]
        environment = os.environ | {"DRIFTLINE_FAILPOINT": launch.failpoint, "NO_COLOR": "1"}
        environment |= {"CHAOS_WITHOUT": launch.without, "CHAOS_CLOCK": str(launch.clock or "")}
        if launch.failpoint:
            self.expected.add(-signal.SIGKILL)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {DRAIN_SIGNAL})
        try:
            with log.open("wb") as sink:
                self._process = subprocess.Popen(
                    command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=sink, stderr=sink, start_new_session=True
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def name(self) -> str:
        return f"{self.stage}/{self.launch.instance}"

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
        return _state(self.pid) == "T"

    @property
    def tasks(self) -> set[str]:
        """Every task it has ever started."""
        return set(_STARTED.findall(self.log))

    @property
    def rss_bytes(self) -> int:
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> None:
        """End it as a crash does."""
        self.expected.add(-signal.SIGKILL)
        self._process.kill()
        self._process.wait(30)

    def sleep(self) -> None:
        """Stop every thread of it, as a frozen machine does."""
        os.kill(self.pid, signal.SIGSTOP)

    def wake(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it in order."""
        # Before it handles signals, this ends it all the same.
        self.expected.add(-signal.SIGTERM)
        self._process.terminate()
        self._await_end()

    def drain(self) -> None:
        """End it once it has read everything."""
        if self.code is None:
            self._process.send_signal(DRAIN_SIGNAL)
        self._await_end(_DRAIN_SECONDS)

    def until_asleep(self) -> None:
        """Return when a failpoint has stopped it."""
        self.until(lambda: self.asleep, "stop at its failpoint")

    def until_logged(self, text: str, *, after: int = 0, seconds: float = PATIENCE_SECONDS) -> None:
        """Return when its log holds a text beyond the first `after` characters."""
        self.until(lambda: text in self.log[after:], f'log "{text}"', seconds)

    def until_dead(self) -> None:
        """Return when it has ended, however."""
        until(lambda: self.code is not None, lambda: f"{self.name} did not end:\n{self.tail()}")

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

    def _await_end(self, seconds: float = PATIENCE_SECONDS) -> None:
        until(lambda: self.code is not None, lambda: f"{self.name} did not end in order:\n{self.tail()}", seconds)


@dataclass(slots=True)
class Crew:
    """The workers of one stage.

    Attributes
    ----------
    defaults : what every launch of a run starts from; a control sets the missing rule here.
    all : every worker that ever was, in the order of their starts.
    over : it has drained, and what came after keeps it from starting again.
    """

    stage: Stage
    config: Path
    directory: Path
    defaults: Launch = field(default_factory=Launch)
    all: list[Worker] = field(default_factory=list)
    over: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def alive(self) -> list[Worker]:
        return [worker for worker in self.all if worker.code is None]

    def start(self, instance: str = "a", failpoint: str = "", arguments: Sequence[str] = ()) -> Worker:
        """A worker more."""
        launch = Launch(instance, failpoint, self.defaults.without, self.defaults.clock, arguments)
        with self._lock:
            log = self.directory / f"{self.stage}-{len(self.all)}-{instance}.log"
            worker = Worker(self.stage, self.config, log, launch)
            self.all.append(worker)
        return worker

    def of(self, instance: str) -> Worker:
        """The last worker with this name."""
        return next(worker for worker in reversed(self.all) if worker.launch.instance == instance)

    def drain(self) -> None:
        """End all workers, each when it has read everything; one that sleeps is woken first."""
        for worker in self.alive:
            if worker.asleep:
                worker.wake()
        for worker in self.alive:
            worker.drain()

    def kill(self) -> None:
        """Leave no process behind."""
        for worker in self.alive:
            worker.kill()

    def surprises(self) -> list[str]:
        """Workers that ended by themselves, with the end of what they said."""
        ended = [worker for worker in self.all if worker.code is not None and worker.code not in worker.expected]
        return [f"{worker.name} ended with {worker.code}:\n{worker.tail(8)}" for worker in ended]


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


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "gone"
