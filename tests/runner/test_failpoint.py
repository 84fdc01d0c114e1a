"""A failpoint does what its setting says, at the pass it names and no other."""

from __future__ import annotations

import signal
import subprocess
import sys

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
    program = """
import threading, time
from driftline.streams.runner.failpoint import Failpoints
points = Failpoints("checkpointed:2:hang")
for _ in range(8):
    threading.Thread(target=lambda: [time.sleep(0.001) for _ in iter(int, 1)], daemon=True).start()
points.reach("checkpointed")
held = threading.Thread(target=points.reach, args=("checkpointed",))
held.start()
held.join(0.3)
print("held" if held.is_alive() else "not held", flush=True)
while held.is_alive():
    time.sleep(0.01)
points.reach("checkpointed")
print("went on", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == "went on\n"
        process.kill()


def test_signal_that_comes_at_once_is_not_lost() -> None:
    """Sent as soon as the log tells of the hang, many times over: the thread that hangs is the main one, as in a worker."""
    program = """
import logging, sys, threading, time
from driftline.streams.runner.failpoint import Failpoints
logging.basicConfig(stream=sys.stdout, format="%(message)s")
for _ in range(8):
    threading.Thread(target=lambda: [time.sleep(0.0005) for _ in iter(int, 1)], daemon=True).start()
for _ in range(100):
    Failpoints("checkpointed:1:hang").reach("checkpointed")
print("done", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(100):
            assert process.stdout.readline().startswith("failpoint_hangs")
            process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == "done\n"
