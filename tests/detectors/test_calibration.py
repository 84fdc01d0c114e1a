"""Run lengths against published values, SciPy, and independent simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import chi2

from driftline.detectors import PSI, FOCuS, PageHinkley, calibration
from driftline.detectors.kernels import AdwinBank, PageHinkleyBank


@pytest.mark.parametrize(
    ("bins", "window", "thresholds"),
    [
        (10, 500, (0.047, 0.061, 0.074, 0.086, 0.098)),
        (10, 1_000, (0.021, 0.029, 0.035, 0.041, 0.047)),
        (20, 1_000, (0.036, 0.045, 0.053, 0.060, 0.067)),
    ],
)
def test_psi_thresholds_are_those_of_the_study(bins: int, window: int, thresholds: tuple[float, ...]) -> None:
    found = [calibration.psi_threshold(10.0**k, window, bins) for k in range(4, 9)]
    assert found == pytest.approx(thresholds, abs=0.0011)


def test_focus_thresholds_are_those_of_the_study() -> None:
    found = [calibration.focus_threshold(10.0**k) for k in range(4, 10)]
    assert found == pytest.approx([9.59, 12.00, 14.40, 16.78, 19.15, 21.51], abs=0.006)


@pytest.mark.parametrize("mean", [None, 0.0])
def test_focus_alarms_once_in_its_run_length_or_later(mean: float | None) -> None:
    values = np.random.default_rng(3).normal(size=1_000_000)
    alarms = len(FOCuS(2_000, mean=mean).update_many(values))
    # the closed form is known to be 8 to 25 % short of simulated run lengths; three standard errors of 400 are 15 %
    assert 500 / 1.45 <= alarms <= 500 * 1.1


@pytest.mark.parametrize("freedom", [1, 2, 3, 9, 19, 58])
@pytest.mark.parametrize("x", [0.5, 5.0, 40.0, 200.0])
def test_the_chi_squared_law_is_scipys(x: float, freedom: int) -> None:
    assert calibration.chi2_tail(x, freedom) == pytest.approx(chi2.sf(x, freedom), rel=1e-10)
    assert calibration.chi2_density(x, freedom) == pytest.approx(chi2.pdf(x, freedom), rel=1e-10)


def test_the_reference_counts_as_its_size_does() -> None:
    known = calibration.psi_threshold(1e6, 1_000, 10)
    assert calibration.psi_threshold(1e6, 1_000, 10, 1_000) == pytest.approx(2 * known)
    assert calibration.psi_threshold(1e6, 1_000, 10, 10_000) == pytest.approx(1.1 * known)


def test_small_windows_take_the_higher_threshold() -> None:
    level = calibration.psi_threshold(1e6, 499, 10) * 499
    assert calibration.psi_run_length(level, 499, 10) > 1.05e6


@pytest.mark.parametrize(("delta", "threshold"), [(0.125, 33.9), (0.25, 19.10), (0.5, 10.35)])
def test_page_hinkley_thresholds_are_cusums(delta: float, threshold: float) -> None:
    assert calibration.page_hinkley_threshold(1e5, delta) == pytest.approx(threshold, rel=0.015)


@pytest.mark.parametrize(("height", "run_length"), [(4.0, 168.0), (5.0, 465.0)])
def test_cusum_run_lengths_are_the_tabulated_ones(height: float, run_length: float) -> None:
    assert calibration.page_hinkley_run_length(height, 0.5) == pytest.approx(run_length, rel=0.03)


@pytest.mark.parametrize(("run_length", "sides"), [(1_000.0, 2), (10_000.0, 2), (1_000.0, 1)])
def test_page_hinkley_alarms_as_often_as_asked(run_length: float, sides: int) -> None:
    mode = "both" if sides == 2 else "up"
    threshold = calibration.page_hinkley_threshold(run_length, sides=sides)
    bank = PageHinkleyBank(1, 20, threshold=threshold, mode=mode)
    rows = int(40 * run_length)
    alarms = bank.update(np.random.default_rng(1).normal(size=(rows, 20)), np.zeros((rows, 1), np.int32))
    # 800 alarms are expected: four standard errors are 14 %
    assert rows * 20 / len(alarms) == pytest.approx(run_length, rel=0.15)


@pytest.mark.parametrize("run_length", [5_000.0, 20_000.0])
def test_adwin_alarms_as_often_as_asked(run_length: float) -> None:
    bank = AdwinBank(1, 20, delta=calibration.adwin_delta(run_length))
    rows = int(25 * run_length)
    alarms = bank.update(np.random.default_rng(2).normal(size=(rows, 20)), np.zeros((rows, 1), np.int32))
    # 500 alarms are expected: four standard errors are 18 %
    assert rows * 20 / len(alarms) == pytest.approx(run_length, rel=0.2)


def test_adwin_delta_falls_with_the_run_length() -> None:
    deltas = [calibration.adwin_delta(10.0**k) for k in np.arange(1.0, 10.0, 0.25)]
    assert all(a >= b for a, b in itertools.pairwise(deltas))
    assert calibration.adwin_delta(1e5) == pytest.approx(0.027, rel=0.1)


@pytest.mark.parametrize(("window", "bins"), [(500, 10), (250, 5)])
def test_psi_alarms_as_often_as_asked(window: int, bins: int) -> None:
    generator = np.random.default_rng(3)
    psi = PSI(np.arange(bins * 1_000) / 1_000, window=window, bins=bins, threshold=calibration.psi_threshold(1e4, window, bins))
    alarms = psi.update_many(generator.uniform(0, bins, 4_000_000))
    # the asymptotic formula is within 25 % (here re-arming at .8 merges a few close crossings); 400 alarms: 4 se = 20 %
    assert 0.7 < 4_000_000 / len(alarms) / 1e4 < 1.6


def test_calibrated_detectors_take_their_run_length() -> None:
    assert PageHinkley.calibrated(1e5).threshold == calibration.page_hinkley_threshold(1e5)
    generator = np.random.default_rng(4)
    assert PageHinkley.calibrated(1e8).update_many(generator.normal(size=1_000_000)).size == 0


@pytest.mark.parametrize("run_length", [math.nan, 0.0, math.inf, -5.0])
def test_run_lengths_without_sense_are_refused(run_length: float) -> None:
    for calibrate in (calibration.adwin_delta, calibration.page_hinkley_threshold, lambda r: calibration.psi_threshold(r, 100, 10)):
        with pytest.raises(ValueError, match="run length"):
            calibrate(run_length)
