"""When an installation went live stands in Redis and in detect's checkpoints: a Redis that was lost makes no history of what came since."""

from __future__ import annotations

from dataclasses import replace

from driftline.streams.detect.task import DetectProcessor, DetectTask
from driftline.streams.task import RestoredRing, RestoredState
from tests.detect.test_task import CLUSTER, config, events, run, stream

WENT_LIVE_MS, LATER_MS = 50_000, 200_000
"""Rows are 100 ms apart, and the change comes with row 1,500."""


def opened(live_since_ms: int, state: RestoredState | None = None) -> DetectTask:
    cluster = replace(CLUSTER, live_since_ms=live_since_ms)
    return DetectProcessor(config(), cluster).open("detect/0", state or RestoredState())


def saved(task: DetectTask) -> RestoredState:
    delta = task.checkpoint()
    rings = {ring.name: RestoredRing(ring.name, ring.record_bytes, ring.window, ring.head, ring.rows) for ring in delta.rings}
    return RestoredState({name: blob for name, blob in delta.blobs.items() if blob is not None}, rings)


def test_what_came_since_an_installation_went_live_is_no_history_after_redis_was_lost() -> None:
    first, second = stream([1_000, 2_000])
    task = opened(WENT_LIVE_MS)
    run(task, [first])
    # Redis has forgotten it, and whoever started first has written the time of that.
    again = opened(LATER_MS, saved(task))
    found = events(run(again, [second]))
    assert found
    assert not any(event["historical"] for event in found)
    assert saved(again).blobs["task"].count(b'"live_since_ms":%d' % WENT_LIVE_MS) == 1


def test_in_data_time_nothing_is_history_whatever_the_state_says() -> None:
    first, second = stream([1_000, 2_000])
    task = opened(LATER_MS)
    run(task, [first])
    assert not any(event["historical"] for event in events(run(opened(0, saved(task)), [second])))
