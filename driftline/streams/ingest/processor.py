"""The ingest processor: one task for each partition of each configured source topic."""

from __future__ import annotations

from collections.abc import Sequence

from driftline.schemas.config import Config
from driftline.streams.cluster import Cluster
from driftline.streams.counters import Counters
from driftline.streams.ingest.decoder import PredictionDecoder
from driftline.streams.ingest.labels import LabelDecoder
from driftline.streams.ingest.task import IngestTask, LabelTask, PredictionTask, Targets
from driftline.streams.ingest.unknown import UnknownModels
from driftline.streams.ingest.unsaid import UnsaidUnits
from driftline.streams.task import PartitionId, RestoredState


class IngestProcessor:
    """Reads predictions and labels in whatever partitioning and shape; publishes observations, waiting rows, labels.

    Attributes
    ----------
    unknown : rows of models that the configuration does not name, of all its tasks.

    Raises
    ------
    ValueError : the field mapping contradicts itself, or a topic holds predictions and labels both.
    """

    name = "ingest"

    def __init__(self, config: Config, cluster: Cluster, counters: Counters) -> None:
        self._config = config
        self._counters = counters
        self._unsaid = UnsaidUnits(counters)
        self.unknown = UnknownModels(config.unknown_models)
        self._targets = Targets.of(config, cluster)
        self._predictions = {source.topic: (source, PredictionDecoder(source, config)) for source in config.predictions}
        self._labels = {source.topic: LabelDecoder(source) for source in config.labels}
        if both := self._predictions.keys() & self._labels.keys():
            raise ValueError(f'topic "{min(both)}": expected predictions or labels, is configured as both')

    def input_topics(self) -> Sequence[str]:
        return sorted({*self._predictions, *self._labels})

    def task_name(self, partition: PartitionId) -> str:
        return f"ingest/{partition[0]}/{partition[1]}"

    def task_inputs(self, task: str) -> frozenset[PartitionId]:
        _, topic, partition = task.split("/")
        return frozenset({(topic, int(partition))})

    def open(self, task: str, state: RestoredState) -> IngestTask:
        (partition,) = self.task_inputs(task)
        if partition[0] in self._labels:
            return LabelTask(task, partition, self._config, self._targets, self._counters, state, self._labels[partition[0]])
        source, decoder = self._predictions[partition[0]]
        limits = (source.max_age, source.max_skew)
        told = (self._unsaid, self.unknown)
        return PredictionTask(task, partition, self._config, self._targets, self._counters, state, decoder, limits, *told)
