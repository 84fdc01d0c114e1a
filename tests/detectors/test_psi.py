"""PSI of a sliding window against the definition, computed anew from the last rows with numpy."""

from __future__ import annotations

import numpy as np
import pytest

from driftline.detectors import PSI
from driftline.detectors.kernels import PsiBank
from driftline.detectors.kernels.psi import NO_GROUP, REARM, smoothed_shares

WINDOWS = [500, 200, 300]
BINS = [10, 11, 4]
NOT_APPLICABLE = 66


def groups_of() -> np.ndarray:
    groups = np.full((3, 67), NO_GROUP, np.uint8)
    groups[:, :60] = np.arange(60) % 10
    groups[2] = np.where(groups[2] == NO_GROUP, NO_GROUP, groups[2] % 4)
    groups[1, 64] = 10
    return groups


def expected_shares(scopes: int) -> np.ndarray:
    generator = np.random.default_rng(11)
    shares = np.zeros((scopes, 3, 11))
    for column, bins in enumerate(BINS):
        shares[:, column, :bins] = smoothed_shares(generator.integers(200, 2_000, (scopes, bins)))
    return shares


def a_bank(threshold: float = 0.1, scopes: int = 2) -> PsiBank:
    return PsiBank(scopes, 3, window=WINDOWS, groups=groups_of(), expected=expected_shares(scopes), threshold=threshold, n_groups=BINS)


def codes_and_scopes(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    codes = generator.choice([*range(60), 62, 64, 65, NOT_APPLICABLE], size=(n, 3)).astype(np.uint8)
    codes[n // 2 :, 0] = generator.integers(0, 4, n - n // 2)
    return codes, generator.integers(-1, 2, (n, 2)).astype(np.int32)


def by_definition(codes: np.ndarray, column: int, shares: np.ndarray) -> tuple[float, int]:
    groups = groups_of()[column][codes]
    groups = groups[groups != NO_GROUP]
    window = smoothed_shares(np.bincount(groups, minlength=BINS[column]))
    reference = shares[: BINS[column]]
    return float(((window - reference) * np.log(window / reference)).sum()), len(groups)


@pytest.mark.parametrize("n", [50, 450, 3_000, 140_000])
def test_psi_is_the_definition_over_the_last_rows_of_each_scope(n: int) -> None:
    bank = a_bank()
    ring, heads = bank.new_ring()
    codes, scopes = codes_and_scopes(n, seed=n)
    bank.update(codes, scopes, ring, heads)
    shares = expected_shares(2)
    for scope in range(2):
        rows = np.repeat(np.arange(n), (scopes == scope).sum(axis=1))
        assert heads[scope] == len(rows)
        for column, window in enumerate(WINDOWS):
            expected, counted = by_definition(codes[rows[-window:], column], column, shares[scope, column])
            assert bank.arrays.grouped[scope, column] == counted
            assert bank.values()[scope, column] == pytest.approx(expected, abs=1e-10)
            counts = np.bincount(codes[rows[-window:], column], minlength=67)
            assert bank.arrays.counts[scope, column].tolist() == counts.tolist()


def test_alarms_come_at_the_crossings_of_the_exact_series() -> None:
    bank = a_bank(threshold=0.05, scopes=1)
    ring, heads = bank.new_ring()
    generator = np.random.default_rng(3)
    shares = expected_shares(1)
    n = 1_600
    codes = np.stack([generator.choice(bins, size=n, p=shares[0, c, :bins]) for c, bins in enumerate(BINS)], axis=1).astype(np.uint8)
    codes[1_000:1_400, 0] = 3
    codes[codes[:, 1] == 10, 1] = 64
    alarms = bank.update(codes, np.zeros((n, 1), np.int32), ring, heads)
    expected = []
    for column, window in enumerate(WINDOWS):
        armed = True
        for row in range(window - 1, n):
            psi, _ = by_definition(codes[row + 1 - window : row + 1, column], column, shares[0, column])
            if psi >= 0.05 and armed:
                expected.append((row, column))
                armed = False
            elif psi < 0.05 * REARM:
                armed = True
    found = list(zip(alarms["row"].tolist(), alarms["column"].tolist(), strict=True))
    assert found == sorted(expected)
    assert any(column == 0 and 1_000 <= row < 1_100 for row, column in found)


def test_rows_that_do_not_apply_raise_the_threshold_in_proportion() -> None:
    bank = a_bank(threshold=0.05, scopes=1)
    ring, heads = bank.new_ring()
    codes = np.full((1_000, 3), NOT_APPLICABLE, np.uint8)
    codes[::5, 0] = 2
    alarms = bank.update(codes, np.zeros((1_000, 1), np.int32), ring, heads)
    assert alarms["column"].tolist() == [0]
    assert alarms["threshold"][0] == pytest.approx(0.05 * 5)
    assert alarms["row"][0] == 499


def test_an_empty_bin_is_not_infinite() -> None:
    bank = PsiBank(1, 1, window=100, groups=np.minimum(np.arange(67), 1)[None], expected=[0.5, 0.5], threshold=1.0)
    ring, heads = bank.new_ring()
    bank.update(np.zeros((100, 1), np.uint8), np.zeros((100, 1), np.int32), ring, heads)
    p = np.array([100.5, 0.5]) / 101
    assert bank.values()[0, 0] == pytest.approx(((p - 0.5) * np.log(p / 0.5)).sum(), abs=1e-12)


def test_codes_and_rings_that_do_not_fit_are_refused() -> None:
    bank = a_bank()
    ring, heads = bank.new_ring()
    with pytest.raises(ValueError, match="codes below 67"):
        bank.update(np.full((1, 3), 67, np.uint8), np.zeros((1, 1), np.int32), ring, heads)
    with pytest.raises(ValueError, match="a ring of"):
        bank.update(np.zeros((1, 3), np.uint8), np.zeros((1, 1), np.int32), ring[:, :100], heads)
    with pytest.raises(ValueError, match="sum to 1"):
        PsiBank(1, 1, window=100, groups=np.zeros((1, 67)), expected=[0.4], threshold=1.0)


def test_the_notebook_class_sees_a_shift_and_dates_its_alarm() -> None:
    generator = np.random.default_rng(5)
    psi = PSI(generator.normal(size=20_000), window=1_000, run_length=1e6)
    assert psi.update_many(generator.normal(size=10_000)).size == 0
    values = generator.normal(0.5, size=2_000)
    values[::10] = np.nan
    alarms = psi.update_many(values)
    assert len(alarms) == 1
    assert np.isfinite(values[alarms[0]])
    assert psi.value > psi.threshold
    assert psi.width == 1_000
    assert psi.counts.sum() == 1_000


@pytest.mark.parametrize("reference", [np.zeros(100), np.r_[np.zeros(95), np.ones(5)], np.r_[np.zeros(5), np.ones(95)], np.arange(100) % 3])
def test_ties_in_the_reference_merge_and_no_value_is_lost(reference: np.ndarray) -> None:
    psi = PSI(reference, window=100, threshold=0.2)
    assert psi.update_many(reference).size == 0
    assert psi.width == 100
    assert psi.value == psi.estimation == pytest.approx(0, abs=1e-12)
    psi.update_many(np.full(100, 50.0))
    assert psi.value > 0.1
