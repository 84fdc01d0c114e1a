"""A failpoint does what its setting says, at the pass it names and no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from driftline.streams.runner.failpoint import Failpoints


@pytest.mark.parametrize("setting", ["nowhere", "produced:1:explode"])
def test_unknown_step_or_way_is_refused_by_name(setting: str) -> None:
    with pytest.raises(ValueError, match=f'got "{setting.rpartition(":")[2]}"'):
        Failpoints(setting)


def test_kill_comes_at_the_pass_that_is_named() -> None:
    program = """
from driftline.streams.runner.failpoint import Failpoints
points = Failpoints("produced:3")
for i in range(9):
    print(i, flush=True)
    points.reach("produced")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, ["0", "1", "2"])


def test_hang_holds_one_thread_until_the_process_is_continued() -> None:
    points = Failpoints("checkpointed:1:hang")
    turns: list[float] = []
    stop = threading.Event()

    def go_on() -> None:
        while not stop.wait(0.01):
            turns.append(time.monotonic())

    other = threading.Thread(target=go_on)
    other.start()
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGCONT)).start()
    began = time.monotonic()
    points.reach("checkpointed")
    held = time.monotonic() - began
    stop.set()
    other.join()

    assert held >= 0.25
    assert len(turns) >= 5
    assert signal.SIGCONT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())
