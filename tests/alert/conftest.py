"""Drift events by hand: only what a test is about is named in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from driftline.schemas.contracts import cloud_event_headers, encode_event
from driftline.schemas.events import DriftEvent, Effect, Position
from driftline.streams.task import MemoryRecord

MakeEvent = Callable[..., DriftEvent]
MakeRecord = Callable[..., MemoryRecord]

DEFAULTS: dict[str, Any] = {
    "kind": "drift", "environment": "test", "model": "fraud", "version": "1", "monitor": "feature_drift", "series": "feature:amount",
    "segment": None, "episode": "ep1", "detector": "psi", "statistic": 0.3, "threshold": 0.1, "value": 12.5, "baseline_value": 10.0,
    "effect": Effect("psi", 0.3), "direction": "up", "severity": "warning", "n": 500, "window": 5000, "baseline": "b1", "since": None,
    "bins": [],
}


@pytest.fixture
def drift_event() -> MakeEvent:
    """``drift_event(3, kind="recovery")``: the number gives id, position and times."""

    def make(number: int, **fields: Any) -> DriftEvent:
        times = {"time_ms": 1_000 * number, "record_time_ms": 1_000 * number + 5}
        return DriftEvent(**{"id": f"e{number}", "position": Position("predictions", 0, number), **DEFAULTS, **times, **fields})

    return make


@pytest.fixture
def drift_record() -> MakeRecord:
    """The record of a drift event at an offset of the drift topic."""

    def make(event: DriftEvent, offset: int, partition: int = 0) -> MemoryRecord:
        headers = cloud_event_headers(event, id=event.id, source="/driftline/test", subject=event.model, time_ms=event.time_ms)
        return MemoryRecord("driftline.drift", partition, offset, event.model.encode(), encode_event(event), event.record_time_ms, headers)

    return make
