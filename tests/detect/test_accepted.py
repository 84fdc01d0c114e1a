"""`accepted`: a person's word that a change is right ends its episodes, and what is normal is learned anew."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from driftline.detectors.baseline import Baseline
from driftline.streams.detect.plan import ModelPlan
from driftline.streams.detect.reference import ReferenceLearner
from driftline.streams.detect.task import DetectProcessor, DetectTask
from driftline.streams.observation import decode
from driftline.streams.task import RestoredState
from tests.detect.test_changed_configuration import SIZES, Store, edited, without
from tests.detect.test_task import CLUSTER, CONFIG, config, events, open_task, run, stream

OF_FEATURE = ("a: numeric", 'a: {kind: numeric, accepted: "2026-11-22 new tariff"}')
OF_MODEL = ("{learn: 600,", '{learn: 600, accepted: "2026-11-22 new tariff",')


def of(found: list[dict[str, Any]], series: str, *kinds: str) -> list[dict[str, Any]]:
    return [e for e in found if e["series"] == series and e["segment"] is None and e["kind"] in kinds]


def test_a_change_of_one_feature_that_is_accepted_ends_and_is_the_new_normal() -> None:
    found, expected, _ = edited(CONFIG, OF_FEATURE, 8)
    ends = of(found, "feature:a", "recovery")
    assert [(e["position"]["offset"], e["reason"]) for e in ends] == [
        (1_999, "closed because models.m.features.a.accepted was edited, not because it recovered")
    ]
    assert not of(expected, "feature:a", "recovery"), "left alone it stays open"
    assert not [e for e in of(found, "feature:a", "drift", "evidence") if e["position"]["offset"] > 1_999]
    learned = [e["position"]["offset"] for e in found if e["kind"] == "baseline" and e["series"] == "panel:features"]
    assert learned == [599, 2_599]
    assert without(found, ":a", "panel:") == without(expected, ":a", "panel:")


def test_a_model_that_is_accepted_learns_all_its_references_anew() -> None:
    found, _, _ = edited(CONFIG, OF_MODEL, 8)
    learned = [(e["series"], e["position"]["offset"]) for e in found if e["kind"] == "baseline"]
    assert [(s, o) for s, o in learned if o > 1_999] == [("panel:features", 2_599), ("panel:scores", 2_599)]
    assert {e["reason"] for e in found if e["kind"] == "recovery" and e["position"]["offset"] == 1_999} == {
        "closed because models.m.baseline.accepted was edited, not because it recovered"
    }


def test_a_change_after_the_acceptance_is_found_and_another_word_accepts_it_too() -> None:
    twice = OF_FEATURE[1].replace("tariff", "tariff, again")
    store, task = Store(), open_task()
    records = stream(SIZES)
    run(task, records[:8])
    accepted = CONFIG.replace(*OF_FEATURE)
    task = open_task(store.take(task), accepted)
    run(task, records[8:])
    again = stream([*SIZES, *SIZES], change_at=10**9)[len(SIZES) :]   # `a` is as it was before the change
    found = events(run(task, again[:6]))
    back = next(e for e in found if e["series"] == "feature:a" and e["kind"] == "drift")
    assert back["baseline_median"] == pytest.approx(1.5, abs=0.2)
    task = open_task(store.take(task), CONFIG.replace(OF_FEATURE[0], twice))
    ended = {e["series"] for e in events(task.opened())}
    assert "feature:a" in ended
    assert ended <= {"feature:a", "quality:a:out_of_range"}


def references(records: list[Any], text: str = CONFIG) -> dict[str, Baseline]:
    """Baselines of rows, as `baseline build` makes them."""
    learner = ReferenceLearner(ModelPlan.of("m", config(text).models["m"]))
    for record in records:
        learner.add(decode(record.value() or b""))
    return learner.finish()


def reference(records: list[Any]) -> Baseline:
    """That of the features."""
    return references(records)["features"]


@pytest.mark.parametrize("learned", [True, False], ids=["after a learned one", "after another file"])
def test_a_new_file_beside_it_takes_the_place_of_what_was_known(learned: bool) -> None:
    records = stream(SIZES)
    old, new = reference(records[:4]), reference(records[10:])
    before = {} if learned else {"m": {"features": old}}
    store = Store()
    task = DetectProcessor(config(), CLUSTER, before).open("detect/0", RestoredState())
    run(task, records[:8])
    task = DetectProcessor(config(CONFIG.replace(*OF_MODEL)), CLUSTER, {"m": {"features": new}}).open("detect/0", store.take(task))
    task.opened()
    found = events(run(task, records[8:]))
    assert not [e for e in found if e["kind"] == "baseline" and e["series"] == "panel:features"], "it is there from the first row on"
    assert not of(found, "feature:a", "drift")
    features = [watched.panel.baseline for watched in task.models["m"].panels.values() if watched.name.kind == "features"]
    assert [baseline and baseline.id for baseline in features] == [new.id]


def test_the_same_file_is_what_was_normal_before() -> None:
    records = stream(SIZES)
    held = {"m": {"features": reference(records[:4])}}
    store = Store()
    task = DetectProcessor(config(), CLUSTER, held).open("detect/0", RestoredState())
    run(task, records[:8])
    task = DetectProcessor(config(CONFIG.replace(*OF_MODEL)), CLUSTER, held).open("detect/0", store.take(task))
    task.opened()
    found = events(run(task, records[8:]))
    assert [e["position"]["offset"] for e in found if e["kind"] == "baseline" and e["series"] == "panel:features"] == [2_599]
    assert not of(found, "feature:a", "drift")


def ids(task: DetectTask) -> set[str | None]:
    """The references of all panels, also those that rows are held for; None = one is being learned."""
    panels = task.models["m"].panels.values()
    return {watched.compares or (None if watched.panel.baseline is None else watched.panel.baseline.id) for watched in panels}


def test_a_file_that_was_normal_before_comes_back_with_no_later_acceptance() -> None:
    """Also of a version that began when the file was in use already, and of a model that was taken out in between."""
    records = stream([700] * 8, versions=2)
    old, new = references(records[:2]), references(records[6:])
    store = Store()
    task = DetectProcessor(config(), CLUSTER, {"m": old}).open("detect/0", RestoredState())
    run(task, records)
    first = {baseline.id for baseline in old.values()}
    assert ids(task) > first, "the second version has learned its own"
    for word, file in (("one", old), ("two", old), ("three", None), ("four", new), ("five", new), ("six", old)):
        if file is None:
            task = open_task(store.take(task), CONFIG.replace("  m:\n", "  n:\n"))
            continue
        text = CONFIG.replace(OF_MODEL[0], OF_MODEL[1].replace("tariff", word))
        task = DetectProcessor(config(text), CLUSTER, {"m": file}).open("detect/0", store.take(task))
        another = word in ("four", "six")
        assert ids(task) == ({baseline.id for baseline in file.values()} if another else {None}), word


@pytest.mark.parametrize("learned", [True, False], ids=["after a learned one", "after another file"])
def test_a_new_file_is_taken_where_features_are_discovered_too(learned: bool) -> None:
    text = CONFIG.replace("    features: {a: numeric, b: numeric, c: categorical}\n", "")
    records = stream(SIZES)
    old, new = references(records[:4], text), references(records[10:], text)
    store = Store()
    task = DetectProcessor(config(text), CLUSTER, {} if learned else {"m": old}).open("detect/0", RestoredState())
    run(task, records[:8])
    task = DetectProcessor(config(text.replace(*OF_MODEL)), CLUSTER, {"m": new}).open("detect/0", store.take(task))
    assert ids(task) == {baseline.id for baseline in new.values()}
    assert {event["series"] for event in events(task.opened())} >= {"feature:a"}
    assert not of(events(run(task, records[8:])), "feature:a", "drift")


@pytest.mark.parametrize("edit", [OF_FEATURE, OF_MODEL], ids=["feature", "model"])
def test_a_release_that_knows_the_key_first_sees_it_given(edit: tuple[str, str]) -> None:
    task = open_task()
    run(task, stream(SIZES)[:8])
    state = Store().take(task)
    blob = orjson.loads(state.blobs["task"])
    held = blob["models"]["m"]
    held["settings"] = {place: value for place, value in held["settings"].items() if not place.endswith(".accepted")}
    del held["taken"]
    task = open_task(RestoredState({**state.blobs, "task": orjson.dumps(blob)}, state.rings), CONFIG.replace(*edit))
    assert "feature:a" in {event["series"] for event in events(task.opened())}
