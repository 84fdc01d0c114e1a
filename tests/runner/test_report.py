"""What counts as movement of a partition: a worker's loop in miniature tells, once a second, and the time is an argument."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from driftline.streams.http import Health
from driftline.streams.metrics import PROGRESS, Metrics
from driftline.streams.runner.report import Reporter
from driftline.streams.task import PartitionId

A, B = ("waiting", 0), ("labels", 0)


@dataclass
class Member:
    """What the reporter asks of a membership."""

    next: dict[PartitionId, int] = field(default_factory=lambda: {A: 0, B: 0})
    ends: dict[PartitionId, int] = field(default_factory=lambda: {A: 100, B: 100})
    owned: set[PartitionId] = field(default_factory=lambda: {A, B})
    dropped: int = 0
    answering: bool = True
    refused: str | None = None

    def lag(self) -> dict[PartitionId, int]:
        return {key: self.ends[key] - at for key, at in self.next.items()}

    def reached_end(self, key: PartitionId) -> bool:
        return self.next[key] >= self.ends[key]

    def answers(self) -> bool:
        return self.answering


@dataclass
class Running:
    """What it asks of a task and of the table of tasks, and of the committer."""

    inputs: frozenset[PartitionId] = frozenset({A, B})
    committed: dict[PartitionId, int] = field(default_factory=lambda: {A: 0, B: 0})
    replay_to: dict[PartitionId, int] | None = None
    dirty: bool = False
    paused_: frozenset[PartitionId] = frozenset()
    commits: int = 0
    open: bool = False

    def paused(self) -> frozenset[PartitionId]:
        return self.paused_

    def __iter__(self) -> Any:
        return iter([self])

    def __len__(self) -> int:
        return 1


class Loop:
    """A worker whose rounds are made by hand."""

    def __init__(self) -> None:
        self.now, self.member, self.task = 0.0, Member(), Running()
        self.health, self.metrics = Health(clock=lambda: self.now, stall_seconds=10), Metrics()
        self._reporter = Reporter("join", cast(Any, self.member), self.metrics, self.health)

    def second(self) -> list[PartitionId]:
        """One report; the partitions that stand still by then."""
        self._reporter.report(cast(Any, self.task), cast(Any, self.task), now_ms=round(self.now * 1000))
        self.now += 1
        return [(stall.topic, stall.partition) for stall in self.health.progress.stalls()]


@pytest.fixture
def loop() -> Loop:
    return Loop()


def test_partition_that_is_read_and_committed_moves(loop: Loop) -> None:
    for second in range(40):
        loop.member.next = dict.fromkeys((A, B), second)
        loop.task.committed = dict.fromkeys((A, B), second)
        loop.task.commits += 1
        assert loop.second() == []
    assert loop.metrics.value(PROGRESS, *A) == 39


def test_partition_that_is_not_read_while_others_are_stands_still(loop: Loop) -> None:
    stalled = []
    for second in range(40):
        loop.member.next[A] = loop.task.committed[A] = second
        loop.task.commits += 1
        stalled = loop.second()
    assert stalled == [B]
    assert loop.metrics.value(PROGRESS, *B) == 0


def test_position_that_trails_by_the_labels_age_moves_while_the_join_reads_on_and_commits(loop: Loop) -> None:
    for second in range(40):
        loop.member.next = {A: second, B: second}
        loop.task.committed[B] = second
        loop.task.commits += 1
        assert loop.second() == []


def test_reading_without_commits_is_no_movement(loop: Loop) -> None:
    stalled = []
    for second in range(20):
        loop.member.next = {A: second % 5, B: second % 5}   # aborted and read again
        loop.task.dirty = loop.task.open = True
        stalled = loop.second()
    assert set(stalled) == {A, B}


def test_what_a_task_has_paused_or_read_to_its_end_may_stand(loop: Loop) -> None:
    loop.task.paused_ = frozenset({A})
    loop.member.next[B] = loop.member.ends[B]
    for _ in range(40):
        assert loop.second() == []


def test_rows_at_the_end_that_are_never_committed_stand_still(loop: Loop) -> None:
    loop.member.next = dict(loop.member.ends)
    loop.task.dirty = loop.task.open = True
    stalled = [loop.second() for _ in range(20)][-1]
    assert set(stalled) == {A, B}


def test_replay_moves_by_reading_alone(loop: Loop) -> None:
    loop.task.replay_to = dict(loop.member.ends)
    for second in range(40):
        loop.member.next = {A: second, B: second}
        assert loop.second() == []


def test_partition_that_is_owned_and_not_opened_stands_still(loop: Loop) -> None:
    loop.task.inputs = frozenset({A})
    stalled = []
    for second in range(20):
        loop.member.next[A] = loop.task.committed[A] = second
        loop.task.commits += 1
        stalled = loop.second()
    assert stalled == [B]


def test_kafka_is_back_when_it_answers(loop: Loop) -> None:
    loop.health.kafka("1/1 brokers are down")
    loop.member.answering = False
    loop.second()
    assert loop.health.kafka_away
    loop.member.answering = True
    loop.second()
    assert not loop.health.kafka_away
