"""CUSUM and EWMA against naive loops, published run lengths and simulation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from driftline.detectors import CUSUM, EWMA, calibration
from driftline.detectors.kernels.charts import CusumBank, EwmaBank, _ChartBank
from driftline.detectors.panel import Panel
from driftline.detectors.spec import Column, ColumnDetector, PanelSpec, Series, SpecError
from tests.detectors.panel_cases import plain_rows, run

CHARTS: list[type[CUSUM] | type[EWMA]] = [CUSUM, EWMA]


def naive(kind: str, values: np.ndarray, setting: float, limit: float, mode: str) -> list[tuple[int, int, int]]:
    """(position, direction, values since the start of the change) of each alarm, from the definition."""
    alarms, begin = [], 0
    rising: list[float] = []
    falling: list[float] = []
    for position, z in enumerate(values.tolist()):
        if kind == "cusum":
            rising.append(max(0.0, (rising[-1] if rising else 0.0) + z - setting))
            falling.append(max(0.0, (falling[-1] if falling else 0.0) - z - setting))
        else:
            unit = math.sqrt(setting / (2.0 - setting))
            before = rising[-1] if rising else 0.0
            rising.append(before + setting * (z / unit - before))
            falling.append(-rising[-1])
        up, down = mode != "down" and rising[-1] > limit, mode != "up" and falling[-1] > limit
        if up or down:
            side, direction = (rising, 1) if up else (falling, -1)
            start = max((i + 1 for i, level in enumerate(side) if level <= 0.0), default=0)
            alarms.append((position, direction, position + 1 - begin - start))
            begin, rising, falling = position + 1, [], []
    return alarms


def bank(kind: str, **options: Any) -> _ChartBank:
    return {"cusum": CusumBank, "ewma": EwmaBank}[kind](1, 1, **options)


@pytest.mark.parametrize("mode", ["both", "up", "down"])
@pytest.mark.parametrize(("kind", "setting", "limit"), [("cusum", 0.25, 6.0), ("cusum", 0.5, 4.0), ("ewma", 0.05, 2.5), ("ewma", 1.0, 2.8)])
def test_alarms_and_their_dates_are_those_of_the_definition(kind: str, setting: float, limit: float, mode: str) -> None:
    z = np.random.default_rng(1).normal(size=6_000) + np.repeat([0.0, 0.5, -0.4], 2_000)
    found = bank(kind, setting=setting, threshold=limit, target=3.0, scale=2.0, mode=mode).update(
        (3.0 + 2.0 * z)[:, None], np.zeros((6_000, 1), np.int32)
    )
    expected = naive(kind, (3.0 + 2.0 * z - 3.0) / 2.0, setting, limit, mode)
    assert len(expected) > 5
    assert list(zip(found["row"].tolist(), found["direction"].tolist(), found["back"].tolist(), strict=True)) == expected
    assert np.all(found["statistic"] > limit)


def exact_ewma_run_length(limit: float, weight: float, *, up_only: bool = False) -> float:
    """The integral equation of Crowder (1987), Technometrics 29, by Gauss-Legendre nodes."""
    nodes, weights = np.polynomial.legendre.leggauss(301)
    low = -12.0 if up_only else -limit
    y, weights = low + (nodes + 1.0) * (limit - low) / 2.0, weights * (limit - low) / 2.0
    spread = math.sqrt(1.0 - (1.0 - weight) ** 2)
    stays = stats.norm.pdf((y - (1.0 - weight) * y[:, None]) / spread) / spread * weights
    lengths = np.linalg.solve(np.eye(len(y)) - stays, np.ones(len(y)))
    return float(1.0 + stats.norm.pdf(y / spread) / spread * weights @ lengths)


@pytest.mark.parametrize("weight", [0.005, 0.01, 0.05, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("run_length", [1e4, 1e5, 1e8])
def test_the_run_length_of_ewma_is_that_of_its_integral_equation(weight: float, run_length: float) -> None:
    limit = calibration.ewma_threshold(run_length, weight)
    assert run_length * 0.96 <= exact_ewma_run_length(limit, weight) <= run_length * 1.15
    limit = calibration.ewma_threshold(run_length, weight, sides=1)
    assert run_length * 0.96 <= exact_ewma_run_length(limit, weight, up_only=True) <= run_length * 1.15


def test_published_run_lengths() -> None:
    """Lucas and Saccucci (1990), Technometrics 32, table 3: EWMA .1 with 2.814 and .05 with 2.615; Page's CUSUM .5 with 4 and 5."""
    assert exact_ewma_run_length(2.814, 0.1) == pytest.approx(500, rel=0.01)
    assert calibration.ewma_run_length(2.814, 0.1) == pytest.approx(500, rel=0.06)
    assert calibration.ewma_run_length(2.615, 0.05) == pytest.approx(500, rel=0.06)
    assert calibration.page_hinkley_run_length(4.0, 0.5) == pytest.approx(168, rel=0.03)
    assert calibration.page_hinkley_run_length(5.0, 0.5) == pytest.approx(465, rel=0.03)


@pytest.mark.parametrize("kind", ["cusum", "ewma"])
@pytest.mark.parametrize("mode", ["both", "up"])
def test_a_chart_alarms_as_often_as_asked(kind: str, mode: str) -> None:
    run_length, sides = 5_000.0, 2 if mode == "both" else 1
    if kind == "cusum":
        options = {"setting": 0.25, "threshold": calibration.cusum_threshold(run_length, 0.25, sides=sides)}
    else:
        options = {"setting": 0.01, "threshold": calibration.ewma_threshold(run_length, 0.01, sides=sides)}
    values = np.random.default_rng(2).normal(size=(100_000, 20))
    charts = {"cusum": CusumBank, "ewma": EwmaBank}[kind](1, 20, mode=mode, **options)
    alarms = len(charts.update(values, np.zeros((100_000, 1), np.int32)))
    # 400 expected: 4 standard errors of a Poisson count, and what the formulas are off.
    assert 300 <= alarms <= 480


@pytest.mark.parametrize("chart", CHARTS)
@pytest.mark.parametrize("m", [300, 5_000])
def test_a_reference_mean_two_standard_errors_off_keeps_the_run_length(chart: type[CUSUM] | type[EWMA], m: int) -> None:
    alarms = 0
    for off in (-2.0, 2.0):
        values = np.random.default_rng(3).normal(size=400_000)
        alarms += len(chart(off / math.sqrt(m), 1.0, run_length=1e4, reference_n=m).update_many(values))
    assert alarms <= 80 + 4 * math.sqrt(80)
    blind = chart(2.0 / math.sqrt(300), 1.0, run_length=1e4).update_many(np.random.default_rng(3).normal(size=400_000))
    assert len(blind) > 80


@pytest.mark.parametrize("chart", CHARTS)
def test_the_notebook_class_has_rivers_interface(chart: type[CUSUM] | type[EWMA]) -> None:
    generator = np.random.default_rng(4)
    reference, quiet, moved = generator.normal(50, 20, 5_000), generator.normal(50, 20, 3_000), generator.normal(62, 20, 600)
    whole = chart.fitted(reference, run_length=1e5)
    assert whole.update_many(quiet).size == 0
    first = int(whole.update_many(moved)[0])
    assert 10 < first < 120
    single = chart.fitted(reference, run_length=1e5)
    fired = []
    for position, x in enumerate([*quiet.tolist(), float("nan"), *moved[: first + 1].tolist()]):
        single.update(x)
        if single.drift_detected:
            fired.append(position)
    assert fired == [3_001 + first]
    assert 50 < single.estimation < 65
    single.update(float("inf"))
    assert not single.drift_detected


@pytest.mark.parametrize("chart", CHARTS)
def test_what_cannot_be_is_refused(chart: type[CUSUM] | type[EWMA]) -> None:
    with pytest.raises(ValueError, match="got both"):
        chart(threshold=3.0, run_length=1e5)
    with pytest.raises(ValueError, match="reference of different values"):
        chart.fitted(np.full(100, 3.0))
    with pytest.raises(ValueError, match="mode"):
        chart(mode="sideways")


def test_a_reference_too_small_for_the_allowance_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 1600 reference values"):
        calibration.cusum_threshold(1e6, 0.05, reference_n=900)


def spec(*names: str, flag: str | None = None, kind: str = "numeric", run_length: float = 1e6, **params: Any) -> PanelSpec:
    detectors = tuple(ColumnDetector(name, params=params) for name in names)
    series = Series("x", flag, detectors, 500, run_length)
    return PanelSpec(columns=(Column("x", kind, (series,)),), window=500, learn_rows=5_000)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["cusum", "ewma"])
def test_a_panel_opens_an_episode_by_a_chart_and_dates_it(name: str) -> None:
    generator = np.random.default_rng(5)
    values = np.r_[generator.lognormal(size=15_000), generator.lognormal(0.7, size=500)]
    found = [(row, one) for row, one in run(Panel(spec(name)), plain_rows({"x": values})) if one.kind == "open"]
    [(row, one)] = found
    assert one.detector == name
    assert (one.direction, one.effect_kind) == ("up", "mean")
    assert 15_000 < row < 15_120
    assert one.since is not None
    assert abs(one.since.offset - 15_000) < 60


@pytest.mark.parametrize("name", ["cusum", "ewma"])
def test_a_chart_watches_a_rate(name: str) -> None:
    generator = np.random.default_rng(6)
    ones = np.r_[generator.random(12_000) < 0.1, generator.random(600) < 0.25].astype(float)
    found = run(Panel(spec(name, flag="one", kind="binary")), plain_rows({"x": ones}))
    [(row, one)] = [(row, one) for row, one in found if one.kind == "open"]
    assert 12_000 < row < 12_250
    assert (one.detector, one.effect_kind, one.direction) == (name, "rate", "up")


def test_charts_do_not_raise_more_than_asked_in_a_panel_with_a_reference_of_its_own() -> None:
    generator = np.random.default_rng(7)
    names = [f"f{i}" for i in range(20)]
    columns = tuple(Column(n, "numeric", (Series(n, None, (ColumnDetector("cusum"), ColumnDetector("ewma")), 500, 2e4),)) for n in names)
    panel = Panel(PanelSpec(columns=columns, window=500, learn_rows=2_000))
    found = run(panel, plain_rows({n: generator.lognormal(size=42_000) for n in names}))
    # 20 series, 2 detectors, 2 alarms each over 40,000 rows would be 80; episodes end only after a window, so fewer.
    assert 0 < sum(one.kind == "open" for _, one in found) <= 80


def test_raw_input_is_refused_by_charts() -> None:
    one = Series("x", None, (ColumnDetector("cusum", input="raw"),), 500)
    rows = plain_rows({"x": np.arange(600.0)})
    with pytest.raises(SpecError, match="cusum sees standardised scores"):
        Panel(PanelSpec(columns=(Column("x", "numeric", (one,)),), window=500, learn_rows=500)).update(rows)
