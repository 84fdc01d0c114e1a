"""Pairs of columns: products against a plain loop, what a correlation's series finds and leaves alone, cuts, restarts and files."""

from __future__ import annotations

import bisect
import json
import math
from dataclasses import replace
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.detectors.baseline import Baseline
from driftline.detectors.baseline_build import BaselineBuilder
from driftline.detectors.coding import SCORE_MAX, RowCoder
from driftline.detectors.medians import correlation_of, median_of
from driftline.detectors.panel import Panel
from driftline.detectors.spec import (
    ABOVE,
    BELOW,
    N_CODES,
    NOT_APPLICABLE,
    BaselineError,
    Column,
    ColumnDetector,
    PanelBudget,
    PanelRows,
    PanelSpec,
    Signal,
    SpecError,
)
from tests.detectors.panel_cases import plain_rows, run, series, stream
from tests.detectors.test_panel_state import Store

PAIR = Column("correlation:a~b", "numeric", (series("correlation:a~b", None, "psi", "adwin"),), factors=("a", "b"))


def built(rows: PanelRows, *columns: Column, cuts: tuple[int, ...] = ()) -> Baseline:
    builder = BaselineBuilder(columns or (PAIR,), {})
    for first, last in pairwise((0, *cuts, rows.n)):
        builder.add(rows.slice(first, last))
    return builder.finish()


def plain_scores(values: np.ndarray, edges: list[float]) -> dict[int, float]:
    """Standardised normal scores of mid-ranks of the bins, by their definition; the codes beyond the range included."""
    present = [x for x in values.tolist() if not math.isnan(x)]
    finite = [x for x in present if math.isfinite(x)]
    low, high = min(finite), max(finite)

    def place(x: float) -> int:
        return -1 if x < low else len(edges) + 1 if x > high else bisect.bisect_left(edges, x)

    places = [place(x) for x in present]
    raw = {}
    for code in range(-1, len(edges) + 2):
        before, own = sum(p < code for p in places), sum(p == code for p in places)
        raw[code] = NormalDist().inv_cdf((before + own / 2 + 0.5) / (len(present) + 1))
    mean = sum(raw[p] for p in places) / len(places)
    sd = math.sqrt(sum((raw[p] - mean) ** 2 for p in places) / len(places)) or 1.0
    return {code: min(max((z - mean) / sd, -SCORE_MAX), SCORE_MAX) for code, z in raw.items()}


def odd_rows(seed: int, n: int) -> PanelRows:
    """Heavy tails, atoms, infinities, missing, invalid and inapplicable values."""
    g = np.random.default_rng(seed)
    a = g.standard_t(2, n)
    b = np.floor(np.exp(0.7 * a + g.normal(size=n)))
    a[g.random(n) < 0.05], b[g.random(n) < 0.1] = np.nan, np.nan
    a[:2], b[2:4] = np.inf, -np.inf
    wrong = np.flatnonzero(g.random(n) < 0.03)
    rows = plain_rows({"x": g.normal(size=n), "b": b, "a": a})
    invalid = np.column_stack([wrong, np.full(len(wrong), 1)]).astype(np.int32)
    return replace(rows, invalid=invalid, not_applicable={"a": g.random(n) < 0.04})


@pytest.mark.parametrize("n", [40, 3_000])
def test_a_product_is_that_of_a_plain_loop_and_none_where_either_value_is_not_there(n: int) -> None:
    rows = odd_rows(1, n)
    baseline = built(rows)
    live = odd_rows(2, 500)
    codes, values = RowCoder(baseline.columns).encode(live)
    reference = baseline.columns[0]
    assert [factor.name for factor in reference.factors] == ["a", "b"]
    tables, edges, ends = [], [], []
    for name, factor in zip(("a", "b"), reference.factors, strict=True):
        known = rows.numeric[:, list(rows.numeric_names).index(name)].copy()
        if name == "b":
            known[rows.invalid[:, 0]] = np.nan  # type: ignore[index]
        else:
            known[rows.not_applicable["a"]] = np.nan
        tables.append(plain_scores(known, list(factor.edges)))
        edges.append(list(factor.edges))
        ends.append((np.min(known[np.isfinite(known)]), np.max(known[np.isfinite(known)])))
    wrong = set(live.invalid[:, 0].tolist())  # type: ignore[index]
    seen = 0
    for row in range(live.n):
        pair = (live.numeric[row, 2], live.numeric[row, 1])
        if math.isnan(pair[0]) or math.isnan(pair[1]) or row in wrong or live.not_applicable["a"][row]:
            assert codes[row, 0] == NOT_APPLICABLE
            assert math.isnan(values[row, 0])
            continue
        product = 1.0
        for x, table, own, (low, high) in zip(pair, tables, edges, ends, strict=True):
            product *= table[-1 if x < low else len(own) + 1 if x > high else bisect.bisect_left(own, x)]
        assert values[row, 0] == pytest.approx(product, abs=1e-12)
        assert reference.low is not None
        assert reference.high is not None
        place = bisect.bisect_left(list(reference.edges), values[row, 0])
        assert codes[row, 0] == (BELOW if values[row, 0] < reference.low else ABOVE if values[row, 0] > reference.high else place)
        seen += 1
    assert 300 < seen < 480


def test_an_increasing_map_of_the_values_changes_nothing() -> None:
    g = np.random.default_rng(3)
    a = g.normal(size=2_000)
    b = 0.5 * a + g.normal(size=2_000)
    plain, mapped = built(plain_rows({"a": a, "b": b})), built(plain_rows({"a": np.exp(a), "b": b**3}))
    assert (plain.columns[0].edges, plain.columns[0].means) == (mapped.columns[0].edges, mapped.columns[0].means)
    assert np.array_equal(plain.counts, mapped.counts)


def test_the_mean_product_is_the_correlation() -> None:
    """Normal scores of normal values are the values: Pearson's correlation but for what 60 bins leave out."""
    g = np.random.default_rng(4)
    for rho in (-0.8, 0.0, 0.5, 0.9):
        a = g.normal(size=50_000)
        b = rho * a + math.sqrt(1 - rho * rho) * g.normal(size=50_000)
        baseline = built(plain_rows({"a": a, "b": b}))
        assert baseline.columns[0].mean == pytest.approx(rho, abs=0.02)
        assert correlation_of(baseline.counts[0, 0], baseline.columns[0]) == pytest.approx(rho, abs=0.02)
        after = 0.3 * a + math.sqrt(1 - 0.09) * g.normal(size=50_000)
        codes, values = RowCoder(baseline.columns).encode(plain_rows({"a": a, "b": after}))
        told = correlation_of(np.bincount(codes[:, 0], minlength=N_CODES), baseline.columns[0])
        assert values.mean() == pytest.approx(0.3, abs=0.02)
        # The outer bins' own means have moved, most where the sign is another one.
        assert told is not None
        assert (0.8 if rho < 0 else 0.85) < (told - rho) / (0.3 - rho) < 1.05
        assert median_of(baseline.counts[0, 0], baseline.columns[0]) is None


def test_other_columns_have_no_correlation_and_a_pair_without_values_none() -> None:
    baseline = built(plain_rows({"a": [1.0, 2.0], "b": [math.nan, math.nan]}), Column("a", "numeric"), PAIR)
    assert [correlation_of(baseline.counts[0, c], column) for c, column in enumerate(baseline.columns)] == [None, None]
    assert correlation_of(np.zeros(N_CODES), built(odd_rows(1, 100)).columns[0]) is None
    again = Baseline.from_json(baseline.to_json())
    assert (again.columns, again.id) == (baseline.columns, baseline.id)


def test_an_empty_bin_just_below_an_atom_has_a_mean_that_is_its_end() -> None:
    """Products with more mass than two bins have a bin of their own, and just below it may be one without a value."""
    g = np.random.default_rng(5)
    a, b = g.choice([0.0, 1.0, 2.0], 2_000), g.choice([0.0, 1.0], 2_000)
    reference = built(plain_rows({"a": a, "b": b})).columns[0]
    ends = (reference.low, *reference.edges, reference.high)
    assert len(reference.means) == reference.n_bins > 6
    assert all(low <= mean <= high for (low, high), mean in zip(pairwise(ends), reference.means, strict=True))  # type: ignore[operator]


@settings(deadline=None, max_examples=15)
@given(st.sets(st.integers(1, 699), max_size=8))
def test_the_cut_of_the_reference_never_shows(cuts: set[int]) -> None:
    rows = odd_rows(6, 700)
    assert built(rows, cuts=tuple(sorted(cuts))).to_json() == built(rows).to_json()


def test_a_baseline_with_a_pair_is_a_file_of_its_own_version_and_one_without_is_as_before() -> None:
    rows = odd_rows(7, 600)
    plain, paired = built(rows, Column("a", "numeric")), built(rows, Column("a", "numeric"), PAIR)
    assert json.loads(plain.to_json())["version"] == 1
    assert not any(key in plain.to_json() for key in ("factors", "means"))
    assert json.loads(paired.to_json())["version"] == 4
    again = Baseline.from_json(paired.to_json())
    assert (again.columns, again.id) == (paired.columns, paired.id)
    codes = [RowCoder(one.columns).encode(odd_rows(8, 300)) for one in (paired, again)]
    assert np.array_equal(codes[0][0], codes[1][0])
    assert np.array_equal(codes[0][1], codes[1][1], equal_nan=True)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("factors", []),
        ("factors", [{"name": "a", "edges": [], "low": None, "high": None, "scores": []}]),
        ("means", [0.0]),
        ("means", None),
        ("kind", "binary"),
        (("name",), 5),
        (("edges",), [2.0, 1.0]),
        (("scores",), [1.0, 2.0]),
        (("scores", 3), math.inf),
        (("low",), None),
        (("high",), "much"),
    ],
)
def test_a_pair_that_no_reference_gives_is_refused(part: Any, value: Any) -> None:
    whole = json.loads(built(odd_rows(9, 300)).to_json())
    column = whole["body"]["columns"][0]
    at = column if isinstance(part, str) else column["factors"][0]
    for key in () if isinstance(part, str) else part[:-1]:
        at = at[key]
    at[part if isinstance(part, str) else part[-1]] = value
    with pytest.raises(BaselineError, match="damaged"):
        Baseline.from_json(json.dumps(whole))


def test_a_pair_of_the_same_name_and_other_factors_is_refused() -> None:
    baseline = built(odd_rows(9, 300))
    with pytest.raises(SpecError, match="of other factors in baseline"):
        Panel(PanelSpec(columns=(replace(PAIR, factors=("a", "x")),), window=200), baseline)
    with pytest.raises(SpecError, match="of other factors in baseline"):
        Panel(PanelSpec(columns=(replace(PAIR, factors=()),), window=200), baseline)


def test_pairs_of_discovered_columns_are_those_that_turn_out_to_be_numbers() -> None:
    def factory(name: str, kind: Any) -> Column:
        return Column(name, kind, (series(name, None, "psi"),))

    names = {other: f"correlation:amount~{other}" for other in ("loss", "country", "never")}
    pairs = tuple(Column(n, "numeric", (series(n, None, "psi"),), factors=("amount", other)) for other, n in names.items())
    panel = Panel(PanelSpec(columns=None, column_factory=factory, pairs=pairs, window=200, learn_rows=400))
    panel.update(stream(500, 1))
    plain = ["amount", "country", "flagged", "loss", "unwatched"]
    assert [column.name for column in panel.columns] == [*plain, "correlation:amount~loss"]
    # The file has a pair that is asked for no more.
    unasked = Panel(PanelSpec(columns=None, column_factory=factory, window=200), panel.baseline)
    assert [column.name for column in unasked.columns] == plain


# What a panel makes of it.


def budgeted(names: tuple[str, ...], *, per_value: float = 1e-5, learn: int = 5_000, segments: dict[str, int] | None = None) -> PanelSpec:
    detectors = (ColumnDetector("e_detector"),)
    columns = [Column(name, "numeric", (replace(series(name, None, warning=0.1), detectors=detectors),)) for name in names]
    pair = replace(PAIR, series=(replace(PAIR.series[0], detectors=detectors, warning=0.1),))
    budget = PanelBudget(per_value * (len(names) + 1), True, 1e9)
    return PanelSpec(columns=(*columns, pair), window=200, learn_rows=learn, budget=budget, segments=segments or {})


def normal_pair(g: np.random.Generator, n: int, rho: float) -> np.ndarray:
    x = g.normal(size=(n, 2))
    x[:, 1] = rho * x[:, 0] + math.sqrt(1.0 - rho * rho) * x[:, 1]
    return x


def pair_rows(values: np.ndarray, first: int = 0) -> PanelRows:
    return plain_rows({"a": values[:, 0], "b": values[:, 1]}, first=first)


def opened(panel: Panel, rows: PanelRows) -> list[Signal]:
    return [signal for signal in panel.update(rows) if signal.kind == "open"]


LAWS: dict[str, Any] = {
    "independent": lambda g, n: normal_pair(g, n, 0.0),
    "correlated": lambda g, n: normal_pair(g, n, 0.8),
    "t3, which share their spread": lambda g, n: normal_pair(g, n, 0.0) / np.sqrt(g.chisquare(3, size=(n, 1)) / 3),
    "lognormal, correlated": lambda g, n: np.exp(1.5 * normal_pair(g, n, -0.6)),
    "counts": lambda g, n: np.floor(np.exp(normal_pair(g, n, 0.5))),
    "spreads that go together": lambda g, n: normal_pair(g, n, 0.0) * np.exp(0.5 * g.normal(size=(n, 1))),
}


@pytest.mark.parametrize("law", LAWS)
def test_episodes_on_pairs_that_stay_as_they_were_are_within_the_budget(law: str) -> None:
    """Nine in 180,000 values of the pair are allowed at this budget, and as many of each feature; more than 17 have a chance of .5 %."""
    found = []
    for run_ in range(6):
        g = np.random.default_rng([21, run_, len(law)])
        panel = Panel(budgeted(("a", "b"), per_value=5e-5, learn=2_000))
        panel.update(pair_rows(LAWS[law](g, 2_000)))
        found += [signal.series for signal in opened(panel, pair_rows(LAWS[law](g, 30_000), 2_000))]
    assert found.count("correlation:a~b") <= 17


@pytest.mark.parametrize(("before", "after", "within"), [(0.0, 0.5, 260), (0.0, -0.5, 260), (0.8, 0.0, 80), (0.9, 0.6, 300)])
def test_a_correlation_that_changes_is_found_and_the_features_stay_silent(before: float, after: float, within: int) -> None:
    """The mean delay over 12 streams; at a correlation that comes to .5, about 180 values."""
    delays = []
    for run_ in range(12):
        g = np.random.default_rng([22, run_])
        panel = Panel(budgeted(("a", "b")))
        panel.update(pair_rows(np.concatenate([normal_pair(g, 5_000, before), normal_pair(g, 2_000, before)])))
        found = opened(panel, pair_rows(normal_pair(g, 2_500, after), 7_000))
        assert {signal.series for signal in found} == {"correlation:a~b"}
        delays.append(found[0].row + 1)
        assert found[0].since is not None
        assert "; correlation " in (found[0].reason or "")
        assert found[0].median is None
    assert np.mean(delays) < within


def test_a_feature_that_moves_alone_leaves_the_pair_alone() -> None:
    """With standardised values a shift of one adds a multiple of the other, whose mean is 0."""
    for run_ in range(6):
        g = np.random.default_rng([23, run_])
        panel = Panel(budgeted(("a", "b")))
        panel.update(pair_rows(normal_pair(g, 5_000, 0.0)))
        names = [s.series for s in opened(panel, pair_rows(normal_pair(g, 2_000, 0.0) + np.array([0.4, 0.0]), 5_000))]
        assert "a" in names
        assert "correlation:a~b" not in names


SPEC = budgeted(("a",), learn=600, segments={"shop": 2})


def mixed(n: int, seed: int, rho: float, first: int) -> PanelRows:
    g = np.random.default_rng(seed)
    rows = replace(odd_rows(seed, n), offset=np.arange(first, first + n), time_ms=np.arange(first, first + n) * 1_000)
    pair = normal_pair(g, n, rho)
    numeric = rows.numeric.copy()
    for column, value in ((2, pair[:, 0]), (1, pair[:, 1])):
        numeric[:, column] = np.where(np.isnan(numeric[:, column]), np.nan, value)
    return replace(rows, numeric=numeric, segments={"shop": (g.integers(0, 3, n).astype(np.int32), ["x", "y", "z"])})


def parts() -> list[PanelRows]:
    return [mixed(1_200, 31, 0.0, 0), mixed(900, 32, 0.9, 1_200)]


@settings(deadline=None, max_examples=8)
@given(st.sets(st.integers(1, 899), max_size=6), st.sets(st.integers(1, 1_199), max_size=6))
def test_any_cut_and_a_restart_anywhere_give_the_same_signals_and_bytes(cuts: set[int], before: set[int]) -> None:
    first, second = parts()
    whole = Panel(SPEC)
    expected = [*run(whole, first), *((row + first.n, s) for row, s in run(whole, second))]
    assert {signal.series for _, signal in expected if signal.kind == "open"} == {"correlation:a~b"}
    panel, store, found = Panel(SPEC), Store(), []
    for start, rows, at in ((0, first, sorted(before)), (first.n, second, sorted(cuts))):
        for a, b in pairwise((0, *at, rows.n)):
            found += [(start + a + s.row, replace(s, row=0)) for s in panel.update(rows.slice(a, b))]
            store.take(panel)
            panel = store.load(SPEC)
    assert found == [(row, replace(s, row=0)) for row, s in expected]
    assert panel.baseline is not None
    assert whole.baseline is not None
    assert panel.baseline.id == whole.baseline.id
