"""The toy processor between real topics: whatever dies on the way, a read-committed reader sees each output once."""

from __future__ import annotations

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
