"""Blocks of features in a detect task: named in the file, found in the stream, edited, and with a baseline from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftline.detectors.spec import BaselineError
from driftline.schemas.loading import parse_config
from driftline.streams.detect.plan import ModelPlan
from driftline.streams.detect.reference import ReferenceLearner, configured_baselines, save_baselines
from driftline.streams.detect.task import DetectProcessor, DetectTask
from driftline.streams.observation import Observations, code, decode, encode
from driftline.streams.task import MemoryRecord, RestoredState
from tests.detect.test_changed_configuration import Store
from tests.detect.test_task import CLUSTER, TOPIC, events, run

FEATURES = "    features: {a: numeric, b: numeric, c: numeric, d: numeric, e: numeric, f: numeric, country: categorical}\n"
NAMED = "    blocks: {card: [f, a, b, c, d, e]}\n"
TEXT = f"""
predictions: p
models:
  m:
{FEATURES}{NAMED}    segments: [shop]
    window: 600
    false_alarms: 1 per 20000 events
    baseline: {{learn: 2000, settle: 0s}}
"""
CHANGED = 4_000
BLOCK = "block:card"


def stream(total: int = 5_500, *, batch: int = 250, shift: float = 0.25, step_ms: int = 100) -> list[MemoryRecord]:
    """Rows of which six numbers move by `shift` each from `CHANGED` on: little by itself, much together."""
    draw = np.random.default_rng(17)
    index = np.arange(total)
    numeric = draw.normal(size=(total, 6)) + shift * (index >= CHANGED)[:, None]
    numeric[draw.random(total) < 0.02, 1] = np.nan
    countries = [("BR", "MX", "AR")[k] for k in draw.integers(0, 3, total)]
    out = []
    for seq, start in enumerate(range(0, total, batch), 1):
        part = slice(start, start + batch)
        rows = Observations(
            "predictions", "m", "ingest/p/0", seq, [("p", 0)], offset=index[part], source=np.zeros(batch, np.uint16),
            time_ms=index[part] * step_ms, record_ms=index[part] * step_ms, numeric_names=list("abcdef"), numeric=numeric[part],
            categorical={"country": code(countries[part])}, score=draw.beta(1, 9, batch), segments={"shop": code(["north"] * batch)},
        )  # fmt: skip
        out.append(MemoryRecord(TOPIC, 0, seq - 1, b"m", encode(rows), 0))
    return out


def opened(text: str = TEXT, state: RestoredState | None = None) -> DetectTask:
    return DetectProcessor(parse_config(text, name="x"), CLUSTER).open("detect/0", state or RestoredState())


def drifts(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in found if event["kind"] == "drift"]


def test_a_change_spread_over_many_features_is_first_found_in_their_block() -> None:
    found = drifts(events(run(opened(), stream())))
    first = found[0]
    assert (first["series"], first["segment"], first["monitor"], first["detector"]) == (BLOCK, None, "block_drift", "e_detector")
    assert CHANGED < first["position"]["offset"] < CHANGED + 400
    assert abs(first["since"]["position"]["offset"] - CHANGED) < 130
    assert first["effect"]["kind"] == "mmd"
    # .25 sd in all of six.
    assert first["effect"]["size"] == pytest.approx(0.15, abs=0.06)
    assert first["value"] - first["baseline_value"] == pytest.approx(first["effect"]["size"])
    assert first["direction"] == "up"
    assert (first["median"], first["pair_correlation"]) == (None, None)
    assert "joint distance" in first["reason"]
    assert {event["series"] for event in found if event["segment"] is not None} & {BLOCK} == set()


def test_without_a_budget_the_default_detectors_watch_it() -> None:
    found = drifts(events(run(opened(TEXT.replace("    false_alarms: 1 per 20000 events\n", "")), stream())))
    own = [event["detector"] for event in found if event["series"] == BLOCK]
    assert len(own) == 1
    assert own[0] in ("adwin", "page_hinkley")


@pytest.mark.parametrize("at", [3, 9, 17])
def test_a_restart_shows_in_nothing(at: int) -> None:
    records, store, task = stream(), Store(), opened()
    expected = run(opened(), records)
    found = run(task, records[:at])
    assert found + run(opened(state=store.take(task)), records[at:]) == expected


def test_the_cut_of_the_stream_shows_in_nothing() -> None:
    cuts = [[(e["id"], e["reason"], e["bins"]) for e in events(run(opened(), stream(batch=batch)))] for batch in (50, 250, 1_375)]
    assert cuts[0] == cuts[1] == cuts[2]


@pytest.mark.parametrize("features", [FEATURES, ""])
@pytest.mark.parametrize("at", [1, 4])
def test_a_block_that_is_added_learns_from_then_on_and_one_that_is_gone_ends(features: str, at: int) -> None:
    text = TEXT.replace(FEATURES, features)
    records, store, task = stream(8_000, shift=0.5), Store(), opened(text.replace(NAMED, ""))
    found = run(task, records[:at])
    task = opened(text, store.take(task))
    found += task.opened()
    found += run(task, records[at:17])
    # What the edit made of the state is a state like any other.
    task = opened(text, store.take(task))
    assert task.opened() == []
    found += run(task, records[17:20])
    learned = [(e["position"]["offset"], e["n"]) for e in events(found) if e["kind"] == "baseline" and e["series"] == "panel:features"]
    assert learned == [(1_999, 2_000)] if not features else [(1_999, 2_000), (at * 250 + 1_999, 2_000)]
    assert BLOCK in {event["series"] for event in drifts(events(found))}
    parts = {name.part: one.panel.subjects()[0] for name, one in task.models["m"].panels.items() if name.kind == "features"}
    # A part of a block alone has no segments to watch.
    assert parts.get(1, 1) == 1
    task = opened(text.replace(NAMED, ""), store.take(task))
    gone = [event for event in events(task.opened()) if event["series"] == BLOCK]
    assert [event["kind"] for event in gone] == ["recovery"]
    assert "no longer watches it" in gone[0]["reason"]


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ("[f, a, b, c, d, e]", "[f, a, b, c, d]", "blocks.card.features"),
        ("a: numeric", "a: {kind: numeric, accepted: yes it is}", "features.a.accepted"),
        ("e: numeric", "e: {kind: numeric, path: elsewhere}", "features.e.path"),
    ],
)
def test_what_its_features_are_begins_it_anew(before: str, after: str, key: str) -> None:
    records, store, task = stream(8_000), Store(), opened()
    run(task, records[:20])
    task = opened(TEXT.replace(before, after), store.take(task))
    ended = [event for event in events(task.opened()) if event["series"] == BLOCK]
    assert [event["kind"] for event in ended] == ["recovery"]
    assert f"{key} was edited" in ended[0]["reason"]
    found = events(run(task, records[20:]))
    assert [e for e in drifts(found) if e["series"] == BLOCK] == []
    # Other blocks go on.
    store, task = Store(), opened(two := TEXT.replace("card: [f, a, b, c, d, e]", "card: [a, b, e], other: [c, d]"))
    run(task, records[:10])
    if before in two:
        task = opened(two.replace(before, after), store.take(task))
        panel = next(one.panel for name, one in task.models["m"].panels.items() if name.kind == "features" and not name.part)
        names = [column.name for column in panel.columns]
        assert BLOCK not in names
        assert "block:other" in names


def test_a_baseline_from_a_file_has_the_block_and_one_that_lacks_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    text = TEXT.replace("{learn: 2000, settle: 0s}", f"{{file: {path}, settle: 0s}}")
    for own, refused in ((NAMED, False), ("", True), (NAMED.replace("[f, ", "["), True)):
        config = parse_config(TEXT.replace(NAMED, own), name="x")
        learner = ReferenceLearner(ModelPlan.of("m", config.models["m"]))
        for record in stream(3_000):
            learner.add(decode(record.value() or b""))
        save_baselines(path, model="m", source="test", baselines=learner.finish())
        with_file = parse_config(text, name="x")
        if refused:
            with pytest.raises(BaselineError, match=r'block "card".*\n?.*driftline baseline build'):
                configured_baselines(with_file)
            continue
        baselines = configured_baselines(with_file)
        task = DetectProcessor(with_file, CLUSTER, baselines).open("detect/0", RestoredState())
        found = drifts(events(run(task, stream())))
        assert found[0]["series"] == BLOCK
        assert CHANGED < found[0]["position"]["offset"] < CHANGED + 400


def test_a_monitor_that_sets_levels_sets_those_of_blocks() -> None:
    text = TEXT + "    monitors: [{id: all, series: '*', severity: {warning: 0.3, critical: 0.5}}]\n"
    plan = ModelPlan.of("m", parse_config(text, name="x").models["m"])
    (series,) = plan.block("card").series
    assert (series.warning, series.critical, series.direction) == (0.3, 0.5, "up")
    (series,) = ModelPlan.of("m", parse_config(TEXT, name="x").models["m"]).block("card").series
    assert (series.warning, series.critical) == (0.02, 0.1)


VECTOR = """
predictions: p
models:
  m:
    features: {country: categorical, text: {kind: vector, length: 12}, amount: numeric}
    blocks: {text: [text]}
    segments: [shop]
    window: 600
    false_alarms: 1 per 20000 events
    baseline: {learn: 2000, settle: 0s}
"""


def embedded(total: int = 5_000, *, batch: int = 250, shift: float = 0.3) -> list[MemoryRecord]:
    """Rows with twelve numbers in a list, a few of which are missing or invalid; all move by `shift` from `CHANGED` on."""
    draw = np.random.default_rng(18)
    index = np.arange(total)
    vectors = (draw.normal(size=(total, 12)) + shift * (index >= CHANGED)[:, None]).astype(np.float32)
    gone, wrong = draw.random(total) < 0.02, draw.random(total) < 0.02
    vectors[gone | wrong] = np.nan
    amounts, countries = draw.normal(size=(total, 1)), [("BR", "MX")[k] for k in draw.integers(0, 2, total)]
    out = []
    for seq, start in enumerate(range(0, total, batch), 1):
        part = slice(start, start + batch)
        bad = np.flatnonzero(wrong[part])
        rows = Observations(
            "predictions", "m", "ingest/p/0", seq, [("p", 0)], offset=index[part], source=np.zeros(batch, np.uint16),
            time_ms=index[part] * 100, record_ms=index[part] * 100, numeric_names=["amount"], numeric=amounts[part],
            categorical={"country": code(countries[part])}, vectors={"text": vectors[part]}, segments={"shop": code(["north"] * batch)},
            invalid=np.column_stack([bad, np.full(len(bad), 2)]).astype(np.int32) if len(bad) else None,
        )  # fmt: skip
        out.append(MemoryRecord(TOPIC, 0, seq - 1, b"m", encode(rows), 0))
    return out


def test_a_vector_is_watched_by_its_block_and_its_gaps_as_any_features() -> None:
    task = opened(VECTOR)
    found = drifts(events(run(task, embedded())))
    assert {event["series"] for event in found} == {"block:text"}
    assert CHANGED < found[0]["position"]["offset"] < CHANGED + 250
    panel = next(one.panel for name, one in task.models["m"].panels.items() if name.kind == "features")
    names = {series.name for column in panel.columns for series in column.series}
    assert {"block:text", "quality:text:missing", "quality:text:invalid"} <= names
    assert "feature:text" not in names
    rates = {level.series: level.baseline_rate for level in panel.levels(0)}
    assert rates["quality:text:missing"] == pytest.approx(0.02, abs=0.01)
    assert rates["quality:text:invalid"] == pytest.approx(0.02, abs=0.01)


@pytest.mark.parametrize("at", [3, 9, 18])
def test_a_restart_shows_in_nothing_of_a_vector(at: int) -> None:
    records, store, task = embedded(), Store(), opened(VECTOR)
    expected = run(opened(VECTOR), records)
    found = run(task, records[:at])
    assert found + run(opened(VECTOR, store.take(task)), records[at:]) == expected


def test_the_cut_of_the_stream_shows_in_nothing_of_a_vector() -> None:
    cuts = [[(e["id"], e["reason"], e["bins"]) for e in events(run(opened(VECTOR), embedded(batch=batch)))] for batch in (50, 250, 1_250)]
    assert cuts[0] == cuts[1] == cuts[2]


def test_a_vector_of_another_length_begins_its_block_anew() -> None:
    records, store, task = embedded(), Store(), opened(VECTOR)
    run(task, records[:18])
    task = opened(VECTOR.replace("length: 12", "length: 13"), store.take(task))
    ended = events(task.opened())
    assert [event["series"] for event in ended] == ["block:text"]
    assert "features.text.length was edited" in ended[0]["reason"]
    run(task, records[18:])


def longer(record: MemoryRecord) -> MemoryRecord:
    """As ingest writes it with a vector of thirteen."""
    batch = decode(record.value() or b"")
    batch.vectors = {"text": np.column_stack([batch.vectors["text"], batch.vectors["text"][:, 0]]).astype(np.float32)}
    return MemoryRecord(TOPIC, 0, record.offset(), b"m", encode(batch), 0)


def test_rows_of_the_length_before_are_not_what_a_longer_vector_learns_from() -> None:
    """Detect restarts first: one batch of twelve numbers is unread then, and another comes late while thirteen are learned."""
    records, store, task = embedded(10_000), Store(), opened(VECTOR)
    run(task, records[:18])
    task = opened(VECTOR.replace("length: 12", "length: 13"), store.take(task))
    task.opened()
    after = [record if place in (0, 4) else longer(record) for place, record in enumerate(records[18:])]
    found = events(run(task, after))
    # It begins with the first row of thirteen.
    learned = [(event["position"]["offset"], event["n"]) for event in found if event["kind"] == "baseline"]
    assert (19 * 250 + 1_999, 2_000) in learned
    parts = {column.name: one.panel for name, one in task.models["m"].panels.items() if name.part for column in one.panel.columns}
    baseline = parts["block:text"].baseline
    assert baseline is not None
    assert baseline.columns[0].block is not None
    assert baseline.columns[0].block.width == 13
    assert parts["block:text"].values_judged()[0] > 2_000
    # What is not as declared is invalid: one batch of eight, beside 2 % that ingest found.
    rates = {level.series: level.baseline_rate for level in parts["text"].levels(0)}
    assert rates["quality:text:invalid"] == pytest.approx(0.125 + 0.02, abs=0.015)
