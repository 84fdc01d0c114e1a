"""A detect task started again with another configuration: what goes on, what begins, what ends, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pytest

from driftline.detectors.baseline import Baseline
from driftline.detectors.spec import MISSING
from driftline.streams.detect.task import DetectProcessor, DetectTask
from driftline.streams.observation import LABELLED, UNLABELLED, Observations, decode, encode
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
            else:
                self.rings.pop(name, None)
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


SIZES = [250] * 14
CHANGED = 1_500
"""Where `a` moves and `b` turns invalid now and then: see `stream`."""


def edited(
    text: str, edit: tuple[str, str], at: int, *, rows: Sequence[MemoryRecord] | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], DetectTask]:
    """Events of a run whose configuration is edited before batch `at`, those of one without an edit, and the edited task."""
    assert edit[0] in text
    records = stream(SIZES) if rows is None else rows
    always = open_task(text=text)
    store, task = Store(), open_task(text=text)
    expected = run(always, records)
    found = run(task, records[:at])
    task = open_task(store.take(task), text.replace(*edit))
    found += task.opened()
    found += run(task, records[at : at + 1])
    # What the edit made of the state is a state like any other.
    task = open_task(store.take(task), text.replace(*edit))
    assert task.opened() == []
    return events(found + run(task, records[at + 1 :])), events(expected), task


def without(found: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    """Events of series that none of these parts of names stands in."""
    return [event for event in found if not any(name in f"{event['series']} {event['segment']}" for name in names)]


WINDOWED = ["feature", "quality", "score", "decision", "class", "service", "invalid"]


@pytest.mark.parametrize(
    ("edit", "names"),
    [
        (("b: numeric, ", ""), ["y:b:", "e:b"]),
        (("b: numeric", "b: categorical"), ["y:b:", "e:b"]),
        (("adwin, ", ""), ["feature", "score", "decision", "service"]),
        (("window: 300", "window: 200"), WINDOWED),
        (("window: 300", "window: 400"), WINDOWED),
        (("segments: [s]", "segments: {}"), ["'s'"]),
        (("segments: [s]", "segments: {s: {path: elsewhere}}"), ["'s'"]),
        (("segments: [s]", "segments: {s: {max: 3}, t: {}}"), ["'t'"]),
        (("    window: 300", "    decision: 0.1\n    window: 300"), ["decision"]),
        (("    window: 300", "    labels: {absent: 0}\n    window: 300"), ["outcome"]),
        (("    window: 300", "    features: null\n    window: 300"), []),
        (("learn: 600", "learn: 900"), []),
    ],
)
@pytest.mark.parametrize("at", [4, 8])
def test_what_an_edit_does_not_speak_of_is_published_as_if_nothing_had_happened(edit: tuple[str, str], names: list[str], at: int) -> None:
    text = CONFIG
    if "null" in edit[1]:
        edit = ("    features: {a: numeric, b: numeric, c: categorical}\n", "")
    found, expected, _ = edited(text, edit, at)
    if names == ["'s'"]:
        # The parts of an effect over all rows are told by the values of `s`.
        found, expected = ([{**event, "traffic": None, "reason": None} for event in own] for own in (found, expected))
    assert without(found, *names, "panel:") == without(expected, *names, "panel:")
    assert without(found, *names, "panel:") or names == WINDOWED


def test_a_feature_that_is_added_learns_a_reference_of_its_own_and_is_watched() -> None:
    narrow = CONFIG.replace("b: numeric, ", "")
    found, expected, task = edited(narrow, ("a: numeric, ", "a: numeric, b: numeric, "), 2)
    learned = [(e["position"]["offset"], e["n"]) for e in found if e["kind"] == "baseline" and e["series"] == "panel:features"]
    assert learned == [(599, 600), (2 * 250 + 599, 600)]
    assert [e["kind"] for e in found if e["series"] == "quality:b:invalid" and e["segment"] is None][:1] == ["drift"]
    assert without(found, "y:b:", "e:b", "panel:") == without(expected, "panel:")
    names = [(name.kind, name.part) for name in task.models["m"].panels]
    assert sorted(names) == [("features", 0), ("features", 1), ("scores", 0)]


def lacking(records: Sequence[MemoryRecord], column: str) -> list[MemoryRecord]:
    """The same batches from an ingest that does not know of a feature yet."""
    out = []
    for record in records:
        batch = decode(record.value() or b"")
        assert batch.numeric is not None
        place = batch.numeric_names.index(column)
        batch.numeric = np.delete(batch.numeric, place, axis=1)
        batch.numeric_names = [name for name in batch.numeric_names if name != column]
        batch.invalid = None
        out.append(MemoryRecord(TOPIC, 0, record.offset(), record.key(), encode(batch), 0))
    return out


def test_rows_from_before_ingest_knew_of_a_feature_are_not_learned_from() -> None:
    narrow = CONFIG.replace("b: numeric, ", "")
    records = stream(SIZES)
    late = [*lacking(records[:4], "b"), *records[4:]]
    found, _, task = edited(narrow, ("a: numeric, ", "a: numeric, b: numeric, "), 2, rows=late)
    learned = [e["position"]["offset"] for e in found if e["kind"] == "baseline" and e["series"] == "panel:features"]
    assert learned == [599, 4 * 250 + 599]
    (part,) = [watched for name, watched in task.models["m"].panels.items() if name.part]
    assert part.panel.baseline is not None
    assert part.panel.baseline.counts[0, 0, MISSING] == 0


def test_however_the_stream_is_cut_the_parts_of_a_panel_publish_the_same_bytes_in_the_same_order() -> None:
    narrow = CONFIG.replace("b: numeric, ", "").replace("segments: [s]", "segments: {}")
    published = []
    for sizes in ([250] * 14, [250, 250, *[1] * 200, 777, 1_200, 823], [250, 250, 3_000]):
        store, task = Store(), open_task(text=narrow)
        records = stream(sizes)
        run(task, records[:2])
        task = open_task(store.take(task))
        published.append(task.opened() + run(task, records[2:]))
        assert {name.part for name in task.models["m"].panels} == {0, 1, 2}
    assert published[0] == published[1] == published[2]


def test_parts_make_one_snapshot() -> None:
    narrow = CONFIG.replace("b: numeric, ", "")
    store, task = Store(), open_task(text=narrow)
    records = stream(SIZES)
    run(task, records[:2])
    task = open_task(store.take(task))
    shown = [orjson.loads(o.value or b"") for o in run(task, records[2:]) if o.topic == "driftline.snapshots"]
    whole = [one for one in shown if one["panel"] == "features" and one["segment"] is None]
    assert [one["rows"] for one in whole] == [1_000, 1_500, 2_000, 2_500, 3_000, 3_500]
    named = [{level["series"] for level in one["series"]} for one in whole]
    assert ["feature:b" in series for series in named] == [False, True, True, True, True, True]
    assert all("feature:a" in series for series in named)
    assert len(set(json_keys(shown))) == len(json_keys(shown))


def json_keys(shown: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(one["panel"], one["version"], str(one["segment"]), one["position"]["offset"]) for one in shown]


def open_episodes(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What is open in the end: episode to its first event."""
    held: dict[str, dict[str, Any]] = {}
    for event in found:
        if event["kind"] == "drift":
            held[event["episode"]] = event
        elif event["kind"] == "recovery":
            held.pop(event["episode"])
    return held


@pytest.mark.parametrize(
    ("edit", "gone", "reason"),
    [
        (("{a: numeric, ", "{"), "feature:a", "the configuration no longer watches it"),
        (('series: ["*"]', 'series: ["score*"]'), "feature:a", "the configuration no longer watches it"),
        (("run_length: 1.0e+6}", "run_length: 1.0e+6, enabled: false}"), "feature:a", "the configuration no longer watches it"),
        (("a: numeric", "a: {kind: numeric, path: elsewhere.a}"), "feature:a", "models.m.features.a.path was edited"),
        (("segments: [s]", "segments: {}"), "feature:a", "the configuration no longer watches it"),
        (("predictions: p", "predictions: [{topic: p, fields: {features: x}}]"), "feature:a", "predictions[p].fields.features was edited"),
    ],
)
def test_what_is_taken_out_while_an_episode_is_open_ends_it_once_and_says_why(edit: tuple[str, str], gone: str, reason: str) -> None:
    found, _, _ = edited(CONFIG, edit, 8)
    ended = [event for event in found if event["detector"] == "removed"]
    assert gone in {event["series"] for event in ended}
    assert all(event["kind"] == "recovery" for event in ended)
    assert {event["reason"] for event in ended} == {f"closed because {reason}, not because it recovered"}
    assert len({event["episode"] for event in ended}) == len(ended)
    before = {e["episode"]: e["monitor"] for e in found if e["kind"] == "drift"}
    assert all(before[event["episode"]] == event["monitor"] for event in ended)
    # They stand at the last row there was, so that whoever opens the same state says the same.
    assert {event["position"]["offset"] for event in ended} == {8 * 250 - 1}
    left = {event["episode"] for event in open_episodes(found).values()}
    assert not left & {event["episode"] for event in ended}


def test_a_monitor_that_is_renamed_hands_its_open_episodes_over() -> None:
    found, _, _ = edited(CONFIG, ("id: all", "id: everything"), 8)
    ended = [event for event in found if event["detector"] == "removed"]
    assert {event["monitor"] for event in ended} == {"all"}
    assert {event["reason"] for event in ended} == {'closed because monitor "everything" watches it now, not because it recovered'}
    again = [e for e in found if e["kind"] == "drift" and e["monitor"] == "everything" and e["series"] == "feature:a" and not e["segment"]]
    assert again
    assert 8 * 250 <= again[0]["position"]["offset"] < 8 * 250 + 32
    assert not [event for event in open_episodes(found).values() if event["monitor"] == "all"]


def test_crashes_before_the_commit_say_the_same_again() -> None:
    store, task = Store(), open_task()
    run(task, stream(SIZES)[:8])
    state = store.take(task)
    renamed = CONFIG.replace("id: all", "id: everything")
    first = open_task(state, renamed).opened()
    assert first
    assert open_task(state, renamed).opened() == first


def test_a_model_that_is_taken_out_with_open_episodes_ends_them_once_and_goes_on_when_it_is_back() -> None:
    rows = of_model("n", stream(SIZES))
    store, task = Store(), open_task(text=TWO)
    before = run(task, rows[:8])
    assert open_episodes(events(before))
    task = open_task(store.take(task))
    ended = events(task.opened())
    assert {event["episode"] for event in ended} == set(open_episodes(events(before)))
    assert {event["reason"] for event in ended} == {"closed because the model is no longer configured, not because it recovered"}
    assert {(event["model"], event["monitor"], event["kind"]) for event in ended} == {("n", "all", "recovery")}
    task = open_task(store.take(task))
    assert task.opened() == []
    task = open_task(store.take(task), TWO)
    assert task.opened() == []
    after = events(run(task, rows[8:9]))
    assert {e["series"] for e in after if e["kind"] == "drift"} >= {"feature:a"}
    never = open_task(text=TWO)
    expected = events(run(never, rows))
    rest = events(run(task, rows[9:]))
    assert {e["series"] for e in rest if e["kind"] == "baseline"} == set()
    assert {e["baseline"] for e in after + rest} <= {e["baseline"] for e in expected}


def test_an_edit_of_one_model_leaves_the_bytes_of_another_alone() -> None:
    both = [r for pair in zip(stream(SIZES), of_model("n", stream(SIZES)), strict=True) for r in pair]
    records = [MemoryRecord(TOPIC, 0, offset, r.key(), r.value(), 0) for offset, r in enumerate(both)]
    first, second = TWO.split("  n:")
    text = first + "  n:" + second
    store, task = Store(), open_task(text=text)
    run(task, records[:16])
    before = store.take(task)
    edited_n = first + "  n:" + second.replace("window: 300", "window: 100").replace("b: numeric, ", "")
    task = open_task(before, edited_n)
    task.opened()
    after = store.take(task)
    of_m = {name for name in before.blobs if name.startswith("m/")}
    assert of_m
    assert {name: after.blobs[name] for name in of_m} == {name: before.blobs[name] for name in of_m}
    assert {name: ring for name, ring in after.rings.items() if name.startswith("m/")} == {
        name: ring for name, ring in before.rings.items() if name.startswith("m/")
    }
    assert after.blobs != before.blobs


def outcome_records(ages: Sequence[int | None], labelled: float) -> list[MemoryRecord]:
    """3,000 outcomes in batches, at each of some ages; from row 1,500 on no label comes."""
    draw = np.random.default_rng(5)
    out: list[MemoryRecord] = []
    score, lucky = draw.beta(1, 9, 3_000), draw.random(3_000) < labelled
    for start in range(0, 3_000, 250):
        index = np.arange(start, start + 250)
        state = np.where(lucky[index] & (index < CHANGED), LABELLED, UNLABELLED).astype(np.int8)
        for age in ages:
            batch = Observations(
                "outcomes", "m", f"join/{age}/0", 1 + start // 250, [("p", 0)], offset=index, source=np.zeros(250, np.uint16),
                time_ms=index * 100, record_ms=index * 100, label_state=state, age_ms=age, score=score[index],
                label=np.where(state == LABELLED, 0.0, np.nan), delay_ms=np.where(state == LABELLED, 5.0, np.nan),
            )  # fmt: skip
            out.append(MemoryRecord(TOPIC, 0, len(out), b"m", encode(batch), 0))
    return out


def test_an_age_that_is_taken_out_ends_its_episodes_and_its_rows_are_passed_over() -> None:
    two = CONFIG.replace("    window: 300", "    labels: {ages: [1s, 2s]}\n    window: 300")
    records = outcome_records([1_000, 2_000], 0.9)
    found, expected, _ = edited(two, ("[1s, 2s]", "[1s]"), 18, rows=records)
    ended = [event for event in found if event["detector"] == "removed"]
    assert {event["age_ms"] for event in ended} == {2_000}
    assert {"stream:labelled", "stream:join_rate"} <= {event["series"] for event in ended}
    assert {event["reason"] for event in ended} == {"closed because labels.ages no longer has this age, not because it recovered"} | {
        "closed because the configuration no longer watches it, not because it recovered"
    }
    assert not [e for e in open_episodes(found).values() if e["age_ms"] == 2_000]
    # The join rate is judged at the greatest age: now that is the other one.
    kept, always = ([e for e in events_ if e["age_ms"] == 1_000] for events_ in (found, expected))
    assert without(kept, "join_rate") == without(always, "join_rate")


@pytest.mark.parametrize(
    "edit", [("ages: [2s]", "ages: [2s], min_join: 0"), ("id: all", "id: everything"), ("    labels: {ages: [2s]}\n", "")]
)
def test_an_open_join_rate_ends_where_nobody_judges_it_any_more(edit: tuple[str, str]) -> None:
    text = CONFIG.replace("    window: 300", "    labels: {ages: [2s]}\n    window: 300")
    found, _, _ = edited(text, edit, 10, rows=outcome_records([2_000], 0.9))
    (ended,) = [event for event in found if event["detector"] == "removed" and event["series"] == "stream:join_rate"]
    assert (ended["kind"], ended["monitor"], ended["severity"]) == ("recovery", "all", "warning")


def test_outcomes_end_with_the_last_topic_of_labels() -> None:
    store, task = Store(), open_task()
    run(task, outcome_records([None], 0.9)[:10])
    ended = events(open_task(store.take(task), CONFIG.replace("labels: l\n", "")).opened())
    assert {"stream:labelled", "stream:join_rate"} <= {event["series"] for event in ended}
    assert {event["reason"] for event in ended if event["series"] == "stream:labelled"} == {
        "closed because no labels are configured any more, not because it recovered"
    }


def test_a_silence_that_is_no_longer_asked_for_ends() -> None:
    text = CONFIG.replace("    window: 300", "    freshness: 10s\n    window: 300")
    records = stream([500])
    tick = Observations("tick", "m", "ingest/p/0", 2, [("p", 0)], tick_ms=200_000)
    store, task = Store(), open_task(text=text)
    opened = events(run(task, [*records, MemoryRecord(TOPIC, 0, 1, b"m", encode(tick), 0)]))
    assert [event["series"] for event in opened if event["kind"] == "drift"] == ["stream:freshness"]
    task = open_task(store.take(task), text.replace("freshness: 10s", "freshness: null"))
    (ended,) = events(task.opened())
    assert (ended["kind"], ended["detector"], ended["episode"]) == ("recovery", "removed", opened[-1]["episode"])


def test_a_topic_that_is_no_longer_read_does_not_hold_up_time() -> None:
    text = CONFIG.replace("predictions: p", "predictions: [p, q]").replace("    window: 300", "    freshness: 10s\n    window: 300")
    idle = Observations("tick", "m", "ingest/q/0", 1, [("q", 0)], tick_ms=1_000)
    late = Observations("tick", "m", "ingest/p/0", 2, [("p", 0)], tick_ms=200_000)
    first = [*stream([500]), MemoryRecord(TOPIC, 0, 1, b"m", encode(idle), 0)]
    last = MemoryRecord(TOPIC, 0, 2, b"m", encode(late), 0)
    for config_now, silent in ((text, []), (text.replace("[p, q]", "p"), ["stream:freshness"])):
        store, task = Store(), open_task(text=text)
        run(task, first)
        task = open_task(store.take(task), config_now)
        assert [event["series"] for event in events(run(task, [last]))] == silent


def test_state_from_before_settings_were_kept_goes_on() -> None:
    store, task = Store(), open_task()
    records = stream(SIZES)
    run(task, records[:8])
    state = store.take(task)
    meta = orjson.loads(state.blobs["task"])
    for model in meta["models"].values():
        del model["settings"], model["owners"]
        model["panels"] = [row[:8] for row in model["panels"]]
    older = open_task(RestoredState({**state.blobs, "task": orjson.dumps(meta)}, state.rings))
    assert older.opened() == []
    assert run(older, records[8:]) == run(task, records[8:])


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
