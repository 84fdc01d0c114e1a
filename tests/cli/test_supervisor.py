"""The supervisor of `run` with real processes: whoever ends, and however, nobody is left over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from driftline.streams.supervisor import Command, Supervisor

CHILD = """
import os, pathlib, signal, sys, time
from driftline.streams.supervisor import relay_drain, watch_parent
folder, name, ends = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
def end(number, _frame):
    with (folder / "ended").open("a") as log:
        log.write(f"{name} {signal.Signals(number).name}\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
relay_drain()
signal.signal(signal.SIGUSR1, end)
watch_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
(folder / f"{name}.part").write_text(str(os.getpid()))
(folder / f"{name}.part").rename(folder / f"{name}.pid")
if ends:
    while len(list(folder.glob("*.pid"))) < int(ends[1]):
        time.sleep(0.05)
    sys.exit(int(ends[0]))
time.sleep(300)
"""
PARENT = """
import signal, sys
from driftline.streams.supervisor import Command, Supervisor
supervisor = Supervisor([Command(name, (sys.executable, "-c", sys.argv[1], sys.argv[2], name)) for name in sys.argv[3:]])
signal.signal(signal.SIGTERM, lambda *_: supervisor.stop())
sys.exit(supervisor.run())
"""


def child(folder: Path, name: str, *ends: int) -> Command:
    """A processor; with `ends` = (code, n) it exits with that code as soon as n of them have started."""
    return Command(name, (sys.executable, "-c", CHILD, str(folder), name, *map(str, ends)))


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def running(folder: Path) -> list[int]:
    """Children that are neither gone nor dead and unburied, as orphans are where nobody adopts them."""
    pids = [int(file.read_text()) for file in folder.glob("*.pid")]
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def ended(folder: Path) -> list[str]:
    log = folder / "ended"
    return log.read_text().split("\n")[:-1] if log.exists() else []


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor of three processors in a process of its own, all started."""
    process = subprocess.Popen([sys.executable, "-c", PARENT, CHILD, str(tmp_path), "ingest", "join", "detect"])
    wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 3)
    yield process
    process.kill()
    process.wait()
    for pid in running(tmp_path):
        os.kill(pid, signal.SIGKILL)


def test_the_code_of_a_child_that_fails_is_passed_on_and_the_others_are_stopped(tmp_path: Path) -> None:
    supervisor = Supervisor([child(tmp_path, "ingest"), child(tmp_path, "join", 7, 3), child(tmp_path, "detect")])
    assert supervisor.run() == 7
    assert sorted(ended(tmp_path)) == ["detect SIGTERM", "ingest SIGTERM"]
    assert running(tmp_path) == []


def test_a_child_that_is_killed_is_a_failure(tmp_path: Path) -> None:
    killed = Command("join", (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    assert Supervisor([child(tmp_path, "ingest"), killed]).run() == 1
    assert running(tmp_path) == []


def test_a_program_that_cannot_be_started_leaves_none_of_the_others_behind(tmp_path: Path) -> None:
    supervisor = Supervisor([child(tmp_path, "ingest"), Command("join", (str(tmp_path / "no such program"),))])
    with pytest.raises(FileNotFoundError):
        supervisor.run()
    assert running(tmp_path) == []


def test_sigterm_to_the_supervisor_ends_all_and_is_no_failure(parent: subprocess.Popen[bytes], tmp_path: Path) -> None:
    parent.terminate()
    assert parent.wait(30) == 0
    assert sorted(ended(tmp_path)) == ["detect SIGTERM", "ingest SIGTERM", "join SIGTERM"]
    assert running(tmp_path) == []


def test_children_of_a_supervisor_that_was_killed_end_by_themselves(parent: subprocess.Popen[bytes], tmp_path: Path) -> None:
    parent.kill()
    wait_for(lambda: running(tmp_path) == [])
    assert len(ended(tmp_path)) == 3


def test_at_the_end_of_the_input_the_processors_are_drained_in_their_order(tmp_path: Path) -> None:
    commands = [child(tmp_path, "ingest", 0, 3), child(tmp_path, "join"), child(tmp_path, "detect")]
    assert Supervisor(commands, until_idle=True).run() == 0
    assert ended(tmp_path) == ["join SIGUSR1", "detect SIGUSR1"]
