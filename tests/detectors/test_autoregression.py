"""Values with a memory: orders and residuals against plain formulas, and a panel that keeps its budget on them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, signal, stats

from driftline.detectors.autoregression import ORDER_MOST, Autoregression, worth_one
from driftline.detectors.autoregression_fit import VALUES_MIN
from driftline.detectors.baseline import Baseline
from driftline.detectors.baseline_build import BaselineBuilder
from driftline.detectors.budget import AlarmBudget
from driftline.detectors.conformal import series_key
from driftline.detectors.kernels.autoregression import fit_order
from driftline.detectors.kernels.portable import position_keys
from driftline.detectors.panel import Panel
from driftline.detectors.spec import BaselineError, Column, PanelBudget, PanelRows, PanelSpec, Signal, StateError
from tests.detectors.panel_cases import plain_rows, series
from tests.detectors.test_panel_state import Store, restarted
from tests.detectors.test_portable import fill_uniform

Values = np.ndarray


def autoregressive(seed: int, n: int, *phi: float, scale: float = 1.0) -> Values:
    """A Gaussian process of variance about `scale` squared, past its beginning."""
    noise = np.random.default_rng(seed).normal(size=n + 2_000)
    values = signal.lfilter([1.0], [1.0, *(-p for p in phi)], noise)[2_000:]
    return np.asarray(scale * values / values.std())


def spec(names: list[str], per_unit: float, *, learn: int = 2_000, segments: dict[str, int] | None = None) -> PanelSpec:
    columns = tuple(Column(name, "numeric", (series(name, None, "e_detector", warning=0.1),)) for name in names)
    budget = PanelBudget(per_unit, True, 1.0 / (168 * per_unit))
    return PanelSpec(columns=columns, segments=segments or {}, window=200, learn_rows=learn, budget=budget)


def baseline_of(rows: PanelRows, names: list[str], *, exact_rows: int = 1_000_000) -> Baseline:
    columns = [Column(name, "numeric", (series(name, None, "e_detector"),)) for name in names]
    builder = BaselineBuilder(columns, {}, exact_rows=exact_rows)
    builder.add(rows)
    return builder.finish()


def opens(panel: Panel, values: Values, first: int = 0) -> int:
    rows = plain_rows({"x": values})
    return sum(s.kind == "open" for s in panel.update(replace(rows, offset=rows.offset + first)))


@pytest.mark.parametrize("phi", [(0.5,), (0.8,), (-0.5,), (0.2, 0.5), (0.0, 0.0, 0.4)])
def test_order_and_coefficients_are_those_of_the_yule_walker_equations_and_the_criterion(phi: tuple[float, ...]) -> None:
    x = autoregressive(1, 4_000, *phi)
    products = np.array([float(x[k:] @ x[: len(x) - k]) for k in range(ORDER_MOST + 1)])
    found, trial = np.zeros(ORDER_MOST), np.zeros(ORDER_MOST)
    order = fit_order(products, len(x), 0.0, found, trial)
    criteria, solved = [0.0], [np.zeros(0)]
    for p in range(1, ORDER_MOST + 1):
        solved.append(linalg.solve_toeplitz(products[:p], products[1 : p + 1]))
        variance = products[0] - solved[p] @ products[1 : p + 1]
        criteria.append(len(x) * math.log(variance / products[0]) + p * math.log(len(x)))
    assert order == int(np.argmin(criteria)) >= len(phi)
    np.testing.assert_allclose(found[:order], solved[order], rtol=1e-9, atol=1e-12)
    assert not found[order:].any()


def test_independent_values_have_no_memory_but_for_one_fit_in_a_hundred() -> None:
    names = [f"f{k}" for k in range(200)]
    generator = np.random.default_rng(2)
    laws = (generator.normal, generator.standard_exponential, generator.standard_cauchy, generator.random)
    rows = plain_rows({name: laws[k % 4](size=2_000) for k, name in enumerate(names)})
    # one in 170 by the chi-squared law of the first coefficient, P(chi2_1 > ln 2,000); 3 sd above it
    assert len(baseline_of(rows, names).memory) <= 5


def test_a_memory_is_kept_in_the_file_and_one_that_was_tampered_with_is_refused() -> None:
    rows = plain_rows({"x": autoregressive(3, 3_000, 0.6), "y": np.random.default_rng(3).normal(size=3_000)})
    built = baseline_of(rows, ["x", "y"])
    assert list(built.memory) == [(0, 0)]
    again = Baseline.from_json(built.to_json())
    assert (again.memory, again.id) == (built.memory, built.id)
    whole = json.loads(built.to_json())
    assert whole["version"] == 2
    # without a memory the file is one that earlier releases read, and its id is theirs
    assert json.loads(replace(built, memory={}).to_json())["version"] == 1
    for damage in ({"scope": 7}, {"coefficients": [0.1] * 9}, {"sd": 0.0}, {"edges": [1.0, 1.0]}, {"counts": [-1]}):
        body = json.loads(json.dumps(whole["body"]))
        body["memory"][0] |= damage
        with pytest.raises(BaselineError, match="damaged"):
            Baseline.from_json(json.dumps({**whole, "body": body}))


def test_a_reference_that_was_thinned_has_the_memory_of_its_first_rows_in_order() -> None:
    rows = plain_rows({"x": autoregressive(4, 9_000, 0.6)})
    whole, thinned = baseline_of(rows, ["x"]), baseline_of(rows, ["x"], exact_rows=6_000)
    assert thinned.thinning == 2
    # every second row has a correlation of .36
    assert thinned.memory[0, 0].coefficients[0] == pytest.approx(whole.memory[0, 0].coefficients[0], abs=0.02)
    assert whole.memory[0, 0].coefficients[0] == pytest.approx(0.6, abs=0.05)


def test_the_memory_of_a_reference_that_is_thinned_is_that_of_the_same_rows_however_it_is_cut() -> None:
    rows = plain_rows({"x": autoregressive(4, 3_000, 0.6)})
    found = set()
    for cuts in ([], [700], [599, 601, 1_350], list(range(100, 3_000, 100))):
        builder = BaselineBuilder([Column("x", "numeric", (series("x", None, "e_detector"),))], {}, exact_rows=600)
        for a, b in zip([0, *cuts], [*cuts, 3_000], strict=True):
            builder.add(rows.slice(a, b))
        baseline = builder.finish()
        assert baseline.memory
        found.add(baseline.id)
    assert len(found) == 1


def test_scores_are_ranks_of_residuals_by_a_plain_loop_and_rows_without_a_value_are_stepped_over() -> None:
    values = autoregressive(5, 3_000, 0.5, 0.2)
    values[np.random.default_rng(5).random(3_000) < 0.1] = np.nan
    panel = Panel(spec(["x"], 1e-6, learn=2_000))
    panel.update(plain_rows({"x": values}).slice(0, 2_000))
    assert panel._watch is not None
    assert panel._watch.budget is not None
    rows = plain_rows({"x": values}).slice(2_000, 3_000)
    codes, numbers = panel._watch.coder.encode(rows)
    found, _ = panel._watch.budget._scores.update(codes, numbers, np.zeros((1_000, 1), np.int32), rows)
    memory, score = panel.baseline.memory[0, 0] if panel.baseline else None, panel._watch.tables.score[0, 0]
    assert memory is not None
    tie = np.empty(1_000)
    fill_uniform(position_keys(rows.source.astype(np.uint64), rows.offset), np.uint64(series_key("/x")), tie)
    weights = np.array(memory.counts, float)
    weights[[0, -1]] += 1
    past: list[float] = []
    for i, code in enumerate(codes[:, 0].tolist()):
        expected = math.nan
        if not math.isnan(score[code]):
            if len(past) >= len(memory.coefficients):
                e = score[code] - sum(phi * past[-k] for k, phi in enumerate(memory.coefficients, 1))
                b = sum(edge < e for edge in memory.edges)
                p = (weights[:b].sum() + tie[i] * (weights[b] + 1)) / (weights.sum() + 1)
                expected = float(stats.norm.ppf(p))
            past.append(score[code])
        assert found[i, 0] == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert np.isnan(found).sum() == np.isnan(values[2_000:]).sum() + len(memory.coefficients)


CLOSE = spec(["x", "y"], 1e-4, learn=1_000, segments={"shop": 2})


def close_stream() -> PanelRows:
    generator = np.random.default_rng(6)
    x = autoregressive(6, 4_000, 0.7)
    x[generator.random(4_000) < 0.05] = np.nan
    x[2_500:] += 1.0
    y = autoregressive(7, 4_000, 0.9)
    shops = (np.repeat(generator.integers(0, 3, 80), 50).astype(np.int32), ["a", "b", "c"])
    return replace(plain_rows({"x": x, "y": y}), segments={"shop": shops})


STREAM = close_stream()


def feed(panel: Panel, rows: PanelRows, cuts: list[int]) -> list[tuple[int, Signal]]:
    out = []
    for a, b in zip([0, *cuts], [*cuts, rows.n], strict=True):
        out += [(a + s.row, replace(s, row=0)) for s in panel.update(rows.slice(a, b))]
    return out


@settings(deadline=None, max_examples=8)
@given(st.lists(st.integers(1, STREAM.n - 1), max_size=12, unique=True))
def test_cuts_and_restarts_never_show(cuts: list[int]) -> None:
    whole = Panel(CLOSE)
    expected = feed(whole, STREAM, [])
    assert whole.baseline is not None
    assert len(whole.baseline.memory) > 3
    assert any(s.detector == "e_detector" for _, s in expected)
    found, store = restarted(CLOSE, STREAM, cuts)
    assert found == expected
    assert store.blobs["scope/0"] == whole.export()[0]["scope/0"]


def test_an_edit_keeps_what_a_series_remembers() -> None:
    panel, store = Panel(CLOSE), Store()
    feed(panel, STREAM.slice(0, 2_000), [])
    store.take(panel)
    edited = replace(CLOSE, columns=(CLOSE.columns or ())[::-1])
    after = store.load(edited)
    rest = STREAM.slice(2_000, STREAM.n)
    told, expected = (
        # The evidence of all monitors is summed in their order, which the edit has turned round.
        sorted((row, s.series, s.kind, s.scope, round(s.statistic or 0.0, 9)) for row, s in feed(one, rest, []))
        for one in (after, panel)
    )
    assert told == expected
    assert told


def test_remembered_values_that_no_series_has_are_refused() -> None:
    panel, store = Panel(CLOSE), Store()
    feed(panel, STREAM.slice(0, 2_000), [])
    assert panel._watch is not None
    assert panel._watch.budget is not None
    panel._watch.budget._scores.memory.seen[0] = 9
    store.take(panel)
    with pytest.raises(StateError, match="values that no series has"):
        store.load(CLOSE)


@pytest.mark.parametrize("phi", [0.3, 0.5, 0.8])
def test_episodes_on_values_with_a_memory_stay_within_the_budget(phi: float) -> None:
    """The same e-detector on the values as they come is the negative control."""
    budget, rows, runs = 1 / 10_000, 20_000, 12
    episodes = plain = 0
    for run in range(runs):
        values = autoregressive(100 + run, 2_000 + rows, phi)
        panel = Panel(spec(["x"], budget))
        episodes += opens(panel, values)
        assert panel.levels(0)[0].suspended is None
        plain += len(AlarmBudget(values[:2_000], per=1 / budget, frozen=True).update_many(values[2_000:]))
    expected = runs * rows * budget
    assert episodes <= expected + 3 * math.sqrt(expected)
    # .3 is nearly what the tolerance of a wider spread covers
    assert plain > (3 * expected if phi > 0.3 else 0)


def test_a_lasting_shift_within_the_tolerance_opens_nothing_and_one_beyond_it_does() -> None:
    values = autoregressive(8, 70_000, 0.5)
    small, large = values.copy(), values.copy()
    small[20_000:] += 0.06
    large[20_000:] += 0.6
    assert opens(Panel(spec(["x"], 1e-5, learn=20_000)), small) == 0
    assert opens(Panel(spec(["x"], 1e-5, learn=20_000)), large) > 0


def test_the_gain_is_the_shift_of_the_residuals() -> None:
    values = autoregressive(9, 50_000, 0.5, 0.2)
    memory = baseline_of(plain_rows({"x": values}), ["x"]).memory[0, 0]
    # of x_t = .5 x_{t-1} + .2 x_{t-2} + e: var x = var e (1 - .2) / ((1 + .2) ((1 - .2)^2 - .5^2))
    ratio = math.sqrt(0.8 / (1.2 * (0.64 - 0.25)))
    assert memory.gain == pytest.approx((1 - 0.7) * ratio, rel=0.05)
    assert memory.sd == pytest.approx(1 / ratio, rel=0.05)


def test_fewer_values_than_a_fit_needs_have_no_memory() -> None:
    values = autoregressive(10, VALUES_MIN - 1, 0.8)
    assert baseline_of(plain_rows({"x": values}), ["x"]).memory == {}
    assert isinstance(baseline_of(plain_rows({"x": autoregressive(10, VALUES_MIN, 0.8)}), ["x"]).memory[0, 0], Autoregression)


@given(seed=st.integers(0, 10_000), order=st.integers(5, 8))
@settings(max_examples=50, deadline=None)
def test_a_level_that_wanders_is_worth_what_its_last_correlation_says(seed: int, order: int) -> None:
    """Correlations of the impulse response; a level is one that has not forgotten half after more than half of the greatest order."""
    # a slow root, the others fast: an AR(1) level seen through noise has such a memory
    roots = np.r_[np.random.default_rng(seed).uniform(0.97, 0.99), np.random.default_rng(seed).uniform(-0.3, 0.3, order - 1)]
    coefficients = -np.poly(roots)[1:]
    response = signal.lfilter([1.0], np.r_[1.0, -coefficients], np.r_[1.0, np.zeros(5_999)])
    lags = np.array([response[: 6_000 - k] @ response[k:] for k in range(order + 1)]) / (response @ response)
    assert lags[-1] >= 0.5 * lags[1]
    sd = 1.0 / math.sqrt(response @ response)
    memory = Autoregression(tuple(coefficients.tolist()), sd, (0.0,), (1, 1))
    expected = min(max(1.0 / memory.gain**2, 1.0 + 100_000 * lags[-1]), 100_000.0)
    assert worth_one(memory, None, 100_000) == pytest.approx(expected, rel=1e-6)


def test_a_random_walk_is_one_level() -> None:
    memory = Autoregression((1.0, 0.0, 0.0, 0.0, 0.0), 1.0, (0.0,), (1, 1))
    assert worth_one(memory, None, 1_000) == 1_000.0
