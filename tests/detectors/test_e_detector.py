"""The budget of false alarms: the theorem by enumeration and simulation, the recursion against a plain loop."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from driftline.detectors.kernels import EDetectorBank
from driftline.detectors.kernels.bets import (
    BETS,
    BOUNDED,
    DIRECTIONS,
    FIRST_SPREAD,
    RATES,
    SCORES,
    SHIFTS,
    SPREADS,
    bet_name,
    score_factors,
    times,
)
from driftline.detectors.kernels.e_detector import HEARD
from driftline.detectors.kernels.jit import kernel

NEVER = 1e-12
"""A budget so small that no alarm comes; evidence is linear in the budget."""


def feed(bank: EDetectorBank, values: np.ndarray, start: int = 0, clock: np.ndarray | None = None) -> np.ndarray:
    rows, width = values.shape
    monitors = np.tile(np.arange(width, dtype=np.int32), (rows, 1))
    return bank.update(values, monitors, np.arange(start, start + rows) if clock is None else clock)


def alarm_rows(blames: np.ndarray) -> list[int]:
    return [int(row) for row in blames["row"][blames["rank"] == 0]]


@kernel
def fill_factors(z: np.ndarray, shift: np.ndarray, spread: np.ndarray, out: np.ndarray) -> None:
    for i in range(z.shape[0]):
        score_factors(z[i], shift, spread, out[i])


def factors(z: np.ndarray, tolerance: float) -> np.ndarray:
    bank = EDetectorBank(1, rate=1.0, tolerance=tolerance)
    out = np.empty((len(z), BETS))
    fill_factors(z, bank.bets.shift[0], bank.bets.spread[0], out)
    return out


def test_factors_without_tolerance_are_likelihood_ratios() -> None:
    z = np.linspace(-6, 6, 101)
    shifts = [*SHIFTS, *(-lam for lam in SHIFTS)]
    laws = [stats.norm(lam, 1) for lam in shifts] + [stats.norm(0, sd) for sd in SPREADS]
    expected = np.column_stack([law.pdf(z) / stats.norm.pdf(z) for law in laws])
    assert np.allclose(factors(z, 0.0), expected, rtol=1e-11)


@pytest.mark.parametrize("d", [0.0, 0.03, 0.1, 0.25, 0.5])
def test_no_factor_has_a_mean_above_one_under_any_law_within_the_tolerance(d: float) -> None:
    z = np.linspace(-8, 8, 20_001)
    found = factors(z, d)
    for mean in (-d, -d / 2, 0.0, d):
        for log_sd in (-d / math.sqrt(2), 0.0, d / math.sqrt(2)):
            density = stats.norm.pdf(z, mean, math.exp(log_sd))
            means = integrate.trapezoid(found * density[:, None], z, axis=0)
            assert means.max() <= 1.0 + 1e-9
    # ... and the bounds are not idle: at the corner of the null each side's bets are fair
    corner = integrate.trapezoid(found * stats.norm.pdf(z, d, math.exp(d / math.sqrt(2)))[:, None], z, axis=0)
    assert corner[[0, 1, 2, 3, 10]] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("base", [0.001, 0.1, 0.5, 0.97])
@pytest.mark.parametrize("d", [0.0, 0.2, 1.0])
def test_no_bounded_factor_has_a_mean_above_one_within_the_tolerance(base: float, d: float) -> None:
    line = EDetectorBank(1, rate=1.0, form=BOUNDED, base=base, tolerance=d).bets.line[0]
    used = len(RATES)
    assert times(base, 1 + d) - base <= d * base + 1e-12
    for mean in (times(base, 1 / (1 + d)), base, times(base, 1 + d)):
        assert (line[0] + line[1] * mean)[:used].max() <= 1 + 1e-12
    assert (line[0] + line[1])[:used].min() >= 0
    assert line[0, :used].min() >= 0


def test_evidence_is_a_martingale_around_the_budget() -> None:
    rows, rate = 10, 0.3
    every = (np.arange(1 << rows)[None, :] >> np.arange(rows)[:, None] & 1).astype(float)
    bank = EDetectorBank(1 << rows, rate=NEVER, form=BOUNDED, base=rate, first=1.0)
    feed(bank, every)
    chance = rate ** every.sum(axis=0) * (1 - rate) ** (rows - every.sum(axis=0))
    # over all sequences, so exactly: E[R] is the budget that came in, for each bet
    expected = np.tensordot(chance, bank.state.stakes[:, : len(RATES)], axes=1) / NEVER
    assert np.allclose(expected, rows, rtol=1e-9)


def test_the_recursion_is_the_weighted_sum_over_all_starts() -> None:
    z = np.random.default_rng(1).normal(0.3, 1.0, (60, 1))
    bank = EDetectorBank(1, rate=NEVER, first=1.0)
    feed(bank, z)
    each = factors(z[:, 0], 0.0)
    sums = sum(np.prod(each[start:], axis=0) for start in range(60)) * NEVER
    assert np.allclose(bank.state.stakes[0], sums, rtol=1e-9)
    weights = np.r_[np.full(10, 0.08), np.full(4, 0.05)]
    assert bank.total == pytest.approx(float(weights @ sums), rel=1e-9)
    assert bank.spent == pytest.approx(60 * NEVER)


class Plain:
    """The budget as its theorem states it, in floats of Python."""

    def __init__(self, monitors: int, rate: float, cap: float) -> None:
        self.rate, self.cap = rate, cap
        self.stakes = [[0.0] * BETS for _ in range(monitors)]
        self.last: list[int | None] = [None] * monitors
        self.gaps: list[list[float]] = [[] for _ in range(monitors)]
        self.weights = [0.08] * 10 + [0.05] * 4

    def evidence(self, m: int) -> float:
        return sum(w * r for w, r in zip(self.weights, self.stakes[m], strict=True))

    def row(self, values: dict[int, float], clock: int) -> list[int]:
        for m, z in values.items():
            inflow, last = 0.0, self.last[m]
            if last is not None:
                usual = sum(self.gaps[m]) / len(self.gaps[m]) if self.gaps[m] else 0.0
                inflow = self.rate * min(clock - last, max(self.cap, 2 * usual))
                self.gaps[m].append(clock - last)
            self.last[m] = clock
            laws = [stats.norm(lam, 1) for lam in (*SHIFTS, *(-s for s in SHIFTS))] + [stats.norm(0, sd) for sd in SPREADS]
            self.stakes[m] = [(r + inflow) * law.pdf(z) / stats.norm.pdf(z) for r, law in zip(self.stakes[m], laws, strict=True)]
        blamed: list[int] = []
        if sum(self.evidence(m) for m in range(len(self.stakes))) >= 1:
            held = 0.0
            while held < 1:
                worst = max(range(len(self.stakes)), key=self.evidence)
                held += self.evidence(worst)
                blamed.append(worst)
                self.stakes[worst] = [0.0] * BETS
        return blamed


def test_alarms_and_blame_are_those_of_a_plain_loop() -> None:
    generator = np.random.default_rng(2)
    rows, monitors = 120, 5
    values = generator.normal(size=(rows, monitors)) + np.linspace(0, 1.5, rows)[:, None] * np.array([0, 0, 1, 1, 0.7])
    values[generator.random((rows, monitors)) < 0.3] = np.nan
    clock = np.cumsum(generator.choice([0, 1, 2, 50], rows))
    bank = EDetectorBank(monitors, rate=2e-4, cap=10.0)
    found = feed(bank, values, clock=clock)
    plain = Plain(monitors, 2e-4, 10.0)
    expected = []
    for i in range(rows):
        seen = {m: float(x) for m, x in enumerate(values[i]) if not math.isnan(x)}
        expected += [(i, m, rank) for rank, m in enumerate(plain.row(seen, int(clock[i])))]
    assert [(int(b["row"]), int(b["monitor"]), int(b["rank"])) for b in found] == expected
    assert len(alarm_rows(found)) > 3
    assert max(rank for *_, rank in expected) > 0
    assert bank.state.evidence == pytest.approx([plain.evidence(m) for m in range(monitors)], rel=1e-9)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
@pytest.mark.parametrize("budget", [1 / 500, 1 / 5_000])
def test_the_sum_over_dependent_monitors_spends_no_more_than_the_budget(correlation: float, budget: float) -> None:
    generator = np.random.default_rng(3)
    rows, monitors = 200_000, 8
    common = generator.normal(size=(rows, 1))
    z = math.sqrt(correlation) * common + math.sqrt(1 - correlation) * generator.normal(size=(rows, monitors))
    bank = EDetectorBank(monitors, rate=budget / monitors, first=1.0)
    alarms = len(alarm_rows(feed(bank, z)))
    expected = rows * budget
    assert bank.spent == pytest.approx(expected)
    # three standard errors of a count above; below: half of it, or the budget would be wasted
    assert 0.5 * expected <= alarms <= expected + 3 * math.sqrt(expected)


@pytest.mark.parametrize("direction", ["both", "up", "down"])
@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.95])
def test_rates_keep_their_budget(rate: float, direction: str) -> None:
    generator = np.random.default_rng(4)
    alarms = 0
    for _ in range(10):
        x = (generator.random((40_000, 4)) < rate).astype(float)
        bank = EDetectorBank(4, rate=1 / 4_000, form=BOUNDED, base=rate, direction=DIRECTIONS[direction], first=1.0)
        alarms += len(alarm_rows(feed(bank, x)))
    assert 150 <= alarms <= 400 + 3 * 20


@pytest.mark.parametrize("mean", [-0.1, 0.1])
def test_a_certain_but_small_shift_spends_no_more_than_the_budget(mean: float) -> None:
    z = np.random.default_rng(5).normal(mean, 1.0, (100_000, 4))
    tolerant, strict = (EDetectorBank(4, rate=1e-4 / 4, tolerance=d, first=1.0) for d in (0.1, 0.0))
    assert len(alarm_rows(feed(tolerant, z))) <= 10 + 3 * math.sqrt(10)
    assert len(alarm_rows(feed(strict, z))) > 200


@pytest.mark.parametrize(
    ("mean", "sd", "direction", "names"),
    [(0.8, 1.0, 1, "shift +"), (-0.8, 1.0, -1, "shift -"), (0.0, 1.8, 0, "spread x"), (0.0, 0.4, 0, "spread x0")],
)
def test_a_change_is_found_named_and_dated(mean: float, sd: float, direction: int, names: str) -> None:
    generator = np.random.default_rng(6)
    z = np.r_[generator.normal(size=(4_000, 1)), generator.normal(mean, sd, (400, 1))]
    first = feed(EDetectorBank(1, rate=1e-6, tolerance=0.1), z)[0]
    assert 4_000 < first["row"] < 4_200
    assert first["direction"] == direction
    assert bet_name(SCORES, int(first["bet"])).startswith(names)
    assert abs(int(first["row"]) + 1 - int(first["back"]) - 4_000) <= 20
    if direction:
        assert int(first["earliest"]) >= first["row"] + 1 - 4_000 >= int(first["latest"])
        assert first["shift"] == pytest.approx(mean, abs=0.3)
    else:
        assert (first["bet"] >= FIRST_SPREAD, first["earliest"], first["latest"]) == (True, 0, 0)


@pytest.mark.parametrize("form", [SCORES, BOUNDED])
def test_a_lasting_change_to_the_side_that_is_not_watched_leaves_the_other_side_watched(form: int) -> None:
    bank = EDetectorBank(2, rate=1e-5, form=form, base=0.5, direction=DIRECTIONS["up"])
    down, up = (-3.0, 2.0) if form == SCORES else (0.0, 1.0)
    assert len(feed(bank, np.full((20_000, 2), down))) == 0
    other = EDetectorBank(2, rate=1e-5, form=form, base=0.5, direction=DIRECTIONS["up"])
    other.restore(bank.export())  # refuses evidence that is no number
    for one in (bank, other):
        blames = feed(one, np.full((200, 2), up), start=20_000)
        assert alarm_rows(blames)[0] < 60
        assert blames["direction"][0] == 1


@pytest.mark.parametrize(("before", "after", "direction"), [(0.05, 0.15, 1), (0.05, 0.0, -1), (0.9, 0.6, -1)])
def test_a_change_of_a_rate_is_found_named_and_dated(before: float, after: float, direction: int) -> None:
    generator = np.random.default_rng(7)
    x = np.r_[generator.random((5_000, 1)) < before, generator.random((5_000, 1)) < after].astype(float)
    first = feed(EDetectorBank(1, rate=1e-6, form=BOUNDED, base=before, tolerance=0.2), x)[0]
    assert 5_000 <= first["row"] < 6_000
    assert first["direction"] == direction
    assert bet_name(BOUNDED, int(first["bet"])).startswith("rate x")
    assert abs(int(first["row"]) + 1 - int(first["back"]) - 5_000) < 60


def test_monitors_that_change_together_are_dated_to_the_change_though_their_evidence_went_into_alarms_of_others() -> None:
    """An alarm takes evidence from many; where that took their dates with it, most were dated to the alarm before theirs."""
    generator = np.random.default_rng(9)
    z = generator.normal(size=(3_000, 60))
    z[2_000:] += 0.7
    blames = feed(EDetectorBank(60, rate=1e-6 / 60, tolerance=0.1, pause=5_000), z)
    heard: dict[int, Any] = {}
    for blame in blames:
        if blame["rank"] == 0 or blame["evidence"] >= HEARD:
            heard.setdefault(int(blame["monitor"]), blame)
    silent = {int(blame["monitor"]) for blame in blames if blame["rank"] > 0 and blame["evidence"] < HEARD}
    assert len(silent) > 20
    assert len(heard) == 60
    since = np.array([one["row"] + 1 - 2_000 for one in heard.values()])
    held = [one["latest"] <= s <= one["earliest"] for s, one in zip(since, heard.values(), strict=True)]
    assert np.mean(held) >= 0.9
    assert np.median([abs(s - one["back"]) for s, one in zip(since, heard.values(), strict=True)]) <= 5


@pytest.mark.parametrize("form", [SCORES, BOUNDED])
def test_a_rise_is_not_dated_to_a_fall_long_before_that_nobody_listens_to(form: int) -> None:
    """The fall has raised no alarm, so its sums stay, and it may have more evidence than the rise that has just alarmed."""
    generator = np.random.default_rng(13)
    if form == SCORES:
        x = np.r_[generator.normal(size=1_000), generator.normal(-1.0, 1.0, 5_000), generator.normal(0.8, 1.0, 500)]
    else:
        x = (generator.random(6_500) < np.r_[np.full(1_000, 0.05), np.zeros(5_000), np.full(500, 0.3)]).astype(float)
    bank = EDetectorBank(1, rate=1e-6, form=form, base=0.05, tolerance=0.2, direction=DIRECTIONS["up"])
    first = feed(bank, x[:, None])[0]
    assert first["direction"] == 1
    assert first["shift"] > 0.0
    since = int(first["row"]) + 1 - 6_000
    assert 0 < since < 300
    assert first["latest"] <= since <= first["earliest"] < 1_000


def test_one_side_does_not_hear_the_other() -> None:
    z = np.random.default_rng(8).normal(-1.0, 1.0, (20_000, 1))
    up = EDetectorBank(1, rate=1e-5, direction=1)
    assert len(feed(up, z)) == 0
    assert up.bets.weights[0].sum() == pytest.approx(1.0)
    assert len(feed(EDetectorBank(1, rate=1e-5, direction=-1), z)) > 100


def test_after_an_outage_one_value_does_not_carry_the_whole_gap() -> None:
    hour = 3_600_000
    bank = EDetectorBank(1, rate=1.0 / (168 * hour), cap=hour)
    z = np.zeros((3, 1))
    feed(bank, z, clock=np.array([0, 1_000, 100 * hour]))
    assert bank.spent == pytest.approx((1_000 + hour) / (168 * hour))
    # a monitor whose values are a day apart gets each day whole, from the third on
    daily = EDetectorBank(1, rate=1.0 / (168 * hour), cap=hour)
    feed(daily, np.zeros((8, 1)), clock=np.arange(8) * 24 * hour)
    assert daily.spent == pytest.approx((1 + 6 * 24) / 168)


def test_a_clock_that_stands_or_goes_back_brings_nothing_in() -> None:
    bank = EDetectorBank(1, rate=1.0)
    feed(bank, np.zeros((4, 1)), clock=np.array([5, 5, 5, 3]))
    assert bank.spent == 0.0


def test_monitors_that_come_and_go_spend_only_while_they_have_values() -> None:
    values = np.full((100, 3), np.nan)
    values[:, 0] = 0.0
    values[50:, 1] = 0.0
    values[[10, 90], 2] = np.inf, np.nan
    bank = EDetectorBank(3, rate=1e-3)
    feed(bank, values)
    assert bank.state.seen.tolist() == [100, 50, 0]
    assert bank.spent == pytest.approx((99 + 49) * 1e-3)


@given(seed=st.integers(0, 1_000), cuts=st.sets(st.integers(1, 299), max_size=8))
@settings(max_examples=25, deadline=None)
def test_cuts_and_restarts_never_show(seed: int, cuts: set[int]) -> None:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(300, 3)) + (np.arange(300) >= 150)[:, None]
    values[generator.random((300, 3)) < 0.2] = np.nan
    values[:, 2] = generator.random(300) < 0.3
    options: dict[str, Any] = {"rate": 1e-3, "form": [SCORES, SCORES, BOUNDED], "base": 0.3, "tolerance": 0.1}
    whole, cut = EDetectorBank(3, **options), EDetectorBank(3, **options)
    expected, found = feed(whole, values), []
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 300], strict=True):
        part = feed(cut, values[start:stop], start)
        part["row"] += start
        found.append(part)
        again = EDetectorBank(3, **options)
        again.restore(cut.export())
        assert again.export() == cut.export()
        cut = again
    assert np.concatenate(found).tolist() == expected.tolist()
    assert cut.export() == whole.export()
    assert len(expected) > 3


def second_drift(first: float, pause: int) -> tuple[float, float]:
    """Mean delay of a shift of .3 sd in series 1 while series 0 is off by `first` for good, and alarms a run."""
    n, change, delays, alarms = 12_000, 3_000, [], 0
    for run in range(12):
        z = np.random.default_rng([2, run]).normal(size=(n, 10))
        z[1_000:, 0] += first
        z[change:, 1] += 0.3
        bank = EDetectorBank(10, rate=1e-6, tolerance=0.1, cap=600.0, first=1.0, pause=pause)
        blames = feed(bank, z)
        alarms += len(set(alarm_rows(blames)))
        heard = blames[((blames["rank"] == 0) | (blames["evidence"] >= HEARD)) & (blames["monitor"] == 1) & (blames["row"] >= change)]
        delays.append(int(heard["row"][0]) - change if len(heard) else n - change)
    return float(np.mean(delays)), alarms / 12


def test_a_drift_that_lasts_takes_no_evidence_from_others_while_it_rests() -> None:
    alone, _ = second_drift(0.0, 1_000)
    beside, alarms = second_drift(3.0, 1_000)
    restless, many = second_drift(3.0, 0)
    assert beside == pytest.approx(alone, rel=0.15)
    assert restless > 1.2 * beside
    assert alarms < 40 < 1_000 < many


def test_rows_without_a_value_are_rest_too() -> None:
    bank = EDetectorBank(1, rate=1e-3, pause=50, first=1.0)
    values = np.full((400, 1), 4.0)
    assert alarm_rows(feed(bank, values[:100]))[0] < 20
    first = alarm_rows(feed(EDetectorBank(1, rate=1e-3, pause=50, first=1.0), values))
    sparse = values.copy()
    sparse[first[0] + 1 : first[0] + 51] = np.nan
    assert alarm_rows(feed(EDetectorBank(1, rate=1e-3, pause=50, first=1.0), sparse)) == first


def test_an_alarm_on_every_row_comes_through_whole() -> None:
    bank = EDetectorBank(2, rate=10.0, first=1.0)
    assert alarm_rows(feed(bank, np.zeros((2_000, 2)))) == list(range(2_000))


def test_what_does_not_fit_is_refused() -> None:
    bank = EDetectorBank(2, rate=0.1)
    with pytest.raises(ValueError, match="one shape"):
        bank.update(np.zeros((3, 2)), np.zeros((3, 1), np.int32), np.arange(3))
    with pytest.raises(ValueError, match="below 2"):
        bank.update(np.zeros((3, 1)), np.full((3, 1), 2, np.int32), np.arange(3))
    refused: tuple[dict[str, Any], ...]
    refused = ({"rate": -1.0}, {"rate": 1.0, "tolerance": -0.1}, {"rate": 1.0, "form": BOUNDED, "base": 1.0})
    for options in refused:
        with pytest.raises(ValueError, match="expected"):
            EDetectorBank(1, **options)
