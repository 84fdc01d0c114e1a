"""What is known of tasks from outside is what their processors say of themselves."""

from __future__ import annotations

import pytest

from driftline.schemas.loading import parse_config
from driftline.streams.cluster import Cluster
from driftline.streams.counters import MemoryCounters
from driftline.streams.errors import LostStateError, StateError
from driftline.streams.runner.restore import Committed
from driftline.streams.savepoint.contents import World
from driftline.streams.savepoint.restore import changes
from driftline.streams.savepoint.tasks import read_task, reference_of, scope_of
from driftline.streams.state.checkpoints import Checkpoints
from driftline.streams.state.manifest import encode_reference
from driftline.streams.state.store import MemoryStore
from driftline.streams.task import Processor, RingWrite, StateDelta
from driftline.streams.wiring import TaskPlace, groups_of, make_detect, make_ingest, make_joins, task_outputs, task_topics, tasks_of

TEXT = """
predictions: [{topic: a.predictions}, {topic: b}]
labels: [{topic: l}]
topics: {prefix: p}
kafka: {group_prefix: g}
models: {m: {labels: {ages: [5m, auto]}}, n: {labels: {ages: [1h]}}}
"""
CONFIG = parse_config(TEXT, name="m.yml")
CLUSTER = Cluster("c", {}, {topic: 2 if topic == "b" else 3 for topic in task_topics(CONFIG)})


def test_every_task_is_found_with_the_name_inputs_and_group_its_processor_has_for_it() -> None:
    counters = MemoryCounters()
    processors: list[Processor] = [
        make_ingest(CONFIG, CLUSTER, counters),
        *make_joins(CONFIG, CLUSTER, counters),
        make_detect(CONFIG, CLUSTER, counters),
    ]
    expected = set()
    for processor in processors:
        for topic in processor.input_topics():
            for partition in range(CLUSTER.partitions[topic]):
                name = processor.task_name((topic, partition))
                expected.add((processor.name, f"g.{processor.name}", name, processor.task_inputs(name)))
    found = [(place.processor, place.group, place.name, place.inputs) for place in tasks_of(CONFIG, CLUSTER)]
    assert set(found) == expected
    assert len(found) == len(expected) == 3 + 2 + 3 + 3 * 3 + 3
    assert {group for _, group, _, _ in found} == groups_of(CONFIG).keys() - {"g.alert"}


def test_what_tasks_write_is_known_without_dead_letters() -> None:
    assert set(task_outputs(CONFIG)) == {f"p.{name}" for name in ("observations", "waiting", "labels", "checkpoints", "drift", "snapshots")}
    assert set(task_outputs(CONFIG)) <= set(task_topics(CONFIG))


def world(**change: object) -> World:
    fields: dict[str, object] = {
        "environment": "e", "topics_prefix": "p", "group_prefix": "g", "key_prefix": "k", "cluster_id": "c",
        "topic_ids": {"p.drift": "1", "a.predictions": "2", "p.predictions": "3"}, "partitions": {},
    }  # fmt: skip
    return World(**fields | change)  # type: ignore[arg-type]


def test_nothing_changes_where_nothing_is_another() -> None:
    assert changes(world(), world()) == []


def test_every_difference_is_told() -> None:
    there = world(environment="f", topics_prefix="q", group_prefix="h", key_prefix="r", cluster_id="d",
                  topic_ids={"q.drift": "1", "a.predictions": "9", "p.predictions": "3"})  # fmt: skip
    told = changes(world(), there)
    assert [line.split(":")[0].split(" ")[0] for line in told] == ["environment", "cluster", "topics", "groups", "keys", "topic"]
    assert told[-1].startswith('topic "a.predictions" 2 -> 9')


def committing(store: MemoryStore, place: TaskPlace, times: int) -> list[Committed]:
    """What a worker has committed after each of its commits."""
    checkpoints = Checkpoints(store, scope_of(place, CONFIG, CLUSTER), place.name, place.inputs)
    checkpoints.claim()
    checkpoints.begin()
    (key,) = place.inputs
    found: list[Committed] = []
    for number in range(times):
        delta = StateDelta({"task": b"%d" % number * 20_000}, [RingWrite("r", 1, 50, number + 1, b"x")])
        write, reference = checkpoints.prepare(delta, {key: number})
        store.write([write])
        checkpoints.written()
        checkpoints.confirm()
        found.append({key: (number, encode_reference(reference))})
    return found


def test_a_task_that_commits_while_it_is_read_is_read_again() -> None:
    store, place = MemoryStore(), tasks_of(CONFIG, CLUSTER)[-1]
    committed = committing(store, place, 6)
    answers = iter([committed[0], committed[5], committed[5]])
    found = read_task(place, CONFIG, CLUSTER, store, lambda: next(answers))
    assert found is not None
    assert list(found.offsets.values()) == [5]
    assert found.loaded.state.blobs == {"task": b"5" * 20_000}
    assert next(answers, None) is None


def test_a_checkpoint_that_is_gone_while_the_offsets_stay_is_refused_by_name() -> None:
    store, place = MemoryStore(), tasks_of(CONFIG, CLUSTER)[-1]
    committed = committing(store, place, 6)
    with pytest.raises(LostStateError, match=r'task "detect/2": checkpoint 1-1-.* is gone from Redis'):
        read_task(place, CONFIG, CLUSTER, store, lambda: committed[0])


def test_offsets_that_do_not_belong_together_are_refused() -> None:
    place = next(place for place in tasks_of(CONFIG, CLUSTER) if place.name.startswith("join"))
    waiting, labels = sorted(place.inputs)
    with pytest.raises(StateError, match="has none"):
        reference_of(place, {waiting: (1, "x")})
    with pytest.raises(StateError, match="2 different checkpoints"):
        reference_of(place, {waiting: (1, "x"), labels: (1, "y")})
    with pytest.raises(StateError, match="not ours"):
        reference_of(place, {waiting: (1, "x"), labels: (1, "x")})
    assert reference_of(place, {}) is None
