"""Page-Hinkley against river and against simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from river import drift

from driftline.detectors import PageHinkley
from driftline.detectors.kernels import PageHinkleyBank
from driftline.detectors.kernels.page_hinkley import FALLING, HIGHEST, LOWEST, MEAN, RISING

RIVER = {"delta": 0.005, "threshold": 50.0, "alpha": 1 - 0.0001, "min_instances": 30}


def one_series(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values[:, None], np.zeros((len(values), 1), np.int32)


def river_alarms(values: np.ndarray, **parameters: Any) -> tuple[list[int], drift.PageHinkley]:
    detector, alarms = drift.PageHinkley(**parameters), []
    for position, value in enumerate(values.tolist()):
        detector.update(value)
        if detector.drift_detected:
            alarms.append(position)
    return alarms, detector


@pytest.mark.parametrize("mode", ["both", "up", "down"])
@pytest.mark.parametrize(
    "parameters", [{}, {"delta": 0.125, "threshold": 12.0, "alpha": 1.0}, {"min_instances": 1, "threshold": 2.0, "alpha": 0.9}]
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_alarms_and_sums_are_rivers_to_the_last_bit(mode: str, parameters: dict[str, Any], seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=8_000) * 1.7 + np.repeat([0.0, 0.6, -0.2, 1e3], 2_000)
    expected, detector = river_alarms(values, mode=mode, **parameters)
    bank = PageHinkleyBank(1, 1, mode=mode, **{**RIVER, **parameters})
    assert bank.update(*one_series(values))["row"].tolist() == expected
    assert expected
    assert bank.sums[0, [MEAN, RISING, FALLING, LOWEST, HIGHEST]].tolist() == [
        detector._x_mean.get(), detector._sum_increase, detector._sum_decrease, detector._min_increase, detector._max_decrease,
    ]  # fmt: skip


@pytest.mark.parametrize(("step", "direction"), [(1.0, 1), (-1.0, -1)])
def test_back_dates_the_change_from_the_extreme_of_the_sum(step: float, direction: int) -> None:
    values = np.random.default_rng(4).normal(size=3_000) + step * (np.arange(3_000) >= 2_000)
    bank = PageHinkleyBank(1, 1, threshold=30.0)
    first = bank.update(*one_series(values))[0]
    assert first["direction"] == direction
    assert abs(first["row"] + 1 - first["back"] - 2_000) <= 20


def test_parameters_are_a_series_own() -> None:
    values = np.random.default_rng(5).normal(size=(5_000, 3))
    values[:, 1:] = values[:, :1]
    bank = PageHinkleyBank(1, 3, threshold=[[8.0, 16.0, 8.0]], mode=np.array([[0, 0, 1]], np.int8))
    alarms = bank.update(values, np.zeros((5_000, 1), np.int32))
    counts = np.bincount(alarms["column"], minlength=3)
    assert counts[0] > counts[2] > 0
    assert counts[0] > counts[1]
    assert set(alarms["direction"][alarms["column"] == 2]) == {1}


def test_one_nan_does_not_disable_it() -> None:
    values = np.random.default_rng(6).normal(size=2_000) + np.repeat([0.0, 3.0], 1_000)
    values[[10, 500]] = np.nan, -np.inf
    detector = PageHinkley()
    assert detector.update_many(values[:1_000]).size == 0
    assert detector.update_many(values[1_000:]).size >= 1


def test_the_notebook_class_is_river_with_batches() -> None:
    values = np.random.default_rng(7).normal(size=4_000) + np.repeat([0.0, 1.0], 2_000)
    expected, _ = river_alarms(values)
    assert PageHinkley().update_many(values).tolist() == expected
    single = PageHinkley()
    found = []
    for position, value in enumerate(values):
        single.update(value)
        if single.drift_detected:
            found.append(position)
    assert found == expected


def test_modes_that_do_not_exist_are_named() -> None:
    with pytest.raises(ValueError, match='got "sideways"'):
        PageHinkley(mode="sideways")
