"""What a join task needs of configuration and cluster, the same for all tasks of a processor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from driftline.schemas.config import Config, Model
from driftline.schemas.topics import LABELS, OBSERVATIONS, WAITING
from driftline.streams.cluster import Cluster
from driftline.streams.columns import WaitingBlock
from driftline.streams.join.age import Age, join_ages
from driftline.streams.join.decided import GENERATION
from driftline.streams.task import PartitionId


@dataclass(frozen=True, slots=True)
class JoinSetting:
    """Attributes
    ----------
    models : those that have this age.
    prediction_sources, label_sources : every partition of every configured source topic.
    generation, block_rows : sizes of the memory of decided ids, in rows.
    pending_rows_max : waiting rows held in memory before their partition is paused.
    """

    age: Age
    models: Mapping[str, Model]
    prediction_sources: frozenset[PartitionId]
    label_sources: frozenset[PartitionId]
    waiting: str
    labels: str
    observations: str
    observations_partitions: int
    generation: int = GENERATION
    block_rows: int = 20_000
    pending_rows_max: int = 200_000

    @classmethod
    def of(cls, config: Config, cluster: Cluster, age_index: int) -> JoinSetting:
        age = join_ages(config)[age_index]
        prefix = config.topics.prefix
        observations = OBSERVATIONS.full_name(prefix)
        return cls(
            age=age,
            models={name: model for name, model in config.models.items() if age in model.labels.ages},
            prediction_sources=_partitions([source.topic for source in config.predictions], cluster),
            label_sources=_partitions([source.topic for source in config.labels], cluster),
            waiting=WAITING.full_name(prefix),
            labels=LABELS.full_name(prefix),
            observations=observations,
            observations_partitions=cluster.partitions.get(observations, config.topics.partitions),
            block_rows=max(20_000, config.kafka.commit_rows),
        )

    def own(self, block: WaitingBlock) -> npt.NDArray[np.bool_]:
        """The rows whose model has this age."""
        known = np.array([*(name in self.models for name in block.model.values), False], np.bool_)
        return known[block.model.codes]

    @property
    def stated_age(self) -> int | None:
        """What outcomes say of their age: None where it is measured."""
        return None if self.age == "auto" else self.age


def _partitions(topics: list[str], cluster: Cluster) -> frozenset[PartitionId]:
    return frozenset((topic, partition) for topic in topics for partition in range(cluster.partitions[topic]))
