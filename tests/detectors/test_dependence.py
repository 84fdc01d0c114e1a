"""The self-check: what it sees and does not see, its false alarms, and what becomes of a budget where it speaks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import signal

from driftline.detectors.autoregression import Dependence
from driftline.detectors.baseline import Baseline
from driftline.detectors.kernels.dependence import ALLOWED, FAR, REMEMBERED, Checks, check_sequence, new_checks, stride_of
from driftline.detectors.panel import Panel
from driftline.detectors.spec import BaselineError, Column, PanelBudget, PanelRows, PanelSpec, Signal, StateError, Suspended
from tests.detectors.panel_cases import plain_rows, series
from tests.detectors.test_autoregression import autoregressive
from tests.detectors.test_panel_state import Store, restarted

Values = np.ndarray


def checked(values: Values) -> Checks:
    found = new_checks(1)
    check_sequence(np.clip(values, -8, 8).astype(float), 0, found)
    return found


def bursts(seed: int, n: int) -> Values:
    """Runs of 2 to 500 equal values."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(2, 501, n)
    return np.repeat(generator.normal(size=n), sizes)[:n]


def test_the_sums_are_those_of_a_plain_loop() -> None:
    values = autoregressive(1, 600, 0.3)
    found = checked(values)
    for j, stride in enumerate((1, 4, 16)):
        own = values[::stride]
        near = sum(min(abs(own[i] - own[i - 1]), 4.0) ** 2 / 2 for i in range(FAR, len(own)))
        far = sum(min(abs(own[i] - own[i - FAR]), 4.0) ** 2 / 2 for i in range(FAR, len(own)))
        assert found.sums[0, j] == pytest.approx([near, far, max(len(own) - FAR, 0)])


@pytest.mark.parametrize(("phi", "within", "level"), [(0.3, 3_000, 1), (0.5, 1_000, 1), (0.8, 300, 1), (0.8, 6_000, 2), (0.95, 200, 1)])
def test_an_autoregression_is_refused_soon_and_up_to_the_stride_at_which_it_is_forgotten(phi: float, within: int, level: int) -> None:
    for seed in range(10):
        found = checked(autoregressive(seed, within, phi))
        assert found.level[0] == level
        lag = stride_of(level - 1)
        expected = (phi**lag - phi ** (8 * lag)) / (1 - phi ** (8 * lag))
        assert found.found[0] == pytest.approx(expected, abs=0.35)


@pytest.mark.parametrize("law", ["normal", "exponential", "rate .3", "rate .01", "rate .001", "one step", "a ramp"])
def test_independent_values_are_not_refused_whatever_their_law_and_level(law: str) -> None:
    """Two million values of each: less than one false suspension in 650,000 values with 95 % confidence."""
    n, runs = 100_000, 20
    for seed in range(runs):
        generator = np.random.default_rng([2, seed])
        values = generator.normal(size=n)
        if law == "exponential":
            values = generator.exponential(size=n)
        elif law.startswith("rate"):
            values = (generator.random(n) < float(law.removeprefix("rate "))).astype(float)
        elif law == "one step":
            values[generator.integers(n) :] += 5.0
        elif law == "a ramp":
            values += np.linspace(0.0, 3.0, n)
        assert checked(values).suspended[0] == 0


def test_a_season_and_bursts_are_seen_at_the_strides_at_which_they_move() -> None:
    rows = np.arange(150_000)
    season = np.sqrt(0.5) * np.sin(2 * np.pi * rows / 1_440) + np.sqrt(0.75) * np.random.default_rng(3).normal(size=len(rows))
    assert checked(season).level[0] >= 4
    assert checked(season).refused[0, :2].tolist() == [0, 0]
    assert checked(bursts(3, 20_000)).level[0] >= 4


def test_a_suspension_ends_once_the_values_that_are_remembered_are_independent_again() -> None:
    generator = np.random.default_rng(4)
    found = new_checks(1)
    check_sequence(autoregressive(4, 5_000, 0.5), 0, found)
    assert found.level[0] == 1
    check_sequence(generator.normal(size=REMEMBERED[0] // 2 - 100), 0, found)
    assert found.level[0] == 1
    for _ in range(10):
        check_sequence(generator.normal(size=REMEMBERED[0]), 0, found)
    assert found.level[0] == 0
    sums = found.sums[0, 0]
    assert 1 - sums[0] / sums[1] < ALLOWED + 4 * np.sqrt(2 / sums[2])


BUDGET = 1 / 20_000


def spec(*, flag: str | None = None, learn: int = 2_000, segments: dict[str, int] | None = None) -> PanelSpec:
    own = series("x", None, "e_detector", warning=0.1)
    flags = (series("x:missing", flag, "e_detector", warning=0.2, direction="up"),) if flag else ()
    budget = PanelBudget(BUDGET, True, 1.0 / (168 * BUDGET))
    return PanelSpec(columns=(Column("x", "numeric", (own, *flags)),), segments=segments or {}, window=200, learn_rows=learn, budget=budget)


def feed(panel: Panel, values: Values, first: int = 0, cut: int = 1_000) -> list[tuple[int, Signal]]:
    out = []
    for start in range(0, len(values), cut):
        rows = plain_rows({"x": values[start : start + cut]})
        rows = replace(rows, offset=rows.offset + first + start)
        out += [(first + start + s.row, replace(s, row=0)) for s in panel.update(rows)]
    return out


def unwhitened(values: Values) -> Panel:
    """A panel whose reference was independent, on a stream that is not."""
    panel = Panel(spec(learn=len(values)))
    feed(panel, values)
    return panel


@pytest.mark.parametrize("law", ["phi .3", "phi .5", "phi .8", "bursts"])
def test_suspended_monitors_stay_within_twice_the_budget_on_what_their_whitener_never_saw(law: str) -> None:
    rows, runs = 40_000, 12
    inside = outside = suspended = 0
    for run in range(runs):
        panel = unwhitened(np.random.default_rng([5, run]).normal(size=5_000))
        values = bursts(run, rows) if law == "bursts" else autoregressive(run, rows, float(law.removeprefix("phi ")))
        opened = [s for _, s in feed(panel, values, 5_000) if s.kind == "open"]
        inside += sum(s.suspended is not None for s in opened)
        outside += sum(s.suspended is None for s in opened)
        assert panel._watch is not None
        assert panel._watch.budget is not None
        suspended += int(panel._watch.budget._scores.checks.suspended[0])
    assert suspended > 0.9 * runs * rows
    expected = 2 * suspended * BUDGET
    assert inside <= expected + 2 * np.sqrt(expected)
    # before there are values enough to see it
    assert outside <= 3 * runs


def test_an_event_of_a_suspended_monitor_says_so_and_a_change_is_still_found_and_dated() -> None:
    panel = unwhitened(np.random.default_rng(6).normal(size=5_000))
    values = autoregressive(6, 14_000, 0.5)
    values[8_000:] += 1.5
    found = feed(panel, values, 5_000)
    row, opened = next((row, s) for row, s in found if s.kind == "open" and s.suspended is not None and row > 13_000)
    assert row < 13_400
    assert opened.suspended == Suspended(1, opened.suspended.correlation if opened.suspended else 0.0, 4)
    assert "guarantee suspended: neighbouring values have a correlation of 0." in (opened.reason or "")
    assert opened.since is not None
    assert abs(opened.since.offset - 13_000) <= 128
    assert panel.levels(0)[0].suspended is not None
    assert panel.subjects() == (1, 1, 1)


def test_where_the_reference_depends_on_itself_beyond_a_short_memory_its_monitor_begins_suspended() -> None:
    panel = Panel(spec(learn=5_000))
    feed(panel, bursts(7, 5_000))
    assert panel.baseline is not None
    assert panel.baseline.dependence[0, 0].level >= 2
    assert panel.levels(0)[0].suspended is not None
    again = Baseline.from_json(panel.baseline.to_json())
    assert (again.dependence, again.id) == (panel.baseline.dependence, panel.baseline.id)
    damaged = replace(panel.baseline, dependence={(0, 0): Dependence(9, 0.5)}).to_json()
    with pytest.raises(BaselineError, match="damaged"):
        Baseline.from_json(damaged)


def test_flags_that_come_in_bursts_are_suspended_and_the_values_beside_them_are_not() -> None:
    generator = np.random.default_rng(8)
    panel = Panel(spec(flag="missing", learn=5_000))
    values = generator.normal(size=45_000)
    values[generator.random(45_000) < 0.02] = np.nan
    late = np.arange(45_000) >= 5_000
    values[late & (np.repeat(generator.random(4_500), 10) < 0.02)] = np.nan
    feed(panel, values)
    values_level, missing = panel.levels(0)
    assert values_level.suspended is None
    assert missing.suspended is not None


def changing() -> PanelRows:
    generator = np.random.default_rng(9)
    x = np.r_[generator.normal(size=1_000), autoregressive(9, 3_000, 0.8), generator.normal(size=4_000), bursts(9, 2_000)]
    x[generator.random(len(x)) < 0.02] = np.nan
    return replace(plain_rows({"x": x}), segments={"shop": (generator.integers(0, 2, len(x)).astype(np.int32), ["a", "b"])})


@pytest.mark.parametrize("cuts", [[], [1_001, 1_090, 1_091, 1_500, 4_000, 8_100, 8_777], list(range(1_000, 9_900, 97))])
def test_cuts_and_restarts_never_show(cuts: list[int]) -> None:
    rows, plan = changing(), spec(flag="missing", learn=1_000, segments={"shop": 2})
    whole, expected = Panel(plan), []
    expected = [(s.row, replace(s, row=0)) for s in whole.update(rows)]
    assert any(s.suspended is not None for _, s in expected)
    found, store = restarted(plan, rows, cuts)
    assert found == expected
    assert store.blobs["scope/0"] == whole.export()[0]["scope/0"]


def test_a_state_with_a_level_that_no_stride_gives_is_refused() -> None:
    panel, store, plan = Panel(spec(learn=1_000)), Store(), spec(learn=1_000)
    feed(panel, autoregressive(10, 3_000, 0.5))
    assert panel._watch is not None
    assert panel._watch.budget is not None
    panel._watch.budget._scores.checks.level[0] = 5
    store.take(panel)
    with pytest.raises(StateError, match="values that no series has"):
        store.load(plan)


def test_independent_streams_lose_nothing() -> None:
    panel = Panel(spec(learn=5_000))
    values = np.random.default_rng(11).normal(size=60_000)
    values[50_000:] += 0.5
    opened = [row for row, s in feed(panel, values) if s.kind == "open"]
    assert panel.levels(0)[0].suspended is None
    assert panel.baseline is not None
    assert (panel.baseline.memory, panel.baseline.dependence) == ({}, {})
    assert 50_000 < opened[0] < 50_400


def wavelets() -> Values:
    return np.asarray(signal.lfilter([1.0, 0.6], [1.0], np.random.default_rng(12).normal(size=5_000)))


def test_a_moving_average_is_whitened_well_enough_not_to_be_suspended() -> None:
    """Its memory is an autoregression without an end; eight values of it are enough."""
    panel = Panel(spec(learn=3_000))
    feed(panel, wavelets())
    assert panel.baseline is not None
    assert len(panel.baseline.memory[0, 0].coefficients) >= 2
    assert panel.levels(0)[0].suspended is None
