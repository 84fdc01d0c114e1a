"""Streams of the quality report that go the public way: they are what they are said to be, and a change in one of them is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.quality import public_nulls as streams
from driftline.schemas.loading import parse_config

ROWS = 6_000
BY_NAME = {case.name: case for case in streams.CASES}


def drawn(name: str, rows: int = ROWS) -> streams.Stream:
    return BY_NAME[name].draw(np.random.default_rng(1), rows)


def labels(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times of predictions, labels and when they come."""
    stream = drawn(name)
    return stream.times_ms, stream.columns["y"], stream.columns["label_at"].astype("datetime64[ms]").astype(np.int64)


@pytest.mark.parametrize("case", streams.CASES, ids=lambda case: case.name)
def test_a_stream_has_rows_in_order_and_a_configuration_that_is_valid(case: streams.Case) -> None:
    stream = case.draw(np.random.default_rng(1), ROWS)
    assert {len(column) for column in stream.columns.values()} == {ROWS}
    assert len(stream.times_ms) == ROWS
    assert (np.diff(stream.times_ms) >= 0).all()
    model = parse_config(case.configuration(), name="case.yml").models["m"]
    assert (model.baseline.learn, model.false_alarms) == (case.learn, case.budget)
    assert ("label_at" in stream.columns) == bool(case.age)


def test_a_quarter_of_a_week_comes_in_its_first_hour() -> None:
    times = drawn("a quarter of the week in one hour, 1 per week", 10_000).times_ms - streams.START_MS
    week = 7 * streams.DAY_MS
    assert [int(((times >= k * week) & (times < k * week + streams.HOUR_MS)).sum()) for k in (0, 1)] == [1_250, 1_250]


def test_labels_come_by_their_value() -> None:
    times, y, at = labels("labels later by their value")
    hours = (at - times) / streams.HOUR_MS
    assert np.mean(hours[y == 1]) == pytest.approx(1.0, rel=0.1)
    assert np.mean(hours[y == 0] > 72) == pytest.approx(np.exp(-1.5), abs=0.02)


def test_a_nightly_file_has_the_labels_of_one_day_sorted_by_class() -> None:
    times, y, at = labels("a nightly file of labels, sorted")
    day = times // streams.DAY_MS
    for one in np.unique(day):
        mine = day == one
        order = np.argsort(at[mine], kind="stable")
        assert (np.diff(y[mine][order]) >= 0).all()
        assert at[mine].min() == (one + 1) * streams.DAY_MS + 2 * streams.HOUR_MS
        assert at[mine].max() - at[mine].min() < 1_000


def test_two_days_of_ten_have_no_labels_until_they_end() -> None:
    times, _, at = labels("two days without labels, then all")
    since = at - streams.START_MS
    day = (times - streams.START_MS) // streams.DAY_MS
    lost = day % 10 >= 8
    assert (at[~lost] == times[~lost] + streams.HOUR_MS).all()
    assert set((since[lost] // streams.DAY_MS).tolist()) == {10, 20}
    assert (since[lost] % streams.DAY_MS < 20_000).all()
    assert (at - times <= 2 * streams.DAY_MS + 20_000).all()


def test_a_retrain_is_worse_only_where_it_is_meant_to_be() -> None:
    def loss(stream: streams.Stream, version: str) -> float:
        mine = np.array(stream.columns["version"]) == version
        y, p = stream.columns["y"][mine], np.clip(stream.columns["score"][mine], 1e-6, 1 - 1e-6)
        return float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())

    good = streams.retrains(np.random.default_rng(1), 22_000)
    assert len(set(good.columns["version"])) == 11
    assert max(loss(good, f"v{k}") for k in range(11)) < 1.15 * min(loss(good, f"v{k}") for k in range(11))
    bad = streams.retrains(np.random.default_rng(1), 4_000, versions=1, bad=True)
    assert loss(bad, "v1") > 2 * loss(bad, "v0")


def test_a_change_is_counted_in_either_ledger_and_a_bad_version_is() -> None:
    case = replace(BY_NAME["labels later by their value"], learn=1_000)
    stream = case.draw(np.random.default_rng(1), 3_000)
    assert case.alarms(stream) == []
    stream.columns["f0"][2_000:] += 2.0
    stream.columns["y"][2_000:] = 1 - stream.columns["y"][2_000:]
    found = case.alarms(stream)
    assert min(found) >= 2_000
    assert len(found) > 1
    assert len(streams.bad_retrain(np.random.default_rng(1))) == 1
