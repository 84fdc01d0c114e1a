"""ADWIN against river: alarms, windows and sums of the same streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import drift

from driftline.detectors import ADWIN
from driftline.detectors.kernels import ALARM, AdwinBank

KINDS = ("normal", "bernoulli", "lognormal", "drifted", "offset", "tiny", "steps", "constant")


def stream(kind: str, seed: int, n: int = 6_000) -> np.ndarray:
    generator = np.random.default_rng([seed, KINDS.index(kind)])
    normal = generator.normal(size=n)
    change = np.arange(n) >= n // 2
    return {
        "normal": normal,
        "bernoulli": (generator.random(n) < np.where(change, 0.3, 0.1)).astype(float),
        "lognormal": np.exp(normal),
        "drifted": normal + np.linspace(0, 3, n),
        "offset": 1e9 + normal + change,
        "tiny": 1e-170 * (normal + change),
        "steps": normal + 2 * (np.arange(n) // 500 % 2),
        "constant": np.where(change, 7.0, 3.0),
    }[kind]


def river_alarms(values: np.ndarray, **parameters: Any) -> tuple[list[tuple[int, int]], drift.ADWIN]:
    detector, alarms = drift.ADWIN(**parameters), []
    for position, value in enumerate(values.tolist()):
        detector.update(value)
        if detector.drift_detected:
            alarms.append((position, int(detector.width)))
    return alarms, detector


def one_series(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values[:, None], np.zeros((len(values), 1), np.int32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"delta": 0.3, "clock": 1},
        {"delta": 0.05, "clock": 7, "max_buckets": 3, "min_window_length": 2, "grace_period": 20},
        {"delta": 1.0, "clock": 1, "max_buckets": 2, "min_window_length": 1, "grace_period": 0},
        {"delta": 1e-9, "clock": 5, "max_buckets": 9},
    ],
)
def test_alarms_windows_and_sums_are_rivers_to_the_last_bit(kind: str, parameters: dict[str, Any]) -> None:
    for seed in range(3):
        values = stream(kind, seed)
        expected, detector = river_alarms(values, **parameters)
        bank = AdwinBank(1, 1, **{"delta": 0.002, **parameters})
        alarms = bank.update(*one_series(values))
        assert list(zip(alarms["row"].tolist(), alarms["back"].tolist(), strict=True)) == expected
        assert bank.moments[0].tolist() == [detector.total, detector.variance, detector.width]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=300))
@settings(max_examples=60, deadline=None)
def test_any_finite_stream_alarms_where_river_does(values: list[float]) -> None:
    expected, _ = river_alarms(np.array(values), clock=1, delta=0.9, min_window_length=1, grace_period=0)
    bank = AdwinBank(1, 1, delta=0.9, clock=1, min_window_length=1, grace_period=0)
    assert bank.update(*one_series(np.array(values)))["row"].tolist() == [position for position, _ in expected]


def test_back_is_the_part_after_the_change() -> None:
    values = np.r_[np.zeros(1_000), np.ones(1_000)] + np.random.default_rng(1).normal(scale=0.3, size=2_000)
    first = AdwinBank(1, 1, delta=0.002).update(*one_series(values))[0]
    assert first["direction"] == 1
    assert first["statistic"] > first["threshold"]
    after_change = first["row"] + 1 - 1_000
    assert after_change <= first["back"] <= after_change + 64


def test_more_alarms_than_a_buffer_holds_all_arrive() -> None:
    values = np.repeat(np.arange(400) % 2 * 100.0, 64)
    expected, _ = river_alarms(values, clock=1)
    alarms = AdwinBank(1, 1, delta=0.002, clock=1).update(*one_series(values))
    assert len(alarms) == len(expected) > 256
    assert alarms.dtype == ALARM


def test_values_that_are_not_finite_change_nothing() -> None:
    values = stream("steps", 1)
    holes = np.insert(values, np.arange(0, 6_000, 7), np.nan)
    holes[::29][~np.isfinite(holes[::29])] = np.inf
    plain, holed = AdwinBank(1, 1, delta=0.002), AdwinBank(1, 1, delta=0.002)
    alarms = holed.update(*one_series(holes))
    positions = np.flatnonzero(np.isfinite(holes))
    assert np.searchsorted(positions, alarms["row"]).tolist() == plain.update(*one_series(values))["row"].tolist()
    assert holed.export(0) == plain.export(0)


def test_a_series_that_is_not_active_stays_empty() -> None:
    bank = AdwinBank(2, 2, delta=0.002, active=[[1, 0], [0, 1]])
    bank.update(np.ones((50, 2)), np.tile(np.array([[0, 1]], np.int32), (50, 1)))
    assert bank.width().tolist() == [[50, 0], [0, 50]]
    assert bank.mean().tolist() == [[1, 0], [0, 1]]


def test_state_of_a_long_window_is_below_1500_bytes_a_series() -> None:
    generator = np.random.default_rng(2)
    bank = AdwinBank(1, 4, delta=1e-6)
    bank.update(generator.normal(size=(200_000, 4)), np.zeros((200_000, 1), np.int32))
    assert bank.width().min() == 200_000
    assert len(bank.export(0)) / 4 < 1_500


def test_the_notebook_class_is_river_with_batches() -> None:
    values = stream("steps", 3)
    expected, _ = river_alarms(values)
    ours, theirs = ADWIN(), drift.ADWIN()
    for value in values[:1_500].tolist():
        ours.update(value)
        theirs.update(value)
        assert (ours.drift_detected, ours.width, ours.total, ours.variance, ours.estimation, ours.n_detections) == (
            theirs.drift_detected, theirs.width, theirs.total, theirs.variance, theirs.estimation, theirs.n_detections,
        )  # fmt: skip
    later = ours.update_many(values[1_500:])
    assert (later + 1_500).tolist() == [position for position, _ in expected if position >= 1_500]


def test_a_bank_refuses_what_it_cannot_hold() -> None:
    bank = AdwinBank(1, 2, delta=0.002)
    with pytest.raises(ValueError, match="scope ids below 1, got 1"):
        bank.update(np.zeros((1, 2)), np.ones((1, 1), np.int32))
    with pytest.raises(ValueError, match=r"shape \(n, 2\)"):
        bank.update(np.zeros((1, 3)), np.zeros((1, 1), np.int32))
    with pytest.raises(ValueError, match="max_buckets"):
        AdwinBank(1, 1, delta=0.1, max_buckets=1)
    with pytest.raises(ValueError, match="delta above 0 and at most 1"):
        AdwinBank(1, 1, delta=1.5)
