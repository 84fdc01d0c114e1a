"""The alert processor as a process: builds its parts from the configuration, runs, returns the exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import redis

from driftline.schemas.config import Config, SecretRef
from driftline.schemas.topics import DRIFT
from driftline.streams.alert import transport
from driftline.streams.alert.app import RETRY_SECONDS, AlertApp, AppSettings
from driftline.streams.alert.connections import EndOffsets, KafkaPublisher, redis_client, topic_id
from driftline.streams.alert.pipeline import AlertPipeline
from driftline.streams.alert.recovery import published_states
from driftline.streams.alert.redis_store import RedisAlertStore
from driftline.streams.alert.security import faust_credentials
from driftline.streams.alert.watchdog import Progress, Watchdog
from driftline.streams.alert.worker import AlertWorker, Names
from driftline.streams.errors import AwayError, SetupError, StreamError
from driftline.streams.http import Health
from driftline.streams.metrics import Metrics

log = logging.getLogger(__name__)

STALL_SECONDS = 120
_T = TypeVar("_T")


def run_alert(
    config: Config,
    *,
    until_idle_s: float | None = None,
    metrics: Metrics | None = None,
    health: Health | None = None,
    stall_s: float = STALL_SECONDS,
    session_timeout_s: float = 10,
) -> int:
    """Run the alert app in this process until a signal, an idle end or a failure.

    Installs handlers for SIGTERM and SIGINT (orderly stop) and SIGUSR1 (stop at the end offsets). Call it from a main
    thread; when the orderly stop of a failed app does not come to an end, the process is ended.

    Parameters
    ----------
    until_idle_s : end with 0 after this many seconds at the end of the drift topic.
    stall_s : end the process when events wait this long without any of them being taken.

    Returns
    -------
    0, or the exit code of what stopped it.
    """
    for noisy in ("faust", "mode", "aiokafka", transport.__name__):   # the transport's services log as Faust's do
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        return _run(config, until_idle_s, metrics or Metrics(), health or Health(), stall_s, session_timeout_s)
    except StreamError as error:
        log.error("alert_stopped error=%s: %s", type(error).__name__, error)
        return error.exit_code
    except redis.RedisError as error:
        log.error("alert_stopped error=Redis: %s", error)
        return 1
    except asyncio.TimeoutError:
        log.error("alert_stopped error=the app did not stop in time")
        logging.shutdown()
        os._exit(1)


def _run(config: Config, until_idle_s: float | None, metrics: Metrics, health: Health, stall_s: float, session_timeout_s: float) -> int:
    properties = kafka_properties(config)
    credentials = faust_credentials(properties)
    prefix, topic = config.topics.prefix, DRIFT.full_name(config.topics.prefix)
    group = f"{config.kafka.group_prefix}-alert"
    cluster, drift_id = _patiently(lambda: topic_id(properties, topic))
    client = redis_client(resolve(config.redis.url))
    _patiently(lambda: _check_redis(client))
    store = RedisAlertStore(client, f"{config.redis.key_prefix}:{config.environment}:{cluster}")
    publisher = KafkaPublisher(properties, prefix=prefix)
    owners = {name: model.owner for name, model in config.models.items() if model.owner}
    worker = AlertWorker(
        AlertPipeline(owners=owners), store, publisher, Names(config.environment, prefix, drift_id), metrics=metrics
    )

    def seed() -> int:
        states = published_states(properties, group=group, prefix=prefix)
        store.seed(states)
        return len(states)

    progress = Progress()
    watchdog = Watchdog(progress, lambda: EndOffsets(properties, group), topic, stall_seconds=stall_s)
    ends_of = EndOffsets(properties, group)
    with tempfile.TemporaryDirectory(prefix="driftline-alert-") as directory:   # Faust makes one, in the current directory by default
        settings = AppSettings(
            brokers=str(properties["bootstrap.servers"]), group=group, topic=topic, data_directory=directory, credentials=credentials,
            until_idle_s=until_idle_s, session_timeout_s=session_timeout_s,
        )
        app = AlertApp(worker, settings, seed=seed, ends_of=ends_of, progress=progress, health=health, metrics=metrics)
        watchdog.start()
        try:
            return asyncio.run(app.run())
        finally:
            watchdog.stop()
            publisher.close()
            ends_of.close()
            client.close()


def kafka_properties(config: Config) -> dict[str, Any]:
    """Librdkafka's properties with secrets resolved."""
    resolved = {name: resolve(value) if isinstance(value, SecretRef) else value for name, value in config.kafka.properties.items()}
    return {"bootstrap.servers": config.kafka.bootstrap, **resolved}


def resolve(value: str | SecretRef) -> str:
    """A text, or the secret it refers to.

    Raises
    ------
    SetupError : the variable is not set or the file cannot be read; names the reference, never the secret.
    """
    if isinstance(value, str):
        return value
    if value.env is not None:
        if value.env not in os.environ:
            raise SetupError(f'expected the environment variable "{value.env}" to hold a secret, it is not set')
        return os.environ[value.env]
    try:
        return Path(value.file or "").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SetupError(f'expected a secret in "{value.file}": {error.strerror}') from error


def _check_redis(client: redis.Redis) -> None:
    """An evicting Redis would lose alerts in silence."""
    try:
        client.ping()
    except redis.ConnectionError as error:
        raise AwayError(f"Redis does not answer: {error}") from error
    try:
        policy = dict(client.config_get("maxmemory-policy")).get("maxmemory-policy")
    except redis.ResponseError:
        return   # a managed Redis hides CONFIG; `driftline doctor` tells
    if policy not in (None, "noeviction", b"noeviction"):
        raise SetupError(f'Redis has maxmemory-policy "{policy}", which deletes state', hint="CONFIG SET maxmemory-policy noeviction")


def _patiently(call: Callable[[], _T]) -> _T:
    """What `call` gives once Kafka or Redis answers; its last error after `RETRY_SECONDS`."""
    deadline = time.monotonic() + RETRY_SECONDS
    while True:
        try:
            return call()
        except AwayError as error:
            if time.monotonic() > deadline:
                raise
            log.warning("alert_waits reason=%s", error)
            time.sleep(1)
