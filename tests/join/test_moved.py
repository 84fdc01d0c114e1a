"""What waits, moved to other topics: the join goes on with the outcomes it would have had. The moving is real, the topics are lists."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import orjson
import pytest

from driftline.schemas.config import Config
from driftline.streams.block_rows import partition_of
from driftline.streams.columns import decode_waiting
from driftline.streams.join.before import DecidedBefore, HeldBefore
from driftline.streams.join.decided import RECORD, DecidedIds
from driftline.streams.join.rescaled import FormerJoin, Section, rescaled
from driftline.streams.join.setting import JoinSetting
from driftline.streams.rescale.waiting import Former, move_labels, move_waiting
from driftline.streams.task import MemoryRecord, PartitionId, RestoredState
from tests.join.logs import AGE, LABELS, T0, WAITING, Join, Logs, cluster, config, digest

LATER_MS = T0 + 10**9
"""When the moving is done: long after everything was written."""


class Topics:
    """The new topics, of one partition each."""

    def __init__(self) -> None:
        self.records: dict[PartitionId, list[MemoryRecord]] = {WAITING: [], LABELS: []}

    def send(
        self, topic: str, value: bytes | None, *, partition: int | None = None, key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:  # fmt: skip
        assert partition == 0
        log = self.records[topic, 0]
        log.append(MemoryRecord(topic, 0, len(log), key, value, LATER_MS, tuple(headers)))

    def finish(self) -> None:
        """Everything stands at once."""


def move(joins: Sequence[Join], logs: Logs) -> Logs:
    """Bring the joins, as they are committed, to new topics with what waits for them; those topics."""
    states = [RestoredState(dict(join.blobs), dict(join.rings)) for join in joins]
    former = [
        FormerJoin.of(state, join.committed_at.get(WAITING, 0), join.committed_at.get(LABELS, 0))
        for state, join in zip(states, joins, strict=True)
    ]
    topics, all_ = Topics(), Former([former])
    waiting_starts, labels_starts = all_.waiting_starts(), all_.labels_starts(lambda _number: 0)
    move_waiting(logs.waiting[waiting_starts[0] :], all_, topics, WAITING[0], 1)
    move_labels(logs.labels[labels_starts[0] :], all_, topics, LABELS[0], 1)
    section = Section((0, len(topics.records[WAITING])), (0, len(topics.records[LABELS])))
    for index, (join, one) in enumerate(zip(joins, former, strict=True)):
        setting = replace(JoinSetting.of(join_config(), cluster(), index), age=AGES[index])
        ((state,), _) = rescaled([one], setting, [section])
        join.blobs, join.rings = dict(state.blobs), dict(state.rings)
        join.committed_at = {WAITING: section.waiting[0], LABELS: section.labels[1]}
        join.cache.reset(0)
        join.cache._covered = None  # type: ignore[attr-defined]  # a new task's Redis has no journal
        join.open()
    return Logs(topics.records[WAITING], topics.records[LABELS])


AGES = (AGE, 4 * AGE)


def join_config() -> Config:
    return config(models={"fraud": {"features": {}, "labels": {"ages": list(AGES)}}})


def two_ages() -> list[Join]:
    return [Join(join_config(), age_index=index) for index in range(2)]


def stream(seconds: int) -> Logs:
    """A prediction a second, some twice; labels soon, late, twice or never."""
    logs, rng = Logs(), random.Random(6)
    labels = []
    for second in range(seconds):
        logs.predict((f"{second}", second), *([(f"{second - 3}", second)] if second % 17 == 5 else []))
        if rng.random() < 0.9:
            labels.append((second + rng.expovariate(1 / 12), f"{second}", second % 2))
        if rng.random() < 0.1:
            labels.append((second + rng.expovariate(1 / 12), f"{second}", 1 - second % 2))
    for time, name, value in sorted(labels):
        logs.label((name, time, value))
    return logs


def appended(first: Logs, waiting: Sequence[MemoryRecord], labels: Sequence[MemoryRecord]) -> Logs:
    out = Logs(list(first.waiting), list(first.labels))
    for log, more in ((out.waiting, waiting), (out.labels, labels)):
        for record in more:
            log.append(replace(record, offset_=len(log)))
    return out


@pytest.mark.parametrize("lag", [0, 1, 2, 3])
def test_the_outcomes_are_those_of_joins_that_were_never_moved(lag: int) -> None:
    logs = stream(120).end()
    never = two_ages()
    for join in never:
        join.read(logs)
    cut_waiting, cut_labels = 70, 62
    half = Logs(logs.waiting[:cut_waiting], logs.labels[:cut_labels])
    joins = two_ages()
    for join, behind in zip(joins, ((0, 0), (25, 0), (0, 30), (70, 62))[lag : lag + 1] * 2, strict=True):
        # The second age, or the first: which of them lags is not the same in every case.
        join.read(half, waiting=cut_waiting - behind[0], labels=cut_labels - behind[1]).commit()
    joins[lag % 2].read(half).commit()
    before = [len(join.rows()) for join in joins]
    new = appended(move(joins, half), logs.waiting[cut_waiting:], logs.labels[cut_labels:])
    for join, expected, done in zip(joins, never, before, strict=True):
        join.read(new)
        assert join.rows() == expected.rows()
        assert done < len(join.rows())
    if lag == 0:
        assert before[0] > before[1] > 0
        assert orjson.loads(joins[0].blobs["join"])["v"] == 2
    # Behind what was moved nothing is passed over any more, and older workers can read the state again.
    assert "before" not in orjson.loads(joins[0].commit().blobs["join"])
    assert orjson.loads(joins[0].blobs["join"])["v"] == 1


def test_a_repeat_of_a_prediction_decided_before_the_move_is_a_repeat_after_it() -> None:
    logs = Logs().predict(("a", 0)).label(("a", 1, 1)).tick(100)
    half = Logs(list(logs.waiting), list(logs.labels))
    logs.predict(("a", 100)).predict(("b", 101)).tick(1_000)
    joins = two_ages()
    for join in joins:
        join.read(half).commit()
        assert join.rows() == [(0, 1.0, 0)]
    new = appended(move(joins, half), logs.waiting[1:], logs.labels[2:])
    for join in joins:
        join.read(new)
        assert [offset for offset, _, _ in join.rows()] == [0, 2]
        assert join.case("duplicate_prediction") == 1


def test_rows_from_before_the_end_of_an_input_are_decided_as_of_the_end() -> None:
    logs = Logs(written_ms=T0).predict(("a", 0)).label(("b", 5, 1)).tick(None)
    join, other = two_ages()
    join.read(logs, labels=1).commit()
    other.read(logs, labels=1).commit()
    assert join.rows() == []
    new = move([join, other], logs)
    join.read(new)
    assert [offset for offset, _, _ in join.rows()] == [0]


def test_only_what_was_decided_in_its_former_partition_is_passed_over() -> None:
    logs = Logs().predict(*((f"{i}", i) for i in range(40)))
    block = decode_waiting(logs.waiting[0].value_ or b"")
    held = HeldBefore(5, 2, [(0, "predictions", 0, 10), (1, "predictions", 0, 30)])
    rest = DecidedBefore(held).rest(4, block)
    limits = {0: 10, 1: 30}
    places = partition_of(block.ids, 2).tolist()
    assert rest.offset.tolist() == [i for i in range(40) if i > limits[places[i]]]
    assert rest.tick_ms == block.tick_ms
    assert DecidedBefore(held).rest(5, block) is block
    assert DecidedBefore().rest(0, block) is block


def test_a_measured_age_becomes_the_greatest_that_a_partition_had_found() -> None:
    former = []
    for age_ms, generation, told in ((10_000, 0, 500), (None, 3, 700), (12_000, 0, 600)):
        one = FormerJoin.of(RestoredState(), 0, 0)
        one.held = msgspec.structs.replace(one.held, age_ms=age_ms, generation=generation, ticks={"fraud": told})
        former.append(one)
    setting = replace(JoinSetting.of(config("auto"), cluster(), 0))
    states, generation = rescaled(former, setting, [Section((7, 9), (3, 8)), Section((1, 1), (2, 4))])
    held = [orjson.loads(state.blobs["join"]) for state in states]
    assert [one["age_ms"] for one in held] == [12_000, 12_000]
    assert [one["ticks"] for one in held] == [{"fraud": 500}] * 2
    assert generation == 3
    assert [(one["waiting_next"], one["labels_next"], one["marks"][1]) for one in held] == [(7, 8, [[3, -1]]), (1, 4, [[2, -1]])]


def test_each_id_decided_last_is_remembered_where_it_belongs_now_the_oldest_forgotten_first() -> None:
    setting = replace(JoinSetting.of(config(), cluster(), 0), generation=10, block_rows=5)
    keys = [digest(f"{i}") for i in range(200)]
    former = []
    for half in range(2):
        one = FormerJoin.of(RestoredState(), 0, 0)
        rows = np.empty(100, RECORD)
        rows["id"], rows["limit_ms"] = np.frombuffer(b"".join(keys[half::2]), "V16"), np.arange(half, 200, 2)
        one.ring = rows
        former.append(one)
    states, _ = rescaled(former, setting, [Section((0, 0), (0, 0))] * 3)
    places = partition_of(np.frombuffer(b"".join(keys), "V16"), 3).tolist()
    for number, state in enumerate(states):
        own = [key for key, place in zip(keys, places, strict=True) if place == number]
        memory = DecidedIds(setting.generation, setting.block_rows)
        memory.restore(state.rings["decided"], orjson.loads(state.blobs["join"])["decided"])
        assert [key in memory for key in own] == [False] * (len(own) - 24) + [True] * 24
