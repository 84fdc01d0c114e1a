"""The toy processor between real topics: whatever dies on the way, a read-committed reader sees each output once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.runner.conftest import Bench
from tests.runner.toy import WINDOW


def expected(values: list[int], task: str) -> list[dict[str, Any]]:
    """What one uninterrupted task prints, computed plainly."""
    rows = [value % 256 for value in values]
    sums = [sum(rows[max(0, i - WINDOW) : i]) for i in range(1, len(rows) + 1)]
    return [{"n": i + 1, "value": value, "window": sums[i], "task": task} for i, value in enumerate(values)]


def by_task(outputs: list[dict[str, Any]], task: str) -> list[dict[str, Any]]:
    return [output for output in outputs if output["task"] == task and "tick" not in output]


def test_records_are_processed_once_over_clean_restarts(bench: Bench) -> None:
    bench.publish(300)
    bench.run()
    bench.publish(250, first=300)
    bench.run()
    assert bench.outputs() == expected(list(range(550)), "toy/0")


@pytest.mark.parametrize("step", ["produced", "checkpointed", "offsets_sent", "committed"])
def test_kill_at_any_step_loses_and_doubles_nothing(bench: Bench, step: str) -> None:
    bench.publish(500)
    # The second pass is the first commit with records: the first one commits the start.
    bench.run(failpoint=f"{step}:3", expect=-9)
    bench.run()
    assert bench.outputs() == expected(list(range(500)), "toy/0")


@pytest.mark.parametrize("step", ["produced", "offsets_sent"])
def test_zombie_that_wakes_after_its_successor_changes_nothing(bench: Bench, step: str) -> None:
    bench.publish(300)
    zombie = bench.start(failpoint=f"{step}:3:stop", instance="a", time="data")
    stopped = bench.log
    deadline = time.monotonic() + 120
    while Path(f"/proc/{zombie.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline, stopped()
        time.sleep(0.05)
    # Another instance: the group gives the partitions to it once the session of the first has ended.
    successor = bench.start(instance="b", time="data")
    before = len(bench.outputs(count=300, seconds=150))
    os.kill(zombie.pid, signal.SIGCONT)
    bench.publish(200, first=300)
    outputs = bench.outputs(count=500, seconds=150)
    time.sleep(1)
    outputs = bench.outputs()
    assert before == 300
    assert outputs == expected(list(range(500)), "toy/0")
    for worker in (zombie, successor):
        worker.terminate()
        assert worker.wait(120) == 0
