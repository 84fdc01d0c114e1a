"""Statistics of a window against a baseline: SciPy's figures, bounds of the binning, and chances that keep their word."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, special, stats
from scipy.spatial import distance

from benchmarks.evidence import baseline, column, compared, numeric_rows, watch_of, windows
from driftline.detectors import null_laws as laws
from driftline.detectors.baseline import Baseline
from driftline.detectors.dependence import CELLS, FREEDOM, cell_dependence, rank_dependence
from driftline.detectors.episodes import E_OPEN, OPEN
from driftline.detectors.explained import WindowStatistic
from driftline.detectors.kernels.psi import smoothed_shares
from driftline.detectors.panel import Panel
from driftline.detectors.spec import Column, PanelSpec, Series
from driftline.detectors.tables import GROUPS_MAX
from tests.detectors.panel_cases import changing_stream, plain_rows, run, small_spec

SEED = 20250917
CELL_NAMES = ("psi", "chi_squared", "kl", "jensen_shannon", "hellinger")
ORDER_NAMES = ("ks", "wasserstein", "cramer_von_mises")


def watching(before: Baseline, columns: tuple[Column, ...], window: int) -> Panel:
    return Panel(PanelSpec(columns=columns, window=window), before)


def numbers(reference: np.ndarray, values: np.ndarray) -> tuple[Panel, dict[str, WindowStatistic]]:
    columns = column("numeric", len(values))
    panel = watching(baseline(numeric_rows(reference), columns), columns, len(values))
    return panel, compared(panel, numeric_rows(values))


def groups(panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    """Values of window and baseline in each of PSI's groups, counted the slow way."""
    watch = watch_of(panel)
    assert panel.baseline is not None
    window, before = np.zeros(int(watch.tables.groups[0, 0])), np.zeros(int(watch.tables.groups[0, 0]))
    for code, group in enumerate(watch.tables.group[0, 0].tolist()):
        if group < len(window):
            window[group] += watch.psi.arrays.counts[0, 0, code]
            before[group] += panel.baseline.counts[0, 0, code]
    return window, before


@pytest.mark.parametrize("x", [1e-3, 0.1, 0.5, 0.99, 1.0, 1.36, 2.5, 6.0])
def test_the_tail_of_kolmogorovs_law_is_scipys(x: float) -> None:
    assert laws.kolmogorov_tail(x) == pytest.approx(special.kolmogorov(x), rel=1e-10)


@pytest.mark.parametrize("freedom", [0.4, 1.0, 2.0, 5.3, 9.0, 18.0])
def test_the_tail_of_chi_squared_is_scipys_for_any_degrees(freedom: float) -> None:
    for x in (1e-6, 0.01, 0.7, 4.0, 9.5, 33.0, 400.0, 1_300.0):
        assert laws.chi_squared_tail(x, freedom) == pytest.approx(stats.chi2.sf(x, freedom), rel=1e-9)
    assert laws.chi_squared_tail(0.0, freedom) == laws.chi_squared_tail(3.0, 0.0) == 1.0


def test_the_tail_of_cramer_von_mises_is_the_sum_of_its_components() -> None:
    """Anderson and Darling (1952), table 1; and the mean 1/6 and variance 1/45 of sum chi2_1 / (k pi)^2, by integration."""
    for bound, below in ((0.02480, 0.01), (0.11888, 0.5), (0.34730, 0.9), (0.46136, 0.95), (0.74346, 0.99), (1.16786, 0.999)):
        assert laws.cramer_tail(bound) == pytest.approx(1.0 - below, abs=2e-5)
    x = np.linspace(0.0, 6.0, 20_001)
    tail = np.array([laws.cramer_tail(float(value)) for value in x])
    mean = np.trapezoid(tail, x)
    assert mean == pytest.approx(1.0 / 6.0, rel=1e-4)
    assert np.trapezoid(2.0 * x * tail, x) - mean**2 == pytest.approx(1.0 / 45.0, rel=1e-3)
    assert laws.cramer_tail(10.0) == pytest.approx(stats.chi2.sf(10.0 * math.pi**2, 1) / math.sqrt(_first_component_factor()), rel=0.02)


def _first_component_factor() -> float:
    """Of the far tail: the product over k > 1 of 1 - 1 / k^2, the share of the other components (Zolotarev 1961)."""
    return float(np.prod([1.0 - 1.0 / (k * k) for k in range(2, 100_000)]))


@given(hits=st.integers(0, 60), trials=st.integers(1, 60), chance=st.floats(0.001, 0.999))
def test_the_exact_tail_of_few_values_is_scipys(hits: int, trials: int, chance: float) -> None:
    hits = min(hits, trials)
    law = stats.binom(trials, chance)
    expected = min(1.0, 2.0 * min(law.sf(hits - 1), law.cdf(hits)))
    assert laws.binomial_two_sided(float(hits), float(trials), chance) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_statistics_over_bins_are_scipys() -> None:
    generator = np.random.default_rng(3)
    panel, found = numbers(generator.normal(size=4_000), generator.normal(0.2, 1.1, size=700))
    window, before = groups(panel)
    p, q = smoothed_shares(window), smoothed_shares(before)
    table = stats.chi2_contingency(np.array([window, before])[:, window + before > 0], correction=False)
    expected = {
        "psi": stats.entropy(p, q) + stats.entropy(q, p),
        "chi_squared": table.statistic,
        "kl": stats.entropy(p, q),
        "jensen_shannon": distance.jensenshannon(p, q) ** 2,
        "hellinger": math.sqrt(0.5 * np.sum((np.sqrt(p) - np.sqrt(q)) ** 2)),
    }
    assert {name: found[name].value for name in CELL_NAMES} == pytest.approx(expected, rel=1e-5)
    assert found["chi_squared"].p == pytest.approx(table.pvalue, rel=1e-5)
    assert found["chi_squared"].n_eff == pytest.approx(700 * 4_000 / 4_700, rel=1e-5)
    assert found["psi"].p == pytest.approx(table.pvalue, rel=0.7)
    # Cohen's w with its noise taken off.
    assert found["chi_squared"].size == pytest.approx(math.sqrt((table.statistic - table.dof) / found["chi_squared"].n_eff), rel=1e-5)


def test_a_rate_is_the_table_of_two_by_two() -> None:
    generator = np.random.default_rng(4)
    reference, values = generator.random(3_000) < 0.1, generator.random(500) < 0.16
    columns = column("binary", 500, "one")
    found = compared(watching(baseline(numeric_rows(reference), columns), columns, 500), numeric_rows(values))
    table = [[500 - values.sum(), values.sum()], [3_000 - reference.sum(), reference.sum()]]
    expected = stats.chi2_contingency(table, correction=False)
    assert tuple(found) == CELL_NAMES
    assert (found["chi_squared"].value, found["chi_squared"].p) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-5)


@given(seed=st.integers(0, 10_000), n=st.integers(40, 400), shift=st.floats(-1.0, 1.0), rounded=st.booleans())
@settings(max_examples=40, deadline=None)
def test_statistics_of_order_are_those_of_the_raw_values_within_the_width_of_a_bin(seed: int, n: int, shift: float, rounded: bool) -> None:
    generator = np.random.default_rng(seed)
    reference = generator.normal(size=1_000)
    # Within the baseline's range: what lies beyond it is only known to.
    values = np.clip(generator.normal(shift, size=n), reference.min(), reference.max())
    if rounded:
        reference, values = np.round(reference, 1), np.round(values, 1)
    panel, found = numbers(reference, values)
    assert panel.baseline is not None
    edges = np.array([-np.inf, *panel.baseline.columns[0].edges, np.inf])
    ends = np.array([reference.min(), *panel.baseline.columns[0].edges, reference.max()])
    at, before = np.searchsorted(edges, values) - 1, np.searchsorted(edges, reference) - 1
    share, share_before = np.bincount(at, minlength=len(edges) - 1) / n, np.bincount(before, minlength=len(edges) - 1) / 1_000
    assert found["ks"].value == pytest.approx(stats.ks_2samp(at, before).statistic, rel=1e-5)
    raw = stats.ks_2samp(values, reference).statistic
    assert found["ks"].value - 1e-6 <= raw <= found["ks"].value + (share + share_before).max() + 1e-6
    moved = stats.wasserstein_distance(values, reference)
    assert abs(found["wasserstein"].value - moved) <= np.sum(np.diff(ends) * (share + share_before)) + 1e-6


def test_cramer_von_mises_is_scipys_where_bins_are_many() -> None:
    generator = np.random.default_rng(5)
    for shift in (0.0, 0.1, 0.4):
        reference, values = generator.normal(size=5_000), generator.normal(shift, size=600)
        expected = stats.cramervonmises_2samp(values, reference, method="asymptotic")
        found = numbers(reference, values)[1]["cramer_von_mises"]
        assert found.value == pytest.approx(expected.statistic, rel=0.03, abs=0.02)
        assert found.p == pytest.approx(expected.pvalue, rel=0.2, abs=0.01)


def test_the_sizes_of_a_known_shift_are_its_own_whatever_the_window_holds() -> None:
    generator = np.random.default_rng(6)
    expected = {"ks": 2 * stats.norm.cdf(0.25) - 1, "wasserstein": 0.5, "hellinger": math.sqrt(1 - math.exp(-0.25 / 8))}
    for n in (300, 5_000):
        _, found = numbers(generator.normal(size=20_000), generator.normal(0.5, size=n))
        assert {name: found[name].size for name in expected} == pytest.approx(expected, rel=0.25)
        assert max(statistic.p for statistic in found.values() if statistic.p is not None) < 1e-6


def test_a_window_without_drift_has_the_null_level_and_no_size() -> None:
    generator = np.random.default_rng(7)
    found = [numbers(generator.normal(size=5_000), generator.normal(size=500))[1] for _ in range(60)]
    for name in (*CELL_NAMES, *ORDER_NAMES):
        ratio = np.mean([one[name].value / one[name].null_level for one in found])
        assert 0.8 < ratio < 1.1, (name, ratio)
        assert np.mean([one[name].size == 0.0 for one in found]) > 0.4, name


def test_few_values_have_no_chance_and_none_have_no_statistics() -> None:
    generator = np.random.default_rng(8)
    reference, values = generator.normal(size=1_000), generator.normal(size=40)
    columns = column("numeric", 40)
    panel = watching(baseline(numeric_rows(reference), columns), columns, 40)
    assert compared(panel, numeric_rows(np.full(10, np.nan)))["chi_squared"].p is None
    few = compared(panel, numeric_rows(values[:19]))
    assert few["ks"].p is None
    assert few["chi_squared"].p is None
    enough = compared(panel, numeric_rows(values[:21]))
    assert enough["ks"].p is not None
    # No bin of forty values holds enough: all of them together are no evidence of anything, and 1 would say that there is none.
    assert enough["chi_squared"].p is None
    empty = watching(baseline(numeric_rows(reference), columns), columns, 40)
    watch_of(empty).windows.episodes[0, 0, E_OPEN] = OPEN
    assert empty.levels(0)[0].statistics == ()


def test_the_chance_of_bins_comes_with_the_first_that_holds_enough() -> None:
    generator = np.random.default_rng(9)
    columns = column("numeric", 5_000)
    reference = baseline(numeric_rows(generator.normal(size=5_000)), columns)
    for n, known in ((32, False), (150, True)):
        moved = compared(watching(reference, columns, 5_000), numeric_rows(generator.normal(size=n) + 2.0))
        cells = [moved[name].p for name in ("psi", "chi_squared", "kl", "jensen_shannon", "hellinger")]
        assert [p is not None for p in cells] == [known] * 5
        assert all(p < 1e-6 for p in [*cells, moved["ks"].p] if p is not None)


@pytest.mark.parametrize("kind", ["constant", "huge", "outside"])
def test_odd_columns_have_finite_statistics(kind: str) -> None:
    generator = np.random.default_rng(9)
    huge = generator.uniform(-1.7, 1.7, 600) * 1e308
    reference = {"constant": np.full(500, 3.0), "huge": huge[100:], "outside": generator.normal(size=500)}[kind]
    values = {"constant": np.full(100, 4.0), "huge": huge[:100], "outside": np.full(100, np.inf)}[kind]
    _, found = numbers(reference, values)
    assert {"psi", "chi_squared", "ks"} <= set(found)
    for statistic in found.values():
        assert all(math.isfinite(number) for number in statistic[1:] if number is not None)
        assert statistic.p is None or 0.0 <= statistic.p <= 1.0


@pytest.mark.parametrize(
    ("kind", "repeats"), [("independent", 800), ("rounded", 400), ("ar_5", 800), ("ar_8", 500), ("clusters", 500), ("words", 500)]
)
def test_chances_without_drift_are_not_smaller_than_they_say(kind: str, repeats: int) -> None:
    found = list(windows(kind, 600, repeats, SEED))
    for name in found[0]:
        p = np.array([one[name].p for one in found])
        for level, above in ((0.5, 1.0), (0.1, 1.35 if kind in ("ar_8", "clusters") else 1.0), (0.01, 3.0)):
            share, error = float(np.mean(p <= level)), math.sqrt(level * (1 - level) / repeats)
            assert share <= above * level + 3.0 * error, (name, level, share)


def test_chances_of_bins_are_uniform_without_drift() -> None:
    found = list(windows("independent", 600, 600, SEED))
    for name in ("psi", "chi_squared", "jensen_shannon", "hellinger", "cramer_von_mises"):
        assert stats.kstest([one[name].p for one in found], "uniform").pvalue > 0.01, name


def test_taking_dependent_values_for_independent_ones_would_raise_false_alarms() -> None:
    found = list(windows("ar_8", 600, 300, SEED))
    n_eff = 600 * 5_000 / 5_600
    naive = [stats.chi2.sf(one["chi_squared"].value, 9) for one in found]
    assert np.mean(np.array(naive) <= 0.05) > 0.25
    assert np.mean([special.kolmogorov(one["ks"].value * math.sqrt(n_eff)) <= 0.05 for one in found]) > 0.3


def slow_cells(cells: np.ndarray, lags: int) -> tuple[float, float]:
    """From the eigenvalues of the long-run covariance of the cells' indicators, lags summed whole."""
    n, shares = len(cells), np.bincount(cells) / len(cells)
    hot = np.eye(len(shares))[cells]
    scaled = hot / np.sqrt(shares) - np.sqrt(shares)
    # Sums over all pairs: the kernel divides by their number.
    long_run = np.eye(len(shares)) - np.outer(np.sqrt(shares), np.sqrt(shares))
    for lag in range(1, lags + 1):
        pairs = hot[:-lag].T @ hot[lag:] / (n - lag) / np.sqrt(np.outer(shares, shares)) - np.sqrt(np.outer(shares, shares))
        long_run += pairs + pairs.T
    assert scaled.shape == hot.shape
    values = np.linalg.eigvalsh(long_run)
    return float(values.sum()) / (len(shares) - 1), float(values.sum() ** 2 / (np.sum(values**2) * (len(shares) - 1)))


def test_the_dependence_of_cells_is_that_of_the_eigenvalues() -> None:
    generator = np.random.default_rng(11)
    stays = generator.random(2_000) < 0.5
    cells = np.zeros(2_000, np.uint8)
    for i in range(1, 2_000):
        cells[i] = cells[i - 1] if stays[i] else generator.integers(0, 4)
    own = np.bincount(cells, minlength=GROUPS_MAX).astype(float)
    out, square = np.ones(3), np.zeros((2, GROUPS_MAX, GROUPS_MAX))
    cell_dependence(cells, 2_000, own, 4, square[0], square[1], out)
    # A chain that stays with chance .7 has correlation .5^k: (1 + .5) / (1 - .5) values worth one.
    assert out[CELLS] == pytest.approx(3.0, rel=0.15)
    found = {lags: slow_cells(cells, lags) for lags in range(2, 16)}
    nearest = min(found.values(), key=lambda one: abs(one[0] - out[CELLS]))
    assert (out[CELLS], out[FREEDOM]) == pytest.approx(nearest, rel=0.02)


def test_the_dependence_of_ranks_is_that_of_their_autocorrelation() -> None:
    generator = np.random.default_rng(12)
    for phi, worth in ((0.0, 1.0), (0.5, 2.87), (0.8, 8.4)):
        values = signal.lfilter([1.0], [1.0, -phi], generator.normal(size=5_000))
        ranks = stats.rankdata(values) - 2_500.5
        assert rank_dependence(ranks, 5_000, float(ranks.var())) == pytest.approx(worth, rel=0.2)


def test_a_long_cluster_is_seen_beyond_the_lags_that_are_looked_at_one_by_one() -> None:
    ranks = np.repeat(np.random.default_rng(13).permutation(50), 100).astype(float)
    ranks -= ranks.mean()
    assert rank_dependence(ranks, 5_000, float(ranks.var())) == pytest.approx(100.0, rel=0.25)


def test_every_event_with_a_level_has_its_statistics_and_its_psi_is_the_panels() -> None:
    panel = Panel(small_spec())
    found = [one for _, one in run(panel, changing_stream()) if one.kind != "baseline"]
    assert {one.kind for one in found} >= {"open", "evidence", "recovery"}
    seen = set()
    for one in found:
        names = tuple(statistic.name for statistic in one.statistics)
        seen.add((panel.columns[one.column].kind, one.series.split(":")[0], names))
        if one.series.endswith(":constant"):
            assert names == ()
            continue
        assert names[:5] == CELL_NAMES
        if one.effect_kind == "psi":
            assert one.statistics[0].value == pytest.approx(one.value, rel=1e-5)
    assert ("numeric", "feature", CELL_NAMES + ORDER_NAMES) in seen
    assert ("categorical", "feature", CELL_NAMES) in seen
    assert any(kind == "numeric" and name == "quality" and names == CELL_NAMES for kind, name, names in seen)


def test_a_snapshot_has_statistics_while_an_episode_is_open_and_the_null_level_of_psi_always() -> None:
    panel, rows = Panel(small_spec()), changing_stream()
    for start, stop, opened in ((0, 950, False), (950, 1_300, True)):
        run(panel, rows.slice(start, stop))
        levels = panel.levels(0)
        assert any(level.open for level in levels) == opened
        assert any(level.psi is not None for level in levels)
        for level in levels:
            assert bool(level.statistics) == level.open
            assert (level.psi_null is None) == (level.psi is None)
            if level.open and level.psi is not None:
                assert level.statistics[0].value == pytest.approx(level.psi, rel=1e-5)


def test_a_wide_panel_that_drifts_as_a_whole_shows_the_first_hundred_open_series() -> None:
    names = [f"f{i:03d}" for i in range(130)]
    columns = tuple(Column(name, "numeric", (Series(name, None, (), 100),)) for name in names)
    values = np.random.default_rng(14).normal(size=(400, len(names)))
    panel = watching(baseline(plain_rows(dict(zip(names, values.T, strict=True))), columns), columns, 100)
    panel.update(plain_rows(dict(zip(names, values[:100].T, strict=True))))
    watch_of(panel).windows.episodes[0, 5:, E_OPEN] = OPEN
    shown = [level.series for level in panel.levels(0) if level.statistics]
    assert shown == names[5:105]
