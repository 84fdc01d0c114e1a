"""What a worker's gauges say of a model, and that they end with it."""

from __future__ import annotations

from driftline.streams.counters import MemoryCounters
from driftline.streams.detect.task import DetectProcessor
from driftline.streams.task import RestoredState
from tests.detect.test_task import CLUSTER, config, stream

_OF_EVENTS = {"score", "threshold", "effect_size"}


def test_a_partition_that_goes_to_another_worker_leaves_no_gauge_behind() -> None:
    counters = MemoryCounters()
    task = DetectProcessor(config(), CLUSTER, counters=counters).open("detect/0", RestoredState())
    records = stream([1_000, 1_000])
    task.process({("driftline.observations", 0): records})
    task.checkpoint()
    task.committed()
    told = {name for name, _ in counters.gauges}
    assert told >= _OF_EVENTS | {"subjects_monitored"}
    assert any(("subject", "feature:a") in labels for _, labels in counters.gauges)
    task.close()
    assert counters.gauges == {}
