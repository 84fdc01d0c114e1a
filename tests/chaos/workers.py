"""Workers as processes: started with a name and a failpoint, watched, killed, put to sleep and woken, drained."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from driftline.streams.supervisor import DRAIN_SIGNAL
from tests.chaos.process import ROOT, WorkerProcess, surprises

Stage = Literal["ingest", "join", "detect"]
STAGES: Final[tuple[Stage, ...]] = ("ingest", "join", "detect")

_DRAIN_SECONDS: Final = 600.0
_STARTED = re.compile(r"task_started task=(\S+)")


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


class Worker(WorkerProcess):
    """One `driftline run CONFIG --processors STAGE`."""

    def __init__(self, stage: Stage, config: Path, log: Path, launch: Launch) -> None:
        self.stage, self.launch = stage, launch
        patched = bool(launch.without or launch.clock)
        command = [sys.executable, "-m", "tests.chaos.worker" if patched else "driftline", "run", str(config)]
        # Supervised: it ends when this program does, however that ends, and keeps a drain that comes before it is ready.
        command += ["--processors", stage, "--instance", launch.instance, "--supervised", *launch.arguments]
        environment = os.environ | {"DRIFTLINE_FAILPOINT": launch.failpoint, "NO_COLOR": "1"}
        environment |= {"CHAOS_WITHOUT": launch.without, "CHAOS_CLOCK": str(launch.clock or "")}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {DRAIN_SIGNAL})
        try:
            with log.open("wb") as sink:
                process = subprocess.Popen(
                    command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=sink, stderr=sink, start_new_session=True
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        super().__init__(f"{stage}/{launch.instance}", process, log, [-signal.SIGKILL] if launch.failpoint else [])

    @property
    def tasks(self) -> set[str]:
        """Every task it has ever started."""
        return set(_STARTED.findall(self.log))

    def drain(self) -> None:
        """End it once it has read everything."""
        self.send_signal(DRAIN_SIGNAL)
        self.until_dead(_DRAIN_SECONDS)


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
        return surprises(self.all)
