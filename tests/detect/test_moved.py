"""Detect's state for another number of partitions: a model goes on, in whichever task, as if it had not been moved."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import pytest

from driftline.streams.detect.rescaled import rescaled
from driftline.streams.detect.task import DetectTask
from driftline.streams.errors import SequenceError, StateError
from driftline.streams.observation import decode, encode
from driftline.streams.partitioner import partition_for
from driftline.streams.task import MemoryRecord, RestoredState
from tests.detect.test_changed_configuration import TWO, Store
from tests.detect.test_task import TOPIC, events, open_task, run, stream

SIZES = [250] * 12
HALF = 7
"""Behind the change at row 1,500: episodes are open."""


def sent(model: str, sources: Sequence[str], *, first: int = 1) -> list[MemoryRecord]:
    """The rows of a model, in turn from several source partitions, with numbers that begin anew at a batch."""
    out = []
    for record in stream(SIZES):
        batch = decode(record.value() or b"")
        source = sources[record.offset() % len(sources)]
        batch.model, batch.task, batch.sources = model, f"ingest/{model}/0", [(source, 0)]
        batch.seq = record.offset() + 2 - first
        out.append(MemoryRecord(TOPIC, 0, record.offset(), model.encode(), encode(batch), 0))
    return out


def kept(task: DetectTask) -> RestoredState:
    return Store().take(task)


def test_models_of_two_tasks_meet_in_one_and_each_keeps_its_own_sources() -> None:
    sources = {"m": ["p", "q"], "n": ["q", "r", "p"]}
    expected, former = {}, []
    for model, own in sources.items():
        task = open_task(text=TWO)
        run(task, sent(model, own)[:HALF])
        former.append(kept(task))
        expected[model] = events(run(task, sent(model, own)[HALF:]))
        assert expected[model]
    (state,) = rescaled(former, 1, {"ingest/m/0": 0, "ingest/n/0": 0})
    task = open_task(state, TWO)
    for model, own in sources.items():
        assert events(run(task, sent(model, own, first=HALF + 1)[HALF:])) == expected[model]


def test_every_model_goes_to_the_partition_of_its_name() -> None:
    task = open_task(text=TWO)
    run(task, sent("m", ["p"])[:HALF])
    run(task, sent("n", ["p"])[:HALF])
    states = rescaled([kept(task), RestoredState()], 5, {})
    found = {model: number for number, state in enumerate(states) for model in orjson.loads(state.blobs["task"])["models"]}
    assert found == {model: partition_for(model, 5) for model in ("m", "n")}
    for number, state in enumerate(states):
        names = {name.split("/")[0] for name in (*state.blobs, *state.rings)} - {"task"}
        assert names == {model for model in found if found[model] == number}


def test_the_first_batch_after_the_move_has_number_one_or_is_a_loss() -> None:
    task = open_task(text=TWO)
    run(task, sent("m", ["p"])[:HALF])
    (state,) = rescaled([kept(task)], 1, {"ingest/m/0": 0, "ingest/new/0": 7})
    assert orjson.loads(state.blobs["task"])["generations"] == {"ingest/new/0": 7}
    with pytest.raises(SequenceError, match='"ingest/m/0" sent batch 2 after 0'):
        run(open_task(state, TWO), sent("m", ["p"], first=HALF + 1)[HALF + 1 :])


def test_only_the_models_of_a_rebuilt_task_go_on_as_rebuilt() -> None:
    former = []
    for model, generation in (("m", 0), ("n", 9)):
        task = open_task(RestoredState(generation=generation), TWO)
        run(task, sent(model, ["p"])[:HALF])
        former.append(kept(task))
    (state,) = rescaled(former, 1, {"ingest/m/0": 0, "ingest/n/0": 0})
    task = open_task(state, TWO)
    for model, state_of_events in (("m", None), ("n", "rebuilt")):
        found = events(run(task, sent(model, ["p"], first=HALF + 1)[HALF:]))
        assert {event.get("state") for event in found} == {state_of_events}


def test_state_of_a_release_with_one_table_for_all_models_is_read() -> None:
    rows = sent("m", ["q", "p"])
    task = open_task(text=TWO)
    run(task, rows[:HALF])
    state = kept(task)
    held = orjson.loads(state.blobs["task"])
    del held["models"]["m"]["rebuilt"]
    older = {**held, "v": 1, "sources": held["models"]["m"].pop("sources")}
    again = open_task(RestoredState({**state.blobs, "task": orjson.dumps(older)}, state.rings), TWO)
    assert run(again, rows[HALF:]) == run(task, rows[HALF:])


def test_a_part_that_belongs_to_no_model_is_refused_by_name() -> None:
    task = open_task(text=TWO)
    run(task, sent("m", ["p"])[:HALF])
    state = kept(task)
    with pytest.raises(StateError, match='"stray/blob" in its state belongs to no model'):
        rescaled([RestoredState({**state.blobs, "stray/blob": b""}, state.rings)], 2, {})
