"""Series whose episode is open: tested against what they have been since, so that a second change shows; and only then."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from driftline.detectors.conformal import series_key
from driftline.detectors.kernels.bets import Bets
from driftline.detectors.kernels.conformal import BINS
from driftline.detectors.kernels.jit import kernel
from driftline.detectors.kernels.portable import position_keys
from driftline.detectors.kernels.post_change import _SALT, EDGE_VALUES, LEARN_VALUES, Followed, Rows, follow
from driftline.detectors.panel import Panel
from driftline.detectors.post_change import HELD_TIMES
from driftline.detectors.spec import Column, PanelBudget, PanelRows, PanelSpec, Signal, StateError
from tests.detectors.panel_cases import plain_rows, series
from tests.detectors.test_panel_budget import feed, plain_spec, run_rows
from tests.detectors.test_panel_state import Store
from tests.detectors.test_portable import fill_uniform

LEARN = 2_000


@kernel
def follow_all(x: np.ndarray, f: Followed, rows: Rows, bets: Bets, out: np.ndarray) -> None:
    for i in range(x.shape[0]):
        out[i] = follow(0, i, x[i], f, rows, bets)


def changed_again(found: list[tuple[int, Signal]], name: str = "x") -> list[tuple[int, Signal]]:
    return [(row, s) for row, s in found if s.again is not None and s.series == name]


def levels_of(generator: np.random.Generator, *parts: tuple[int, float]) -> np.ndarray[Any, Any]:
    """Normal values of these numbers and means, after a reference."""
    return np.concatenate([generator.normal(mean, 1.0, n) for n, mean in ((LEARN, 0.0), *parts)])


def rate_spec(per_unit: float, *, learn: int = LEARN, window: int = 1_000) -> PanelSpec:
    one = series("flagged", "one", "e_detector", warning=0.2, window=window)
    columns = (Column("flagged", "binary", (one,)),)
    return PanelSpec(columns=columns, window=window, learn_rows=learn, budget=PanelBudget(per_unit, True, 1 / (168 * per_unit)))


def zeros_and_ones(generator: np.random.Generator, *parts: tuple[int, float]) -> np.ndarray[Any, Any]:
    return np.concatenate([(generator.random(n) < rate).astype(float) for n, rate in parts])


@pytest.mark.parametrize("second", [1.5, 0.5, -1.0], ids=["further away", "half-way back", "to the other side"])
def test_a_second_change_is_evidence_that_is_dated_and_sized_against_the_level_before(second: float) -> None:
    at = LEARN + 500 + 4_000
    values = levels_of(np.random.default_rng(3), (500, 0.0), (4_000, 1.0), (2_000, second))
    found = run_rows(plain_spec(["x"], 1e-5), {"x": values})
    (row, signal), *more = changed_again(found)
    assert not more
    assert at < row < at + 1_200
    assert (signal.kind, signal.detector, signal.threshold) == ("evidence", "e_detector", 1.0)
    assert signal.since is not None
    assert abs(signal.since.offset - at) < 300
    again = signal.again
    assert again is not None
    assert again.number == 2
    assert again.value_before == pytest.approx(1.0, abs=0.1)
    assert again.effect_size == pytest.approx(second - 1.0, rel=0.35)
    assert signal.effect_size == pytest.approx(second, abs=0.6)
    assert again.median_before == pytest.approx(1.0, abs=0.15)
    assert f"changed again: change 2 of the episode, before it {again.value_before:.4g}" in (signal.reason or "")


def test_a_change_beyond_all_that_the_baseline_has_seen_still_has_a_scale() -> None:
    """Against the baseline every value lies beyond its range, and one is as far as the other."""
    at = LEARN + 20_000 + 3_000
    values = levels_of(np.random.default_rng(4), (20_000, 0.0), (3_000, 20.0), (2_000, 20.5))
    rows = [row for row, _ in changed_again(run_rows(plain_spec(["x"], 1e-5), {"x": values}))]
    assert len(rows) == 1
    assert at < rows[0] < at + 1_200


@pytest.mark.parametrize(("first", "second"), [(0.2, 0.4), (0.3, 0.19), (0.5, 0.999)])
def test_a_second_change_of_a_rate_is_found(first: float, second: float) -> None:
    values = zeros_and_ones(np.random.default_rng(5), (LEARN + 500, 0.1), (5_000, first), (2_500, second))
    found = run_rows(rate_spec(1e-5), {"flagged": values})
    (row, signal), *_ = changed_again(found, "flagged")
    assert LEARN + 5_500 < row < LEARN + 7_500
    assert signal.again is not None
    assert signal.again.value_before == pytest.approx(first, abs=0.06)
    assert signal.effect_kind == "rate"
    assert math.copysign(1.0, signal.again.effect_size) == math.copysign(1.0, second - first)


def test_a_spread_that_changes_again_is_found() -> None:
    g = np.random.default_rng(6)
    values = np.r_[g.normal(size=LEARN + 500), g.normal(0.0, 2.0, 4_000), g.normal(0.0, 4.0, 1_500)]
    (row, signal), *_ = changed_again(run_rows(plain_spec(["x"], 1e-5, "psi"), {"x": values}))
    assert LEARN + 4_500 < row < LEARN + 5_500
    assert signal.effect_kind == "psi"
    assert signal.again is not None
    assert signal.again.effect_size > 0.1


def test_after_recovery_the_baseline_is_what_is_compared_with_again() -> None:
    values = levels_of(np.random.default_rng(7), (500, 0.0), (3_000, 0.8), (2_000, 0.0), (1_000, 0.8))
    found = run_rows(plain_spec(["x"], 1e-5), {"x": values})
    kinds = [(s.kind, s.detector) for _, s in found if s.kind != "baseline"]
    # Back is a change against the level since the alarm, too; it recovers, and the next drift is an episode of its own.
    assert kinds == [("open", "e_detector"), ("evidence", "e_detector"), ("recovery", "level"), ("open", "e_detector")]


def test_a_step_that_stays_is_one_episode_within_the_budget() -> None:
    budget, rows, again = 1 / 2_000, 20_000, 0
    for seed in range(12):
        values = levels_of(np.random.default_rng([8, seed]), (500, 0.0), (rows, 1.0))
        found = run_rows(plain_spec(["x"], budget), {"x": values})
        assert not any(s.kind == "recovery" for row, s in found if row > LEARN + 700), "silence is no recovery"
        again += len(changed_again(found))
    expected = 12 * rows * budget
    assert again <= expected + 3 * math.sqrt(expected)


@pytest.mark.parametrize("low", [0.1, 0.5])
def test_a_rate_that_stays_changed_is_one_episode_within_the_budget(low: float) -> None:
    budget, rows, again = 1 / 2_000, 20_000, 0
    for seed in range(8):
        values = zeros_and_ones(np.random.default_rng([9, seed]), (LEARN + 500, low), (rows, min(3 * low, 0.9)))
        again += len(changed_again(run_rows(rate_spec(budget), {"flagged": values}), "flagged"))
    expected = 8 * rows * budget
    assert again <= expected + 3 * math.sqrt(expected)


def test_a_ramp_makes_a_list_that_ends() -> None:
    """Each further change is learned from twice as many values as the one before, unless the level has held in between."""
    rows = 60_000
    g = np.random.default_rng(10)
    values = np.r_[g.normal(size=LEARN), g.normal(size=rows) + np.arange(rows) / 2_000.0]
    found = [row for row, _ in changed_again(run_rows(plain_spec(["x"], 1e-5), {"x": values}))]
    assert 1 <= len(found) <= math.log2(rows / LEARN_VALUES) + 1
    apart = np.diff(found)
    assert np.all(apart > LEARN_VALUES * 2 ** np.arange(1, len(found)))


def test_a_level_that_held_is_learned_from_as_few_values_as_the_first() -> None:
    held = 2 * LEARN_VALUES * (HELD_TIMES + 2)
    parts = ((500, 0.0), (3_000, 1.0), (held + 2_000, 2.0), (2_000, 1.0), (1_500, 2.0))
    values = levels_of(np.random.default_rng(11), *parts)
    found = run_rows(plain_spec(["x"], 1e-5), {"x": values})
    starts = LEARN + np.cumsum([n for n, _ in parts])
    numbers = [(s.again.number, int(np.searchsorted(starts, row, side="right"))) for row, s in changed_again(found) if s.again]
    # The second is learned from 2,000 values; it held, and so the third from 1,000: the fourth, 2,000 rows later, is found.
    assert numbers == [(2, 2), (3, 3), (4, 4)]


def mixed_stream() -> tuple[PanelSpec, PanelRows]:
    """A value, a rate and segments; changes, further changes, recoveries."""
    g = np.random.default_rng(12)
    parts = [(1_500, 0.0, 0.1), (1_900, 1.0, 0.3), (900, 2.0, 0.7), (900, 0.0, 0.1), (1_700, 1.5, 0.5), (700, -1.0, 0.1)]
    x = np.concatenate([g.normal(m, 1.0, n) for n, m, _ in parts])
    x[g.random(len(x)) < 0.05] = np.nan
    flags = zeros_and_ones(g, *((n, rate) for n, _, rate in parts))
    shops = g.choice(3, len(x), p=[0.6, 0.3, 0.1]).astype(np.int32)
    rows = replace(plain_rows({"x": x, "flagged": flags}), segments={"shop": (shops, ["a", "b", "c"])})
    value = Column("x", "numeric", (series("x", None, "psi", "e_detector"), series("x:missing", "missing", "e_detector")))
    columns = (value, *(rate_spec(1e-3, window=300).columns or ()))
    return replace(rate_spec(1e-3, learn=1_000, window=300), columns=columns, segments={"shop": 2}), rows


SPEC, ROWS = mixed_stream()
CLOCK = np.arange(ROWS.n)
WHOLE = Panel(SPEC)
EXPECTED = feed(WHOLE, ROWS, [], CLOCK)


def test_the_stream_of_these_tests_has_all_that_may_go_wrong() -> None:
    again = {(s.series, s.scope) for _, s in EXPECTED if s.again is not None}
    assert {name for name, _ in again} == {"x", "flagged"}
    assert len({scope for _, scope in again}) > 1
    assert sum(s.kind == "recovery" for _, s in EXPECTED) > 3


@settings(deadline=None, max_examples=12)
@given(st.lists(st.integers(1, ROWS.n - 1), max_size=40, unique=True))
def test_any_cut_of_the_stream_gives_the_same_signals_and_the_same_bytes(cuts: list[int]) -> None:
    cut = Panel(SPEC)
    assert feed(cut, ROWS, cuts, CLOCK) == EXPECTED
    assert cut.export() == _exported()


def _exported() -> Any:
    panel = Panel(SPEC)
    feed(panel, ROWS, [], CLOCK)
    return panel.export()


def test_a_panel_that_is_written_and_read_at_every_turn_is_one_that_never_stopped() -> None:
    """Before and after each signal, and in steps of 97 rows: while a reference gathers its edges, counts and judges."""
    stops = {row + step for row, _ in EXPECTED for step in (0, 1, 2)} | set(range(97, ROWS.n, 97))
    panel, store, found, start = Panel(SPEC), Store(), [], 0
    for stop in [*sorted(stop for stop in stops if 0 < stop < ROWS.n), ROWS.n]:
        found += [(start + s.row, replace(s, row=0)) for s in panel.update(ROWS.slice(start, stop), CLOCK[start:stop])]
        store.take(panel)
        panel, start = store.load(SPEC), stop
    assert found == EXPECTED


def test_an_edit_beside_it_keeps_the_reference_since_the_change() -> None:
    at = next(row for row, s in EXPECTED if s.again is not None and s.scope == 0) - 300
    panel, store = Panel(SPEC), Store()
    feed(panel, ROWS.slice(0, at), [], CLOCK[:at])
    store.take(panel)
    other = replace(SPEC, window=2_000)
    store.take(store.load(other))
    edited = store.load(other)
    rest = feed(edited, ROWS.slice(at, ROWS.n), [], CLOCK[at:])
    assert [(row + at, s.again) for row, s in rest if s.again is not None] == [
        (row, s.again) for row, s in EXPECTED if s.again and row >= at
    ]


def budget_of(panel: Panel) -> Any:
    assert panel._watch is not None
    assert panel._watch.budget is not None
    return panel._watch.budget


def test_an_edit_of_what_is_tolerated_learns_anew() -> None:
    values = levels_of(np.random.default_rng(13), (500, 0.0), (3_000, 1.0))
    rows = plain_rows({"x": values})
    panel, store = Panel(plain_spec(["x"], 1e-5)), Store()
    feed(panel, rows, [], np.arange(rows.n))
    assert budget_of(panel).post_change.codes(0).sum() > 2_000
    store.take(panel)
    spec = plain_spec(["x"], 1e-5)
    column = (spec.columns or ())[0]
    louder = replace(spec, columns=(replace(column, series=(replace(column.series[0], warning=0.2),)),))
    after = budget_of(store.load(louder)).post_change
    assert after.follows(0)
    assert after.codes(0).sum() == 0


def test_a_series_that_is_over_has_no_state_of_it_and_an_older_release_reads_it() -> None:
    values = levels_of(np.random.default_rng(14), (500, 0.0), (2_000, 1.0), (1_500, 0.0))
    rows = plain_rows({"x": values})
    panel = Panel(plain_spec(["x"], 1e-5))
    before = len(feed(panel, rows.slice(0, LEARN + 500), [], np.arange(LEARN + 500)))
    quiet = budget_of(panel).export(0)
    feed(panel, rows.slice(LEARN + 500, LEARN + 2_400), [], np.arange(LEARN + 500, LEARN + 2_400))
    opened = budget_of(panel).export(0)
    feed(panel, rows.slice(LEARN + 2_400, rows.n), [], np.arange(LEARN + 2_400, rows.n))
    assert before == 1
    assert [int(blob[4]) for blob in (quiet, opened, budget_of(panel).export(0))] == [2, 3, 2]
    assert len(opened) < 4_096
    assert not budget_of(panel).post_change.follows(0)


def test_an_open_episode_of_an_older_state_begins_to_learn() -> None:
    at, second = LEARN + 1_500, LEARN + 500 + 4_000
    values = levels_of(np.random.default_rng(15), (500, 0.0), (4_000, 1.0), (1_000, 2.0))
    rows, spec = plain_rows({"x": values}), plain_spec(["x"], 1e-5)
    panel, store = Panel(spec), Store()
    feed(panel, rows.slice(0, at), [], np.arange(at))
    held = budget_of(panel)
    # What the release before wrote of this moment.
    for monitor in held.post_change.monitors.tolist():
        held.post_change.release(monitor)
    store.take(panel)
    later = store.load(spec)
    assert budget_of(later).post_change.follows(0)
    found = feed(later, rows.slice(at, rows.n), [], np.arange(at, rows.n))
    assert [row + at > second for row, s in found if s.again is not None] == [True]


def segment_that_changed() -> tuple[PanelSpec, PanelRows]:
    """Of two shops one has changed, and of all rows nothing is watched."""
    spec = replace(plain_spec(["x"], 1e-4), segments={"shop": 2}, whole=False, stale_ms=60_000)
    values = levels_of(np.random.default_rng(17), (500, 0.0), (6_000, 0.0))
    shops = (np.arange(len(values)) % 2).astype(np.int32)
    values[LEARN + 500 :] += 1.5 * shops[LEARN + 500 :]
    return spec, replace(plain_rows({"x": values}), segments={"shop": (shops, ["a", "b"])})


def test_an_episode_that_ends_for_want_of_rows_leaves_a_state_that_can_be_read() -> None:
    """The sum over all series stands with the first scope, which has no rows then."""
    spec, rows = segment_that_changed()
    panel, store = Panel(spec), Store()
    feed(panel, rows, [], np.arange(rows.n))
    assert len(budget_of(panel).post_change.monitors) == 1
    store.take(panel)
    assert panel.expire(rows.n + 120_000)
    assert not len(budget_of(panel).post_change.monitors)
    store.take(panel)
    assert not len(budget_of(store.load(spec)).post_change.monitors)


def test_a_segment_of_an_older_state_is_written_with_the_sum_over_all() -> None:
    spec, rows = segment_that_changed()
    panel, store = Panel(spec), Store()
    feed(panel, rows, [], np.arange(rows.n))
    # What the release before wrote of this moment: nothing is followed, and the evidence is there.
    held = budget_of(panel)
    (monitor,), state = held.post_change.monitors.tolist(), held._bank.state
    own = [array[monitor].copy() for array in state[:8]]
    held.post_change.release(monitor)
    for array, kept in zip(state[:8], own, strict=True):
        array[monitor] = kept
    assert state.evidence[monitor] > 0
    state.sums[0] = state.evidence.sum()
    assert panel._watch is not None
    panel._watch.write_all()
    store.take(panel)
    later = store.load(spec)
    only_a = rows.take(np.flatnonzero(rows.segments["shop"][0] == 0)[-50:])
    later.update(only_a)
    store.take(later)
    store.load(spec)


@pytest.mark.parametrize("damage", ["codes", "judged", "share", "place", "length", "edges", "learn", "changes", "wrapped"])
def test_a_damaged_reference_is_refused(damage: str) -> None:
    values = levels_of(np.random.default_rng(16), (500, 0.0), (2_000, 1.0))
    rows, spec = plain_rows({"x": values}), plain_spec(["x"], 1e-5)
    panel, store = Panel(spec), Store()
    feed(panel, rows, [], np.arange(rows.n))
    f = budget_of(panel)._bank.followed
    if damage == "codes":
        f.codes[0, 3] += 1
    elif damage == "judged":
        f.judged[0] = f.taken[0] + 1
    elif damage == "share":
        f.share[0] = 0.5
    elif damage == "place":
        f.monitor[0] = 0
        f.counting[0] = 2
    elif damage == "length":
        f.counts[0, 0] = -1
    elif damage == "learn":
        f.learn[0] = 2**62
    elif damage == "changes":
        f.changes[0] = 2**31 - 1
    elif damage == "wrapped":
        f.codes[0, :4] += 2**62
    else:
        f.room[0, 1] = f.room[0, 0]
    store.take(panel)
    with pytest.raises(StateError):
        store.load(spec)


def test_scores_since_a_change_are_ranks_by_a_plain_loop() -> None:
    values = np.random.default_rng(17).lognormal(size=3_000)
    panel = Panel(plain_spec(["x"], 1e-5))
    panel.update(plain_rows({"x": np.random.default_rng(18).normal(size=LEARN)}), np.arange(LEARN))
    budget = budget_of(panel)
    budget.post_change.follow(0)
    rows = plain_rows({"x": values})
    assert panel._watch is not None
    codes, numbers = panel._watch.coder.encode(rows)
    scores, bank = np.zeros(len(values)), budget._bank
    keys = position_keys(rows.source.astype(np.uint64), rows.offset)
    follow_all(np.zeros(len(values)), bank.followed, Rows(codes[:, None, :], numbers, keys, np.zeros((0, 0), np.int16)), bank.bets, scores)
    edges = np.unique(np.quantile(values[:EDGE_VALUES], np.arange(1, BINS) / BINS, method="inverted_cdf"))
    bins = np.searchsorted(edges, values, side="left")
    tie = np.zeros(len(values))
    fill_uniform(position_keys(rows.source.astype(np.uint64), rows.offset), np.uint64(series_key("/x")) ^ _SALT, tie)
    counts = np.zeros(BINS)
    expected = np.full(len(values), -np.inf)
    for i in range(EDGE_VALUES, len(values)):
        p = (counts[: bins[i]].sum() + tie[i] * (counts[bins[i]] + 1)) / (counts.sum() + 1)
        counts[bins[i]] += 1
        if i >= LEARN_VALUES:
            expected[i] = stats.norm.ppf(p)
    assert np.array_equal(np.isfinite(scores), np.isfinite(expected))
    np.testing.assert_allclose(scores[LEARN_VALUES:], expected[LEARN_VALUES:], atol=1e-12)
