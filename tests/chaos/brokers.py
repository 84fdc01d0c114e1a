"""Three brokers on this machine: what production has, so that a broker that is away takes no promise of Kafka's with it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from driftline.streams.local.kafka import LocalKafka, new_cluster_id
from driftline.streams.local.process import LOOPBACK, free_port
from driftline.streams.task import PartitionId
from tests.chaos.process import until

REPLICAS: Final = 3
_IN_SYNC_SECONDS: Final = 180.0
"""For a broker that was away to have all records again."""
_LOOK_SECONDS: Final = 0.2
_CALL_SECONDS: Final = 5.0
_REPLICATED: Final[Mapping[str, str]] = {
    "offsets.topic.replication.factor": str(REPLICAS),
    "transaction.state.log.replication.factor": str(REPLICAS),
    "transaction.state.log.min.isr": "2",
    "default.replication.factor": str(REPLICAS),
    # What docs/guarantees.md asks of production: a record that was answered stands on two disks.
    "min.insync.replicas": "2",
    # Coordinators on every broker, so that each broker's end is some worker's trouble.
    "offsets.topic.num.partitions": "6",
    "transaction.state.log.num.partitions": "6",
    # A broker that was killed is given up after that long; nobody leads its partitions meanwhile.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # Leaders come back to a broker that came back, so that the next one to go has some.
    "leader.imbalance.check.interval.seconds": "2",
    "leader.imbalance.per.broker.percentage": "0",
}


@contextmanager
def started(count: int, properties: Mapping[str, str]) -> Iterator[Sequence[LocalKafka]]:
    """So many brokers of one cluster, each of them a controller, too; stopped and forgotten in the end."""
    if count == 1:
        with LocalKafka(properties=properties) as broker:
            yield [broker]
        return
    ports = [free_port() for _ in range(count)]
    voters = {"controller.quorum.voters": ",".join(f"{node}@{LOOPBACK}:{port}" for node, port in enumerate(ports, 1))}
    cluster_id = new_cluster_id()
    shared = {**_REPLICATED, **voters, **properties}
    brokers = [
        LocalKafka(controller_port=port, properties=shared | {"node.id": str(node)}, cluster_id=cluster_id, heap="384m")
        for node, port in enumerate(ports, 1)
    ]
    # None answers before a majority of controllers is there.
    with ExitStack() as stack, ThreadPoolExecutor(count) as pool:
        for running in [pool.submit(stack.enter_context, broker) for broker in brokers]:
            running.result()
        yield brokers


class Replicas:
    """Who leads, and who has everything, of topics of ours and of Kafka's own."""

    def __init__(self, bootstrap: str, topics: Iterable[str]) -> None:
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self._topics = frozenset({*topics, "__consumer_offsets", "__transaction_state"})

    def led_by(self, node: int) -> set[PartitionId]:
        """The partitions that a broker leads."""
        found = self._admin.list_topics(timeout=_CALL_SECONDS).topics
        return {(name, n) for name in self._topics & found.keys() for n, p in found[name].partitions.items() if p.leader == node}

    def until_in_sync(self) -> None:
        """Wait until every broker has everything: one that is behind is no replica to lose another for."""
        until(self._in_sync, lambda: "the replicas are not in sync again", _IN_SYNC_SECONDS)

    def _in_sync(self) -> bool:
        time.sleep(_LOOK_SECONDS)
        try:
            found = self._admin.list_topics(timeout=_CALL_SECONDS).topics
        except KafkaException:
            return False
        partitions = [p for name in self._topics & found.keys() for p in found[name].partitions.values()]
        return all(len(p.isrs) == REPLICAS and p.leader == p.replicas[0] for p in partitions)
