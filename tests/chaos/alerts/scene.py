"""A running installation of the alert app under one fault."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis
import yaml
from confluent_kafka.admin import AdminClient

from driftline.schemas.loading import load_config
from driftline.schemas.topics import DRIFT
from driftline.streams.alert.redis_store import RedisAlertStore
from driftline.streams.alert.worker import Names
from driftline.streams.kafka import make_admin, read_cluster
from driftline.streams.local.process import free_port
from driftline.streams.supervisor import DRAIN_SIGNAL
from driftline.streams.task import MemoryRecord
from driftline.streams.topic_creation import WantedTopic, create_topics
from tests.chaos.alerts.feeder import Feeder
from tests.chaos.alerts.process import AlertProcess
from tests.chaos.alerts.reference import incidents_of
from tests.chaos.alerts.verify import Found
from tests.chaos.process import PATIENCE_SECONDS, surprises, until
from tests.chaos.watch import Watch

PARTITIONS: Final = 3
SESSION_SECONDS: Final = 6.0
_TOPICS: Final = ("drift", "alerts", "incidents", "transitions", "dlq")


@dataclass(slots=True)
class Hit:
    """One fault, as it happened; `witness` is what shows that it bit."""

    what: str
    at: float
    before: Mapping[int, int]
    witness: str | None = None
    recovery_s: float | None = None


@dataclass(slots=True)
class Services:
    """The broker and the store of a run."""

    kafka: Any
    redis: Any


class Scene:
    """What a fault gets into its hands: workers to start and hurt, the store, the broker, seeded choices."""

    def __init__(self, services: Services, directory: Path, *, seed: int, short: bool, without: str = "") -> None:
        self.services, self.directory, self.short, self.without = services, directory, short, without
        self.hits: list[Hit] = []
        self.workers: list[AlertProcess] = []
        self.draw = random.Random(seed)
        self.prefix = f"alerts-{secrets.token_hex(4)}"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.path = self.directory / "alerts.yml"
        bootstrap, url = self.services.kafka.bootstrap, self.services.redis.url
        self.path.write_text(yaml.safe_dump({
            "environment": "chaos", "kafka": {"bootstrap": bootstrap, "group_prefix": self.prefix},
            "redis": {"url": url, "key_prefix": self.prefix}, "topics": {"prefix": self.prefix}, "predictions": "predictions",
            "models": {"unused": {}},
        }))
        self.config = load_config(str(self.path))
        topics = [WantedTopic(self.topic(name), PARTITIONS if name == "drift" else 1, 1, {}) for name in _TOPICS]
        create_topics(make_admin(self.config.kafka), topics)
        drift = DRIFT.full_name(self.prefix)
        self.cluster = read_cluster(make_admin(self.config.kafka), [drift])
        self.names = Names("chaos", self.prefix, self.cluster.topic_ids[drift])
        self.client = redis.Redis.from_url(url, socket_timeout=5)
        self.store = RedisAlertStore(self.client, f"{self.prefix}:chaos:{self.cluster.cluster_id}")
        self.feeder = Feeder(bootstrap, drift, seed)
        self.watch = Watch(bootstrap)

    # -- the run

    def topic(self, name: str) -> str:
        return f"{self.prefix}.{name}"

    def partition_key(self, number: int) -> str:
        """The name of a drift partition in the store."""
        return f"{self.names.topic_id}/{number}"

    def start(self, instance: str = "a", failpoint: str = "", **options: Any) -> AlertProcess:
        """A worker more."""
        given = {"instance": instance, "session_timeout_s": SESSION_SECONDS, "stall_s": 60, "port": free_port()}
        log = self.directory / f"alert-{len(self.workers)}-{instance}.log"
        worker = AlertProcess(self.path, log, given | options, failpoint=failpoint, without=self.without)
        self.workers.append(worker)
        return worker

    def end(self) -> None:
        """Let the workers read everything, then one more start: it publishes again what is open and recent."""
        self.feeder.stop()
        for worker in self.workers:
            if worker.code is None and worker.asleep:
                worker.wake()
        alive = [worker for worker in self.workers if worker.code is None] or [self.start()]
        for worker in alive:
            worker.until(lambda worker=worker: "alert_assigned" in worker.log, "get partitions")   # type: ignore[misc]
            worker.send_signal(DRAIN_SIGNAL)
        for worker in alive:
            worker.until_dead()
        self.start("last", until_idle_s=1.0).until_dead()

    def close(self) -> None:
        self.feeder.stop()
        for worker in self.workers:
            if worker.code is None:
                worker.kill()
        self.watch.close()
        for key in list(self.client.scan_iter(f"*{self.prefix}*", count=10_000)):
            self.client.delete(key)
        self.client.close()
        admin = AdminClient({"bootstrap.servers": self.services.kafka.bootstrap})
        for deleted in admin.delete_topics([self.topic(name) for name in _TOPICS], operation_timeout=60).values():
            deleted.result(60)

    # -- what stands

    def drift(self) -> list[MemoryRecord]:
        return self.watch.read(self.topic("drift"))

    def found(self) -> Found:
        states = [*self.store.open_alerts(), *self.store.recent_alerts(1_000_000)]
        incidents = incidents_of(self.store)
        keys = {number: self.partition_key(number) for number in range(PARTITIONS)}
        return Found(
            states={state.alert.fingerprint: state for state in states},
            applied={number: self.store.next_offset(key) for number, key in keys.items()},
            outbox=sum(len(self.store.outbox(key, 10_000)) for key in keys.values()),
            incidents={state.incident.id: state for state in incidents},
            alerts=self.watch.read(self.topic("alerts")),
            told=self.watch.read(self.topic("incidents")),
            transitions=self.watch.read(self.topic("transitions")),
            dead=self.watch.read(self.topic("dlq")),
        )

    def applied(self) -> dict[int, int]:
        """The next offset of each partition, as the store has it."""
        return {number: self.store.next_offset(self.partition_key(number)) or 0 for number in range(PARTITIONS)}

    def committed(self) -> dict[int, int]:
        """The next offset of each partition, as the group has it."""
        group, drift = f"{self.prefix}.alert", self.topic("drift")
        found = self.watch.committed(group, [(drift, number) for number in range(PARTITIONS)])
        return {number: found.get((drift, number), (0, ""))[0] for number in range(PARTITIONS)}

    def waiting_rows(self) -> int:
        return sum(len(self.store.outbox(self.partition_key(number), 10_000)) for number in range(PARTITIONS))

    # -- what faults use

    def hit(self, what: str) -> Hit:
        """Write down a fault, at this moment."""
        hit = Hit(what, time.monotonic(), self._applied_or_nothing())
        self.hits.append(hit)
        return hit

    def recovered(self, hit: Hit, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until events of every partition were applied since a hit."""

        def moved() -> bool:
            now = self._applied_or_nothing()
            return all(now.get(number, -1) > hit.before.get(number, -1) for number in range(PARTITIONS))

        until(moved, lambda: f"no recovery from {hit.what}:\n{self.tails()}", seconds)
        hit.recovery_s = time.monotonic() - hit.at

    def flows(self, offsets: int) -> None:
        """Wait until so many more offsets were applied: of events, of markers and of what was aborted."""
        goal = sum(self.applied().values()) + offsets
        until(lambda: sum(self.applied().values()) >= goal, lambda: f"events are not applied:\n{self.tails()}")

    def read_to_the_end(self) -> None:
        """Wait until every event that was sent is applied."""
        ends = {record.partition(): record.offset() + 1 for record in self.drift()}
        until(lambda: all(self.applied()[number] >= end for number, end in ends.items()), self.tails)

    def tails(self) -> str:
        return "\n".join(f"-- {worker.name} ({worker.code})\n{worker.tail()}" for worker in self.workers[-2:])

    def surprises(self) -> list[str]:
        """Workers that ended by themselves."""
        return surprises(self.workers)

    def _applied_or_nothing(self) -> dict[int, int]:
        try:
            return self.applied()
        except Exception:  # noqa: BLE001 - Redis is away, which is what some faults are
            return {}
