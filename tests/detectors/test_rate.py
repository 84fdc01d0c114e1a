"""Betting rates: the promised run length by simulation, and the recursion against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from driftline.detectors.kernels import RateBank
from driftline.detectors.kernels.rate import rate_bound

HITS = np.where(np.arange(67) == 1, 1, np.where(np.arange(67) == 0, 0, -1))


def a_bank(rate: float, run_length: float, direction: str = "up", series: int = 1) -> RateBank:
    return RateBank(
        1,
        column_of=np.arange(series),
        hits=np.tile(HITS, (series, 1)),
        rate_up=rate,
        rate_down=rate,
        run_length=run_length,
        direction=direction,
    )


def draw(rate: float, rows: int, series: int, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random((rows, series)) < rate).astype(np.uint8)


def one_scope(rows: int) -> np.ndarray:
    return np.zeros((rows, 1), np.int32)


@pytest.mark.parametrize("direction", ["up", "down", "both"])
@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.95])
def test_the_mean_run_length_is_at_least_what_was_promised_and_not_twice_that(rate: float, direction: str) -> None:
    rows, series, run_length = 100_000, 40, 1_000
    alarms = a_bank(rate, run_length, direction, series).update(draw(rate, rows, series, seed=1), one_scope(rows))
    # 4e6 rows allow 4000 alarms; four standard errors of that count are 6 %. The overshoot over the limit is what a
    # run is longer by: at most the factor of the largest bet
    assert 4_000 / 2 <= len(alarms) <= 4_000 * 1.06


def test_evidence_is_a_martingale_around_the_number_of_rows() -> None:
    rows, rate = 10, 0.3
    every = (np.arange(1 << rows)[None, :] >> np.arange(rows)[:, None] & 1).astype(np.uint8)
    bank = a_bank(rate, 1e12, "both", 1 << rows)
    bank.update(every, one_scope(rows))
    chance = rate ** every.sum(axis=0) * (1 - rate) ** (rows - every.sum(axis=0, dtype=np.int64))
    # before any alarm E[R] = rows, whatever the bet (Shin, Ramdas and Rinaldo 2023); over all sequences, so exactly
    assert np.allclose(np.tensordot(chance, bank.stakes[0], axes=1), rows, rtol=1e-9)


def test_the_recursion_is_the_sum_over_all_starts_and_its_date_the_largest_of_them() -> None:
    codes = np.r_[draw(0.1, 60, 1, seed=8), draw(0.4, 40, 1, seed=9)]
    bank = a_bank(0.1, 1e12, "both")
    bank.update(codes, one_scope(100))
    for side, bet in np.ndindex(2, 3):
        factors = bank.factors[0, 0, side, bet][codes[:, 0]]
        products = [float(np.prod(factors[start:])) for start in range(100)]
        assert bank.stakes[0, 0, side, bet] == pytest.approx(sum(products), rel=1e-9)
        assert bank.peaks[0, 0, side, bet] == pytest.approx(max(products), rel=1e-9)
        assert products[bank.starts[0, 0, side, bet]] == pytest.approx(max(products), rel=1e-9)


@pytest.mark.parametrize("rows_of_reference", [200, 1_000, 5_000])
def test_an_estimated_rate_keeps_the_promise_too(rows_of_reference: int) -> None:
    generator = np.random.default_rng(2)
    rows, references, rate, run_length = 20_000, 200, 0.05, 1_000
    hits = generator.binomial(rows_of_reference, rate, references)
    bank = RateBank(
        1,
        column_of=np.arange(references),
        hits=np.tile(HITS, (references, 1)),
        rate_up=[[rate_bound(int(k), rows_of_reference, 1) for k in hits]],
        rate_down=[[rate_bound(int(k), rows_of_reference, -1) for k in hits]],
        run_length=run_length,
    )
    alarms = bank.update(draw(rate, rows, references, seed=3), one_scope(rows))
    assert len(alarms) <= rows * references / run_length


@pytest.mark.parametrize(("before", "after", "direction"), [(0.05, 0.15, 1), (0.05, 0.0, -1), (0.9, 0.6, -1), (0.9, 1.0, 1)])
def test_a_change_is_seen_and_dated(before: float, after: float, direction: int) -> None:
    codes = np.r_[draw(before, 5_000, 1, seed=4), draw(after, 5_000, 1, seed=5)]
    alarms = a_bank(before, 1e6, "both").update(codes, one_scope(10_000))
    first = alarms[0]
    assert 5_000 <= first["row"] < 6_000
    assert first["direction"] == direction
    assert abs(first["row"] + 1 - first["back"] - 5_000) < 150
    assert first["statistic"] >= first["threshold"] == 2e6


def test_it_starts_again_after_an_alarm() -> None:
    bank = a_bank(0.01, 100.0)
    alarms = bank.update(np.ones((40, 1), np.uint8), one_scope(40))
    assert len(set(np.diff(alarms["row"]).tolist())) == 1
    assert alarms["back"].max() == np.diff(alarms["row"])[0]


def test_rows_that_do_not_count_are_not_seen() -> None:
    codes = draw(0.3, 4_000, 1, seed=6)
    holes = np.repeat(codes, 2, axis=0)
    holes[1::2] = 66
    plain, holed = a_bank(0.1, 1e4), a_bank(0.1, 1e4)
    expected = plain.update(codes, one_scope(4_000))
    found = holed.update(holes, one_scope(8_000))
    assert (found["row"] // 2).tolist() == expected["row"].tolist()
    assert found["back"].tolist() == expected["back"].tolist()
    assert holed.export(0) == plain.export(0)


@pytest.mark.parametrize(("hits", "rows"), [(0, 100), (5, 100), (50, 100), (100, 100)])
def test_bounds_of_a_rate_are_wilsons(hits: int, rows: int) -> None:
    from scipy.stats import binomtest

    level = math.erf(2 / math.sqrt(2))
    interval = binomtest(hits, rows).proportion_ci(level, method="wilson")
    assert rate_bound(hits, rows, 1) >= interval.high - 1e-9
    assert rate_bound(hits, rows, -1) <= interval.low + 1e-9
    if 0 < hits < rows:
        assert rate_bound(hits, rows, 1) == pytest.approx(interval.high, abs=1e-12)
        assert rate_bound(hits, rows, -1) == pytest.approx(interval.low, abs=1e-12)


def test_factors_have_mean_one_under_the_base_rate() -> None:
    for rate in (0.001, 0.1, 0.5, 0.999):
        factors = a_bank(rate, 1e3).factors[0, 0]
        assert np.allclose(factors[..., 1] * rate + factors[..., 0] * (1 - rate), 1.0, atol=1e-12)
