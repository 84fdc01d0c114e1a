"""What a task is opened with, and what the operator's choice to start anew covers; on a store in memory."""

from __future__ import annotations

from typing import Any

import pytest

from driftline.streams.cluster import Cluster
from driftline.streams.errors import FatalError, OffsetError, StateError
from driftline.streams.ingest import IngestProcessor, MemoryCounters
from driftline.streams.observation import decode
from driftline.streams.runner.restore import OnLostState, Restorer, RunningTask
from driftline.streams.state.checkpoints import Checkpoints, Scope
from driftline.streams.state.manifest import encode_reference
from driftline.streams.state.store import MemoryStore
from driftline.streams.task import MemoryRecord, PartitionId, RestoredState
from tests.ingest.streams import T0, cluster, config, event, record
from tests.runner.toy import ToyProcessor, ToyTask

PART: PartitionId = ("source", 0)
INPUTS = frozenset({PART})
SCOPE = Scope("k", "e", "g", Cluster("c", {"source": "t"}, {"source": 2}))
ROWS = 40
NOW_MS = 1_760_000_000_000


class Edited(ToyProcessor):
    """A configuration that the saved state does not fit: only a new task opens."""

    def open(self, task: str, state: RestoredState) -> ToyTask:
        if state.blobs:
            raise StateError("the window is another")
        return super().open(task, state)


class Log:
    """A consumer's view of the source: the offsets it still holds."""

    def __init__(self, low: int, high: int) -> None:
        self._bounds = (low, high)

    def get_watermark_offsets(self, _partition: Any, **_: Any) -> tuple[int, int]:
        return self._bounds


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def committed(store: MemoryStore, *, base: bool = False) -> dict[PartitionId, tuple[int, str]]:
    """The offsets of a task that has read `ROWS` records and stopped."""
    task = ToyProcessor("source", "out").open("toy/0", RestoredState())
    task.process({PART: [MemoryRecord("source", 0, i, None, str(i).encode(), 0) for i in range(ROWS)]})
    checkpoints = Checkpoints(store, SCOPE, "toy/0", INPUTS)
    checkpoints.claim()
    checkpoints.begin()
    write, reference = checkpoints.prepare(task.checkpoint(), task.positions(), base=base)
    store.write([write])
    checkpoints.written()
    checkpoints.confirm()
    return {PART: (ROWS, encode_reference(reference))}


def restore(
    store: MemoryStore, offsets: dict[PartitionId, tuple[int, str]], choice: OnLostState, *,
    edited: bool = False, low: int = 0, inputs: frozenset[PartitionId] = INPUTS,
) -> RunningTask:  # fmt: skip
    processor = (Edited if edited else ToyProcessor)("source", "out")
    log: Any = Log(low, 100)
    restorer = Restorer(processor, lambda: log, store, SCOPE, None, start="now", by_time=True, on_lost_state=choice, now_ms=lambda: NOW_MS)
    return restorer.restore("toy/0", inputs, offsets)


@pytest.mark.parametrize(("broken", "error"), [({"edited": True}, StateError), ({"low": 70}, OffsetError)])
def test_a_task_that_cannot_go_on_stops_and_the_choice_it_names_starts_it_anew(
    store: MemoryStore, broken: dict[str, Any], error: type[FatalError]
) -> None:
    offsets = committed(store)
    with pytest.raises(error):
        restore(store, offsets, "fail", **broken)
    running = restore(store, offsets, "rebuild-from-earliest", **broken)
    assert isinstance(running.task, ToyTask)
    assert running.task.generation == NOW_MS
    low = broken.get("low", 0)
    assert (running.source, running.read_from, running.replay_to) == ("none", {PART: low}, None)


def test_a_task_that_goes_on_or_begins_has_no_generation(store: MemoryStore) -> None:
    for running in (restore(MemoryStore(), {}, "rebuild-from-earliest"), restore(store, committed(store), "rebuild-from-earliest")):
        assert isinstance(running.task, ToyTask)
        assert running.task.generation == 0


def test_a_rebuilt_task_forgets_the_base_checkpoint_of_its_former_life(store: MemoryStore) -> None:
    offsets = committed(store, base=True)
    running = restore(store, offsets, "rebuild-from-earliest", edited=True)
    write, reference = running.checkpoints.prepare(running.task.checkpoint(), running.positions())
    assert (reference.base, reference.id.partition("-")[0]) == ("", "1")
    store.write([write])
    running.checkpoints.written()
    running.checkpoints.confirm()
    again = restore(store, {PART: (0, encode_reference(reference))}, "fail")
    assert again.source == "redis"


def test_inputs_of_which_only_some_have_an_offset_are_rebuilt_too(store: MemoryStore) -> None:
    offsets = committed(store)
    both = INPUTS | {("source", 1)}
    with pytest.raises(StateError, match="rebuild-from-earliest"):
        restore(store, offsets, "fail", inputs=both)
    assert restore(store, offsets, "rebuild-from-earliest", inputs=both).read_from == dict.fromkeys(both, 0)


def test_lost_offsets_are_rebuilt_from_the_earliest_whatever_start_says(store: MemoryStore) -> None:
    running = restore(store, committed(store), "fail")
    # The first checkpoint of a task is the empty one that fixes its start; a second one says that it has run.
    write, _ = running.checkpoints.prepare(running.task.checkpoint(), running.positions())
    store.write([write])
    with pytest.raises(StateError, match=r"no committed offset.*\n.*rebuild-from-earliest"):
        restore(store, {}, "fail")
    assert restore(store, {}, "rebuild-from-earliest").read_from == {PART: 0}


def test_a_record_ingest_has_not_decided_is_read_again_after_a_restart(store: MemoryStore) -> None:
    source: PartitionId = ("predictions", 0)
    processor = IngestProcessor(config(labels=False), cluster(), MemoryCounters())
    scope = Scope("k", "e", "g", Cluster("c", {"predictions": "t"}, {"predictions": 1}))
    far = [record(event(id="b", time=None), 1, at=T0 + 86_400_000), record(event(id="c", time=None), 2, at=T0 + 86_400_000)]
    log: Any = Log(0, 100)

    def restored(offsets: dict[PartitionId, tuple[int, str]]) -> RunningTask:
        restorer = Restorer(
            processor, lambda: log, store, scope, None, start="earliest", by_time=True, on_lost_state="fail", now_ms=lambda: NOW_MS
        )
        return restorer.restore("ingest/predictions/0", frozenset({source}), offsets)

    running = restored({})
    first = running.task.process({source: [record(event(time=None), 0), far[0]]})
    write, reference = running.checkpoints.prepare(running.task.checkpoint(), running.positions())
    store.write([write])
    again = restored({source: (running.positions()[source], encode_reference(reference))})
    assert again.read_from == {source: 1}
    outputs = [*first, *again.task.process({source: far})]
    rows = [decode(output.value) for output in outputs if output.topic.endswith(".observations") and output.value]
    assert [(batch.seq, batch.offset.tolist()) for batch in rows if len(batch)] == [(1, [0]), (2, [1, 2])]


def test_a_partition_that_came_while_the_worker_ran_is_begun_by_nobody(store: MemoryStore) -> None:
    """Not by the operator's choice either: the others would still write by the old number of partitions."""
    for choice in ("fail", "rebuild-from-earliest"):
        with pytest.raises(StateError, match="had 2 partitions when this worker started and has more now") as caught:
            restore(store, {}, choice, inputs=frozenset({("source", 2)}))
        assert "Kafka cannot take it back" in (caught.value.hint or "")
