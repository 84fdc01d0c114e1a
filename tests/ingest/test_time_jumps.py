"""A record time that cannot be true moves nobody's time; a gap in the data does."""

from __future__ import annotations

import base64
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.streams.columns import LabelBlock, WaitingBlock
from driftline.streams.task import FINAL_MS, Idle, MemoryRecord, RestoredState
from tests.ingest.streams import T0, Ingest, config, event, record

DAY = 86_400_000
MINUTE = 60_000
YEAR_2099 = 4_070_908_800_000


def fed(times: list[int], cuts: list[int] | None = None, *, restart: bool = False, topic: str = "predictions") -> Ingest:
    """Records of these times, cut before the given ones; the input has ended after them."""
    ingest = Ingest(config(fields={"time": None}), topic)
    values = [event(id=f"id-{n}") if topic == "predictions" else {"id": f"id-{n}", "label": 1} for n in range(len(times))]
    records = [record(value, n, at=at, topic=topic) for n, (value, at) in enumerate(zip(values, times, strict=True))]
    start = 0
    blobs: dict[str, bytes] = {}
    for stop in (*(cuts or ()), len(records)):
        ingest.take(*records[start:stop])
        start = stop
        if restart:
            # A restart goes on where the task said, with what it kept.
            start = ingest.task.positions()[ingest.partition]
            blobs |= {name: blob for name, blob in ingest.task.checkpoint().blobs.items() if blob is not None}
            ingest.task = ingest.processor.open(ingest.task.name, RestoredState(dict(blobs)))
    ingest.take(*records[start:])
    ingest.outputs += ingest.task.tick(Idle(FINAL_MS, frozenset({ingest.partition})))
    return ingest


def record_times(ingest: Ingest) -> list[int]:
    rows = sorted((offset, at) for b in ingest.observations() for offset, at in zip(b.offset.tolist(), b.record_ms.tolist(), strict=True))
    assert [offset for offset, _ in rows] == list(range(len(rows)))
    return [at for _, at in rows]


def rows_for_the_join(ingest: Ingest) -> list[tuple[int, int, int]]:
    """(offset, record time, time for the join), of predictions or labels."""
    blocks: list[WaitingBlock | LabelBlock] = [*ingest.waiting(), *ingest.labels()]
    return sorted(row for b in blocks for row in zip(b.offset.tolist(), b.record_ms.tolist(), b.seen_ms.tolist(), strict=True))


@pytest.mark.parametrize("wrong", [YEAR_2099, T0 + 59 * MINUTE])
@pytest.mark.parametrize("topic", ["predictions", "labels"])
def test_a_lone_time_far_ahead_is_set_back_and_counted(topic: str, wrong: int) -> None:
    ingest = fed([T0, T0 + 5, wrong, T0 + 7, T0 + 9], topic=topic)
    assert [row[1:] for row in rows_for_the_join(ingest)][2:] == [(T0 + 5, T0 + 5), (T0 + 7, T0 + 7), (T0 + 9, T0 + 9)]
    blocks = ingest.waiting() if topic == "predictions" else ingest.labels()
    assert {block.tick_ms for block in blocks} == {T0 + 9, FINAL_MS}
    assert ingest.counters.value("time_replaced") == 1


def test_gaps_that_the_next_record_confirms_keep_every_time() -> None:
    times = [T0 + DAY * n for n in (0, 1, 2, 3, 30, 31)]
    assert record_times(fed(times)) == record_times(fed(times, [1, 2, 3, 4, 5])) == times
    times = [T0, T0 + 3, T0 + DAY, T0 + DAY - 2, T0 + DAY + 5]
    assert record_times(fed(times, [3])) == times


def test_a_wrong_time_among_daily_rows_is_not_confirmed_by_the_next_day() -> None:
    assert record_times(fed([T0, T0 + DAY, YEAR_2099, T0 + 2 * DAY, T0 + 3 * DAY])) == [T0 + DAY * n for n in (0, 1, 1, 2, 3)]


def test_a_last_record_far_ahead_keeps_its_time_at_the_end_and_moves_no_ones() -> None:
    ingest = fed([T0, YEAR_2099])
    assert record_times(ingest) == [T0, YEAR_2099]
    assert {block.tick_ms for block in ingest.waiting()} == {T0, FINAL_MS}


def test_live_the_wall_vouches_for_a_record_after_a_long_silence() -> None:
    ingest = Ingest()
    ingest.task.tick(Idle(T0 + DAY, frozenset()))
    ingest.take(record(event(time=None), at=T0), record(event(id="b", time=None), 1, at=T0 + DAY - 500))
    assert record_times(ingest) == [T0]
    ingest.outputs += ingest.task.tick(Idle(T0 + DAY + 1_000, frozenset({ingest.partition})))
    assert record_times(ingest) == [T0, T0 + DAY - 500]


def test_a_record_that_waits_for_the_next_is_read_again_and_stands_in_no_checkpoint() -> None:
    ingest = Ingest().take(record(event(time=None)))
    held = MemoryRecord("predictions", 0, 1, b"a-key", b'{"iban": "DE02"}', T0 + DAY, (("a-header", b"\x01"),))
    ingest.take(held)
    assert ingest.task.positions() == {ingest.partition: 1}
    (blob,) = ingest.task.checkpoint().blobs.values()
    assert blob is not None
    for secret in (b"iban", b"DE02", b"a-key", b"a-header", base64.b64encode(b"DE02")[:4]):
        assert secret not in blob
    again = Ingest(state=RestoredState({"ingest": blob})).take(held, record(event(time=None), 2, at=T0 + DAY))
    assert again.task.positions() == {again.partition: 3}
    assert again.reasons() == ["model"]
    assert [batch.record_ms.tolist() for batch in again.observations()] == [[T0 + DAY]]


steps = st.sampled_from([-700_000, -5_000, 0, 1, 900, 59_000, 600_000, 600_001, DAY, 70 * 365 * DAY, -70 * 365 * DAY])


@settings(deadline=None, max_examples=60)
@given(st.lists(steps, min_size=1, max_size=14), st.sets(st.integers(1, 13)), st.booleans(), st.sampled_from(["predictions", "labels"]))
def test_no_cut_and_no_restart_changes_a_time(moves: list[int], cuts: set[int], restart: bool, topic: str) -> None:
    times = [max(0, T0 + at) for at in itertools.accumulate(moves)]
    cut = fed(times, sorted(c for c in cuts if c < len(times)), restart=restart, topic=topic)
    assert rows_for_the_join(cut) == rows_for_the_join(fed(times, topic=topic))
