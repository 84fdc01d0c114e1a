"""Blocks: the witness against a plain loop, its bets against their law, what is found and what is left alone, cuts, restarts and files."""

from __future__ import annotations

import json
import math
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.detectors import block_fit, witnesses
from driftline.detectors.baseline import Baseline
from driftline.detectors.baseline_build import BaselineBuilder
from driftline.detectors.blocks import FEATURES, FREQUENCIES, RATE, Block
from driftline.detectors.kernels.bets import WORTHS, bets_of
from driftline.detectors.kernels.e_detector import EDetectorBank
from driftline.detectors.kernels.witness import (
    CLIP,
    Frame,
    directions,
    new_witness,
    run_witness,
)
from driftline.detectors.panel import Panel
from driftline.detectors.spec import BaselineError, Column, ColumnDetector, PanelBudget, PanelRows, PanelSpec, Signal, SpecError, StateError
from driftline.detectors.witnesses import Witnesses, block_rows
from tests.detectors.panel_cases import plain_rows, run, series
from tests.detectors.test_panel_state import Store

NAME = "block:b"


def names_of(d: int) -> tuple[str, ...]:
    return tuple(f"f{i:03d}" for i in range(d))


def rows_of(values: np.ndarray, first: int = 0, step_ms: int = 1_000) -> PanelRows:
    rows = plain_rows({name: values[:, i] for i, name in enumerate(names_of(values.shape[1]))}, first=first)
    return replace(rows, time_ms=np.arange(first, first + len(values)) * step_ms)


def column(d: int, *, warning: float = 0.02, detectors: tuple[str, ...] = ("e_detector",), window: int = 500) -> Column:
    own = replace(
        series(NAME, None, direction="up", warning=warning, window=window), detectors=tuple(map(ColumnDetector, detectors)), critical=0.1
    )
    return Column(NAME, "numeric", (own,), factors=names_of(d), joint=True)


def spec(d: int, *, per_value: float = 1e-4, learn: int = 5_000, **more: Any) -> PanelSpec:
    return PanelSpec(columns=(column(d, **more),), window=500, learn_rows=learn, budget=PanelBudget(per_value, True, 1e9))


def built(rows: PanelRows, d: int, cuts: tuple[int, ...] = ()) -> Baseline:
    builder = BaselineBuilder([column(d)], {})
    for a, b in pairwise((0, *cuts, rows.n)):
        builder.add(rows.slice(a, b))
    return builder.finish()


def block_of(rows: PanelRows, d: int) -> Block:
    found = built(rows, d).columns[0].block
    assert found is not None
    return found


def opened(panel: Panel, rows: PanelRows) -> list[Signal]:
    return [signal for signal in panel.update(rows) if signal.kind == "open"]


# The witness.


def plain_worths(values: np.ndarray, block: Block, name: str) -> list[float]:
    """By the formulas, one row after another, with the C library's cosine and another order of sums."""
    weights = directions_of(name, len(block.names))
    mu, theta = np.array(block.mean), np.zeros(FEATURES)
    out, judged, whole = [], 0, 0
    for row in values:
        if np.isnan(row).any():
            out.append(math.nan)
            continue
        whole += 1
        if (whole - 1) % block.every:
            out.append(math.nan)
            continue
        z = np.clip((row - np.array(block.location)) / np.array(block.scale), -CLIP, CLIP)
        angle = z @ weights
        phi = np.concatenate([np.cos(angle), np.sin(angle)]) / math.sqrt(FREQUENCIES)
        length = float(np.linalg.norm(theta))
        out.append(math.nan if length == 0 else float(theta @ (phi - mu)) / length / (1.0 + max(float(theta @ mu) / length, 0.0)))
        judged += 1
        theta += max(RATE, 1.0 / judged) * (phi - mu - theta)
    return out


def directions_of(name: str, d: int) -> np.ndarray:
    from driftline.detectors.conformal import series_key

    return directions(series_key(name), d)


@pytest.mark.parametrize(("d", "every"), [(2, 1), (5, 3), (40, 1)])
def test_worths_are_those_of_a_plain_loop(d: int, every: int) -> None:
    g = np.random.default_rng([1, d])
    values = g.standard_t(2, (900, d)) * 3.0 + 5.0
    values[g.random(900) < 0.05, 0] = np.nan
    values[10, 1], values[11, 1] = np.inf, -np.inf
    block = replace(block_of(rows_of(values), d), every=every)
    found = Witnesses([(NAME, block)]).update(rows_of(values))[:, 0]
    assert found == pytest.approx(np.array(plain_worths(values, block, NAME)), abs=1e-12, nan_ok=True)
    assert np.isfinite(found).sum() == pytest.approx((~np.isnan(values).any(axis=1)).sum() / every, abs=2)


def test_directions_are_normal_numbers_of_the_name() -> None:
    found = directions_of("block:x", 50)
    assert np.array_equal(found, directions_of("block:x", 50))
    assert not np.array_equal(found, directions_of("block:y", 50))
    scaled = found.ravel() * math.sqrt(50)
    assert abs(scaled.mean()) < 4 / math.sqrt(len(scaled))
    assert scaled.std() == pytest.approx(1.0, abs=0.05)
    # No neighbours go together, in either direction.
    assert abs(np.corrcoef(scaled[1:], scaled[:-1])[0, 1]) < 0.07
    assert abs(np.corrcoef(found[1:].ravel(), found[:-1].ravel())[0, 1]) < 0.07


def test_the_mean_of_features_is_the_kernel_of_the_block() -> None:
    """<mu, mu> estimates E k(x, x'), k = exp(-|x - x'|^2 / 2 d): for standard normal values (1 + 2 / d)^(-d / 2)."""
    g = np.random.default_rng(2)
    for d in (2, 8, 64):
        block = block_of(rows_of(g.normal(size=(4_000, d))), d)
        assert 1.0 - block.variance == pytest.approx((1 + 2 / d) ** (-d / 2), abs=0.07)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_no_row_is_worth_less_than_minus_one(seed: int, d: int) -> None:
    """Rows that are drawn against the witness: of many the one it likes least, and a mean that goes along with it."""
    g = np.random.default_rng(seed)
    frame = Frame(np.zeros(d), np.ones(d), directions_of("x", d), g.normal(size=FEATURES), np.ones(1, np.int64))
    frame.mean[:] *= g.random() / np.linalg.norm(frame.mean)
    state, out = new_witness(d), np.empty(30)
    run_witness(g.normal(size=(30, d)) * 3, frame, state, np.empty(d), np.empty(FEATURES), out)
    state.theta[:] = frame.mean if seed % 2 else state.theta
    worst = []
    for x in g.normal(size=(300, d)) * 5:
        again = new_witness(d)
        again.theta[:], again.counts[:] = state.theta, 5
        one = np.empty(1)
        run_witness(x[None], frame, again, np.empty(d), np.empty(FEATURES), one)
        worst.append(float(one[0]))
    assert min(worst) >= -1.0


# Its bets.


@settings(deadline=None, max_examples=200)
@given(st.floats(0.005, 0.5), st.floats(0.0, 0.4), st.lists(st.floats(-1.0, 1.0), min_size=2, max_size=6))
def test_bets_have_a_mean_of_at_most_1_under_every_law_within_the_tolerance(sd: float, allowed: float, support: list[float]) -> None:
    """A law on a few worths, moved so that its mean is the tolerance or what is nearest below."""
    worths = np.array(support)
    worths = np.clip(worths + min(allowed - worths.mean(), 1.0 - worths.max()), -1.0, 1.0)
    if worths.mean() > allowed:
        return
    bets = bets_of(np.array([WORTHS], np.uint8), *(np.array([x]) for x in (allowed, sd, 0.0, 1.0)))
    for k in np.flatnonzero(bets.weights[0]):
        factors = bets.line[0, 0, k] + bets.line[0, 1, k] * worths / sd
        assert factors.min() > 0.0
        assert factors.mean() <= 1.0 + 1e-12


def test_what_cutting_a_worth_adds_is_bounded_by_its_fourth_moment() -> None:
    """The bound against the law that reaches it, all mass at -4b/3 or 0, and against normal and heavy tails."""
    block = Block(("a", "b"), variance=0.6, kurtosis=3.0)
    g = np.random.default_rng(3)
    for sd in (0.02, 0.1):
        least, added = block.cut(sd)
        assert least == pytest.approx(6.0 * sd)
        share = 12.0 * sd**4 / (4.0 * least / 3.0) ** 4
        assert share * (least / 3.0) == pytest.approx(added)
        for draws in (g.normal(size=200_000), g.standard_t(8, 200_000) / math.sqrt(8 / 6)):
            assert np.maximum(-least - sd * draws, 0.0).mean() <= added
    assert block.cut(0.2) == (1.0, 0.0)


def test_evidence_of_worths_without_a_change_is_the_budget_that_came_in() -> None:
    """Over all sequences of four worths: the mean of alarms and evidence is at most the budget, and nearly it at the tolerance."""
    d, sd = 0.1, 0.5
    law = {-1.0: 0.25, 0.2: 0.45, 1.0 - 1e-9: 0.26, 0.0: 0.04}
    assert sum(x * p for x, p in law.items()) == pytest.approx(d, abs=1e-8)
    total = 0.0
    for index in np.ndindex(*(4,) * 4):
        keys = list(law)
        bank = EDetectorBank(1, rate=0.02, form=WORTHS, tolerance=d, base=sd, spread_tolerance=1.0, first=1.0)
        values = np.array([[keys[i] / sd] for i in index])
        alarms = bank.update(values, np.zeros((4, 1), np.int32), np.arange(4))
        total += math.prod(law[keys[i]] for i in index) * (len(alarms) + bank.total)
    assert total <= 0.08 + 1e-9
    assert total == pytest.approx(0.08, rel=1e-6)


# What a panel makes of it.

LAWS: dict[str, Any] = {
    "normal": lambda g, n, d: g.normal(size=(n, d)),
    "t3": lambda g, n, d: g.standard_t(3, (n, d)),
    "lognormal": lambda g, n, d: np.exp(g.normal(size=(n, d))),
    "one factor, .9": lambda g, n, d: math.sqrt(0.9) * g.normal(size=(n, 1)) + math.sqrt(0.1) * g.normal(size=(n, d)),
    "counts": lambda g, n, d: g.poisson(0.3, (n, d)).astype(float),
    "spreads that go together": lambda g, n, d: g.normal(size=(n, d)) * np.exp(g.normal(size=(n, 1))),
    "AR(1) of .5": lambda g, n, d: autoregressive(g, n, d, 0.5),
    "AR(1) of .9": lambda g, n, d: autoregressive(g, n, d, 0.9),
}


def autoregressive(g: np.random.Generator, n: int, d: int, phi: float) -> np.ndarray:
    x = g.normal(size=(n, d))
    x[1:] *= math.sqrt(1.0 - phi * phi)
    for t in range(1, n):
        x[t] += phi * x[t - 1]
    return x


@pytest.mark.parametrize("size", [300, 3_000])
@pytest.mark.parametrize("law", LAWS)
def test_episodes_on_blocks_that_stay_as_they_were_are_within_the_budget(law: str, size: int) -> None:
    """Forty alarms in 80,000 rows are allowed at this budget; a monitor rests for a window after one."""
    found = 0
    for run_, d in enumerate((2, 12)):
        g = np.random.default_rng([21, size, run_, len(law)])
        panel = Panel(spec(d, per_value=5e-4, learn=size))
        found += len(opened(panel, rows_of(LAWS[law](g, 40_000 + size, d))))
    assert found <= 40


def test_rows_that_follow_each_other_are_judged_so_far_apart_that_they_do_not() -> None:
    g = np.random.default_rng(4)
    found = {phi: block_of(rows_of(autoregressive(g, 5_000, 6, phi)), 6).every for phi in (0.0, 0.5, 0.9)}
    assert found[0.0] == 1
    assert 2 <= found[0.5] <= 8 < found[0.9] <= 64


def test_what_the_hours_of_the_reference_do_is_no_change() -> None:
    """A day's sine of .5 sd in all features: as far from the mean at its height as the block then allows."""
    g = np.random.default_rng(5)
    n = 6 * 1_440
    wave = 0.5 * np.sin(np.arange(2 * n) / 1_440 * 2 * math.pi)[:, None]
    values = g.normal(size=(2 * n, 6)) + wave
    block = block_of(rows_of(values[:n], step_ms=60_000), 6)
    assert 0.2 < block.hours < 0.4
    assert block_of(rows_of(values[:n] - wave[:n], step_ms=60_000), 6).hours == 0.0
    panel = Panel(spec(6, per_value=1e-3, learn=n))
    assert opened(panel, rows_of(values, step_ms=60_000)) == []


def test_what_the_weekends_of_the_reference_do_is_no_change() -> None:
    """.4 sd in all features, four weeks and three more: an hour of the day has a mean of both."""
    g = np.random.default_rng(51)
    day = 24 * 40
    index = np.arange(49 * day)
    values = g.normal(size=(len(index), 6)) + 0.4 * ((index // day) % 7 >= 5)[:, None]
    panel = Panel(spec(6, per_value=2e-4, learn=28 * day))
    assert opened(panel, rows_of(values, step_ms=90_000)) == []
    assert panel.values_judged()[1] == 0


def test_days_are_told_where_the_hours_of_a_week_are_too_small() -> None:
    """Eight rows an hour, three weeks: 24 for an hour of the week, 576 for a day."""
    g = np.random.default_rng(52)
    index = np.arange(21 * 24 * 8)
    values = g.normal(size=(len(index), 6)) + 0.6 * ((index // (24 * 8)) % 7 >= 5)[:, None]
    assert block_of(rows_of(values, step_ms=450_000), 6).hours > 0.2
    assert block_of(rows_of(values[: 6 * 24 * 8], step_ms=450_000), 6).hours == 0.0


def test_an_hour_may_be_as_far_off_as_the_error_of_what_was_seen_of_it() -> None:
    """One hour .3 sd up, seen in 220 rows: the distance that is tolerated is not below the one that the law has."""
    per_hour, d = 110, 4
    truth = np.random.default_rng(53).normal(size=(40_000, d)) + 0.3
    for seed in range(8):
        g = np.random.default_rng([54, seed])
        hour = np.arange(48 * per_hour) // per_hour % 24
        values = g.normal(size=(len(hour), d)) + 0.3 * (hour == 12)[:, None]
        block = block_of(rows_of(values, step_ms=3_600_000 // per_hour), d)
        z = np.clip((truth - np.array(block.location)) / np.array(block.scale), -CLIP, CLIP)
        angle = z @ directions_of(NAME, d)
        phi = np.concatenate([np.cos(angle), np.sin(angle)], axis=1) / math.sqrt(FREQUENCIES)
        distance = float(np.linalg.norm(phi.mean(axis=0) - np.array(block.mean)))
        assert distance <= block.hours <= distance + 0.15


def test_the_reference_has_its_own_error_beside_its_hours() -> None:
    block = Block(("a", "b"), variance=0.6, hours=0.1)
    assert block.tolerance(0.02, 0.1, 400, 4.0) > 0.1 + 4.0 * 0.1 / 20.0
    assert block.tolerance(0.5, 0.1, 400, 4.0) == 0.5


def test_fourth_powers_are_products_on_every_machine() -> None:
    block = Block(("a", "b"), variance=0.6)
    for sd in np.random.default_rng(55).uniform(0.01, 0.16, 200).tolist():
        least = 6.0 * sd
        assert block.cut(sd) == (least, 27.0 * 12.0 * (sd * sd * sd * sd) / (256.0 * (least * least * least)))
    rows = rows_of(np.random.default_rng(56).normal(size=(500, 3)))
    reference = built(rows, 3).columns[0]
    assert reference.block is not None
    worth = Witnesses([(NAME, reference.block)]).update(rows)[:, 0]
    scaled = [(x - reference.mean) / reference.sd for x in worth[~np.isnan(worth)].tolist()]
    assert reference.block.kurtosis == math.fsum((x * x) * (x * x) for x in scaled) / len(scaled)


SHIFTS: dict[str, Any] = {
    "a quarter sd in all of 16": (lambda x, g: x + 0.25, 250),
    "half a sd in one of 16": (lambda x, g: x + np.array([0.5] + [0.0] * 15), 500),
    "all spread by a quarter": (lambda x, g: x * 1.25, 250),
    "a factor of .3": (lambda x, g: math.sqrt(0.7) * x + math.sqrt(0.3) * g.normal(size=(len(x), 1)), 600),
}


@pytest.mark.parametrize("what", SHIFTS)
def test_a_joint_change_is_found(what: str) -> None:
    """At one false alarm in 10,000 rows; the mean over six streams."""
    change, within = SHIFTS[what]
    delays = []
    for run_ in range(6):
        g = np.random.default_rng([22, run_])
        panel = Panel(spec(16))
        assert opened(panel, rows_of(g.normal(size=(6_000, 16)))) == []
        found = opened(panel, rows_of(change(g.normal(size=(2_500, 16)), g), 6_000))
        assert [signal.series for signal in found[:1]] == [NAME]
        assert found[0].effect_kind == "mmd"
        delays.append(found[0].row + 1)
    assert np.mean(delays) < within


def test_a_small_change_is_no_alarm_however_long_it_lasts() -> None:
    """.02 sd in all features is a joint distance of .012."""
    g = np.random.default_rng(6)
    panel = Panel(spec(8, per_value=1e-3))
    panel.update(rows_of(g.normal(size=(5_000, 8))))
    assert len(opened(panel, rows_of(g.normal(size=(60_000, 8)) + 0.02, 5_000))) <= 10


def test_an_episode_has_a_size_names_what_moved_and_ends_when_it_is_back() -> None:
    g = np.random.default_rng(7)
    panel = Panel(spec(8))
    panel.update(rows_of(g.normal(size=(6_000, 8))))
    x = g.normal(size=(6_000, 8))
    x[:3_000] += np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.5, 0.0])
    found = panel.update(rows_of(x, 6_000))
    assert (found[0].kind, found[-1].kind) == ("open", "recovery")
    assert found[0].row < 200
    assert found[0].direction == "up"
    moved = {one.bin: one.observed for one in found[0].bins}
    assert set(moved) == {"mean of f006", "mean of f001"}
    assert moved["mean of f006"] < -0.1
    assert moved["mean of f001"] > 0.1
    assert found[0].effect_size is not None
    # 1.8 sd of eight features: .6 x 1.8 / sqrt 8, less what the witness needs to turn.
    assert 0.1 < found[0].effect_size < 0.45
    assert 3_000 + 500 <= found[-1].row < 3_000 + 1_600
    assert found[0].since is not None
    assert abs(found[0].since.offset - 6_000) < 100
    level = panel.levels(0)[0]
    assert level.mean == pytest.approx(0.0, abs=0.02)


def test_a_change_of_dependence_alone_names_no_feature() -> None:
    g = np.random.default_rng(8)
    panel = Panel(spec(4))
    panel.update(rows_of(g.normal(size=(6_000, 4))))
    x = math.sqrt(0.3) * g.normal(size=(2_000, 4)) + math.sqrt(0.7) * g.normal(size=(2_000, 1))
    found = opened(panel, rows_of(x, 6_000))
    assert len(found) == 1
    assert found[0].bins == ()


def test_a_block_is_watched_over_all_rows_and_in_no_segment() -> None:
    g = np.random.default_rng(9)
    rows = replace(rows_of(g.normal(size=(3_000, 3))), segments={"shop": (g.integers(0, 2, 3_000).astype(np.int32), ["x", "y"])})
    panel = Panel(replace(spec(3, learn=2_000), segments={"shop": 2}))
    panel.update(rows)
    assert panel.subjects()[0] == 1
    assert [panel.levels(scope)[0].open for scope in range(4)] == [False] * 4


def test_a_block_with_too_few_whole_rows_is_not_watched() -> None:
    g = np.random.default_rng(10)
    values = g.normal(size=(2_000, 2))
    values[20:, 0] = np.nan
    panel = Panel(spec(2, learn=1_000))
    assert opened(panel, rows_of(values)) == []
    assert panel.subjects()[0] == 0
    assert panel.baseline is not None
    assert Baseline.from_json(panel.baseline.to_json()).id == panel.baseline.id


def test_missing_invalid_and_inapplicable_values_leave_the_row_out() -> None:
    rows = rows_of(np.ones((6, 2)))
    rows.numeric[0, 0] = np.nan
    rows = replace(rows, invalid=np.array([[1, 1]], np.int32), not_applicable={"f000": np.arange(6) == 2})
    assert np.isnan(block_rows(("f000", "f001"), rows)).any(axis=1).tolist() == [True, True, True, False, False, False]
    assert np.isnan(block_rows(("f000", "never"), rows)).any(axis=1).all()


# Files, cuts and restarts.


def odd(seed: int, n: int) -> np.ndarray:
    g = np.random.default_rng(seed)
    x: np.ndarray = g.standard_t(2, (n, 3)) * np.array([1.0, 1e6, 1e-6])
    x[:, 2] = np.floor(x[:, 2] * 1e6)
    x[g.random(n) < 0.05, 0] = np.nan
    return x


@settings(deadline=None, max_examples=12)
@given(st.sets(st.integers(1, 699), max_size=8))
def test_the_cut_of_the_reference_never_shows(cuts: set[int]) -> None:
    rows = rows_of(odd(6, 700))
    assert built(rows, 3, tuple(sorted(cuts))).to_json() == built(rows, 3).to_json()


def test_a_block_is_made_without_doubles_of_all_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are held as single floats; whatever else is needed is less than half of the doubles that they would be."""
    n, d = 3_000, 1_024
    vector = np.random.default_rng(58).standard_normal((n, d)).astype(np.float32)
    rows = replace(plain_rows({"t": np.zeros(n)}, first=0), vectors={"t": vector})
    one = replace(column(2), factors=("t",))
    expected = BaselineBuilder([one], {})
    expected.add(rows)
    whole = expected.finish()
    monkeypatch.setattr(block_fit, "_CELLS", 100_000)
    monkeypatch.setattr(block_fit, "_PIECE", 128)
    monkeypatch.setattr(witnesses, "_PIECE", 128)
    builder = BaselineBuilder([one], {})
    builder.add(rows)
    tracemalloc.start()
    again = builder.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert again.id == whole.id
    assert peak < n * d * 8 / 2


def test_a_baseline_with_a_block_is_a_file_of_its_own_version_and_holds_no_rows() -> None:
    baseline = built(rows_of(odd(7, 5_000)), 3)
    text = baseline.to_json()
    assert json.loads(text)["version"] == 5
    assert len(text) < 12_000
    again = Baseline.from_json(text)
    assert (again.columns, again.id) == (baseline.columns, baseline.id)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("names", []), ("names", [1, 2, 3]), ("location", [0.0]), ("scale", [0.0, 1.0, 1.0]), ("spread", [-1.0, 1.0, 1.0]),
        ("mean", [0.0] * 5), ("mean", [math.inf] * FEATURES), ("every", 0), ("every", 1.5), ("variance", -1.0), ("size", -3),
        ("hours", None), ("scale", [5e-324, 1.0, 1.0]), ("spread", [1.0, 1.0, 5e-324]),
    ],
)  # fmt: skip
def test_a_block_that_no_reference_gives_is_refused(part: str, value: Any) -> None:
    whole = json.loads(built(rows_of(odd(8, 500)), 3).to_json())
    whole["body"]["columns"][0]["block"][part] = value
    with pytest.raises(BaselineError, match="damaged"):
        Baseline.from_json(json.dumps(whole))


@pytest.mark.parametrize("sd", [1.0, 1e300, -0.1])
def test_a_spread_that_no_worths_have_is_refused(sd: float) -> None:
    whole = json.loads(built(rows_of(odd(8, 500)), 3).to_json())
    whole["body"]["columns"][0]["sd"] = sd
    with pytest.raises(BaselineError, match="damaged"):
        Baseline.from_json(json.dumps(whole))


def test_a_witness_of_more_rows_than_there_are_is_refused() -> None:
    """Its next count is below 0, and its own next checkpoint damaged."""
    block = block_of(rows_of(odd(11, 400)), 3)
    witnesses = Witnesses([(NAME, block)])
    witnesses.update(rows_of(odd(12, 50)))
    witnesses._states[0].counts[:] = 2**63 - 1
    with pytest.raises(ValueError, match="damaged"):
        Witnesses([(NAME, block)]).restore(witnesses.export())


def test_rows_of_two_lengths_are_learned_by_the_declared_one() -> None:
    """A checkpoint of an earlier release may hold both."""
    g = np.random.default_rng(57)

    def rows(n: int, width: int, first: int) -> PanelRows:
        return replace(plain_rows({"t": np.zeros(n)}, first=first), vectors={"t": g.normal(size=(n, width)).astype(np.float32)})

    for width, expected in ((16, 16), (0, 24)):
        builder = BaselineBuilder([replace(column(2), factors=("t",), width=width)], {})
        builder.add(rows(200, 24, 0))
        builder.add(rows(900, 16, 200))
        block = builder.finish().columns[0].block
        assert block is not None
        assert block.width == expected


def test_a_block_of_other_features_than_the_baselines_is_refused() -> None:
    baseline = built(rows_of(odd(9, 500)), 3)
    with pytest.raises(SpecError, match="of other factors"):
        Panel(spec(2), baseline)


def stream_parts() -> tuple[PanelSpec, list[PanelRows]]:
    first, second = odd(31, 900), odd(32, 900)
    second[200:] *= 3.0
    return spec(3, learn=600, per_value=1e-3, detectors=("e_detector", "adwin"), window=200), [rows_of(first), rows_of(second, 900)]


@settings(deadline=None, max_examples=8)
@given(st.sets(st.integers(1, 899), max_size=6), st.sets(st.integers(1, 899), max_size=6))
def test_any_cut_and_a_restart_anywhere_give_the_same_signals_and_bytes(cuts: set[int], before: set[int]) -> None:
    own, (first, second) = stream_parts()
    whole, whole_store = Panel(own), Store()
    expected = [*run(whole, first), *((row + first.n, s) for row, s in run(whole, second))]
    whole_store.take(whole)
    assert any(signal.kind == "open" and signal.bins for _, signal in expected)
    panel, store, found = Panel(own), Store(), []
    for start, rows, at in ((0, first, sorted(before)), (first.n, second, sorted(cuts))):
        for a, b in pairwise((0, *at, rows.n)):
            found += [(start + a + s.row, replace(s, row=0)) for s in panel.update(rows.slice(a, b))]
            store.take(panel)
            panel = store.load(own)
    assert found == [(row, replace(s, row=0)) for row, s in expected]
    assert {name: blob for name, blob in store.blobs.items() if name != "spec"} == {
        name: blob for name, blob in whole_store.blobs.items() if name != "spec"
    }


def test_another_window_keeps_the_witness_and_its_evidence() -> None:
    own, (first, second) = stream_parts()
    panel, store = Panel(own), Store()
    panel.update(first)
    panel.update(second.slice(0, 210))
    store.take(panel)
    other = replace(own, columns=(replace(own.columns[0], series=(replace(own.columns[0].series[0], window=150),)),))  # type: ignore[index]
    again = store.load(other)
    rest = second.slice(210, second.n)
    assert [s.row for s in opened(again, rest)] == [s.row for s in opened(panel, rest)] != []


def test_damage_to_a_witness_is_refused() -> None:
    block = block_of(rows_of(odd(11, 400)), 3)
    clean = Witnesses([(NAME, block)])
    clean.update(rows_of(odd(12, 50)))
    g = np.random.default_rng(13)
    for _ in range(300):
        damaged = bytearray(clean.export())
        for place in g.integers(0, len(damaged), int(g.integers(1, 4))):
            damaged[place] = int(g.integers(256))
        if g.random() < 0.2:
            damaged = damaged[: int(g.integers(len(damaged)))]
        target = Witnesses([(NAME, block)])
        try:
            target.restore(bytes(damaged))
        except ValueError:
            continue
        found = target.update(rows_of(odd(14, 300)))
        assert (np.isnan(found) | (np.abs(found) <= 3.0)).all()


def test_a_checkpoint_of_another_block_is_refused() -> None:
    own, (first, _) = stream_parts()
    panel, store = Panel(own), Store()
    panel.update(first)
    store.take(panel)
    store.blobs["scope/0"] = store.blobs["scope/0"][:-20]
    with pytest.raises(StateError, match="scope/0"):
        store.load(own)
