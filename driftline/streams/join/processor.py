"""The join processor of one label age: a task for each partition number of the waiting and labels topics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from driftline.schemas.config import Config
from driftline.streams.cluster import Cluster
from driftline.streams.counters import Counters
from driftline.streams.join.age import join_name
from driftline.streams.join.cache import LabelCache
from driftline.streams.join.setting import JoinSetting
from driftline.streams.join.task import JoinTask
from driftline.streams.task import PartitionId, RestoredState

CacheFactory = Callable[[str], LabelCache]
"""The label cache of a task, by the task's name."""


class JoinProcessor:
    """Joins predictions with the labels known at one age.

    Parameters
    ----------
    age_index : into `join_ages(config)`; each age is a processor and a consumer group of its own.
    generation, pending_rows_max : for tests; see `JoinSetting`.
    """

    def __init__(
        self, config: Config, cluster: Cluster, cache_factory: CacheFactory, counters: Counters, age_index: int = 0, *,
        generation: int | None = None, pending_rows_max: int | None = None,
    ) -> None:  # fmt: skip
        setting = JoinSetting.of(config, cluster, age_index)
        if generation is not None:
            setting = replace(setting, generation=generation)
        if pending_rows_max is not None:
            setting = replace(setting, pending_rows_max=pending_rows_max)
        self._setting = setting
        self._cache_factory = cache_factory
        self._counters = counters
        self.name = join_name(setting.age)

    def input_topics(self) -> Sequence[str]:
        return [self._setting.waiting, self._setting.labels]

    def task_name(self, partition: PartitionId) -> str:
        return f"{self.name}/{partition[1]}"

    def task_inputs(self, task: str) -> frozenset[PartitionId]:
        partition = int(task.rsplit("/", 1)[1])
        return frozenset({(self._setting.waiting, partition), (self._setting.labels, partition)})

    def open(self, task: str, state: RestoredState) -> JoinTask:
        partition = int(task.rsplit("/", 1)[1])
        waiting, labels = (self._setting.waiting, partition), (self._setting.labels, partition)
        return JoinTask(task, waiting, labels, self._setting, self._cache_factory(task), self._counters, state)
