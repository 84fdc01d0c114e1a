"""Portable functions against the C library's, SciPy's and the laws they promise."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from driftline.detectors.kernels.jit import kernel
from driftline.detectors.kernels.portable import normal_quantile, portable_cos_sin, portable_exp, position_keys, uniform


@kernel
def fill_exp(x: np.ndarray, out: np.ndarray) -> None:
    for i in range(x.shape[0]):
        out[i] = portable_exp(x[i])


@kernel
def fill_cos_sin(x: np.ndarray, out: np.ndarray) -> None:
    for i in range(x.shape[0]):
        out[0, i], out[1, i] = portable_cos_sin(x[i])


@kernel
def fill_quantile(p: np.ndarray, out: np.ndarray) -> None:
    for i in range(p.shape[0]):
        out[i] = normal_quantile(p[i])


@kernel
def fill_uniform(keys: np.ndarray, own: np.uint64, out: np.ndarray) -> None:
    for i in range(keys.shape[0]):
        out[i] = uniform(keys[i] ^ own)


def exp(x: float) -> float:
    out = np.empty(1)
    fill_exp(np.array([x]), out)
    return float(out[0])


def quantiles(p: np.ndarray) -> np.ndarray:
    out = np.empty(len(p))
    fill_quantile(p, out)
    return out


@given(st.floats(min_value=-700.0, max_value=700.0))
def test_the_portable_exponential_is_the_exponential(x: float) -> None:
    assert exp(x) == pytest.approx(math.exp(x), rel=5e-16)


def test_the_exponential_ends_where_numbers_do() -> None:
    assert (exp(0.0), exp(1000.0), exp(-1000.0)) == (1.0, math.inf, 0.0)


def test_cosine_and_sine_are_numpys_up_to_a_hundred_thousand() -> None:
    g = np.random.default_rng(2)
    x = np.r_[g.normal(size=20_000) * 10.0 ** g.integers(-8, 5, 20_000), np.arange(-40, 41) * math.pi / 4, 0.0]
    x = x[np.abs(x) < 1e5]
    out = np.empty((2, len(x)))
    fill_cos_sin(x, out)
    assert out[0] == pytest.approx(np.cos(x), abs=1e-15)
    assert out[1] == pytest.approx(np.sin(x), abs=1e-15)


def test_normal_quantiles_are_scipys() -> None:
    p = np.r_[np.random.default_rng(1).random(20_000), 10.0 ** -np.arange(1, 300), 1 - 10.0 ** -np.arange(1, 15)]
    assert quantiles(p) == pytest.approx(stats.norm.ppf(p), rel=2e-14, abs=1e-15)
    assert quantiles(np.array([0.975]))[0] == pytest.approx(statistics.NormalDist().inv_cdf(0.975), rel=1e-15)


def test_normal_quantiles_of_the_ends_are_infinite() -> None:
    assert quantiles(np.array([0.0, 1.0, -0.5, 1.5])).tolist() == [-math.inf, math.inf, -math.inf, math.inf]


@pytest.mark.parametrize("own", [0, 1, 2**63 + 12345])
def test_hashes_of_positions_are_uniform_and_of_no_memory(own: int) -> None:
    out = np.empty(100_000)
    fill_uniform(position_keys(np.zeros(100_000, np.uint64), np.arange(100_000)), np.uint64(own), out)
    assert out.min() > 0.0
    assert out.max() < 1.0
    assert stats.kstest(out, "uniform").pvalue > 1e-3
    # four standard errors of a correlation of independent values
    for lag in (1, 2, 64):
        assert abs(np.corrcoef(out[:-lag], out[lag:])[0, 1]) < 4 / math.sqrt(len(out))


def test_keys_differ_by_seed_source_and_offset_and_by_nothing_else() -> None:
    offsets = np.arange(1_000)
    found = [position_keys(np.full(1_000, source, np.uint64), offsets, seed) for source in (0, 1, 2**64 - 1) for seed in (0, 1, 2)]
    assert len(set(np.concatenate(found).tolist())) == 9_000
    again = position_keys(np.zeros(1, np.uint64), np.array([17]), seed=0)
    assert again[0] == found[0][17]
