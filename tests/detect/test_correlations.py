"""Correlations of features in a detect task: named in the file, found in the stream, edited, and with a baseline from a file."""

from __future__ import annotations

import math
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
from driftline.streams.task import MemoryRecord, Output, RestoredState
from tests.detect.test_changed_configuration import Store
from tests.detect.test_task import CLUSTER, TOPIC, events, run

TEXT = """
predictions: p
models:
  m:
    features: {amount: numeric, items: numeric, country: categorical}
    correlations: [[items, amount]]
    segments: [shop]
    window: 300
    false_alarms: 1 per 20000 events
    baseline: {learn: 2000, settle: 0s}
"""
CHANGED = 3_500
PAIR = "correlation:amount~items"


def stream(total: int = 5_000, *, batch: int = 250, only: str | None = None) -> list[MemoryRecord]:
    """Rows whose amount and number of items begin to go together at `CHANGED`; each of them stays as it was."""
    draw = np.random.default_rng(17)
    index = np.arange(total)
    rho = np.where((index >= CHANGED), 0.7, 0.0)
    shops = [("north", "south")[k] for k in draw.integers(0, 2, total)]
    if only is not None:
        rho *= [shop == only for shop in shops]
    first, noise = draw.normal(size=total), draw.normal(size=total)
    numeric = np.column_stack([np.exp(first), rho * first + np.sqrt(1.0 - rho * rho) * noise])
    numeric[draw.random(total) < 0.02, 1] = np.nan
    countries = [("BR", "MX", "AR")[k] for k in draw.integers(0, 3, total)]
    out = []
    for seq, start in enumerate(range(0, total, batch), 1):
        part = slice(start, start + batch)
        rows = Observations(
            "predictions", "m", "ingest/p/0", seq, [("p", 0)], offset=index[part], source=np.zeros(batch, np.uint16),
            time_ms=index[part] * 100, record_ms=index[part] * 100, numeric_names=["amount", "items"], numeric=numeric[part],
            categorical={"country": code(countries[part])}, score=draw.beta(1, 9, batch), segments={"shop": code(shops[part])},
        )  # fmt: skip
        out.append(MemoryRecord(TOPIC, 0, seq - 1, b"m", encode(rows), 0))
    return out


def opened(text: str = TEXT, state: RestoredState | None = None) -> DetectTask:
    return DetectProcessor(parse_config(text, name="x"), CLUSTER).open("detect/0", state or RestoredState())


def drifts(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in found if event["kind"] == "drift"]


def test_features_that_begin_to_go_together_are_one_event_that_names_them() -> None:
    found = drifts(events(run(opened(), stream())))
    assert {event["series"] for event in found} == {PAIR}
    first = next(event for event in found if event["segment"] is None)
    assert (first["monitor"], first["detector"], first["direction"]) == ("correlation_drift", "e_detector", "up")
    assert CHANGED <= first["position"]["offset"] < CHANGED + 150
    assert abs(first["since"]["position"]["offset"] - CHANGED) < 60
    # Few rows tell it roughly, and those that make an alarm are the ones that go together most.
    assert 0.5 < first["pair_correlation"] <= 1.0
    assert first["baseline_correlation"] == pytest.approx(0.0, abs=0.05)
    assert f"; correlation {first['pair_correlation']:.6g} against {first['baseline_correlation']:.6g}" in first["reason"]
    assert (first["median"], first["baseline_median"]) == (None, None)
    assert first["effect"]["kind"] in ("mean", "psi")


def test_a_correlation_in_one_segment_is_found_there() -> None:
    found = drifts(events(run(opened(TEXT.replace("20000", "2000")), stream(only="south"))))
    assert {event["series"] for event in found} == {PAIR}
    assert {"shop": "south"} in [event["segment"] for event in found]
    assert {"shop": "north"} not in [event["segment"] for event in found]


def test_without_the_pair_nothing_of_it_is_seen() -> None:
    assert drifts(events(run(opened(TEXT.replace("    correlations: [[items, amount]]\n", "")), stream()))) == []


@pytest.mark.parametrize("at", [3, 11, 15])
def test_a_restart_shows_in_nothing(at: int) -> None:
    records, store, task = stream(), Store(), opened()
    expected = run(opened(), records)
    found = run(task, records[:at])
    assert found + run(opened(state=store.take(task)), records[at:]) == expected


FEATURES = "    features: {amount: numeric, items: numeric, country: categorical}\n"
NAMED = "    correlations: [[items, amount]]\n"


@pytest.mark.parametrize("features", [FEATURES, ""])
@pytest.mark.parametrize("at", [1, 4])
def test_a_pair_that_is_added_learns_from_then_on_and_one_that_is_gone_ends(features: str, at: int) -> None:
    text = TEXT.replace(FEATURES, features)
    records, store, task = stream(8_000), Store(), opened(text.replace(NAMED, ""))
    found = run(task, records[:at])
    task = opened(text, store.take(task))
    found += task.opened()
    found += run(task, records[at:18])
    # What the edit made of the state is a state like any other.
    task = opened(text, store.take(task))
    assert task.opened() == []
    found += run(task, records[18:24])
    learned = [(e["position"]["offset"], e["n"]) for e in events(found) if e["kind"] == "baseline" and e["series"] == "panel:features"]
    # Where features are still to be discovered the pair is of what has been taken so far; else it is a part that begins.
    assert learned == [(1_999, 2_000)] if not features else [(1_999, 2_000), (at * 250 + 1_999, 2_000)]
    assert {event["series"] for event in drifts(events(found))} == {PAIR}
    task = opened(text.replace(NAMED, ""), store.take(task))
    gone = [event for event in events(task.opened()) if event["series"] == PAIR]
    assert {event["kind"] for event in gone} == {"recovery"}
    assert all("no longer watches it" in event["reason"] for event in gone)
    assert gone
    assert [name.part for name in task.models["m"].panels if name.kind == "features"] == [0]


def test_a_pair_of_discovered_features_that_is_added_later_learns_from_then_on() -> None:
    text = TEXT.replace(FEATURES, "")
    records, store, task = stream(8_000), Store(), opened(text.replace(NAMED, ""))
    run(task, records[:9])
    task = opened(text, store.take(task))
    found = events(run(task, records[9:]))
    assert [e["position"]["offset"] for e in found if e["kind"] == "baseline"] == [9 * 250 + 1_999]
    task = opened(text, store.take(task))
    columns = {name.part: len(one.panel.columns) for name, one in task.models["m"].panels.items() if name.kind == "features"}
    assert columns == {0: 4, 1: 1}


@pytest.mark.parametrize("other", ["country", "never"])
def test_a_pair_that_is_none_of_discovered_numbers_is_no_new_one_at_every_start(other: str) -> None:
    text = TEXT.replace(FEATURES, "").replace(NAMED, f"    correlations: [[items, amount], [amount, {other}]]\n")
    records, store, task = stream(), Store(), opened(text)
    expected = run(opened(text), records)
    found: list[Output] = []
    for at in range(0, len(records), 5):
        found += run(task, records[at : at + 5])
        task = opened(text, store.take(task))
        assert task.opened() == []
        assert [name.part for name in task.models["m"].panels if name.kind == "features"] == [0]
    assert found == expected
    # Taken out and named again it is a pair that is new.
    task = opened(text.replace(f", [amount, {other}]", ""), store.take(task))
    task = opened(text, store.take(task))
    assert [name.part for name in task.models["m"].panels if name.kind == "features"] == [0, 1]


def test_where_a_feature_is_read_from_elsewhere_its_pairs_begin_anew() -> None:
    records, store, task = stream(8_000), Store(), opened()
    run(task, records[:16])
    moved = TEXT.replace("items: numeric", "items: {kind: numeric, path: elsewhere}")
    task = opened(moved, store.take(task))
    ended = events(task.opened())
    assert {event["series"] for event in ended} == {PAIR}
    assert all("features.items.path was edited" in event["reason"] for event in ended)
    found = events(run(task, records[16:]))
    assert [e["n"] for e in found if e["kind"] == "baseline"] == [2_000]
    # It has learned what is so now.
    assert [e for e in drifts(found) if e["series"] == PAIR] == []


def test_a_part_of_a_pair_waits_for_rows_with_both() -> None:
    records, store, task = stream(), Store(), opened(TEXT.replace(NAMED, ""))
    run(task, records[:2])
    task = opened(TEXT, store.take(task))
    alone = decode(records[2].value() or b"")
    assert alone.numeric is not None
    alone.numeric_names, alone.numeric = ["amount"], np.ascontiguousarray(alone.numeric[:, :1])
    run(task, [MemoryRecord(TOPIC, 0, 2, b"m", encode(alone), 0)])
    assert [watched.seen for name, watched in task.models["m"].panels.items() if name.part] == [0]
    run(task, records[3:4])
    assert [watched.seen for name, watched in task.models["m"].panels.items() if name.part] == [250]


def test_a_baseline_from_a_file_has_the_pair_and_one_that_lacks_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    text = TEXT.replace("{learn: 2000, settle: 0s}", f"{{file: {path}, settle: 0s}}")
    for named, refused in ((True, False), (False, True)):
        config = parse_config(TEXT if named else TEXT.replace(NAMED, ""), name="x")
        learner = ReferenceLearner(ModelPlan.of("m", config.models["m"]))
        for record in stream(3_000):
            learner.add(decode(record.value() or b""))
        save_baselines(path, model="m", source="test", baselines=learner.finish())
        with_file = parse_config(text, name="x")
        if refused:
            with pytest.raises(BaselineError, match=r'correlation of "items" and "amount".*\n?.*driftline baseline build'):
                configured_baselines(with_file)
            continue
        baselines = configured_baselines(with_file)
        task = DetectProcessor(with_file, CLUSTER, baselines).open("detect/0", RestoredState())
        found = [e for e in drifts(events(run(task, stream()))) if e["segment"] is None]
        assert [event["series"] for event in found] == [PAIR]
        assert math.isclose(found[0]["position"]["offset"], CHANGED + 75, abs_tol=75)


def test_a_pair_of_learned_features_that_the_rows_do_not_have_is_named_when_the_baseline_is_learned() -> None:
    text = TEXT.replace("    features: {amount: numeric, items: numeric, country: categorical}\n", "").replace(
        "[[items, amount]]", "[[items, amount], [itms, amount], [amount, country]]"
    )
    learned = [event for event in events(run(opened(text), stream(2_500))) if event["kind"] == "baseline"]
    (reason,) = [event["reason"] for event in learned if event["series"] == "panel:features"]
    assert "; not watched: correlation:amount~itms (no number itms), correlation:amount~country (no number country)" in reason
    assert "amount~items" not in reason
