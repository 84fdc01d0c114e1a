"""A baseline file against the first live rows: the same whatever the cuts, restarts and edits, and asked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from driftline.detectors.autoregression import Autoregression, worth_one
from driftline.detectors.baseline import Baseline
from driftline.detectors.compare import ROWS_LEAST, compare, looks
from driftline.detectors.panel import Panel
from driftline.detectors.spec import Column, PanelRows, PanelSpec
from driftline.streams.detect.task import DetectProcessor, DetectTask
from driftline.streams.observation import decode, encode
from driftline.streams.task import MemoryRecord, Output, RestoredState
from tests.detect.test_accepted import OF_MODEL, references
from tests.detect.test_changed_configuration import Store
from tests.detect.test_task import CLUSTER, CONFIG, TOPIC, config, events, run, stream
from tests.detectors.panel_cases import series

NEVER, ALWAYS = 10**9, 0
HOLD = 300
"""The window of `CONFIG`, which is less than a thousand."""
TRAINED = references(stream([3_000], change_at=ALWAYS))
"""`a` is 1.5 sd higher than live, and a fifth of `b` is invalid."""
FITTING = references(stream([3_000], change_at=NEVER))
SIZES = [100] * 30


def opened(state: RestoredState | None = None, text: str = CONFIG, file: Mapping[str, Baseline] | None = TRAINED) -> DetectTask:
    baselines = {} if file is None else {"m": file}
    return DetectProcessor(config(text), CLUSTER, baselines).open("detect/0", state or RestoredState())


def mismatches(outputs: list[Output]) -> list[dict[str, Any]]:
    return [event for event in events(outputs) if event["kind"] == "baseline_mismatch"]


def test_what_does_not_fit_is_said_once_and_learned_and_the_rest_goes_by_the_file() -> None:
    task = opened()
    found = run(task, stream([3_000], change_at=NEVER))
    (event,) = mismatches(found)
    assert event["position"]["offset"] == HOLD - 1
    named = {one["series"] for one in event["differences"]}
    assert named >= {"feature:a", "quality:b:invalid", "stream:invalid"}
    assert not {one for one in named if ":c" in one or "score" in one}
    learned = [(e["series"], e["position"]["offset"]) for e in events(found) if e["kind"] == "baseline"]
    assert learned == [("panel:features", 599)]
    parts = {name.part: [c.name for c in w.panel.columns] for name, w in task.models["m"].panels.items() if name.kind == "features"}
    assert parts == {0: ["c"], 1: ["a", "b", "stream:invalid"]}
    assert not [e for e in events(found) if e["kind"] == "drift" and e["segment"] is None]


@pytest.mark.parametrize("sizes", [[1] * 350 + [2_650], [299, 1, 1, 2_699], [777] * 3 + [669]])
@pytest.mark.parametrize("versions", [1, 2, 40])
def test_however_the_stream_is_cut_the_outputs_are_the_same(sizes: list[int], versions: int) -> None:
    whole = run(opened(), stream([3_000], change_at=NEVER, versions=versions))
    assert len(mismatches(whole)) == 1
    assert run(opened(), stream(sizes, change_at=NEVER, versions=versions)) == whole


@pytest.mark.parametrize("file", [TRAINED, FITTING], ids=["other", "same"])
def test_a_restart_at_every_commit_changes_nothing(file: Mapping[str, Baseline]) -> None:
    store, outputs, state = Store(), [], RestoredState()
    for record in stream(SIZES, change_at=1_500, versions=2):
        task = opened(state, file=file)
        outputs += [*task.opened(), *run(task, [record])]
        state = store.take(task)
    assert outputs == run(opened(file=file), stream(SIZES, change_at=1_500, versions=2))


def test_a_file_that_fits_is_as_one_that_nothing_was_held_for_but_for_the_first_rows() -> None:
    found = events(run(opened(file=FITTING), stream([3_000])))
    assert not [e for e in found if e["kind"] in ("baseline_mismatch", "baseline") and e["version"] is None]
    first = next(e for e in found if e["kind"] == "drift")
    assert (first["series"], first["segment"], first["position"]["offset"] < 1_560) == ("feature:a", None, True)


@pytest.mark.parametrize(
    ("compared", "file", "expected", "learned"),
    [(True, FITTING, [], []), (True, TRAINED, [HOLD - 1], [599]), (True, None, [], [599, 599]), (False, TRAINED, [], [])],
    ids=["another file", "the same", "no file", "no comparison"],
)
def test_an_edit_while_rows_are_held_decides_what_becomes_of_them(
    compared: bool, file: Mapping[str, Baseline] | None, expected: list[int], learned: list[int]
) -> None:
    records = stream(SIZES, change_at=NEVER)
    store, task = Store(), opened()
    run(task, records[:2])
    edited = config()
    model = edited.models["m"]
    baseline = model.baseline.model_copy(update={"compare": compared})
    edited = edited.model_copy(update={"models": {"m": model.model_copy(update={"baseline": baseline})}})
    task = DetectProcessor(edited, CLUSTER, {} if file is None else {"m": file}).open("detect/0", store.take(task))
    found = run(task, records[2:])
    assert [e["position"]["offset"] for e in mismatches(found)] == expected
    assert [e["position"]["offset"] for e in events(found) if e["kind"] == "baseline"] == learned


def test_another_file_with_an_acceptance_is_compared_anew_exactly_once() -> None:
    records = stream(SIZES, change_at=NEVER)
    store, task = Store(), opened(file=FITTING)
    assert not mismatches(run(task, records[:10]))
    accepted = CONFIG.replace(*OF_MODEL)
    task = opened(store.take(task), accepted, TRAINED)
    found = run(task, records[10:15])
    assert [e["position"]["offset"] for e in mismatches(found)] == [1_000 + HOLD - 1]
    task = opened(store.take(task), accepted, TRAINED)
    assert not mismatches(run(task, records[15:]))
    assert store.take(task).blobs, "and once more nothing"
    assert task.models["m"].mismatched
    task = opened(store.take(task), CONFIG.replace(OF_MODEL[0], OF_MODEL[1].replace("tariff", "word")), TRAINED)
    assert not task.models["m"].mismatched, "what is accepted is no mismatch"


def test_a_window_that_is_too_short_to_compare_does_not_shorten_the_comparison() -> None:
    text = CONFIG.replace("window: 300", "window: 100")
    whole = run(opened(text=text), stream([1_500], change_at=NEVER))
    assert [e["position"]["offset"] for e in mismatches(whole)] == [ROWS_LEAST - 1]
    for sizes in ([70] * 20 + [100], [199, 1, 1_300]):
        assert run(opened(text=text), stream(sizes, change_at=NEVER)) == whole


@pytest.mark.parametrize(("learn", "expected"), [(250, [1_000 + 249]), (150, [])])
def test_a_version_that_learns_from_too_few_rows_is_not_said_to_be_as_the_one_before(learn: int, expected: list[int]) -> None:
    task = opened(text=CONFIG.replace("learn: 600", f"learn: {learn}"), file=None)
    found = events(run(task, stream([2_000], change_at=NEVER, versions=2)))
    assert [e["position"]["offset"] for e in found if e["kind"] == "version_shift"] == expected


BEFORE = CONFIG.replace("predictions: p", "predictions:\n  - {topic: p, fields: {features: features}}").replace("learn: 600", "learn: 250")
"""With another path to its features than the edit has, so that they begin anew while the scores go on; versions are compared elsewhere."""
AFTER = BEFORE.replace("features: features}", "features: other}")


@pytest.mark.parametrize(
    ("before", "after", "due"),
    [(BEFORE, AFTER, 299), (BEFORE, AFTER.replace("window: 300", "window: 200"), 200)],
    ids=["not due yet", "due already, by a smaller window"],
)
def test_panels_that_hold_unequal_counts_are_compared_at_the_same_row_however_the_stream_is_cut(before: str, after: str, due: int) -> None:
    learned = opened(file=None)
    run(learned, stream([3_000], change_at=ALWAYS))
    panels = learned.models["m"].panels
    file: dict[str, Baseline] = {name.kind: w.panel.baseline for name, w in panels.items() if w.panel.baseline is not None}

    def outputs(sizes: list[int]) -> list[Output]:
        records, store, task = stream([100, 100, *sizes], change_at=NEVER), Store(), opened(text=before, file=file)
        found = run(task, records[:2])
        task = opened(store.take(task), after, file)
        found += task.opened()
        assert {(n.kind, w.panel.learned) for n, w in task.models["m"].panels.items() if w.panel.held} == {("features", 0), ("scores", 200)}
        for record in records[2:]:
            found += run(task, [record])
        scores = next(w for n, w in task.models["m"].panels.items() if n.kind == "scores")
        assert scores.panel.rows == 1_500 - due - 1
        return found

    whole = outputs([1_300])
    assert len(mismatches(whole)) == 1
    assert outputs([100] * 13) == whole
    assert outputs([70] * 18 + [40]) == whole


def without(baseline: Baseline, *, column: str = "", segments: bool = False) -> Baseline:
    kept = [c for c, one in enumerate(baseline.columns) if one.name != column]
    counts = baseline.counts[: 1 if segments else None, kept]
    return Baseline(tuple(baseline.columns[c] for c in kept), {} if segments else baseline.segments, counts, rows=baseline.rows)


@pytest.mark.parametrize("compared", [True, False])
@pytest.mark.parametrize("lacking", [{"column": "c"}, {"segments": True}], ids=["a column", "a segment key"])
def test_rows_that_are_held_are_learned_from_where_another_file_lacks_what_they_have(lacking: dict[str, Any], compared: bool) -> None:
    records, store, task = stream([100] * 10, change_at=NEVER), Store(), opened()
    run(task, records[:2])
    text = CONFIG if compared else CONFIG.replace("baseline: {", "baseline: {file: other.json, compare: false, ")
    task = opened(store.take(task), text, {"features": without(FITTING["features"], **lacking)})
    found = run(task, records[2:])
    assert [(e["series"], e["position"]["offset"]) for e in events(found) if e["kind"] == "baseline"][:1] == [("panel:features", 599)]
    (features,) = [w for n, w in task.models["m"].panels.items() if n.kind == "features"]
    assert (features.learned_here, features.compares) == (True, "")
    assert features.panel.baseline is not None
    assert features.panel.baseline.column("c") is not None


def spaced(sizes: list[int], step_ms: int) -> list[MemoryRecord]:
    """The stream with so much time between its rows."""
    records = []
    for record in stream(sizes, change_at=NEVER):
        batch = decode(record.value() or b"")
        slow = replace(batch, time_ms=batch.offset * step_ms, record_ms=batch.offset * step_ms)
        records.append(MemoryRecord(TOPIC, 0, record.offset(), b"m", encode(slow), 0))
    return records


@pytest.mark.parametrize(("rows_a_day", "expected"), [(400, [HOLD - 1]), (250, [250]), (100, [])])
def test_rows_are_held_for_a_day_at_most_and_too_few_of_them_are_not_compared(rows_a_day: int, expected: list[int]) -> None:
    step_ms = 86_400_000 // rows_a_day
    task = opened()
    whole = run(task, spaced([700], step_ms))
    assert [e["position"]["offset"] for e in mismatches(whole)] == expected
    if not expected:
        assert {w.panel.rows for n, w in task.models["m"].panels.items() if n.kind == "features"} == {700 - rows_a_day - 1}
    store, state, cut = Store(), RestoredState(), []
    for record in spaced([70] * 10, step_ms):
        task = opened(state)
        cut += [*task.opened(), *run(task, [record])]
        state = store.take(task)
    assert cut == whole


def test_snapshots_say_what_is_held_and_what_did_not_fit() -> None:
    outputs = run(opened(text=CONFIG.replace("snapshot_every: 500", "snapshot_every: 100")), stream([700], change_at=NEVER))
    shown = [orjson.loads(o.value or b"") for o in outputs if o.topic == "driftline.snapshots"]
    features = [one for one in shown if one["panel"] == "features" and one["segment"] is None]
    assert [(one["state"], one["rows"], one["learn_rows"]) for one in features[:2]] == [("learning", 100, 300), ("learning", 200, 300)]
    assert features[0]["baseline"] == TRAINED["features"].id
    assert features[-1]["mismatched"] == ["a", "b", "stream:invalid"]


def drawn(n: int, seed: int, columns: int, shift: float = 0.0) -> PanelRows:
    rng = np.random.default_rng(seed)
    index = np.arange(n)
    names = [f"x{i}" for i in range(columns)]
    values = rng.lognormal(size=(n, columns))
    values[:, 0] *= np.exp(shift)
    return PanelRows(
        n=n, numeric=values, numeric_names=names, categorical={}, source=np.zeros(n, np.uint16), offset=index, time_ms=index * 1_000
    )


def test_rows_as_the_reference_differ_less_often_than_promised_and_others_always() -> None:
    spec = PanelSpec(columns=tuple(Column(f"x{i}", "numeric", (series(f"x{i}", None),)) for i in range(20)), learn_rows=3_000)
    wrong = missed = 0
    for seed in range(60):
        panel = Panel(spec)
        panel.update(drawn(3_000, 1_000 + seed, 20))
        assert panel.baseline is not None
        asked = looks(spec, panel.baseline)
        assert asked == 20
        wrong += bool(compare(spec, panel.baseline, [drawn(1_000, 2_000 + seed, 20)], looks=asked))
        found = compare(spec, panel.baseline, [drawn(1_000, 3_000 + seed, 20, shift=0.3)], looks=asked)
        missed += [one.column for one in found] != ["x0"]
    # At most one in a thousand: one of sixty has a chance of .06, two of .002.
    assert wrong <= 1
    assert missed == 0, "the shift is eight standard errors"


def test_a_column_that_goes_by_the_hour_is_compared_with_the_hours_of_the_rows() -> None:
    spec = PanelSpec(columns=(Column("x0", "numeric", (series("x0", None),)),), learn_rows=14_400, grouping="hour_of_day")
    def daily(days: float, seed: int) -> PanelRows:
        rows = drawn(int(days * 1_440), seed, 1)
        time_ms = rows.time_ms * 60
        values = np.random.default_rng(seed).normal(size=(rows.n, 1)) + 1.5 * np.sin(2 * np.pi * time_ms[:, None] / 86_400_000)
        return PanelRows(
            n=rows.n, numeric=values, numeric_names=["x0"], categorical={}, source=rows.source, offset=rows.offset, time_ms=time_ms
        )

    panel = Panel(spec)
    panel.update(daily(10, 1))
    assert panel.baseline is not None
    assert panel.baseline.season
    morning = daily(0.25, 2)
    assert not compare(spec, panel.baseline, [morning], looks=1)
    off = PanelRows(
        n=morning.n, numeric=morning.numeric + 0.5, numeric_names=["x0"], categorical={}, source=morning.source, offset=morning.offset,
        time_ms=morning.time_ms,
    )  # fmt: skip
    assert [one.series for one in compare(spec, panel.baseline, [off], looks=1)] == ["x0"]


def wandering(rng: np.random.Generator, n: int, memory: float, level_sd: float) -> np.ndarray[Any, Any]:
    """Noise of sd 1 around a level that remembers so many rows."""
    keep = np.exp(-1.0 / memory)
    steps = rng.normal(size=n) * level_sd * np.sqrt(1.0 - keep * keep)
    level = np.empty(n)
    level[0] = last = rng.normal() * level_sd
    for i in range(1, n):
        level[i] = last = keep * last + steps[i]
    found: np.ndarray[Any, Any] = level + rng.normal(size=n)
    return found


def numbers(values: np.ndarray[Any, Any], first: int = 0, step_ms: int = 60_000) -> PanelRows:
    index = np.arange(first, first + len(values))
    return PanelRows(
        n=len(values), numeric=values[:, None], numeric_names=["x0"], categorical={}, source=np.zeros(len(values), np.uint16), offset=index,
        time_ms=index * step_ms,
    )  # fmt: skip


def test_a_level_that_wanders_in_the_reference_as_well_is_no_difference_and_a_step_beyond_it_is() -> None:
    spec = PanelSpec(columns=(Column("x0", "numeric", (series("x0", None),)),), learn_rows=10_080)
    wrong = found = 0
    for seed in range(12):
        values = wandering(np.random.default_rng([9, seed]), 11_080, 300.0, 0.3)
        panel = Panel(spec)
        panel.update(numbers(values[:10_080]))
        assert panel.baseline is not None
        wrong += bool(compare(spec, panel.baseline, [numbers(values[10_080:], 10_080)], looks=1))
        found += bool(compare(spec, panel.baseline, [numbers(values[10_080:] + 3.0, 10_080)], looks=1))
    # Taken for short memory it is one of two; ten standard deviations of the level are found.
    assert (wrong, found) == (0, 12)


@pytest.mark.parametrize(("coefficient", "values"), [(0.0, 1.0), (0.5, 3.0), (0.9, 19.0)])
def test_what_a_reference_knows_of_its_memory_is_what_simulation_says_of_a_mean(coefficient: float, values: float) -> None:
    sd = float(np.sqrt(1.0 - coefficient**2))
    memory = Autoregression((coefficient,), sd, (0.0,), (1, 1))
    assert worth_one(memory, None, 1_000) == pytest.approx(values)
    noise = np.random.default_rng(3).normal(size=(4_000, 1_200)) * sd
    for i in range(1, 1_200):
        noise[:, i] += coefficient * noise[:, i - 1]
    assert 1_000 * noise[:, 200:].mean(axis=1).var() == pytest.approx(values, rel=0.1)


@pytest.mark.parametrize(("rate", "hours", "expected"), [(0.04, 1, []), (0.04, 30, ["decision"]), (0.6, 1, ["decision"])])
def test_a_rate_of_an_hour_of_the_night_is_no_difference_where_values_go_by_the_hour(rate: float, hours: int, expected: list[str]) -> None:
    spec = PanelSpec(
        columns=(Column("x0", "numeric", (series("x0", None),)), Column("decision", "binary", (series("decision", "one", warning=0.2),))),
        learn_rows=14_400, grouping="hour_of_day",
    )  # fmt: skip

    def rows(first: int, count: int, step_ms: int, share: float) -> PanelRows:
        rng = np.random.default_rng(first)
        time_ms = first * 60_000 + np.arange(count) * step_ms
        values = np.column_stack([
            1.5 * np.sin(2 * np.pi * time_ms / 86_400_000) + rng.normal(size=count), (rng.random(count) < share).astype(float),
        ])  # fmt: skip
        return PanelRows(
            n=count, numeric=values, numeric_names=["x0", "decision"], categorical={}, source=np.zeros(count, np.uint16),
            offset=np.arange(count), time_ms=time_ms,
        )  # fmt: skip

    panel = Panel(spec)
    panel.update(rows(0, 14_400, 60_000, 0.1))
    assert panel.baseline is not None
    assert panel.baseline.season
    live = rows(14_400, 1_000, hours * 3_600, rate)
    assert [one.series for one in compare(spec, panel.baseline, [live], looks=2)] == expected
