"""`AlarmBudget`, `EDetector`, `ConformalScores` and `FOCuS` as a notebook uses them."""

from __future__ import annotations

import doctest
import importlib
from typing import Any

import numpy as np
import pytest

from driftline.detectors import AlarmBudget, ConformalScores, EDetector, FOCuS
from driftline.detectors.kernels import FocusBank


@pytest.mark.parametrize("module", ["budget", "charts", "conformal", "e_detector", "focus"])
def test_examples_of_the_docstrings_run(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"driftline.detectors.{module}"))
    assert found.attempted > 2
    assert found.failed == 0


def stream(seed: int, rows: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.column_stack([generator.lognormal(size=rows), generator.standard_t(3, rows), generator.random(rows) < 0.05])


NAMES = ("amount", "score", "missing")


def a_budget(**options: Any) -> AlarmBudget:
    reference = stream(1, 4_000)
    return AlarmBudget({name: reference[:, c] for c, name in enumerate(NAMES)}, **options)


def test_rows_one_by_one_are_the_batch() -> None:
    rows = np.r_[stream(2, 500), stream(3, 500) * [3.0, 1.0, 0.0]]
    rows[::7, 1] = np.nan
    whole, single = a_budget(per=10_000), a_budget(per=10_000)
    expected = whole.update_many(rows)
    found = []
    for row in rows:
        values = {name: float(x) for name, x in zip(NAMES, row, strict=True) if np.isfinite(x)}
        alarm = single.update(values)
        if alarm is not None:
            found.append(alarm)
    assert found == expected
    assert len(expected) > 3
    assert (single.evidence, single.spent) == (whole.evidence, whole.spent)


def test_no_more_false_alarms_than_the_budget_over_references_laws_and_series() -> None:
    rows, runs, per = 5_000, 60, 1_000
    alarms = 0
    for run in range(runs):
        generator = np.random.default_rng([4, run])
        reference, rows_after = np.split(generator.lognormal(size=(400 + rows, 4)), [400])
        budget = AlarmBudget(reference, per=per, min_effect=0.0)
        alarms += len(budget.update_many(rows_after))
        assert budget.spent == pytest.approx(rows / per)
    expected = runs * rows / per
    # three standard errors of a count above the promise; below it, half would be a wasted budget
    assert expected / 2 <= alarms <= expected + 3 * expected**0.5


def test_an_alarm_names_the_series_the_change_and_its_start() -> None:
    rows = stream(5, 6_000)
    rows[3_000:, 2] = np.random.default_rng(6).random(3_000) < 0.2
    rows[:3_000:3, 2] = np.nan
    first = a_budget(per=1e6).update_many(rows)[0]
    assert [b.name for b in first.blamed] == ["missing"]
    blamed = first.blamed[0]
    assert (blamed.direction, blamed.change.startswith("rate x")) == ("up", True)
    assert blamed.earliest is not None
    assert blamed.latest is not None
    assert blamed.earliest <= blamed.since <= blamed.latest <= first.position
    assert abs(blamed.since - 3_000) < 40


def test_a_budget_by_time_counts_time() -> None:
    rows = stream(7, 2_000)
    budget = a_budget(per=7 * 24 * 3_600)
    budget.update_many(rows, clock=np.arange(2_000) * 60)
    # three series, each from its second value on, and its first value one unit
    assert budget.spent == pytest.approx((1_999 * 60 + 1) / (7 * 24 * 3_600))


def test_weights_are_shares_of_the_budget() -> None:
    budget = a_budget(weights={"amount": 2.0, "score": 1.0, "missing": 1.0})
    assert (budget._bank.rate * 100_000).tolist() == pytest.approx([0.5, 0.25, 0.25])
    with pytest.raises(ValueError, match="expected weights"):
        a_budget(weights={"amount": 1.0})


@pytest.mark.parametrize("kind", [AlarmBudget, EDetector])
def test_a_frozen_reference_needs_a_tolerance_of_twice_its_error(kind: Any) -> None:
    reference = np.random.default_rng(8).normal(size=2_000)
    with pytest.raises(ValueError, match=r"a frozen reference of 1000 counted values needs min_effect >= 0\.0632"):
        kind(reference, frozen=True, min_effect=0.06)
    values = np.random.default_rng(9).normal(size=50_000)
    assert len(kind(reference, frozen=True, min_effect=0.07).update_many(values)) == 0


def test_several_frozen_references_need_four_times_their_error() -> None:
    reference = np.random.default_rng(8).normal(size=(2_000, 3))
    with pytest.raises(ValueError, match=r"needs min_effect >= 0\.126"):
        AlarmBudget(reference, frozen=True, min_effect=0.12)
    assert AlarmBudget(reference, frozen=True, min_effect=0.13).names == ("0", "1", "2")


def test_the_river_interface_says_when_it_fires_and_since_when() -> None:
    generator = np.random.default_rng(10)
    detector = EDetector(generator.exponential(size=2_000), run_length=1e5)
    values = np.r_[generator.exponential(size=1_000), [np.nan], generator.exponential(2.0, 400)]
    fired = []
    for position, x in enumerate(values):
        detector.update(x)
        if detector.drift_detected:
            fired.append(position)
            break
    assert fired == EDetector(np.random.default_rng(10).exponential(size=2_000), run_length=1e5).update_many(values)[:1].tolist()
    assert detector.change is not None
    assert detector.change.direction == "up"
    assert abs(detector.change.since - 1_001) < 30
    assert detector.evidence < 1.0


def test_zeros_and_ones_are_a_rate() -> None:
    generator = np.random.default_rng(11)
    detector = EDetector(generator.random(3_000) < 0.02, run_length=1e5, min_effect=0.2, direction="up")
    assert detector.update_many(generator.random(5_000) < 0.0).size == 0
    assert detector.update_many(generator.random(3_000) < 0.08).size > 0
    assert detector.change is not None
    assert detector.change.change.startswith("rate x")


def test_scores_depend_on_the_value_and_its_place_alone() -> None:
    values = np.random.default_rng(12).integers(0, 4, 1_000).astype(float)
    whole, single, other = (ConformalScores(values[:500], seed=seed) for seed in (0, 0, 1))
    expected = whole.update_many(values[500:])
    assert [single.update(x) for x in values[500:]] == expected.tolist()
    assert not np.array_equal(other.update_many(values[500:]), expected)
    assert np.isnan(single.update(float("nan")))


@pytest.mark.parametrize("mean", [None, 3.0])
def test_focus_alarms_where_the_ratio_of_a_search_passes_its_threshold(mean: float | None) -> None:
    generator = np.random.default_rng(13)
    values = 2.0 * generator.normal(size=700) + np.repeat([3.0, 5.0], 350)
    values[[5, 400]] = np.nan, np.inf
    focus = FOCuS(1e4, mean=mean, sd=2.0)
    found = focus.update_many(values)
    bank, first = FocusBank(1, known=mean is not None), -1
    for position, x in enumerate((values - (mean or 0.0)) / 2.0):
        bank.update(np.array([[x]]), np.zeros((1, 1), np.int32))
        dating = bank.date(0)
        if dating is not None and dating.ratio > focus.threshold:
            first = position
            break
    assert found[0] == first
    assert focus.change is not None
    single = FOCuS(1e4, mean=mean, sd=2.0)
    alone = []
    for position, x in enumerate(values):
        single.update(x)
        if single.drift_detected:
            alone.append((position, single.change))
    assert [position for position, _ in alone] == found.tolist()
    change = alone[0][1]
    assert change is not None
    assert change.earliest <= 350 <= change.latest
    assert abs(change.since - 350) < 15
    before = np.nanmean(values[: change.since]) if mean is None else mean
    assert change.shift == pytest.approx(values[change.since : first + 1].mean() - before)


def test_options_that_do_not_fit_are_refused() -> None:
    reference = np.random.default_rng(14).normal(size=100)
    for broken in (
        lambda: AlarmBudget(reference, false_alarms=0),
        lambda: AlarmBudget({}),
        lambda: AlarmBudget(reference, min_effect=-1.0),
        lambda: AlarmBudget(reference, direction="sideways"),
        lambda: EDetector(reference, run_length=0.1),
        lambda: FOCuS(sd=0.0),
        lambda: ConformalScores(reference, bins=1),
    ):
        with pytest.raises(ValueError, match="expected"):
            broken()
