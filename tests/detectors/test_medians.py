"""Medians read off bins: NumPy's to within a bin, none where no bin can place them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.evidence import baseline, column, numeric_rows
from driftline.detectors.coding import RowCoder
from driftline.detectors.medians import median_of
from driftline.detectors.spec import N_CODES, Float64

SEED = 20251122


def binned(reference: Float64, values: Float64) -> tuple[float | None, float | None]:
    """The medians of values and reference, by the reference's bins."""
    built = baseline(numeric_rows(reference), column("numeric", len(values)))
    codes, _ = RowCoder(built.columns).encode(numeric_rows(values))
    counts = np.bincount(codes[:, 0], minlength=N_CODES)
    return median_of(counts, built.columns[0]), median_of(built.counts[0, 0], built.columns[0])


@pytest.mark.parametrize("shift", [-40.0, -5.0, 0.0, 12.5, 60.0])
def test_a_median_is_numpys_to_within_a_bin(shift: float) -> None:
    draw = np.random.default_rng(SEED)
    reference = draw.gamma(4.0, 25.0, 20_000)
    values = draw.gamma(4.0, 25.0, 5_000) + shift
    now, base = binned(reference, values)
    assert now is not None
    assert base is not None
    # Of 60 bins of equal share each, none but the outer ones spans more than 2 % of the values.
    for found, sample in ((now, values), (base, reference)):
        low, high = np.quantile(sample, [0.46, 0.54])
        assert low <= found <= high


def test_beyond_all_that_the_reference_has_seen_there_is_none() -> None:
    reference = np.random.default_rng(SEED).normal(100.0, 15.0, 5_000)
    assert binned(reference, reference + 500.0)[0] is None
    assert binned(reference, reference - 500.0)[0] is None


def test_values_of_the_largest_range_have_one() -> None:
    reference = 1.7e308 * np.random.default_rng(SEED).uniform(-1.0, 1.0, 4_000)
    now, _ = binned(reference, reference)
    assert now is not None
    assert abs(now) < 2e307


def test_a_constant_is_its_own_median() -> None:
    assert binned(np.full(2_000, 7.25), np.full(500, 7.25)) == (7.25, 7.25)
