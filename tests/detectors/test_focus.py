"""Dates of changes: against a search over every start, and the coverage of their intervals by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.detectors.kernels import EDetectorBank, FocusBank
from driftline.detectors.kernels.focus import CORNERS, INTERVAL_DEPTH


def feed(bank: FocusBank, values: np.ndarray) -> FocusBank:
    bank.update(values[:, None], np.zeros((len(values), 1), np.int32))
    return bank


def search(x: np.ndarray, known: bool) -> tuple[float, int, list[int]]:
    """The largest log likelihood ratio over every start, that start, and the starts of its side within the interval's depth."""
    n, sums = len(x), np.r_[0.0, np.cumsum(x)]
    t = np.arange(n)
    after = n - t
    gain = sums[n] - sums[t] - (0.0 if known else after * sums[n] / n)
    ratio = np.zeros(n)
    if known:
        ratio = gain**2 / (2 * after)
    else:
        ratio[1:] = gain[1:] ** 2 * n / (2 * t[1:] * after[1:])
    best = int(np.argmax(ratio))
    near = np.flatnonzero((ratio >= ratio[best] - INTERVAL_DEPTH) & (np.sign(gain) == np.sign(gain[best])))
    return float(ratio[best]), best, near.tolist()


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 300),
    change=st.integers(0, 299),
    shift=st.sampled_from([0.0, 0.5, -1.0, 2.0]),
    known=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_the_date_is_that_of_a_search_over_every_start(seed: int, n: int, change: int, shift: float, known: bool) -> None:
    x = np.random.default_rng(seed).normal(size=n) + shift * (np.arange(n) >= change)
    ratio, start, near = search(x, known)
    found = feed(FocusBank(1, known=known), x).date(0)
    assert found is not None
    assert found.ratio == pytest.approx(ratio, rel=1e-9)
    assert found.back == n - start
    # the interval holds every start of the search's, and may be longer: it is read off the hull
    assert found.earliest >= n - near[0]
    assert found.latest <= n - near[-1]
    before = 0.0 if known else x[:start].mean()
    assert found.shift == pytest.approx(x[start:].mean() - before, abs=1e-9)


def test_intervals_read_off_the_hull_are_hardly_longer_than_those_over_every_start() -> None:
    generator = np.random.default_rng(1)
    ours, theirs = 0, 0
    for _ in range(300):
        x = generator.normal(size=600) + 0.7 * (np.arange(600) >= 500)
        _, _, near = search(x, known=True)
        found = feed(FocusBank(1), x).date(0)
        assert found is not None
        ours += found.earliest - found.latest + 1
        theirs += near[-1] - near[0] + 1
    assert 1.0 <= ours / theirs < 1.5


@pytest.mark.parametrize("shift", [0.5, 1.0])
@pytest.mark.parametrize("slack", [0.0, 0.1])
def test_intervals_at_the_alarm_hold_the_true_start(shift: float, slack: float) -> None:
    """95 % is the law of a fixed sample; at the moment of an alarm, which comes early, a little less is left."""
    generator = np.random.default_rng(2)
    held = alarms = 0
    for _ in range(400):
        z = generator.normal(size=(3_000, 1)) + shift * (np.arange(3_000) >= 2_000)[:, None]
        found = EDetectorBank(1, rate=1e-6, tolerance=slack).update(z, np.zeros((3_000, 1), np.int32), np.arange(3_000))
        if len(found) and found["row"][0] >= 2_000:
            alarms += 1
            since = int(found["row"][0]) + 1 - 2_000
            held += found["latest"][0] <= since <= found["earliest"][0]
    assert alarms >= 395
    assert held / alarms >= 0.93


def test_a_path_that_bends_for_ever_keeps_a_bounded_hull() -> None:
    # increments that only grow: every point is a corner of the lower hull
    x = np.linspace(-1.0, 1.0, 2_000)
    bank = feed(FocusBank(1, known=False), x)
    assert bank.hulls.size.max() == CORNERS
    found = bank.date(0)
    assert found is not None
    # points near now are all kept, so the shift is still seen; the exact start needs what was dropped
    assert found.ratio > 1.0


def test_the_hull_of_independent_values_stays_small() -> None:
    generator = np.random.default_rng(3)
    bank = FocusBank(50)
    monitors = np.tile(np.arange(50, dtype=np.int32), (20_000, 1))
    bank.update(generator.normal(size=(20_000, 50)), monitors)
    assert bank.hulls.size.max() < CORNERS / 2


def test_nothing_is_dated_before_anything_changed() -> None:
    assert FocusBank(1).date(0) is None
    assert feed(FocusBank(1), np.zeros(50)).date(0) is None
    bank = feed(FocusBank(1), np.r_[np.zeros(50), np.ones(50)])
    bank.reset(0)
    assert bank.date(0) is None


@given(seed=st.integers(0, 1_000), stop=st.integers(0, 200))
@settings(max_examples=25, deadline=None)
def test_a_restored_bank_is_one_that_never_stopped(seed: int, stop: int) -> None:
    x = np.random.default_rng(seed).normal(size=(200, 3))
    x[x > 1.5] = np.nan
    monitors = np.tile(np.arange(3, dtype=np.int32), (200, 1))
    whole, part = FocusBank(3), FocusBank(3)
    whole.update(x, monitors)
    part.update(x[:stop], monitors[:stop])
    again = FocusBank(3)
    again.restore(part.export())
    again.update(x[stop:], monitors[stop:])
    assert again.export() == whole.export()
    assert [again.date(m) for m in range(3)] == [whole.date(m) for m in range(3)]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        FocusBank(2).update(np.zeros((3, 2)), np.zeros((3, 1), np.int32))
    with pytest.raises(ValueError, match="below 2"):
        FocusBank(2).update(np.zeros((3, 1)), np.full((3, 1), 2, np.int32))
