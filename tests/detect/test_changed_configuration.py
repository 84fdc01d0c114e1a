"""A detect task started again with another configuration: what is kept, what is refused, and what it says."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from driftline.detectors.baseline import Baseline
from driftline.streams.detect.task import DetectProcessor, DetectTask
from driftline.streams.errors import StateError
from driftline.streams.observation import decode, encode
from driftline.streams.task import MemoryRecord, RestoredRing, RestoredState
from tests.detect.test_task import CLUSTER, CONFIG, TOPIC, config, events, open_task, run, stream

TWO = CONFIG + CONFIG[CONFIG.index("  m:") :].replace("  m:", "  n:")


class Store:
    """What a checkpoint store holds of one task."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.rings: dict[str, RestoredRing] = {}

    def take(self, task: DetectTask) -> RestoredState:
        delta = task.checkpoint()
        for name, blob in delta.blobs.items():
            self.blobs.pop(name, None)
            if blob is not None:
                self.blobs[name] = blob
        for ring in delta.rings:
            before = b"" if ring.full or ring.name not in self.rings else self.rings[ring.name].rows
            rows = (before + ring.rows)[-ring.window * ring.record_bytes :]
            self.rings[ring.name] = RestoredRing(ring.name, ring.record_bytes, ring.window, ring.head, rows)
        return RestoredState(dict(self.blobs), dict(self.rings))


def of_model(name: str, records: Sequence[MemoryRecord]) -> list[MemoryRecord]:
    """The same rows as another model's, sent by a task of its own."""
    out = []
    for record in records:
        batch = decode(record.value() or b"")
        batch.model, batch.task = name, f"ingest/{name}/0"
        out.append(MemoryRecord(TOPIC, 0, record.offset(), name.encode(), encode(batch), 0))
    return out


def test_a_model_that_is_taken_out_and_put_back_goes_on_where_it_was() -> None:
    rows = of_model("n", stream([500] * 6))
    never_out = open_task(text=TWO)
    run(never_out, rows[:3])
    expected = run(never_out, rows[3:])
    assert events(expected)

    store = Store()
    task = open_task(text=TWO)
    run(task, rows[:3])
    task = open_task(store.take(task))
    run(task, stream([700]))
    task = open_task(store.take(task))
    run(task, stream([700, 300])[1:])
    task = open_task(store.take(task), TWO)
    assert run(task, rows[3:5]) + run(open_task(store.take(task), TWO), rows[5:]) == expected


def test_what_was_edited_is_named_in_the_refusal() -> None:
    store, task = Store(), open_task()
    run(task, stream([900]))
    state = store.take(task)
    for edit, message in [
        (("window: 300", "window: 400"), r'window 300 -> 400; series "feature:a": window 300 -> 400; .* and \d+ more'),
        (("adwin, ", ""), r'series "feature:a": other detectors or another direction'),
        (("segments: [s]", "segments: {s: {max: 3}}"), r"segments \[\['s', 50\]\] -> \[\['s', 3\]\]$"),
        (("b: numeric", "b: categorical"), r'column "b": categorical here, numeric in baseline'),
        (("b: numeric, ", ""), r'column "b" is gone'),
        (('series: ["*"]', 'series: ["feature:*"]'), r'series "quality:a:missing" is gone'),
    ]:
        with pytest.raises(StateError, match=message):
            open_task(state, CONFIG.replace(*edit))


def test_a_baseline_file_that_came_after_the_panel_is_said_to_be_unused(caplog: pytest.LogCaptureFixture) -> None:
    store, task = Store(), open_task()
    run(task, stream([900]))
    state = store.take(task)
    other = open_task()
    run(other, stream([1_200]))
    held = other.models["m"].panels
    baselines: dict[str, dict[str, Baseline]] = {"m": {name.kind: _thinner(watched.panel.baseline) for name, watched in held.items()}}
    DetectProcessor(config(), CLUSTER, baselines).open("detect/0", state)
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == len(held)
    assert all(line.startswith("baseline_unused model=m panel=") for line in warned)


def _thinner(baseline: Baseline | None) -> Baseline:
    assert baseline is not None
    return Baseline(baseline.columns, baseline.segments, baseline.counts * 2, baseline.rows * 2)
