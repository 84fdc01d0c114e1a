"""The stream's own series: silence and volume, as functions of the log alone."""

from __future__ import annotations

import numpy as np

from driftline.streams.detect.health import StreamHealth

MINUTE = 60_000


def minutes(per_minute: int, first: int, count: int) -> np.ndarray:
    steps = np.arange(count * per_minute)
    return first * MINUTE + steps * MINUTE // per_minute


def test_silence_opens_once_and_the_next_row_ends_it() -> None:
    health = StreamHealth(freshness_ms=30_000)
    list(health.rows(np.array([1_000, 2_000])))
    assert list(health.tick(20_000)) == []
    (opened,) = health.tick(40_000)
    assert (opened.series, opened.opened, opened.value) == ("stream:freshness", True, 30.0)
    assert opened.time_ms == 32_000
    assert list(health.tick(50_000)) == []
    ((row, closed),) = health.rows(np.array([60_000]))
    assert (row, closed.opened) == (0, False)


def test_a_tick_before_the_first_row_says_nothing() -> None:
    assert list(StreamHealth(freshness_ms=1_000).tick(10**12)) == []


def test_a_collapse_of_the_volume_opens_and_its_return_recovers() -> None:
    health = StreamHealth(freshness_ms=None)
    times = np.concatenate([minutes(100, 0, 90), minutes(5, 90, 30), minutes(100, 120, 60)])
    signals = [(row, s.opened, s.direction) for row, s in health.rows(times)]
    assert [opened for _, opened, _ in signals] == [True, False]
    assert signals[0][2] == "down"
    assert 9_000 < signals[0][0] < 9_150


def test_any_cut_of_the_rows_gives_the_same_signals() -> None:
    times = np.concatenate([minutes(100, 0, 90), minutes(900, 90, 20), minutes(100, 110, 60)])
    whole = [(row, s) for row, s in StreamHealth(freshness_ms=None).rows(times)]
    health = StreamHealth(freshness_ms=None)
    pieces = [(start + row, s) for start in range(0, len(times), 777) for row, s in health.rows(times[start : start + 777])]
    assert whole == pieces
    assert len(whole) == 2


def test_rows_out_of_order_count_in_the_open_minute_however_they_are_cut() -> None:
    draw = np.random.default_rng(3)
    times = minutes(100, 0, 200) + draw.integers(-180_000, 180_000, 20_000)
    times[15_000:] += 30 * MINUTE
    whole = StreamHealth(freshness_ms=None)
    signals = [(row, s) for row, s in whole.rows(times)]
    for size in (1, 777):
        health = StreamHealth(freshness_ms=None)
        starts = range(0, len(times), size)
        assert [(start + row, s) for start in starts for row, s in health.rows(times[start : start + size])] == signals
        assert health.export() == whole.export()


def test_a_model_is_silent_only_when_its_slowest_source_is() -> None:
    health = StreamHealth(freshness_ms=30_000)
    list(health.rows(np.array([1_000, 2_000]), np.array([0, 1], np.uint16)))
    assert list(health.tick(7_200_000, 1)) == []
    list(health.rows(np.array([3_000]), np.array([0], np.uint16)))
    assert list(health.tick(7_300_000, 1)) == []
    (opened,) = health.tick(40_000, 0)
    assert opened.time_ms == 33_000


def test_a_gap_of_years_is_walked_in_bounded_steps() -> None:
    health = StreamHealth(freshness_ms=None)
    list(health.rows(minutes(100, 0, 90)))
    list(health.rows(np.array([50 * 365 * 1440 * MINUTE])))
    assert sum(health.counts) == 0


def test_export_and_restore_go_on_as_if_never_stopped() -> None:
    times = np.concatenate([minutes(100, 0, 90), minutes(5, 90, 30)])
    health = StreamHealth(freshness_ms=1)
    list(health.rows(times[:9_050]))
    again = StreamHealth.restore(1, health.export())
    assert [s for _, s in again.rows(times[9_050:])] == [s for _, s in health.rows(times[9_050:])]
