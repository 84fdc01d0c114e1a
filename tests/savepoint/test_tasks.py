"""What is known of tasks from outside is what their processors say of themselves."""

from __future__ import annotations

from driftline.schemas.loading import parse_config
from driftline.streams.cluster import Cluster
from driftline.streams.counters import MemoryCounters
from driftline.streams.savepoint.contents import World
from driftline.streams.savepoint.restore import changes
from driftline.streams.task import Processor
from driftline.streams.wiring import groups_of, make_detect, make_ingest, make_joins, task_outputs, task_topics, tasks_of

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
