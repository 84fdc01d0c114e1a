"""Wall time reaches tasks that never see the end of their input."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

import pytest

from driftline.streams.task import Idle, Output, PartitionId, Record
from tests.runner import toy
from tests.runner.conftest import Bench
from tests.runner.worker import make_runner


def test_a_busy_task_hears_the_time_before_its_first_records_and_again_each_second(
    embedded: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[str, int]] = []
    process, tick = toy.ToyTask.process, toy.ToyTask.tick

    def slow(self: toy.ToyTask, records: Mapping[PartitionId, Sequence[Record]]) -> list[Output]:
        # Longer than a tick: the rest of the input is there all the while, so its end is never seen.
        heard.append(("records", 0))
        time.sleep(1.1)
        return process(self, records)

    def noting(self: toy.ToyTask, idle: Idle) -> list[Output]:
        heard.append(("end" if idle.at_end else "time", idle.time_ms))
        return tick(self, idle)

    monkeypatch.setattr(toy.ToyTask, "process", slow)
    monkeypatch.setattr(toy.ToyTask, "tick", noting)
    monkeypatch.setattr("driftline.streams.runner.runner._POLL_RECORDS_MAX", 10)
    embedded.publish(40)
    runner = make_runner(embedded.settings, instance="a", time="wall", transactional=False, start="-24h")
    worker = threading.Thread(target=runner.run, daemon=True)
    worker.start()
    deadline = time.monotonic() + 60
    while [what for what, _ in heard].count("records") < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    runner.stop()
    worker.join(30)
    kinds = [what for what, _ in heard]
    assert kinds[:4] == ["time", "records", "time", "records"]
    assert abs(heard[0][1] - time.time() * 1_000) < 300_000
