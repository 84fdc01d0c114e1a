"""Partitions that are added to a topic of ours move models and ids away from their state: who writes there stops before it."""

from __future__ import annotations

import pytest

from driftline.streams.errors import StateError
from driftline.streams.ingest import IngestProcessor, MemoryCounters
from driftline.streams.join import JoinProcessor, MemoryLabelCache
from driftline.streams.task import RestoredState
from tests.ingest.streams import Ingest, cluster, config, event, record
from tests.join import logs

HINT = "Kafka cannot take it back"


def test_ingest_does_not_go_on_where_a_topic_that_it_writes_to_was_widened() -> None:
    delta = Ingest().take(record(event())).task.checkpoint()
    state = RestoredState({name: blob for name, blob in delta.blobs.items() if blob is not None})
    IngestProcessor(config(), cluster(2), MemoryCounters()).open("ingest/predictions/0", state)
    with pytest.raises(StateError, match=r'topic "driftline.observations" had 2 partitions .* and has 3 now') as caught:
        IngestProcessor(config(), cluster(3), MemoryCounters()).open("ingest/predictions/0", state)
    assert HINT in (caught.value.hint or "")


def test_the_join_does_not_go_on_where_the_observations_were_widened() -> None:
    join = logs.Join().read(logs.Logs().predict(("a", 1)).label(("a", 2, 1.0))).commit()
    wider = logs.cluster()
    wider = type(wider)(wider.cluster_id, wider.topic_ids, {**wider.partitions, "driftline.observations": 2})
    processor = JoinProcessor(logs.config(), wider, lambda _task: MemoryLabelCache(), MemoryCounters(), 0)
    with pytest.raises(StateError, match=r'topic "driftline.observations" had 1 partitions') as caught:
        processor.open(processor.task_name(logs.WAITING), RestoredState(dict(join.blobs), dict(join.rings)))
    assert HINT in (caught.value.hint or "")
