"""Conformal ranks: exactly uniform under exchangeability, by enumeration; and a plain loop as oracle."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from driftline.detectors.kernels import ConformalBank
from driftline.detectors.kernels.conformal import BINS, NO_BIN, split_edges
from driftline.detectors.kernels.portable import position_keys


def keys(rows: int, first: int = 0) -> np.ndarray:
    return position_keys(np.zeros(rows, np.uint64), np.arange(first, first + rows))


def one_scope(rows: int) -> np.ndarray:
    return np.zeros((rows, 1), np.int32)


def own(columns: int = 1, scopes: int = 1) -> np.ndarray:
    return np.arange(1, scopes * columns + 1, dtype=np.uint64).reshape(scopes, columns)


def a_bank(counts: Any, columns: int = 1, **options: Any) -> ConformalBank:
    return ConformalBank(1, columns, counts=counts, own_keys=own(columns), **options)


def rank_chances(counts: list[int], code: int, u: Fraction) -> Fraction:
    """P(p <= u) of a value of a bin, over its own uniform number."""
    low, width, total = sum(counts[:code]), counts[code] + 1, sum(counts) + 1
    return min(max(u * total - low, Fraction(0)), Fraction(width)) / width


@pytest.mark.parametrize("bag", [(0, 0, 0, 0), (0, 1, 2, 3), (0, 0, 1, 2, 2), (1, 1, 1, 0, 2)])
def test_ranks_are_exactly_independent_and_uniform_over_all_orders(bag: tuple[int, ...]) -> None:
    """The theorem itself: with every order of the same values equally likely, the last two ranks are independent uniforms."""
    orders = list(itertools.permutations(bag))
    for u, v in itertools.product([Fraction(1, 7), Fraction(1, 2), Fraction(4, 5)], repeat=2):
        both = Fraction(0)
        for order in orders:
            counts = [order[:-2].count(b) for b in range(4)]
            first = rank_chances(counts, order[-2], u)
            counts[order[-2]] += 1
            both += first * rank_chances(counts, order[-1], v)
        assert both / len(orders) == u * v


@given(seed=st.integers(0, 1_000), bins=st.integers(1, BINS), rows=st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_scores_are_the_normal_quantiles_of_the_ranks_of_a_plain_loop(seed: int, bins: int, rows: int) -> None:
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 9, bins)
    codes = generator.integers(0, bins, (rows, 1)).astype(np.uint8)
    found = a_bank(counts).update(codes, one_scope(rows), keys(rows))[:, 0]
    held = counts.tolist()
    for score, code in zip(found.tolist(), codes[:, 0].tolist(), strict=True):
        low, high = sum(held[:code]) / (sum(held) + 1), sum(held[: code + 1]) / (sum(held) + 1) + 1 / (sum(held) + 1)
        assert low <= stats.norm.cdf(score) <= high
        held[code] += 1


def test_ranks_of_a_hand_made_reference() -> None:
    # 10 + 20 + 30 counted values; a value of the middle bin lies between 10/61 and 31/61
    scores = a_bank([10, 20, 30], frozen=True).update(np.full((4_000, 1), 1, np.uint8), one_scope(4_000), keys(4_000))
    ranks = stats.norm.cdf(scores[:, 0])
    assert 10 / 61 < ranks.min() < 10 / 61 + 0.001
    assert 31 / 61 - 0.001 < ranks.max() < 31 / 61
    assert stats.kstest((ranks - 10 / 61) * 61 / 21, "uniform").pvalue > 1e-3


LAWS = {
    "lognormal": lambda g, n: g.lognormal(size=n),
    "t3": lambda g, n: g.standard_t(3, n),
    "atom": lambda g, n: np.where(g.random(n) < 0.7, 0.0, g.exponential(size=n)),
    "few values": lambda g, n: g.integers(0, 5, n).astype(float),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("m", [50, 1_000])
def test_scores_are_standard_normal_whatever_the_law_and_the_size_of_the_reference(law: str, m: int) -> None:
    generator = np.random.default_rng(7)
    rows, series = 2_000, 40
    found = []
    for _ in range(series):
        values = LAWS[law](generator, m + rows)
        edges, counts = split_edges(values[:m])
        codes = np.searchsorted(edges, values[m:], side="left").astype(np.uint8)[:, None]
        found.append(a_bank(counts).update(codes, one_scope(rows), keys(rows, first=int(generator.integers(10**9))))[:, 0])
    scores = np.concatenate(found)
    assert stats.kstest(scores, "norm").pvalue > 1e-3
    # four standard errors of a correlation of independent values
    assert abs(np.corrcoef(scores[:-1], scores[1:])[0, 1]) < 4 / math.sqrt(len(scores))
    assert abs(np.corrcoef(scores[:-1] ** 2, scores[1:] ** 2)[0, 1]) < 4 / math.sqrt(len(scores))


def test_a_frozen_reference_takes_no_values_and_a_growing_one_all() -> None:
    codes = np.random.default_rng(3).integers(0, 4, (500, 2)).astype(np.uint8)
    bank = a_bank(np.full(4, 10), columns=2, frozen=[True, False])
    bank.update(codes, one_scope(500), keys(500))
    assert bank.counts[0, 0, :4].tolist() == [10] * 4
    assert bank.counts[0, 1, :4].tolist() == (10 + np.bincount(codes[:, 1], minlength=4)).tolist()
    assert bank.totals.tolist() == [[40, 540]]


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.5, 0.97])
def test_the_reading_of_zeros_and_ones_is_one_as_often_as_expected(rate: float) -> None:
    generator = np.random.default_rng(11)
    rows, m = 200_000, 100
    counts = np.bincount((generator.random(m) < rate).astype(int), minlength=2)
    codes = (generator.random((rows, 1)) < rate).astype(np.uint8)
    found = a_bank(counts, share=0.2).update(codes, one_scope(rows), keys(rows))[:, 0]
    assert set(np.unique(found)) == {0.0, 1.0}
    # ranks are uniform whatever the rate: four standard errors of a share of .2
    assert abs(found.mean() - 0.2) < 4 * math.sqrt(0.16 / rows)
    # ... and in the same order: where the share is the rate, all ones lie above all zeros but at the edge
    fitting = a_bank(counts * 1_000, share=rate).update(codes, one_scope(rows), keys(rows))[:, 0]
    assert np.mean(fitting == codes[:, 0]) > 0.8


def test_rows_without_a_value_have_no_score_and_change_nothing() -> None:
    codes = np.array([[0], [NO_BIN], [1], [BINS]], np.uint8)
    bank = a_bank([3, 3])
    scores = bank.update(codes, one_scope(4), keys(4))
    assert np.isnan(scores[:, 0]).tolist() == [False, True, False, True]
    assert bank.counts[0, 0, :2].tolist() == [4, 4]
    outside = bank.update(np.zeros((1, 1), np.uint8), np.full((1, 1), -1, np.int32), keys(1))
    assert np.isnan(outside).all()


def test_scopes_and_columns_stand_side_by_side_and_have_uniforms_of_their_own() -> None:
    codes = np.zeros((1_000, 2), np.uint8)
    bank = ConformalBank(2, 2, counts=[1], own_keys=own(2, 2), frozen=True)
    scores = bank.update(codes, np.tile(np.array([1, 0], np.int32), (1_000, 1)), keys(1_000))
    assert scores.shape == (1_000, 4)
    assert np.abs(np.corrcoef(scores.T) - np.eye(4)).max() < 4 / math.sqrt(1_000)
    single = ConformalBank(2, 2, counts=[1], own_keys=own(2, 2), frozen=True)
    assert single.update(codes, np.ones((1_000, 1), np.int32), keys(1_000)).tolist() == scores[:, :2].tolist()


def test_edges_come_from_the_first_half_and_counts_from_the_second() -> None:
    edges, counts = split_edges([1.0, 2.0, 3.0, 4.0, np.nan, 3.5, 3.5, 9.0, -1.0], bins=4)
    assert edges.tolist() == [1.0, 2.0, 3.0]
    assert counts.tolist() == [1, 0, 0, 3]
    constant, counted = split_edges(np.full(100, 5.0))
    assert (constant.tolist(), counted.tolist()) == ([5.0], [50, 0])


@pytest.mark.parametrize(("values", "bins"), [([1.0], 10), (np.arange(100.0), 1), (np.arange(100.0), 65), ([np.nan] * 9, 10)])
def test_references_that_cannot_be_binned_are_refused(values: Any, bins: int) -> None:
    with pytest.raises(ValueError, match="expected 2 to 64 bins"):
        split_edges(values, bins)


def test_a_bank_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="at most 64 counts"):
        a_bank(np.ones(65))
    with pytest.raises(ValueError, match="shares below 1"):
        a_bank([1, 1], share=1.0)
    with pytest.raises(ValueError, match="expected 3 keys"):
        a_bank([1, 1]).update(np.zeros((3, 1), np.uint8), one_scope(3), keys(2))
