"""The detect task: observations in, drift events out, whatever the cuts and restarts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from driftline.schemas.config import Config
from driftline.schemas.loading import parse_config
from driftline.streams.cluster import Cluster
from driftline.streams.counters import MemoryCounters
from driftline.streams.detect.task import DetectProcessor, DetectTask
from driftline.streams.errors import SequenceError
from driftline.streams.observation import UNLABELLED, Observations, code, decode, encode
from driftline.streams.task import MemoryRecord, Output, RestoredRing, RestoredState

TOPIC = "driftline.observations"
CLUSTER = Cluster("c", {"p": "topic-id"}, {TOPIC: 1, "driftline.drift": 1, "driftline.snapshots": 1})
CONFIG = """
version: 1
predictions: p
labels: l
models:
  m:
    features: {a: numeric, b: numeric, c: categorical}
    segments: [s]
    window: 300
    snapshot_every: 500
    baseline: {learn: 600, settle: 0s}
    monitors:
      - {id: all, series: ["*"], detectors: [psi, adwin, page_hinkley, rate], run_length: 1.0e+6}
"""


def config(text: str = CONFIG) -> Config:
    return parse_config(text, name="test.yml")


def open_task(state: RestoredState | None = None, text: str = CONFIG) -> DetectTask:
    return DetectProcessor(config(text), CLUSTER).open("detect/0", state or RestoredState())


def stream(sizes: Sequence[int], *, change_at: int = 1_500, versions: int = 1) -> list[MemoryRecord]:
    """A stream in batches of these sizes; `a` moves by 1.5 sd and `b` turns invalid now and then from `change_at` on."""
    total = sum(sizes)
    draw = np.random.default_rng(11)
    index = np.arange(total)
    a = draw.normal(size=total) + 1.5 * (index >= change_at)
    numeric = np.column_stack([a, draw.normal(size=total)])
    texts = [("x", "y", "z")[k] for k in draw.integers(0, 3, total)]
    segments = [("BR", "MX")[k] for k in draw.integers(0, 2, total)]
    score = draw.beta(1, 9, total)
    broken = (index >= change_at) & (draw.random(total) < 0.2)
    numeric[broken, 1] = np.nan
    records, start = [], 0
    for seq, size in enumerate(sizes, 1):
        part = slice(start, start + size)
        batch = Observations(
            "predictions", "m", "ingest/p/0", seq, [("p", 0)], offset=index[part], source=np.zeros(size, np.uint16),
            time_ms=index[part] * 100, record_ms=index[part] * 100,
            version=code([f"v{(i * versions) // total}" for i in range(start, start + size)]), numeric_names=["a", "b"],
            numeric=numeric[part], categorical={"c": code(texts[part])}, score=score[part], segments={"s": code(segments[part])},
            invalid=np.array([[i, 1] for i in np.flatnonzero(broken[part])], np.int32).reshape(-1, 2),
        )  # fmt: skip
        records.append(MemoryRecord(TOPIC, 0, seq - 1, b"m", encode(batch), 0))
        start += size
    return records


def run(task: DetectTask, records: Sequence[MemoryRecord]) -> list[Output]:
    return task.process({(TOPIC, 0): records})


def events(outputs: Sequence[Output]) -> list[dict[str, Any]]:
    return [orjson.loads(o.value or b"") for o in outputs if o.topic == "driftline.drift"]


def test_a_shift_opens_an_episode_that_names_the_first_changed_record() -> None:
    found = [e for e in events(run(open_task(), stream([3_000]))) if e["series"] == "feature:a" and e["segment"] is None]
    first = found[0]
    assert first["kind"] == "drift"
    assert 1_500 <= first["position"]["offset"] < 1_560
    # The argmin of the sum may lie well before the change by chance; the index of positions adds up to 32 rows.
    assert 1_300 <= first["since"]["position"]["offset"] <= 1_520
    assert first["severity"] == "critical"
    assert first["bins"]


def test_an_event_quieter_than_its_effect_says_why() -> None:
    opened = [e for e in events(run(open_task(), stream([3_000]))) if e["kind"] == "drift" and e["segment"] is None]
    nulls = next(e for e in opened if e["series"] == "quality:b:invalid")
    # 28 values at a rate of a third are less than the 20 hits that a rate's change needs; its size alone would be critical.
    assert (nulls["severity"], nulls["n"] * nulls["value"] < 20, nulls["effect"]["size"] > 1.0) == ("info", True, True)
    assert nulls["reason"].endswith("; too few values yet to be sure of more than info")
    shift = next(e for e in opened if e["series"] == "feature:a")
    assert shift["severity"] == "critical"
    assert "too few values" not in shift["reason"]


def test_levels_come_in_the_unit_of_the_series_beside_what_is_judged() -> None:
    records, values = [], []
    for record in stream([3_000]):
        batch = decode(record.value() or b"")
        assert batch.numeric is not None
        numeric = batch.numeric.copy()
        numeric[:, 0] = 1_000.0 + 250.0 * numeric[:, 0]
        values += numeric[:, 0].tolist()
        records.append(MemoryRecord(TOPIC, 0, record.offset(), b"m", encode(replace(batch, numeric=numeric)), 0))
    found = [e for e in events(run(open_task(), records)) if e["series"] == "feature:a" and e["segment"] is None]
    assert {e["detector"] for e in found} >= {"psi", "adwin", "page_hinkley"}
    for event in found:
        last = event["position"]["offset"] + 1
        assert event["baseline_median"] == pytest.approx(np.median(values[:600]), abs=25.0)
        # Where few rows lie, as between the two levels, a bin is wide.
        assert event["median"] == pytest.approx(np.median(values[last - event["n"] : last]), abs=75.0)
        assert f"; median {event['median']:.6g} against {event['baseline_median']:.6g}" in event["reason"]
    other = [e for e in events(run(open_task(), stream([3_000]))) if e["series"].startswith("quality:")]
    assert other
    assert {(e["median"], e["baseline_median"]) for e in other} == {(None, None)}


def test_a_field_that_changes_its_type_is_named_and_leaves_the_others_alone() -> None:
    found = events(run(open_task(), stream([3_000])))
    named = {e["series"] for e in found if e["kind"] == "drift"}
    assert "quality:b:invalid" in named
    assert not {s for s in named if ":c" in str(s)}


@pytest.mark.parametrize("sizes", [[1] * 700 + [2_300], [777] * 3 + [669], [1_500, 1_500], [599, 1, 1, 2_399]])
def test_however_the_stream_is_cut_the_outputs_are_the_same_bytes_in_the_same_order(sizes: list[int]) -> None:
    whole = run(open_task(), stream([3_000], versions=2))
    assert run(open_task(), stream(sizes, versions=2)) == whole


def test_a_restart_at_every_commit_changes_nothing() -> None:
    sizes = [250] * 12
    whole = run(open_task(), stream(sizes, versions=2))
    blobs: dict[str, bytes] = {}
    rings: dict[str, RestoredRing] = {}
    outputs: list[Output] = []
    for record in stream(sizes, versions=2):
        task = open_task(RestoredState(dict(blobs), dict(rings)))
        outputs += run(task, [record])
        delta = task.checkpoint()
        for name, blob in delta.blobs.items():
            if blob is None:
                blobs.pop(name, None)
            else:
                blobs[name] = blob
        for ring in delta.rings:
            before = b"" if ring.full or ring.name not in rings else rings[ring.name].rows
            rows = (before + ring.rows)[-ring.window * ring.record_bytes :]
            rings[ring.name] = RestoredRing(ring.name, ring.record_bytes, ring.window, ring.head, rows)
    assert outputs == whole


def test_a_new_version_is_announced_and_learns_scores_of_its_own() -> None:
    found = events(run(open_task(), stream([3_000], versions=2)))
    assert [e["version"] for e in found if e["kind"] == "version_seen"] == ["v0", "v1"]
    learned = [(e["series"], e["version"]) for e in found if e["kind"] == "baseline"]
    assert learned == [("panel:features", None), ("panel:scores", "v0"), ("panel:scores", "v1")]


def test_versions_beyond_the_first_fifty_share_a_panel_and_any_cut_agrees() -> None:
    counters = MemoryCounters()
    whole = DetectProcessor(config(), CLUSTER, counters=counters).open("detect/0", RestoredState())
    outputs = run(whole, stream([3_000], versions=75))
    assert counters.value("versions_shared", model="m") == 3_000 // 75 * 25
    told = [event["reason"] for event in events(outputs) if event["version"] == "(other versions)" and event["kind"] == "version_seen"]
    assert told == ["first event of a version beyond the first 50: from here on later versions share their panels"]
    names = {name.version for name in whole.models["m"].panels if name.kind == "scores"}
    assert len(names) == 51
    assert "(other versions)" in names
    assert run(open_task(), stream([370] * 8 + [40], versions=75)) == outputs


@pytest.mark.parametrize("order", [[0, 2], [0, 1, 1], [1, 0]])
def test_a_gap_or_a_repeat_of_batches_stops_the_task(order: list[int]) -> None:
    records = stream([100] * 3)
    with pytest.raises(SequenceError, match="ingest/p/0"):
        run(open_task(), [records[i] for i in order])


def rebuilt(records: Sequence[MemoryRecord], *, generation: int) -> list[MemoryRecord]:
    """The same batches from a task that was rebuilt."""
    again = []
    for record in records:
        batch = decode(record.value() or b"")
        batch.generation = generation
        again.append(MemoryRecord(TOPIC, 0, record.offset(), b"m", encode(batch), 0))
    return again


def states(outputs: Sequence[Output]) -> set[tuple[str | None, bytes | None]]:
    """What drift events say of their state, in the value and in the headers."""
    found = [output for output in outputs if output.topic == "driftline.drift"]
    return {(orjson.loads(output.value or b"")["state"], dict(output.headers).get("ce_state")) for output in found}


def test_a_rebuilt_upstream_counts_anew_once_and_the_events_say_that_rows_came_again(caplog: pytest.LogCaptureFixture) -> None:
    sizes = [500] * 6
    task = open_task()
    assert states(run(task, stream(sizes))) == {(None, None)}
    assert states(run(task, rebuilt(stream(sizes), generation=1_700_000_000_000))) == {("rebuilt", b"rebuilt")}
    assert [record.message for record in caplog.records] == ["upstream_rebuilt task=ingest/p/0 generation=1700000000000 after=6"]
    state = RestoredState({name: blob for name, blob in task.checkpoint().blobs.items() if name == "task" and blob})
    meta = orjson.loads(state.blobs["task"])
    assert (meta["generations"], meta["sequence"]) == ({"ingest/p/0": 1_700_000_000_000}, {"ingest/p/0": 6})


@pytest.mark.parametrize(
    ("generations", "order"), [((0, 7, 7), [2, 1, 3]), ((0, 7, 7), [2, 2, 3]), ((0, 7, 0), [1, 1, 2]), ((7, 8, 7), [1, 1, 2])]
)
def test_a_gap_after_a_rebuild_or_a_batch_of_the_former_life_stops_the_task(generations: tuple[int, ...], order: list[int]) -> None:
    records = stream([100] * 3)
    wanted = [rebuilt([records[seq - 1]], generation=life)[0] for life, seq in zip(generations, order, strict=True)]
    with pytest.raises(SequenceError, match="ingest/p/0"):
        run(open_task(), wanted)


def test_every_event_of_a_task_that_was_rebuilt_itself_says_so() -> None:
    first = open_task(RestoredState(generation=5))
    (blob,) = first.checkpoint().blobs.values()
    assert states(run(first, stream([3_000]))) == {("rebuilt", b"rebuilt")}
    # A crash before the first record does not forget the operator's choice.
    again = open_task(RestoredState({"task": blob or b""}))
    assert run(again, stream([3_000])) == run(open_task(RestoredState(generation=9)), stream([3_000]))


def test_a_rebuilt_join_marks_the_events_of_its_ledger_alone() -> None:
    task = open_task()
    run(task, stream([500] * 3))
    n = 400
    batch = Observations(
        "outcomes", "m", "join/0", 1, [("p", 0)], offset=np.arange(n), source=np.zeros(n, np.uint16), time_ms=np.arange(n),
        record_ms=np.arange(n), label_state=np.full(n, UNLABELLED, np.int8), generation=3,
    )  # fmt: skip
    assert states(run(task, [MemoryRecord(TOPIC, 0, 3, b"m", encode(batch), 0)])) == {("rebuilt", b"rebuilt")}
    assert states(run(task, stream([500] * 6)[3:])) == {(None, None)}


def test_a_log_whose_beginning_is_gone_can_be_read() -> None:
    run(open_task(), stream([100] * 3)[1:])


def test_ids_differ_between_a_topic_and_its_recreation() -> None:
    again = Cluster("c", {"p": "another-id"}, CLUSTER.partitions)
    first = {e["id"] for e in events(run(open_task(), stream([3_000])))}
    second = {e["id"] for e in events(run(DetectProcessor(config(), again).open("detect/0", RestoredState()), stream([3_000])))}
    assert first
    assert not first & second


def test_severity_is_held_at_info_while_a_learned_baseline_settles() -> None:
    text = CONFIG.replace("settle: 0s", "settle: 24h")
    found = [e for e in events(run(open_task(text=text), stream([3_000]))) if e["kind"] == "drift"]
    assert found
    assert {e["severity"] for e in found} == {"info"}
    assert all(e["provisional"] for e in found)


def test_snapshots_come_at_row_counts_and_say_what_is_learning() -> None:
    shown = [orjson.loads(o.value or b"") for o in run(open_task(), stream([3_000])) if o.topic == "driftline.snapshots"]
    features = [(s["rows"], s["state"]) for s in shown if s["panel"] == "features" and s["segment"] is None]
    assert features == [(500, "learning"), *[(n, "watching") for n in (1_000, 1_500, 2_000, 2_500, 3_000)]]
    assert {tuple(s["segment"].items()) for s in shown if s["segment"]} == {(("s", "BR"),), (("s", "MX"),)}


def test_severities_and_run_lengths_are_made_anew_at_every_start() -> None:
    task = open_task()
    run(task, stream([900]))
    delta = task.checkpoint()
    rings = {r.name: RestoredRing(r.name, r.record_bytes, r.window, r.head, r.rows) for r in delta.rings}
    state = RestoredState({name: blob for name, blob in delta.blobs.items() if blob is not None}, rings)
    louder = CONFIG.replace("run_length: 1.0e+6", "run_length: 1.0e+7, severity: {warning: 0.2, critical: 0.5}")
    assert open_task(state, louder).opened() == []
