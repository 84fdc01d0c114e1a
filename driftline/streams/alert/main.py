"""The alert processor as a process: builds its parts from the configuration, runs, returns the exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

from driftline.schemas.config import Config
from driftline.schemas.topics import ALERTS, DEAD_LETTERS, DRIFT, INCIDENTS, TRANSITIONS
from driftline.streams.alert import transport
from driftline.streams.alert.app import AlertApp
from driftline.streams.alert.connections import EndOffsets, KafkaPublisher
from driftline.streams.alert.faust_app import AppSettings
from driftline.streams.alert.pipeline import AlertPipeline
from driftline.streams.alert.recovery import published
from driftline.streams.alert.redis_store import RedisAlertStore
from driftline.streams.alert.security import faust_credentials
from driftline.streams.alert.watchdog import AWAY_SECONDS, STALL_SECONDS, Progress, Watchdog
from driftline.streams.alert.worker import AlertWorker, BeginAgainError, Names
from driftline.streams.errors import StreamError
from driftline.streams.http import Health
from driftline.streams.kafka import MOCK_CLUSTER_PREFIX, client_properties, make_admin, read_cluster
from driftline.streams.metrics import Metrics
from driftline.streams.redis_client import check_policy, connect, redis_errors, wait_for_redis
from driftline.streams.runner.instance import Instance

log = logging.getLogger(__name__)

REDIS_SECONDS = 5
_TOPICS = (DRIFT, ALERTS, INCIDENTS, TRANSITIONS, DEAD_LETTERS)
_BEGIN_AGAIN_MAX = 5
_BEGIN_AGAIN_SECONDS = 600
"""A store that loses writes more often than that in so long needs somebody."""


def run_alert(
    config: Config,
    *,
    until_idle_s: float | None = None,
    metrics: Metrics | None = None,
    health: Health | None = None,
    instance: str | None = None,
    stall_s: float = STALL_SECONDS,
    away_s: float = AWAY_SECONDS,
    session_timeout_s: float = 10,
    republish_s: float = 300,
) -> int:
    """Run the alert app in this process until a signal, an idle end or a failure.

    Installs handlers for SIGTERM and SIGINT (orderly stop) and SIGUSR1 (stop at the end offsets). Call it from a main
    thread; when the orderly stop of a failed app does not come to an end, the process is ended.

    Parameters
    ----------
    until_idle_s : end with 0 after this many seconds at the end of the drift topic.
    instance : name of this worker among its like; default: DRIFTLINE_INSTANCE, else the host and a free slot on it.
    stall_s : end the process when events wait this long without any of them being taken.
    away_s : the same while Kafka or Redis is away.
    republish_s : between two publications of all open and recent alerts.

    Returns
    -------
    0, or the exit code of what stopped it.
    """
    for noisy in ("faust", "mode", "aiokafka", transport.__name__):   # the transport's services log as Faust's do
        logging.getLogger(noisy).setLevel(logging.WARNING)
    timing = _Timing(until_idle_s, stall_s, away_s, session_timeout_s, republish_s)
    try:
        return _run(config, timing, metrics or Metrics(), health or Health(), instance)
    except StreamError as error:
        log.error("alert_stopped error=%s: %s", type(error).__name__, error)
        return error.exit_code
    except TimeoutError:
        log.error("alert_stopped error=the app did not stop in time")
        logging.shutdown()
        os._exit(1)


@dataclass(frozen=True, slots=True)
class _Timing:
    until_idle_s: float | None
    stall_s: float
    away_s: float
    session_timeout_s: float
    republish_s: float


def _run(config: Config, timing: _Timing, metrics: Metrics, health: Health, instance: str | None) -> int:
    credentials = faust_credentials(client_properties(config.kafka))
    prefix, topic, group = config.topics.prefix, DRIFT.full_name(config.topics.prefix), f"{config.kafka.group_prefix}.alert"
    cluster = read_cluster(make_admin(config.kafka), [table.full_name(prefix) for table in _TOPICS])
    client = connect(config.redis, timeout_seconds=REDIS_SECONDS)
    wait_for_redis(client)
    with redis_errors(client):
        check_policy(client.info("memory").get("maxmemory_policy"))
    store = RedisAlertStore(client, f"{config.redis.key_prefix}:{config.environment}:{cluster.cluster_id}")
    publisher = KafkaPublisher(config.kafka, prefix=prefix)
    # the embedded broker knows no topic ids
    names = Names(config.environment, prefix, cluster.topic_ids[topic] or topic)
    worker = AlertWorker(AlertPipeline.of(config), store, publisher, names, metrics=metrics)

    def seed() -> int:
        found = published(config.kafka, group=group, prefix=prefix)
        store.seed(found)
        return len(found.states)

    progress = Progress()
    watchdog = Watchdog(
        progress, lambda: EndOffsets(config.kafka, group), topic, stall_seconds=timing.stall_s, away_seconds=timing.away_s
    )
    ends_of = EndOffsets(config.kafka, group)
    place = Instance(group, config.kafka.bootstrap, name=instance)
    with tempfile.TemporaryDirectory(prefix="driftline-alert-") as directory:   # Faust makes one, in the current directory by default
        settings = AppSettings(
            brokers=config.kafka.bootstrap, group=group, topic=topic, data_directory=directory, credentials=credentials,
            until_idle_s=timing.until_idle_s, session_timeout_s=timing.session_timeout_s, republish_s=timing.republish_s,
            instance_id=place.name, check_crcs=not cluster.cluster_id.startswith(MOCK_CLUSTER_PREFIX),
        )
        watchdog.start()
        try:
            return _run_again(
                lambda: AlertApp(worker, settings, seed=seed, ends_of=ends_of, progress=progress, health=health, metrics=metrics), worker
            )
        finally:
            health.stopping()
            watchdog.stop()
            publisher.close()
            ends_of.close()
            client.close()
            place.close()


def _run_again(make_app: Callable[[], AlertApp], worker: AlertWorker) -> int:
    """Run the app; one that cannot go on from where it is gives way to a new one, which begins where the store stands."""
    begun: list[float] = []
    while True:
        try:
            return asyncio.run(make_app().run())
        except BeginAgainError as error:
            now = time.monotonic()
            begun = [at for at in begun if at > now - _BEGIN_AGAIN_SECONDS] + [now]
            if len(begun) > _BEGIN_AGAIN_MAX:
                raise
            log.warning("alert_begins_again reason=%r", error.message)
            worker.begin_again()
