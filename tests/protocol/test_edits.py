"""PROTOCOL 20 on the real runner: a configuration is active from the offset that was committed before it, whatever is lost meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from driftline.schemas.config import Config, Model
from driftline.streams.runner.runner import Runner
from driftline.streams.task import MemoryRecord, Output, PartitionId, Record, RestoredState, StateDelta
from tests.protocol import toy
from tests.protocol.scenarios import A0, feed
from tests.protocol.world import FAILPOINTS, SOURCES, World

EDIT = b"edit"


class FactorTask(toy.ToyTask):
    """Multiplies what it takes by the configuration's factor; its state says under which one it was made."""

    def __init__(self, number: int, state: RestoredState, factor: int) -> None:
        super().__init__(number, state, pausing=False)
        self._factor, self._was = factor, int(state.blobs.get("factor", b"0"))

    def opened(self) -> list[Output]:
        was, self._was = self._was, self._factor
        return [Output(toy.OUT, EDIT, b"%d -> %d" % (was, self._factor), partition=self._number)] if was not in (0, self._factor) else []

    def process(self, records: Mapping[PartitionId, Sequence[Record]]) -> list[Output]:
        return super().process({key: [self._scaled(record) for record in rows] for key, rows in records.items()})

    def checkpoint(self) -> StateDelta:
        delta = super().checkpoint()
        return StateDelta({**delta.blobs, "factor": b"%d" % self._factor}, delta.rings)

    def _scaled(self, record: Record) -> Record:
        value = b"%d" % (self._factor * int(record.value() or b"0"))
        return MemoryRecord(record.topic(), record.partition(), record.offset(), record.key(), value, 0)


class FactorProcessor(toy.ToyProcessor):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self._factor = config.models["m"].window // 100

    def open(self, task: str, state: RestoredState) -> FactorTask:
        return FactorTask(int(task.rpartition("/")[2]), state, self._factor)


class EditedWorld(World):
    """A world whose configuration can be edited; what is right follows from the offsets that were committed then."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._edits: list[tuple[dict[PartitionId, int], int]] = []
        self.follow = True
        self.edit(1)

    def edit(self, factor: int) -> None:
        self._edits.append(({key: self.broker.committed.get(key, (0, ""))[0] for key in SOURCES}, factor))
        self._config = self._config.model_copy(update={"models": {"m": Model(window=100 * factor)}})
        self._processor = FactorProcessor(self._config)

    def make_runner(self, name: str) -> Runner:
        config = self._config
        former = (lambda text: FactorProcessor(config.under(text))) if self.follow else None
        return Runner(self._processor, config, self._cluster, self.store, time="data", instance=name, former=former)

    def expected(self, topic: str, partition: int) -> list[bytes]:
        one, out = toy._Input(topic, RestoredState()), []
        for offset, entry in self.broker.records((topic, partition)):
            factor = next(factor for since, factor in reversed(self._edits) if since[topic, partition] <= offset)
            out.append(one.take(factor * int(entry.value or b"0")))
        return out

    def said(self, partition: int) -> list[bytes]:
        return [entry.value or b"" for _, entry in self.broker.records((toy.OUT, partition)) if entry.key == EDIT]


@pytest.fixture(params=["classic", "consumer"])
def world(request: pytest.FixtureRequest) -> Iterator[EditedWorld]:
    world = EditedWorld(incremental=request.param == "consumer", base_seconds=1_000)
    yield world
    world.close()


def live_under_one(world: EditedWorld) -> None:
    """Commits of which only the first carries a base, so that what is lost has to be replayed."""
    world.start("a")
    feed(world, "a", 2, 2, 2, 2, 3)
    feed(world, "a", 2, 1, key=("b", 1))
    world.produce(*A0, 70, 71)


@pytest.mark.parametrize("wiped", [False, True])
@pytest.mark.parametrize("point", ["", *FAILPOINTS])
def test_an_edit_is_active_from_what_was_committed_and_said_once(world: EditedWorld, point: str, *, wiped: bool) -> None:
    live_under_one(world)
    world.workers["a"].kill()
    if wiped:
        world.store.wipe()
    world.edit(2)
    for _ in range(3 if point else 0):
        # At the end of the replay, at the commit of the edit, and at the next.
        world.produce(*A0, 80, 81)
        world.start("a")
        world.run_until("a", point, "kill")
        world.advance(16)
    world.quiesce()
    assert [world.said(partition) for partition in range(2)] == [[b"1 -> 2"], [b"1 -> 2"]]


def test_edits_upon_edits_with_everything_lost_between_them(world: EditedWorld) -> None:
    live_under_one(world)
    for factor in (2, 3, 1):
        world.workers["a"].kill()
        world.store.wipe()
        world.edit(factor)
        world.quiesce()
        world.produce(*A0, 5, 6, 7)
        world.produce("b", 1, 8, 9)
        world.quiesce()
    assert world.said(0) == world.said(1) == [b"1 -> 2", b"2 -> 3", b"3 -> 1"]


def test_without_the_former_configuration_a_replay_across_an_edit_is_another_state(world: EditedWorld) -> None:
    world.follow = False
    live_under_one(world)
    world.workers["a"].kill()
    world.store.wipe()
    world.edit(2)
    with pytest.raises(AssertionError, match="expected"):
        world.quiesce()
