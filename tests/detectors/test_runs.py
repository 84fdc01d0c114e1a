"""Categories that come in runs: the judged values are independent draws, which references show runs, and what a panel makes of them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from driftline.detectors.baseline import Baseline
from driftline.detectors.conformal import series_key
from driftline.detectors.kernels.jit import kernel
from driftline.detectors.kernels.portable import position_keys
from driftline.detectors.kernels.projection import draw_factor
from driftline.detectors.kernels.runs import DRAW_SALT
from driftline.detectors.kernels.shares import Bins, bet_again, new_shares
from driftline.detectors.panel import Panel
from driftline.detectors.runs import SHARE_MOST, draw_shares
from driftline.detectors.runs_fit import draws_of
from driftline.detectors.spec import BaselineError, PanelRows, StateError
from tests.detectors.test_panel_state import Store, restarted
from tests.detectors.test_portable import fill_uniform
from tests.detectors.test_shares import SHARES, moved, rows_of, run, spec

Array = np.ndarray[Any, Any]
LEARN = 4_000


def uneven(g: np.random.Generator, law: Array, n: int, least: int = 2, most: int = 5) -> Array:
    times = g.integers(least, most + 1, n // least + 1)
    return np.repeat(g.choice(len(law), len(times), p=law), times)[:n]


def by_category(g: np.random.Generator, law: Array, n: int) -> Array:
    """Runs of some categories are three times as long as those of others."""
    drawn = g.choice(len(law), n, p=law)
    return np.repeat(drawn, g.geometric(1.0 / (2.0 + 2.0 * (drawn % 3))))[:n]


def stays(g: np.random.Generator, law: Array, n: int, chance: float = 0.5) -> Array:
    begins = np.where(g.random(n) < chance, 0, np.arange(n))
    return np.asarray(g.choice(len(law), n, p=law)[np.maximum.accumulate(begins)])


def ordered(g: np.random.Generator, law: Array, n: int) -> Array:
    """Each value is near the one before it, in an order of the values."""
    normal = np.empty(n)
    normal[0] = g.normal()
    noise = g.normal(size=n) * 0.8
    for i in range(1, n):
        normal[i] = 0.6 * normal[i - 1] + noise[i]
    return np.asarray(np.minimum(np.searchsorted(np.cumsum(law), stats.norm.cdf(normal)), len(law) - 1))


def changes_of(values: Array, size: int) -> Array:
    out = np.zeros((size, size), np.int64)
    differ = values[1:] != values[:-1]
    np.add.at(out, (values[:-1][differ], values[1:][differ]), 1)
    return out


def baseline_of(values: Array) -> Baseline:
    panel = Panel(spec(learn=len(values)))
    panel.update(rows_of(values))
    assert panel.baseline is not None
    return panel.baseline


laws = st.lists(st.floats(0.05, 1.0), min_size=3, max_size=12).map(lambda found: np.array(found) / math.fsum(found))


@given(laws)
def test_shares_of_draws_are_those_whose_runs_are_in_proportion(share: Array) -> None:
    runs = np.rint(1e9 * share * (1.0 - share)).astype(int).tolist()
    found = draw_shares(runs)
    if share.max() > SHARE_MOST + 1e-6:
        assert found is None
    elif share.max() < SHARE_MOST - 1e-6:
        assert found == pytest.approx(share, abs=1e-6)


def test_shares_of_draws_are_the_likeliest_for_the_transitions() -> None:
    changes = changes_of(uneven(np.random.default_rng(1), SHARES, 20_000), len(SHARES))
    arrived, left = changes.sum(axis=0), changes.sum(axis=1)

    def loss(logits: Array) -> float:
        share = np.exp(logits) / np.exp(logits).sum()
        return float(-(arrived @ np.log(share) - left @ np.log1p(-share)))

    best = optimize.minimize(loss, np.log(SHARES), method="BFGS")
    found = draw_shares(arrived.tolist())
    # The last run of the values is not left and the first not arrived at.
    assert found == pytest.approx(np.exp(best.x) / np.exp(best.x).sum(), abs=2e-4)


@kernel
def fill_factors(q: Array, root: Array, a: int, c: float, out: Array) -> None:
    for b in range(len(q)):
        if b != a:
            out[b] = draw_factor(q, root, len(q), a, b, c)


@settings(deadline=None, max_examples=80)
@given(laws, laws, st.sampled_from([0.05, 0.1, 0.4]), st.integers(0, 10**6))
def test_no_draws_within_the_tolerance_give_a_factor_a_mean_above_one_whatever_came_before(r: Array, q: Array, d: float, seed: int) -> None:
    """By random laws on the edge of what is tolerated, and by the worst one that an optimiser finds from each of them."""
    n = min(len(r), len(q))
    r, q = r[:n] / r[:n].sum(), q[:n] / q[:n].sum()
    g, c, root = np.random.default_rng(seed), 1.0 - d / 8.0, np.sqrt(r)

    def law(side: Array) -> Array:
        side = side - side @ root * root
        return np.asarray((c * root + math.sqrt(1.0 - c * c) * side / np.linalg.norm(side)) ** 2)

    for a in range(n):
        factors, others = np.zeros(n), np.arange(n) != a
        fill_factors(q, root, a, c, factors)

        def loss(side: Array, a: int = a, others: Array = others, factors: Array = factors) -> float:
            p = law(side)
            return -float((p[others] * factors[others]).sum() / (1.0 - p[a]))

        start = g.normal(size=n)
        assert loss(start) >= -1.0 - 1e-9
        assert optimize.minimize(loss, start, method="Nelder-Mead", options={"maxiter": 150}).fun >= -1.0 - 1e-9


def test_the_shares_that_a_witness_expects_are_those_of_draws() -> None:
    """What it remembers are values that differ from those before them; what it bets on are draws."""
    share = np.array([0.4, 0.3, 0.2, 0.1])
    seen = 1e6 * share * (1.0 - share)
    edges = stats.norm.ppf(np.cumsum(np.full(4, 0.25))[:-1])
    sh = new_shares(1, {0: Bins(edges.tolist(), [0.25] * 4, 0.02, [0, 1, 2, 3, *[0] * 60])})
    sh.mass[0, :, :4], sh.taken[0] = seen, seen.sum()
    bet_again(0, True, sh)
    assert sh.active.all()
    assert sh.factors[0, :, :4] == pytest.approx(np.tile(share, (3, 1)), abs=1e-4)


@pytest.mark.parametrize("draw", [uneven, stays, by_category], ids=["2 to 5", "stays with a chance of one half", "length by category"])
def test_what_is_judged_is_independent_of_the_values_before_and_has_the_shares_of_the_draws(draw: Any) -> None:
    values = draw(np.random.default_rng(2), SHARES, 60_000)
    panel = Panel(spec(1e-9, learn=20_000))
    panel.update(rows_of(values).slice(0, 20_000))
    assert panel._watch is not None
    assert panel._watch.budget is not None
    rows = rows_of(values).slice(20_000, 60_000)
    codes, numbers = panel._watch.coder.encode(rows)
    found, _ = panel._watch.budget._scores.update(codes, numbers, np.zeros((rows.n, 1), np.int32), rows)
    uniform = stats.norm.cdf(found[np.isfinite(found[:, 0]), 0])
    assert 0.15 * rows.n < len(uniform) < 0.6 * rows.n
    # Pairs of neighbours over a grid: uniform together, up to the errors of the reference.
    grid = np.histogram2d(uniform[:-1:2], uniform[1::2], bins=8)[0]
    expected = grid.sum() / grid.size
    assert ((grid - expected) ** 2 / expected).sum() < stats.chi2.ppf(0.999, grid.size - 1) * 1.3


def test_scores_are_those_of_a_plain_loop_and_rows_without_a_value_are_stepped_over() -> None:
    g = np.random.default_rng(3)
    values = np.where(g.random(6_000) < 0.1, -1, uneven(g, SHARES, 6_000))
    whole = rows_of(values)
    panel = Panel(spec(1e-9, learn=5_000))
    panel.update(whole.slice(0, 5_000))
    assert panel._watch is not None
    assert panel._watch.budget is not None
    assert panel.baseline is not None
    rows = whole.slice(5_000, 6_000)
    codes, numbers = panel._watch.coder.encode(rows)
    found, _ = panel._watch.budget._scores.update(codes, numbers, np.zeros((1_000, 1), np.int32), rows)
    runs = np.array(panel.baseline.memory[0, 0].runs)
    share = draw_shares(runs.tolist())
    assert share is not None
    # What was never seen has the room of the categories that began one run.
    draws = share * runs.sum()
    draws[-1] += (runs[:-2] == 1).sum()
    tie, instead = np.empty((2, 1_000))
    keys, own = position_keys(rows.source.astype(np.uint64), rows.offset), np.uint64(series_key("/feature:kind"))
    fill_uniform(keys, own, tie)
    fill_uniform(keys, own ^ DRAW_SALT, instead)
    before = None
    for i, code in enumerate(codes[:, 0].tolist()):
        expected = math.nan
        if code < len(SHARES):
            if before is not None and code != before:
                b = before if instead[i] < draws[before] / (draws.sum() + 1) else code
                expected = float(stats.norm.ppf((draws[:b].sum() + tie[i] * (draws[b] + 1)) / (draws.sum() + 1)))
            before = code
        assert found[i, 0] == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert np.isfinite(found).sum() > 150


@pytest.mark.parametrize("draw", [uneven, stays, by_category], ids=["2 to 5", "stays with a chance of one half", "length by category"])
def test_a_reference_in_runs_is_known_as_such_and_leaves_nothing_to_suspend(draw: Any) -> None:
    found = [baseline_of(draw(np.random.default_rng(seed), SHARES, LEARN)) for seed in range(6)]
    assert [bool(one.memory[0, 0].runs) and not one.dependence for one in found] == [True] * 6


def test_what_has_an_order_or_one_value_that_is_most_or_two_only_is_no_run_of_draws() -> None:
    for seed in range(4):
        g = np.random.default_rng(seed)
        assert not baseline_of(ordered(g, SHARES, LEARN)).memory[0, 0].runs
        assert not baseline_of(uneven(g, np.array([0.6, 0.2, 0.1, 0.1]), LEARN)).memory[0, 0].runs
        assert not baseline_of(uneven(g, np.array([0.5, 0.5]), LEARN)).memory[0, 0].runs
        # Each value is drawn from the three after the one before it, in runs.
        after = (np.cumsum(g.integers(1, 4, LEARN)) % 10)[: LEARN // 3]
        assert draws_of(changes_of(np.repeat(after, 3), 10)) is None


def test_runs_are_kept_in_the_file_and_those_that_no_reference_gives_are_refused() -> None:
    built = baseline_of(uneven(np.random.default_rng(4), SHARES, LEARN))
    again = Baseline.from_json(built.to_json())
    assert (again.memory, again.id) == (built.memory, built.id)
    whole = json.loads(built.to_json())
    assert whole["version"] == 6
    runs = whole["body"]["memory"][0]["runs"]
    for damage in (runs[:-1], [-1, *runs[1:]], [10**6, *runs[1:]], [0] * len(runs)):
        body = json.loads(json.dumps(whole["body"]))
        body["memory"][0]["runs"] = damage
        with pytest.raises(BaselineError, match="damaged"):
            Baseline.from_json(json.dumps({**whole, "body": body}))
    # A baseline of the release before, which had residuals of the same values, goes on as it was.
    older = replace(built, memory={place: replace(memory, runs=()) for place, memory in built.memory.items()})
    assert json.loads(older.to_json())["version"] == 2


@pytest.mark.parametrize("draw", [uneven, stays, by_category], ids=["2 to 5", "stays with a chance of one half", "length by category"])
def test_a_change_of_draws_is_found_named_and_dated_and_one_that_is_tolerated_is_not(draw: Any) -> None:
    g = np.random.default_rng(21)
    assert run(np.concatenate([draw(g, SHARES, LEARN), draw(g, SHARES, 20_000), draw(g, moved(6, 0.13), 20_000)])) == []
    at = LEARN + 2_000
    first = run(np.concatenate([draw(g, SHARES, at), draw(g, moved(6, 0.4), 4_000)]))[0]
    assert at < first.row < at + 2_000
    assert first.bins[0].bin == "v6"
    assert first.suspended is None
    assert first.since is not None
    assert abs(first.since.offset - at) <= 200


def test_runs_that_are_longer_are_no_change() -> None:
    g = np.random.default_rng(5)
    assert run(np.concatenate([uneven(g, SHARES, LEARN), uneven(g, SHARES, 30_000, 4, 12)])) == []


def test_a_second_change_of_draws_is_found_while_the_first_is_open() -> None:
    g = np.random.default_rng(6)
    first, second = LEARN + 2_000, LEARN + 22_000
    found = run(np.concatenate([uneven(g, SHARES, first), uneven(g, moved(6, 0.4), 20_000), uneven(g, moved(3, 0.5), 8_000)]))
    again = [s for s in found if s.again is not None]
    assert found[0].row < second < again[0].row < second + 3_000
    assert again[0].bins[0].bin == "v3"


def changing() -> PanelRows:
    g = np.random.default_rng(7)
    parts = [uneven(g, SHARES, 6_000), uneven(g, moved(6, 0.4), 8_000), uneven(g, moved(3, 0.5), 4_000), uneven(g, SHARES, 4_000)]
    whole = np.where(g.random(22_000) < 0.05, -1, np.concatenate(parts))
    shops = (np.repeat(g.integers(0, 3, 22), 1_000).astype(np.int32), ["a", "b", "c"])
    return replace(rows_of(whole), segments={"shop": shops})


ROWS, OWN = changing(), replace(spec(1e-3, window=500), segments={"shop": 2})


@settings(deadline=None, max_examples=8)
@given(st.lists(st.integers(1, ROWS.n - 1), max_size=12, unique=True))
def test_cuts_and_restarts_do_not_show(cuts: list[int]) -> None:
    whole = Panel(OWN)
    expected = [(s.row, replace(s, row=0)) for s in whole.update(ROWS)]
    assert whole.baseline is not None
    assert sum(bool(memory.runs) for memory in whole.baseline.memory.values()) > 1
    assert any(s.detector == "e_detector" for _, s in expected)
    found, store = restarted(OWN, ROWS, cuts)
    assert found == expected
    assert store.blobs["scope/0"] == whole.export()[0]["scope/0"]


@pytest.mark.parametrize("value", [-1.0, 64.0, 2.5, math.nan])
def test_a_value_before_that_no_series_has_is_refused(value: float) -> None:
    panel, store = Panel(OWN), Store()
    panel.update(ROWS.slice(0, 6_000))
    assert panel._watch is not None
    assert panel._watch.budget is not None
    panel._watch.budget._scores.memory.past[0, 0] = value
    store.take(panel)
    with pytest.raises(StateError, match="values that no series has"):
        store.load(OWN)
