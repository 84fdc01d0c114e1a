"""The measurement of detection quality: its figures against SciPy and plain counts, and a run of it in small."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.quality import blocks, budgets, categories, memory, pairs, single
from benchmarks.quality.contenders import PEERS
from benchmarks.quality.measure import Delay, FalseAlarms, delay, false_alarms, nearest_setting, poisson_interval
from benchmarks.quality.report import Gate, Section, Size, figures, page, runs_of
from benchmarks.quality.streams import CHANGES, COVERED, NOT_COVERED, RIVALRY

TINY = Size(
    5, null_streams=3, null_rows=4_000, tuning_streams=3, change_streams=6, slow_streams=2, slow=2_000, kswin=300, kswin_streams=1,
    rivalry_rate=1_000.0, tolerance_streams=1, tolerance_rows=3_000, weeks=1, week_rows=1_000,
)  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 7, 250])
def test_intervals_of_counts_are_exact(count: int) -> None:
    low, high = poisson_interval(count)
    assert stats.poisson.cdf(count, high) == pytest.approx(0.025)
    if count:
        assert stats.poisson.sf(count - 1, low) == pytest.approx(0.025)


def test_false_alarms_are_counted_on_the_values_after_the_reference() -> None:
    seen = []

    def detect(reference: np.ndarray, values: np.ndarray, _: int) -> list[int]:
        seen.append((len(reference), len(values)))
        return [3, 5]

    found = false_alarms(COVERED["normal"], "normal", detect, streams=4, rows=1_000, reference=200, seed=1)
    assert seen == [(200, 1_000)] * 4
    assert found == FalseAlarms(8, 4_000)
    assert found.per_million == 2_000


def test_a_delay_counts_from_the_change_and_what_is_missed_is_late() -> None:
    answers = iter([[10, 104, 150], [99], [100], []])
    found = delay(CHANGES[0], lambda *_: next(answers), streams=4, before=100, after=100, reference=10, seed=1)
    assert found == Delay((5, 1), 2)
    assert (found.mean, found.missed_share, found.median) == (3.0, 0.5, 5.0)
    assert Delay((), 3).median == math.inf
    assert found.within(100) == (5 + 1 + 2 * 100) / 4
    assert [str(Delay(delays, 1)) for delays in ((), (7,))] == ["none found", "7, 50% missed"]


def test_streams_are_of_the_seed_and_nothing_else() -> None:
    kept: list[np.ndarray] = []
    for seed in (1, 1, 2):
        delay(CHANGES[3], lambda _, v, __: kept.append(v) or [], streams=1, before=50, after=50, reference=10, seed=seed)  # type: ignore[func-returns-value]
    assert np.array_equal(kept[0], kept[1])
    assert not np.array_equal(kept[0], kept[2])


def test_the_setting_is_the_last_that_raises_no_more_than_wanted() -> None:
    rates = {1.0: 0, 2.0: 4, 3.0: 9, 4.0: 11, 5.0: 50}
    found = nearest_setting(tuple(rates), lambda s: FalseAlarms(rates[s], 10**6), 10.0)
    assert found == (3.0, FalseAlarms(9, 10**6))


@pytest.mark.parametrize("law", [*COVERED, *NOT_COVERED])
def test_laws_have_the_moments_the_peers_are_told(law: str) -> None:
    known = {**COVERED, **NOT_COVERED}[law]
    values = known.draw(np.random.default_rng(1), 400_000)
    assert len(values) == 400_000
    if law != "categories, Zipf":
        assert abs(values.mean() - known.mean) < 0.1 * known.sd
        assert law == "rate 0" or values.std() == pytest.approx(known.sd, rel=0.2)


def test_every_change_is_one_of_a_known_law() -> None:
    assert {change.law for change in (*CHANGES, *RIVALRY)} <= set(COVERED)
    assert len({change.name for change in CHANGES}) == len(CHANGES)


def test_a_gate_fails_only_where_chance_does_not_explain_it() -> None:
    assert Gate("g", 10.0, 14.0, 9.0).holds
    assert not Gate("g", 10.0, 14.0, 11.0).holds
    assert Gate("g", 0.9, 0.88, 0.91, least=True).holds
    assert not Gate("g", 0.9, 0.8, 0.85, least=True).holds


def test_parts_of_a_run_make_one_page_and_parts_of_two_do_not() -> None:
    part = [Section("One", "t", ["a"], [["1"]], [Gate("g", 10.0, 14.0, 9.0)])]
    stored = json.loads(json.dumps(figures(part, TINY, 30.0)))
    assert runs_of([stored, stored]) == ([*part, *part], TINY, 60.0)
    other = json.loads(json.dumps(figures(part, dataclasses.replace(TINY, seed=6), 30.0)))
    with pytest.raises(ValueError, match="of one seed and form"):
        runs_of([stored, other])


def test_a_run_in_small_gives_every_table_and_its_gates_hold() -> None:
    tables = (single.nulls, single.slope, single.tolerance, single.dating, budgets.weekly, budgets.spread, memory.price)
    sections = [table(TINY) for table in tables]
    assert all(gate.holds for section in sections for gate in section.gates)
    text = page(sections, TINY, "python -m benchmarks.quality", "2026-01-31", 60.0)
    for section in sections:
        assert f"## {section.title}\n" in text
        assert all(len(row) == len(section.header) for row in section.rows)
        assert len(section.rows) >= 3


def test_tables_of_memories_hold_their_gates_and_show_what_is_suspended() -> None:
    size = dataclasses.replace(TINY, null_streams=4, null_rows=12_000)
    whitened, unseen = memory.whitened(size), memory.unseen(size)
    assert all(gate.holds for section in (whitened, unseen) for gate in section.gates)
    assert len(whitened.gates) == 2 * len(memory.MEMORIES) + 2
    shown = {row[0]: float(row[1].rstrip("%")) for row in unseen.rows}
    assert shown["normal"] == 0.0
    assert min(shown["AR(1), 0.5"], shown["AR(1), 0.8"], shown["clusters of 2 to 500 equal rows"]) > 80


def test_a_windowed_discrepancy_is_that_of_plain_windows() -> None:
    g = np.random.default_rng(3)
    reference, values = blocks.normal(g, 2_000), np.concatenate([blocks.normal(g, 700), blocks.normal(g, 800) + 0.5])
    middle, quartiles = np.median(reference, axis=0), np.percentile(reference, (25, 75), axis=0)
    known, rows = (blocks.features((x - middle) / (quartiles[1] - quartiles[0]) * 1.349) for x in (reference, np.r_[reference, values]))
    part, covariance = 1 / blocks.PEER_WINDOW + 1 / 2_000, np.cov(known.T)
    plain = []
    for i in range(2_000, 3_500):
        gap = rows[i + 1 - blocks.PEER_WINDOW : i + 1].mean(axis=0) - known.mean(axis=0)
        plain.append((gap @ gap - part * np.trace(covariance)) / (part * math.sqrt(2 * np.trace(covariance @ covariance))))
    first = next(i for i, z in enumerate(plain) if z > 6.0)
    assert first > 700
    assert blocks.windowed(6.0, reference, values) == [at for at in (first, first + blocks.PEER_WINDOW) if at < 1_500]


def test_blocks_hold_their_gates() -> None:
    found = blocks.blocks(dataclasses.replace(TINY, change_streams=9, null_rows=4_000))
    assert all(gate.holds for gate in found.gates)
    assert len(found.gates) == len(blocks.LAWS) + 2
    assert len(found.rows) == len(blocks.LAWS) + len(blocks.CHANGES)


def test_a_windowed_correlation_is_that_of_plain_windows() -> None:
    g = np.random.default_rng(2)
    reference, values = pairs.normal(0.3)(g, 2_000), np.concatenate([pairs.normal(0.3)(g, 700), pairs.normal(0.8)(g, 1_200)])
    rows = np.concatenate([reference, values])
    known = np.arctanh(np.asarray(np.corrcoef(reference.T))[0, 1])
    error = math.sqrt(1 / (pairs.PEER_WINDOW - 3) + 1 / 1_997)
    plain = [abs(np.arctanh(np.corrcoef(rows[i + 1 - pairs.PEER_WINDOW : i + 1].T)[0, 1]) - known) / error for i in range(2_000, 3_900)]
    first = next(i for i, z in enumerate(plain) if z > 5.0)
    assert pairs.windowed(5.0, reference, values) == [first, first + pairs.PEER_WINDOW]
    assert pairs.windowed(max(plain[:700]) + 0.001, reference, values[:700]) == []


def test_pairs_hold_their_gates() -> None:
    found = pairs.pairs(dataclasses.replace(TINY, change_streams=9, null_rows=8_000))
    assert all(gate.holds for gate in found.gates)
    assert len(found.gates) == len(pairs.LAWS) + 2
    assert len(found.rows) == len(pairs.LAWS) + len(pairs.CHANGES)


def test_a_detector_that_fires_too_often_fails_its_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single, "ours", lambda run_length, reference, values, seed, **options: range(0, len(values), 100))
    gates = single.nulls(dataclasses.replace(TINY, null_streams=2)).gates
    assert gates
    assert not any(gate.holds for gate in gates)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_peer_runs_and_finds_a_large_change(peer: object) -> None:
    change = next(c for c in RIVALRY if c.name == "rate 0.1 to 0.3")
    found = delay(change, single._peer(peer, change.before, peer.default), streams=4, before=500, after=3_000, reference=1, seed=3)  # type: ignore[arg-type, attr-defined]
    assert found.missed <= 2


def test_the_window_of_categories_is_pearsons_chi_squared() -> None:
    g = np.random.default_rng(6)
    law = np.array([0.5, 0.3, 0.1999, 0.0001])
    codes = categories.draw(g, law, 5_000 + 1_300)
    found = categories.chi_squared(codes, 5_000)
    assert len(found) == 1_300 - categories.CHI_WINDOW + 1
    had = np.bincount(codes[:5_000], minlength=4)
    now = np.bincount(codes[-categories.CHI_WINDOW :], minlength=4)
    if had[3]:
        expected = had / 5_000 * categories.CHI_WINDOW
        assert found[-1] == pytest.approx(stats.chisquare(now, expected).statistic)
    else:
        assert found[-1] >= stats.chisquare(now[:3], had[:3] / 5_000 * now[:3].sum()).statistic
    assert categories.chi_alarms(np.array([0.0, 9.0, 9.0, *[9.0] * 600]), 5.0) == [500, 1_000]


def test_changes_of_shares_are_what_they_say() -> None:
    few = categories.FEW
    assert few.sum() == pytest.approx(1.0)
    assert categories.psi(categories.spread(few, 0.2), few) == pytest.approx(0.2, rel=1e-6)
    after = categories.moved(few, 6, 0.35)
    assert after[6] - few[6] == pytest.approx(0.29)
    assert after.sum() == pytest.approx(1.0)
    assert categories.moved(few, len(few), 0.05)[-1] == 0.05
    for change in categories.CHANGES:
        assert change.after.sum() == pytest.approx(1.0)
        assert len(change.after) in (len(change.before), len(change.before) + 1)


def test_categories_are_found_in_small() -> None:
    change = categories.CHANGES[0]
    found = categories.delay(change, categories._panel_delay, TINY, 3)
    ranks = categories.delay(change, categories._ranks_delay, TINY, 3)
    assert found.missed == 0
    assert found.mean < 300 < ranks.within(categories.AFTER)
