"""Dates of changes: against a search over every start, and the coverage of their intervals by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from driftline.detectors.kernels import EDetectorBank, FocusBank
from driftline.detectors.kernels.bank import pack, unpack
from driftline.detectors.kernels.bets import BOUNDED
from driftline.detectors.kernels.e_detector_state import STATE_TYPES
from driftline.detectors.kernels.focus import INTERVAL_DEPTH, Before, date_of
from driftline.detectors.kernels.hulls import CORNERS, HULL_TYPES, hull_arrays


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


def banded(x: np.ndarray, low: float, high: float, rate: float = 0.0) -> np.ndarray:
    """The log likelihood ratio of a rise after every start, from the likelihoods themselves: the mean before within a band."""
    sd = np.sqrt(rate * (1.0 - rate)) if rate else 1.0

    def likelihood(part: np.ndarray, mean: float) -> float:
        if not rate:
            return float(stats.norm.logpdf(part, mean).sum())
        p = min(max(rate + mean * sd, 0.0), 1.0)
        return float(special.xlogy(part, p).sum() + special.xlog1py(1.0 - part, -p).sum())

    def mean_of(part: np.ndarray) -> float:
        return float((part.mean() - rate) / sd)

    same = likelihood(x, min(max(mean_of(x), low), high))
    out = np.zeros(len(x))
    for t in range(len(x)):
        since = mean_of(x[t:])
        if since > high:
            before = likelihood(x[:t], min(max(mean_of(x[:t]), low), high)) if t else 0.0
            out[t] = before + likelihood(x[t:], since) - same
    return out


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 300),
    change=st.integers(0, 299),
    shift=st.sampled_from([0.0, 0.3, 0.6, 2.0]),
    band=st.sampled_from([0.0, 0.1, 0.4]),
    rate=st.sampled_from([0.0, 0.02, 0.3]),
    falls=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_beyond_a_band_the_date_is_that_of_a_search_over_every_start(
    seed: int, n: int, change: int, shift: float, band: float, rate: float, falls: bool
) -> None:
    generator = np.random.default_rng(seed)
    later = np.arange(n) >= change
    sd = np.sqrt(rate * (1.0 - rate)) if rate else 1.0
    # a band that is wider above, as that of a rate is
    low, high = -min(band, 0.5 * rate / sd if rate else band), band
    if rate:
        x = (generator.random(n) < np.where(later, rate + 0.5 * shift * sd, rate)).astype(float)
        units = (x - rate) / sd
    else:
        x = units = generator.normal(size=n) + shift * later
    bank, before = FocusBank(1), Before(low, high, rate, sd)
    mirrored = Before(-high, -low, 1.0 - rate if rate else 0.0, sd)
    bank.update((-units if falls else units)[:, None], np.zeros((n, 1), np.int32))
    ratio, back, earliest, latest, moved = date_of(0, mirrored if falls else before, INTERVAL_DEPTH, bank.hulls)
    up = banded(x, low, high, rate)
    down = banded(1.0 - x if rate else -x, -high, -low, 1.0 - rate if rate else 0.0)
    best = max(up.max(), down.max())
    # the best start of all may be no corner where the mean since the corner is within the band; then it is one near to it
    assert ratio <= best + 1e-6
    if ratio < best - 1e-6:
        assert band > 0.0
        assert ratio >= best - 3.0
        return
    if best < 1e-6:
        return
    found = up if up.max() > down.max() else down
    assert back == n - int(np.argmax(found))
    near = np.flatnonzero((found >= found.max() - INTERVAL_DEPTH) & (found > 0.0))
    assert earliest >= n - near[0]
    assert latest <= n - near[-1]
    start = n - back
    assert moved == pytest.approx((-1.0 if falls else 1.0) * units[start:].mean(), abs=1e-9)


@pytest.mark.parametrize("until", [1_000, 20_000])
def test_a_change_hardly_beyond_the_tolerance_is_dated_to_its_start(until: int) -> None:
    """Its last stretch alone may be beyond: against the tolerance as the mean before, half of these were dated 1,000 rows late."""
    generator = np.random.default_rng(7)
    late = []
    for _ in range(40):
        z = generator.normal(size=(until + 20_000, 1)) + 0.3 * (np.arange(until + 20_000) >= until)[:, None]
        found = EDetectorBank(1, rate=1e-6, tolerance=0.2).update(z, np.zeros((len(z), 1), np.int32), np.arange(len(z)))
        late.append(int(found["row"][0]) + 1 - int(found["back"][0]) - until)
    assert abs(np.median(late)) <= 30
    assert np.quantile(np.abs(late), 0.9) <= 200


@pytest.mark.parametrize(
    ("base", "tolerance", "rate", "within"),
    [(0.0005, 20.0, 0.03, 150), (0.0005, 20.0, 0.3, 10), (0.1, 0.5, 0.3, 60), (0.5, 0.2, 0.65, 150), (0.98, 0.02, 0.9, 100)],
)
def test_a_rate_is_dated_by_the_law_of_zeros_and_ones(base: float, tolerance: float, rate: float, within: int) -> None:
    """As normal values, the one that is rare would be its own likeliest start each time it comes."""
    generator = np.random.default_rng(8)
    off, held = [], []
    for _ in range(40):
        x = (generator.random((14_000, 1)) < np.where(np.arange(14_000) < 4_000, base, rate)[:, None]).astype(float)
        bank = EDetectorBank(1, rate=1e-6, form=BOUNDED, base=base, tolerance=tolerance)
        first = bank.update(x, np.zeros((14_000, 1), np.int32), np.arange(14_000))[0]
        since = int(first["row"]) + 1 - 4_000
        off.append(since - int(first["back"]))
        held.append(first["latest"] <= since <= first["earliest"])
    assert np.median(np.abs(off)) <= within / 2
    assert np.quantile(np.abs(off), 0.9) <= within
    assert np.mean(held) >= 0.85


@pytest.mark.parametrize("seed", range(9, 12))
def test_no_date_reaches_back_through_a_long_stretch_within_the_tolerance(seed: int) -> None:
    z = np.random.default_rng(seed).normal(size=(121_000, 1))
    z[20_000:] += 0.2
    z[120_000:] += 0.8
    found = EDetectorBank(1, rate=1e-6, tolerance=0.316).update(z, np.zeros((len(z), 1), np.int32), np.arange(len(z)))[0]
    assert 120_000 < found["row"] < 120_150
    assert abs(int(found["row"]) + 1 - int(found["back"]) - 120_000) <= 60
    assert found["earliest"] <= found["row"] - 119_850


def test_corners_of_an_older_checkpoint_are_those_of_the_sums() -> None:
    """That one summed the values less the tolerance, and dropped the corners that were none then."""
    z = np.random.default_rng(10).normal(size=(3_000, 2)) + 0.4 * (np.arange(3_000) >= 2_000)[:, None]
    monitors = np.tile(np.arange(2, dtype=np.int32), (3_000, 1))
    whole, again = (EDetectorBank(2, rate=1e-9, tolerance=[0.1, 0.2]) for _ in range(2))
    whole.update(z, monitors, np.arange(3_000))
    types = [*STATE_TYPES, *HULL_TYPES]
    arrays = unpack(whole.export(), b"DEDT", 2, 2, types)
    sizes = arrays[-3].reshape(2, 2)
    of = np.repeat(np.array([0.1, 0.1, 0.2, 0.2]), sizes.ravel())
    arrays[-1] -= of * arrays[-2]
    again.restore(pack(b"DEDT", 1, 2, arrays))
    kept, given = hull_arrays(again.state.hulls), hull_arrays(whole.state.hulls)
    np.testing.assert_allclose(kept[-1], given[-1], atol=1e-9)
    assert [a.tobytes() for a in kept[:-1]] == [a.tobytes() for a in given[:-1]]


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
