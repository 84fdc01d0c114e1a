"""Rows that were spread over partitions, put together again; what was spread is the oracle."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.streams.block_rows import NO_TICK, partition_of, split, take_waiting, waiting_messages
from driftline.streams.columns import ID_TYPE, ClassProbabilities, WaitingBlock, decode_waiting
from driftline.streams.observation import Coded, code
from driftline.streams.rescale.merge import WAITING_BLOCKS, SourceMerge, Written
from driftline.streams.task import FINAL_MS

SOURCE = ("in", 0)
T0 = 1_700_000_000_000


def commit(first: int, times: list[int], tick_ms: int) -> WaitingBlock:
    """What ingest makes of one batch: every column, or without some of them."""
    n = len(times)
    block = WaitingBlock(SOURCE, tick_ms)
    if not n:
        return block
    numbers = np.arange(first, first + n)
    block.ids = np.frombuffer(b"".join(xxhash.xxh3_128_digest(b"%d" % i) for i in numbers.tolist()), ID_TYPE)
    block.offset, block.record_ms = numbers, np.array(times)
    block.seen_ms, block.time_ms, block.score = block.record_ms, block.record_ms - 5, np.array(numbers / 7, np.float64)
    block.model = code([f"m{i % 2}" for i in numbers.tolist()])
    if first % 3:
        block.version = code([None if i % 5 == 0 else f"v{i % 3}" for i in numbers.tolist()])
        block.segments = {"s": code([f"s{i % 4}" for i in numbers.tolist()])}
        block.weight = np.array(numbers * 2.0, np.float64)
        block.unit = numbers % 3
        block.class_ = code(["yes" if i % 2 else None for i in numbers.tolist()])
    classes = ["x", "y"] if first % 2 else ["y", "z", "x"]
    own = np.flatnonzero(numbers % 2)
    if len(own):
        block.probabilities = {"m1": ClassProbabilities(classes, own, np.tile(numbers[own, None] / 10, (1, len(classes))))}
    return block


def rows(block: WaitingBlock) -> list[tuple[Any, ...]]:
    """Each row with all that is known of it."""

    def text(column: Coded | None, row: int) -> str | None:
        return None if column is None or column.codes[row] < 0 else column.values[column.codes[row]]

    vectors: dict[int, dict[str, float]] = {}
    for held in block.probabilities.values():
        for row, values in zip(held.rows.tolist(), held.values.tolist(), strict=True):
            vectors[row] = {name: value for name, value in zip(held.classes, values, strict=True) if value == value}
    return [
        (
            bytes(block.ids[i]), int(block.offset[i]), int(block.record_ms[i]), int(block.seen_ms[i]), int(block.time_ms[i]),
            float(block.score[i]), text(block.model, i), text(block.version, i), text(block.class_, i), text(block.segments.get("s"), i),
            None if block.weight is None or np.isnan(block.weight[i]) else float(block.weight[i]),
            0 if block.unit is None else int(block.unit[i]), vectors.get(i),
        )
        for i in range(len(block))
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(data=st.data(), partitions=st.integers(1, 5))
def test_what_ingest_spread_comes_back_whole_in_order_and_never_behind_its_time(data: st.DataObject, partitions: int) -> None:
    expected: list[tuple[Any, ...]] = []
    logs: list[list[tuple[int, WaitingBlock]]] = [[] for _ in range(partitions)]
    now, offset = T0, 0
    for _ in range(data.draw(st.integers(1, 12))):
        gaps = data.draw(st.lists(st.integers(0, 1_500), max_size=9))
        times = (now + np.cumsum(gaps)).tolist()
        now = times[-1] if times else now + data.draw(st.integers(0, 2_000))
        block = commit(offset, times, now)
        expected += rows(block)
        offset += len(times)
        parts = dict(split(partition_of(block.ids, partitions), partitions)) if times else {}
        for number in range(partitions):
            # The clocks of the partitions' brokers are apart by a second.
            written = now + 300 * number
            if number in parts:
                logs[number].append((written, take_waiting(block, parts[number])))
            elif data.draw(st.booleans()):
                logs[number].append((written, WaitingBlock(SOURCE, now)))
    ended = data.draw(st.booleans())
    for number in range(partitions if ended else 0):
        logs[number].append((now + 300 * number, WaitingBlock(SOURCE, FINAL_MS)))

    merge = SourceMerge(WAITING_BLOCKS, SOURCE, range(partitions), {})
    out: list[Written[WaitingBlock]] = []
    for at, number, place in sorted((log[i][0], n, i) for n, log in enumerate(logs) for i in range(len(log))):
        out += merge.add(number, logs[number][place][1], at)
    out += merge.rest()

    assert [row for one in out for row in rows(one.block)] == expected
    told = NO_TICK
    for one in out:
        assert one.block.tick_ms >= told
        assert not len(one.block) or int(one.block.seen_ms.min()) >= told
        told = one.block.tick_ms
    assert (told == FINAL_MS) == ended
    for one in out:
        again = [decode_waiting(message) for message in waiting_messages(one.block)]
        assert [row for block in again for row in rows(block)] == rows(one.block)


def test_every_column_that_there_is_is_looked_at_here() -> None:
    """A new one is to be added to `several_waiting`, `take_waiting`, and to `commit` and `rows` of this module."""
    known = {"source", "tick_ms", "ids", "offset", "record_ms", "seen_ms", "time_ms", "model", "score"}
    assert {field.name for field in fields(WaitingBlock)} == known | {"version", "class_", "segments", "weight", "unit", "probabilities"}


def test_rows_are_given_on_as_soon_as_every_partition_has_told_of_their_time() -> None:
    merge = SourceMerge(WAITING_BLOCKS, SOURCE, range(2), {})
    whole = commit(0, [T0 + i * 200 for i in range(10)], T0 + 1_800)
    parts = dict(split(partition_of(whole.ids, 2), 2))
    assert list(merge.add(0, take_waiting(whole, parts[0]), T0)) == []
    given_on = list(merge.add(1, take_waiting(whole, parts[1]), T0))
    # The last row has the time itself: another one with it may come.
    assert [row for one in given_on for row in rows(one.block)] == rows(whole)[:9]


@pytest.mark.parametrize("written", [[T0] * 4, [T0, T0, T0 + 5_000, T0 + 5_000]])
def test_rows_of_different_seconds_do_not_wait_for_each_other(written: list[int]) -> None:
    merge = SourceMerge(WAITING_BLOCKS, SOURCE, range(1), {0: T0 + 10_000})
    for i, at in enumerate(written):
        list(merge.add(0, replace(commit(i, [T0 + i], T0 + i)), at))
    out = [one for one in merge.rest() if len(one.block)]
    assert [one.block.offset.tolist() for one in out] == ([[0, 1, 2, 3]] if written[0] == written[-1] else [[0, 1], [2, 3]])
    assert [one.written_ms for one in out] == sorted(set(written))
