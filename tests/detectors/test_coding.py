"""Codes against a plain search, scores against their definition."""

from __future__ import annotations

import bisect
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.detectors.baseline import ColumnReference
from driftline.detectors.baseline_build import BaselineBuilder
from driftline.detectors.coding import SCORE_MAX, RowCoder, scores
from driftline.detectors.quantiles import numeric_reference
from driftline.detectors.spec import ABOVE, BELOW, INVALID, MISSING, N_CODES, NOT_APPLICABLE, OTHER, UNSEEN, PanelRows
from tests.detectors.panel_cases import plain_rows, small_spec, stream


def naive_code(x: float, reference: ColumnReference) -> int:
    if math.isnan(x):
        return MISSING
    if reference.low is None or x > reference.high:  # type: ignore[operator]
        return ABOVE if reference.low is not None else BELOW
    if x < reference.low:
        return BELOW
    return bisect.bisect_left(list(reference.edges), x)


@settings(deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=150),
    st.lists(st.floats(), max_size=50),
)
def test_codes_equal_a_plain_binary_search(known: list[float], live: list[float]) -> None:
    reference = numeric_reference("x", np.array(known), ())
    values = [*known, *live]
    codes, numbers = RowCoder([reference]).encode(plain_rows({"x": values}))
    assert codes[:, 0].tolist() == [naive_code(x, reference) for x in values]
    assert [math.isnan(x) for x in numbers[:, 0]] == [not math.isfinite(x) for x in values]


def coder_and_rows() -> tuple[RowCoder, PanelRows]:
    rows = stream(1_000, 1)
    builder = BaselineBuilder(small_spec().columns, {})
    builder.add(rows)
    return RowCoder(builder.finish().columns), rows


def test_missing_invalid_and_not_applicable_have_codes_of_their_own() -> None:
    coder, rows = coder_and_rows()
    codes, values = coder.encode(rows)
    assert rows.invalid is not None
    assert (codes[rows.invalid[:, 0], 0] == INVALID).all()
    assert (codes[rows.not_applicable["loss"], 2] == NOT_APPLICABLE).all()
    assert np.isnan(values[rows.not_applicable["loss"], 2]).all()
    assert (codes[rows.categorical["country"][0] < 0, 1] == MISSING).all()
    assert set(codes[:, 3].tolist()) == {0, 1}


def test_an_unseen_category_is_unseen_whatever_its_place_in_the_batch() -> None:
    coder, _ = coder_and_rows()
    codes = np.array([0, 1, -1, 1], np.int32)
    batch = PanelRows(
        n=4,
        numeric=np.zeros((4, 0)),
        numeric_names=[],
        categorical={"country": (codes, ["atlantis", "c0"])},
        source=np.zeros(4, np.uint16),
        offset=np.arange(4),
        time_ms=np.arange(4),
    )
    assert coder.encode(batch)[0][:, 1].tolist() == [UNSEEN, 0, MISSING, 0]


def test_a_column_that_is_not_sent_is_missing_and_one_of_the_wrong_kind_invalid() -> None:
    coder, _ = coder_and_rows()
    batch = PanelRows(
        n=2,
        numeric=np.array([[1.0], [np.nan]]),
        numeric_names=["country"],
        categorical={"amount": (np.array([0, -1], np.int32), ["12"])},
        source=np.zeros(2, np.uint16),
        offset=np.arange(2),
        time_ms=np.arange(2),
    )
    codes, _ = coder.encode(batch)
    assert codes[:, 0].tolist() == [INVALID, MISSING]
    assert codes[:, 1].tolist() == [INVALID, MISSING]
    assert codes[:, 2].tolist() == [MISSING, MISSING]


def test_scores_of_equal_bins_are_standard_normal_quantiles() -> None:
    counts = np.zeros(N_CODES, np.int64)
    counts[:60] = 100
    z = scores(counts, 60, "numeric")
    expected = np.array([NormalDist().inv_cdf((i + 0.5) / 60) for i in range(60)])
    assert z[:60] == pytest.approx(expected / expected.std(), abs=5e-3)
    assert float(counts[:60] @ z[:60]) == pytest.approx(0, abs=1e-9)
    assert float(counts[:60] @ z[:60] ** 2) / counts.sum() == pytest.approx(1)
    assert z[BELOW] < z[0] < z[59] < z[ABOVE]
    assert np.isnan(z[MISSING:]).all()


@settings(deadline=None)
@given(st.lists(st.integers(0, 1_000), min_size=3, max_size=60))
def test_scores_rise_with_the_code_and_stay_bounded(mass: list[int]) -> None:
    counts = np.zeros(N_CODES, np.int64)
    counts[: len(mass)] = mass
    z = scores(counts, len(mass), "numeric")
    if not sum(mass):
        assert np.isnan(z).all()
        return
    inner = z[[BELOW, *range(len(mass)), ABOVE]]
    assert (np.diff(inner) >= 0).all()
    assert np.abs(inner).max() <= SCORE_MAX
    total = float(counts[: len(mass)] @ z[: len(mass)] ** 2) / sum(mass)
    assert total <= 1 + 1e-9


def test_scores_do_not_depend_on_the_scale_of_the_values() -> None:
    rng = np.random.default_rng(7)
    raw = rng.lognormal(size=3_000)
    tables = []
    for scale, offset in ((1.0, 0.0), (1e-9, 5.0), (1e12, -1e12)):
        values = raw * scale + offset
        reference = numeric_reference("x", values, ())
        codes, _ = RowCoder([reference]).encode(plain_rows({"x": values}))
        counts = np.bincount(codes[:, 0], minlength=N_CODES)
        tables.append(scores(counts, reference.n_bins, "numeric")[codes[:, 0]])
    assert np.abs(tables[0] - tables[1]).max() < 0.1
    assert np.abs(tables[0] - tables[2]).max() < 0.1


def test_categories_have_other_and_unseen_above_the_ranked_ones() -> None:
    counts = np.zeros(N_CODES, np.int64)
    counts[[0, 1, OTHER]] = [60, 30, 10]
    z = scores(counts, 2, "categorical")
    assert z[0] < z[1] < z[OTHER] < z[UNSEEN]
