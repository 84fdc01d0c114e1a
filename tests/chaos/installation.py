"""One installation a run: topics and keys of its own on the shared services, and the file that describes it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import redis
import yaml
from confluent_kafka.admin import AdminClient

from driftline.schemas.config import Config
from driftline.schemas.loading import load_config
from driftline.streams.cluster import Cluster, live_since_key
from driftline.streams.counters import MemoryCounters
from driftline.streams.detect.plan import ModelPlan
from driftline.streams.detect.reference import ReferenceLearner, save_baselines
from driftline.streams.kafka import make_admin, read_cluster
from driftline.streams.observation import decode
from driftline.streams.replay import Replay, file_cluster
from driftline.streams.task import MemoryRecord, Output
from driftline.streams.topic_creation import WantedTopic, create_topics, wanted_topics
from driftline.streams.wiring import make_ingest, make_joins, task_topics
from tests.chaos.inputs import AGE_MS, FEATURES, MODELS, PARTITIONS, POISON, InputStream, Stream

Protocol = Literal["classic", "consumer"]

SESSION_MS: Final = 6_000
"""A worker that sleeps longer than this is a zombie; at the default 10 s a test of zombies takes twice as long."""
FILE_BASELINE: Final = "bids"
_RIVER: Final = "churn"
_BASELINE_ROWS: Final = 400

BROKER_PROPERTIES: Final[Mapping[str, str]] = {
    # With group.protocol=consumer the broker decides how long a member may be silent.
    "group.consumer.session.timeout.ms": str(SESSION_MS),
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.heartbeat.interval.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "500",
}
"""What a broker needs beside its defaults for these runs."""


@dataclass(frozen=True, slots=True)
class Options:
    """How an installation differs from the usual one.

    Attributes
    ----------
    transaction_timeout_ms : below a zombie's sleep, the broker ends its transaction; above, the zombie still could.
    poll_interval_ms : how long a worker's main thread may be busy before it counts as gone.
    rate : predictions a second.
    poison : share of predictions that come with a bad record.
    steady : the input never becomes a trickle.
    brokers : 1, or as many as production has.
    """

    protocol: Protocol = "classic"
    transaction_timeout_ms: int = 8_000
    poll_interval_ms: int = 300_000
    commit_interval_ms: int = 150
    rate: float = 220.0
    poison: float = POISON
    steady: bool = False
    brokers: int = 1
    kafka: Mapping[str, Any] = field(default_factory=dict)


class Installation:
    """Topics, keys and configuration of one run.

    Parameters
    ----------
    directory : for the configuration, the baseline file and the workers' logs.

    Attributes
    ----------
    prefix : starts every name of this run.
    """

    def __init__(self, bootstrap: str, redis_url: str, directory: Path, options: Options, seed: int) -> None:
        self.bootstrap, self.redis_url, self.directory, self.options = bootstrap, redis_url, directory, options
        self.prefix = f"chaos-{secrets.token_hex(4)}"
        self._remembered: Cluster | None = None
        self.sources: dict[Stream, str] = {"predictions": f"{self.prefix}-predictions", "labels": f"{self.prefix}-labels"}
        self._live_since_ms = 0
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "chaos.yml"
        self.path.write_text(yaml.safe_dump(self._settings(with_file=False)))
        self._build_baseline(seed)
        self.path.write_text(yaml.safe_dump(self._settings(with_file=True)))

    @cached_property
    def config(self) -> Config:
        return load_config(str(self.path))

    @cached_property
    def admin(self) -> AdminClient:
        return make_admin(self.config.kafka)

    def topic(self, name: str) -> str:
        """The full name of one of our topics, for example ``drift``."""
        return f"{self.prefix}.{name}"

    def create(self) -> None:
        """Make the topics: ours as the table has them, the sources as a user would."""
        settings = {"cleanup.policy": "delete", "retention.ms": "-1", "message.timestamp.type": "CreateTime"}
        # Brokers before 4.0 take any time; a producer's clock that is hours ahead is one of the faults.
        settings["message.timestamp.after.max.ms"] = str((1 << 63) - 1)
        sources = [WantedTopic(name, PARTITIONS, self.options.brokers, settings) for name in self.sources.values()]
        create_topics(self.admin, [*wanted_topics(self.config.topics, greatest_age_ms=self.config.greatest_age_ms), *sources])

    def cluster(self) -> Cluster:
        """What a worker of this installation knows of the cluster, or knew when it was `remember`ed."""
        return self._remembered or self._cluster_now()

    def remember(self) -> None:
        """Outputs are compared by the topics as they are now: those are about to be changed, or Redis to be lost."""
        self._remembered = self._cluster_now()

    def _cluster_now(self) -> Cluster:
        cluster = read_cluster(self.admin, task_topics(self.config))
        client: Any = redis.Redis.from_url(self.redis_url)
        found = client.get(live_since_key(self.config.redis.key_prefix, self.config.environment, cluster.cluster_id))
        client.close()
        # As it was first: an uninterrupted run knows of no other, whatever becomes of Redis.
        self._live_since_ms = self._live_since_ms or int(found or 0)
        return Cluster(cluster.cluster_id, cluster.topic_ids, cluster.partitions, self._live_since_ms)

    def delete(self) -> None:
        """Remove the topics and the keys."""
        mine = [name for name in self.admin.list_topics(timeout=30).topics if name.startswith(self.prefix)]
        if mine:
            for deleted in self.admin.delete_topics(mine, operation_timeout=30).values():
                deleted.result(60)
        client: Any = redis.Redis.from_url(self.redis_url)
        for key in list(client.scan_iter(f"*{self.prefix}*", count=10_000)):
            client.delete(key)
        client.close()

    def _settings(self, *, with_file: bool) -> dict[str, Any]:
        options = self.options
        properties: dict[str, Any] = {"max.poll.interval.ms": options.poll_interval_ms, "linger.ms": 0}
        if options.protocol == "classic":
            properties |= {"session.timeout.ms": SESSION_MS, "heartbeat.interval.ms": 1_000}
        kafka = {
            "bootstrap": self.bootstrap,
            "group_prefix": self.prefix,
            "group_protocol": options.protocol,
            "commit_interval": f"{options.commit_interval_ms}ms",
            "transaction_timeout": f"{options.transaction_timeout_ms}ms",
            "properties": properties,
        }
        return {
            "version": 1,
            "environment": self.prefix,
            "kafka": kafka | dict(options.kafka),
            "redis": {"url": self.redis_url, "key_prefix": self.prefix},
            "topics": {"prefix": self.prefix, "partitions": PARTITIONS, "replication": options.brokers},
            "http": {"port": 0},
            "start": "earliest",
            "predictions": self.sources["predictions"],
            "labels": self.sources["labels"],
            "models": {name: _model(name, task, with_file=with_file) for name, task in MODELS},
        }

    def _build_baseline(self, seed: int) -> None:
        """What `driftline baseline build` does with a file of the first rows; a process for it would cost a second."""
        config = load_config(str(self.path))
        cluster, counters = file_cluster(config), MemoryCounters()
        learner = ReferenceLearner(ModelPlan.of(FILE_BASELINE, config.models[FILE_BASELINE]))

        def learn(output: Output) -> None:
            if output.topic == self.topic("observations") and output.value is not None:
                learner.add(decode(output.value))

        replay = Replay([make_ingest(config, cluster, counters), *make_joins(config, cluster, counters)], cluster, learn)
        offsets = dict.fromkeys(self.sources.values(), 0)
        records: list[MemoryRecord] = []
        for item in InputStream(seed + 1_000_003, self.options.rate):
            topic = self.sources[item.stream]
            records.append(MemoryRecord(topic, 0, offsets[topic], None, item.value, 1_700_000_000_000 + item.at_ms))
            offsets[topic] += 1
            if len(records) == _BASELINE_ROWS * len(MODELS):
                break
        replay.feed(records)
        replay.finish(mature=True)
        save_baselines(self.directory / f"{FILE_BASELINE}.json", model=FILE_BASELINE, source="chaos", baselines=learner.finish())


def _model(name: str, task: str, *, with_file: bool) -> dict[str, Any]:
    """Eager on purpose: small windows, thresholds that chance passes, a snapshot every few rows."""
    eager: dict[str, Any] = {"run_length": 100, "severity": {"warning": 0.05, "critical": 0.2}}
    monitors = [{"id": "all", "series": ["*"], "detectors": ["psi", "adwin", "page_hinkley", "rate"], **eager}]
    if name == _RIVER:
        plugged = {"id": "plugged", "series": ["feature:risk", "score"], "detectors": ["river.PageHinkley", "river.ADWIN"], **eager}
        monitors.insert(0, plugged)
    from_file = name == FILE_BASELINE and with_file
    baseline: dict[str, Any] = {"settle": "0s"} | ({"file": f"{name}.json"} if from_file else {"learn": 100})
    model: dict[str, Any] = {
        "task": task,
        "window": 30,
        "snapshot_every": 25,
        "features": dict.fromkeys(FEATURES, "numeric") | {"country": "categorical"},
        "labels": {"ages": [f"{AGE_MS}ms"], "min_join": 0.93},
        "baseline": baseline,
        "freshness": "2s",
        "monitors": monitors,
    }
    if name == _RIVER:
        model |= {"unit": "card", "unit_window": "1s"}
    if name != FILE_BASELINE:
        model["segments"] = {"country": {"max": 3}}
    return model


