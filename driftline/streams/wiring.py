"""Which processors a configuration needs, and how each is made: the one list for `run`, `replay` and `baseline build`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from driftline.schemas.config import Config
from driftline.schemas.topics import (
    ALERTS,
    CHECKPOINTS,
    DEAD_LETTERS,
    DRIFT,
    INCIDENTS,
    LABELS,
    OBSERVATIONS,
    SNAPSHOTS,
    TRANSITIONS,
    WAITING,
    Topic,
)
from driftline.streams.cluster import Cluster
from driftline.streams.counters import Counters
from driftline.streams.errors import SetupError
from driftline.streams.join.age import join_ages, join_name
from driftline.streams.join.processor import CacheFactory
from driftline.streams.task import PartitionId, Processor

PROCESSORS: Final = ("ingest", "join", "detect", "alert")
"""In the order in which events pass them; the HTTP ports follow it."""

_READS: Final[dict[str, tuple[Topic, ...]]] = {
    "ingest": (CHECKPOINTS,),
    "join": (WAITING, LABELS, CHECKPOINTS),
    "detect": (OBSERVATIONS, CHECKPOINTS),
    # Its own topics fill a store that was lost.
    "alert": (DRIFT, ALERTS, INCIDENTS),
}
_WRITES: Final[dict[str, tuple[Topic, ...]]] = {
    "ingest": (OBSERVATIONS, DEAD_LETTERS, CHECKPOINTS),
    "join": (OBSERVATIONS, DEAD_LETTERS, CHECKPOINTS),
    "detect": (DRIFT, SNAPSHOTS, DEAD_LETTERS, CHECKPOINTS),
    "alert": (ALERTS, INCIDENTS, TRANSITIONS, DEAD_LETTERS),
}


def worker_port(base: int, processor: str, age: int = 0) -> int:
    """The port of one processor, whichever run beside it: `http.port` for ingest, the next ones for the others.

    Parameters
    ----------
    age : of a join, as in `make_join`; all but the first come after the four processors.

    Returns
    -------
    The port; 0 when `base` is 0, which turns the server off.
    """
    return base + (PROCESSORS.index(processor) if not age else len(PROCESSORS) + age - 1) if base else 0


def needed(config: Config) -> list[str]:
    """The processors this configuration needs: without labels there is nothing to join."""
    return [name for name in PROCESSORS if name != "join" or config.labels]


def topics_of(name: str, config: Config) -> list[str]:
    """Every topic a processor must know of, read or written; missing ones are an error at start."""
    # Positions speak of the users' topics everywhere, so everyone needs their ids.
    return list(dict.fromkeys([*inputs_of(name, config), *outputs_of(name, config), *sources_of(config)]))


def inputs_of(name: str, config: Config) -> list[str]:
    """Every topic a processor reads."""
    ours = [topic.full_name(config.topics.prefix) for topic in _READS[name]]
    return [*sources_of(config), *ours] if name == "ingest" else ours


def outputs_of(name: str, config: Config) -> list[str]:
    """Every topic a processor writes."""
    joined = (WAITING, LABELS) if name == "ingest" and config.labels else ()
    return [topic.full_name(config.topics.prefix) for topic in (*_WRITES[name], *joined)]


def sources_of(config: Config) -> list[str]:
    """The users' topics: predictions, then labels."""
    return list(dict.fromkeys([source.topic for source in config.predictions] + [source.topic for source in config.labels]))


def task_topics(config: Config) -> list[str]:
    """Every topic that the processors with tasks must know of."""
    return list(dict.fromkeys(topic for name in needed(config) if name != "alert" for topic in topics_of(name, config)))


def task_outputs(config: Config) -> list[str]:
    """Our topics that tasks write what others go on from; a dead letter that comes twice does no harm."""
    ours = dict.fromkeys(topic for name in ("ingest", "join", "detect") for topic in _WRITES[name] if topic is not DEAD_LETTERS)
    return [topic.full_name(config.topics.prefix) for topic in (*ours, *((WAITING, LABELS) if config.labels else ()))]


def join_names(config: Config) -> list[str]:
    """The names of the join processors, one an age."""
    return [join_name(age) for age in join_ages(config)] if config.labels else []


def groups_of(config: Config) -> dict[str, str]:
    """Consumer group to what it reads, in the order of an event's way."""
    names = ["ingest", *join_names(config), "detect", "alert"]
    return {f"{config.kafka.group_prefix}.{name}": name for name in names}


@dataclass(frozen=True, slots=True)
class TaskPlace:
    """A task of an installation: its name and inputs as its processor gives them, and the group that commits for it."""

    processor: str
    group: str
    name: str
    inputs: frozenset[PartitionId]


def tasks_of(config: Config, cluster: Cluster) -> list[TaskPlace]:
    """Every task that keeps checkpoints (alert keeps none), in the order of an event's way; makes no processor.

    Parameters
    ----------
    cluster : knows the topics of `topics_of` for all of them.
    """
    prefix = config.topics.prefix
    found: list[TaskPlace] = []

    def add(processor: str, name: str, inputs: Iterable[PartitionId]) -> None:
        found.append(TaskPlace(processor, f"{config.kafka.group_prefix}.{processor}", name, frozenset(inputs)))

    for topic in dict.fromkeys([source.topic for source in config.predictions] + [source.topic for source in config.labels]):
        for partition in range(cluster.partitions[topic]):
            add("ingest", f"ingest/{topic}/{partition}", [(topic, partition)])
    waiting, labels, observations = (topic.full_name(prefix) for topic in (WAITING, LABELS, OBSERVATIONS))
    for join in join_names(config):
        for partition in range(cluster.partitions[waiting]):
            add(join, f"{join}/{partition}", [(waiting, partition), (labels, partition)])
    for partition in range(cluster.partitions[observations]):
        add("detect", f"detect/{partition}", [(observations, partition)])
    return found


def make_ingest(config: Config, cluster: Cluster, counters: Counters) -> Processor:
    """Ingest.

    Raises
    ------
    SetupError : the field mapping contradicts itself.
    """
    from driftline.streams.ingest import IngestProcessor

    try:
        return IngestProcessor(config, cluster, counters)
    except ValueError as error:
        raise SetupError(str(error)) from error


def passed_over(processor: Processor) -> str | None:
    """What to say at its end of the rows an ingest processor took for nobody's; None where there were none."""
    from driftline.streams.ingest import IngestProcessor

    return processor.unknown.words() if isinstance(processor, IngestProcessor) else None


def make_detect(config: Config, cluster: Cluster, counters: Counters | None = None) -> Processor:
    """Detect, with the baselines of the configuration.

    Raises
    ------
    SetupError : a baseline file cannot be used.
    """
    from driftline.detectors.spec import BaselineError
    from driftline.streams.detect.reference import configured_baselines
    from driftline.streams.detect.task import DetectProcessor

    try:
        return DetectProcessor(config, cluster, configured_baselines(config), counters)
    except BaselineError as error:
        raise SetupError(f"baseline: {error}") from error


def make_join(config: Config, cluster: Cluster, counters: Counters, caches: CacheFactory, age: int) -> Processor:
    """The join of one age; `age` indexes `join_ages`."""
    from driftline.streams.join import JoinProcessor

    return JoinProcessor(config, cluster, caches, counters, age)


def make_joins(config: Config, cluster: Cluster, counters: Counters) -> list[Processor]:
    """One join an age, with its labels in memory; none without labels."""
    from driftline.streams.join import MemoryLabelCache

    if not config.labels:
        return []
    return [make_join(config, cluster, counters, lambda _task: MemoryLabelCache(), age) for age in range(len(join_ages(config)))]
