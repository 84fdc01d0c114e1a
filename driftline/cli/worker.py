"""One processor in this process: connect, serve health and metrics, run until told to end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from driftline.streams.cluster import live_since_key, read_live_since_ms
from driftline.streams.errors import StreamError
from driftline.streams.wiring import join_names, make_detect, make_ingest, make_join, passed_over, topics_of, worker_port

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from driftline.schemas.config import Config, Redis
    from driftline.streams.cluster import Cluster
    from driftline.streams.http import Health
    from driftline.streams.join import LabelCache
    from driftline.streams.metrics import Metric, Metrics
    from driftline.streams.task import Processor

    Float64 = npt.NDArray[np.float64]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How `run` was called."""

    time: Literal["wall", "data"]
    until_idle: float | None
    at_end: Literal["mature", "wait"]
    start: str | None
    on_lost_state: Literal["fail", "rebuild-from-earliest"]
    instance: str | None
    age: int | None = None


def run_worker(name: str, config: Config, options: WorkerOptions) -> int:
    """Run the processor; returns the exit code."""
    from driftline import __version__
    from driftline.streams.http import Health, HttpServer
    from driftline.streams.metrics import Metrics
    from driftline.streams.progress import ProgressAlarm

    metrics = Metrics(version=__version__)
    health = Health(stall_seconds=config.http.stalled_after / 1_000)
    alarm = ProgressAlarm(health.progress, health.hint)
    alarm.start()
    server: HttpServer | None = None
    if port := worker_port(config.http.port, name, options.age or 0):
        server = HttpServer(metrics.registry, health, host=config.http.host, port=port)
        server.start()
        log.info("http_listening url=http://%s:%d", config.http.host, port)
    try:
        if name == "alert":
            from driftline.streams.alert.main import run_alert

            return run_alert(config, until_idle_s=options.until_idle, metrics=metrics, health=health, instance=options.instance)
        return _run_tasks(name, config, options, metrics, health)
    except StreamError as error:
        log.error("processor_stopped error=%s\n%s", type(error).__name__, error)
        return error.exit_code
    finally:
        alarm.stop()
        if server is not None:
            server.stop()


def _run_tasks(name: str, config: Config, options: WorkerOptions, metrics: Metrics, health: Health) -> int:
    from driftline.streams.kafka import make_admin, read_cluster
    from driftline.streams.retention import check_retention
    from driftline.streams.runner import Runner
    from driftline.streams.runner.memory import prepare_process
    from driftline.streams.state.redis_store import open_store

    admin = make_admin(config.kafka)
    cluster = read_cluster(admin, topics_of(name, config))
    check_retention(admin, cluster, config)
    live_since_ms = _live_since_ms(config, cluster) if options.time == "wall" else 0
    cluster = read_cluster(admin, topics_of(name, config), live_since_ms=live_since_ms)
    store = open_store(config)
    counts = Counts(metrics)
    processor = _processor(name, config, cluster, counts, options.age or 0, store.token_of)
    runner = Runner(
        processor,
        config,
        cluster,
        store,
        metrics,
        health,
        time=options.time,
        until_idle_s=options.until_idle,
        at_end=options.at_end,
        # Only the users' topics have a history to choose from; ours are read from where they begin.
        start=options.start if name == "ingest" else "earliest",
        transactional=config.kafka.guarantee == "exactly_once",
        on_lost_state=options.on_lost_state,
        instance=options.instance,
        former=lambda decisive: _former(name, config, decisive, cluster, counts, options.age or 0, store.token_of),
    )
    log.info("processor_ready processor=%s topics=%s", name, ",".join(processor.input_topics()))
    prepare_process()
    try:
        runner.run()
    finally:
        health.stopping()
        store.close()
    if name == "ingest" and (words := passed_over(processor)) is not None:
        log.warning("unknown_models note=%r", words)
    log.info("processor_ended processor=%s", name)
    return 0


def _former(
    name: str, config: Config, decisive: bytes, cluster: Cluster, counts: Counts, age: int, token_of: Callable[[str], str]
) -> Processor:
    """The processor as it was configured when its state was made.

    Raises
    ------
    ValueError : that configuration is of another release, or has not the age of this join.
    """
    from driftline.streams.join.age import join_ages

    former = config.under(decisive)
    if name == "join":
        age = join_ages(former).index(join_ages(config)[age])
    return _processor(name, former, cluster, counts, age, token_of)


def _processor(name: str, config: Config, cluster: Cluster, counts: Counts, age: int, token_of: Callable[[str], str]) -> Processor:
    if name == "ingest":
        return make_ingest(config, cluster, counts)
    if name == "detect":
        # Now, not at the first rows: a first call compiles for longer than a transaction may stay open.
        from driftline.detectors.compile import compile_kernels
        from driftline.detectors.kernels.compiling import compiling_told

        log.info("kernels_loading")
        with compiling_told(lambda words: log.info("kernels_compiling note=%r", words)):
            compile_kernels()
        return make_detect(config, cluster, counts)
    group = f"{config.kafka.group_prefix}.{join_names(config)[age]}"
    root = f"{config.redis.key_prefix}:{config.environment}:{cluster.cluster_id or 'unknown'}:{group}"
    from driftline.streams.state.redis_store import deadline_seconds

    return make_join(config, cluster, counts, RedisCaches(config.redis, root, deadline_seconds(config), token_of), age)


class RedisCaches:
    """Label caches beside the state of their tasks, under the same hash tag and the same owner.

    Parameters
    ----------
    root : what the keys of all tasks of the group begin with, as the state store names them.
    token_of : the token that this worker's state store claimed an owner key with. What stands in Redis may be a rival's.
    """

    def __init__(self, place: Redis | str, root: str, timeout_seconds: float, token_of: Callable[[str], str]) -> None:
        from driftline.streams.redis_client import connect, section_of

        self._root = root
        self._token_of = token_of
        self._client = connect(section_of(place), timeout_seconds=timeout_seconds)

    def __call__(self, task: str) -> LabelCache:
        """The cache of a task that this worker has claimed."""
        from driftline.streams.join.redis_cache import RedisLabelCache

        key = f"{{{self._root}:{task}}}"
        owner_key = f"{key}:owner"
        return RedisLabelCache(self._client, key, owner_key=owner_key, token=self._token_of(owner_key))


def _live_since_ms(config: Config, cluster: Cluster) -> int:
    """When this installation first went live: records before are history. Kept, so that a restart changes no event.

    The first worker to ask decides, for all processors alike.
    """
    from driftline.streams.redis_client import connect, redis_errors, wait_for_redis

    key = live_since_key(config.redis.key_prefix, config.environment, cluster.cluster_id)
    client = connect(config.redis, timeout_seconds=5)
    try:
        wait_for_redis(client)
        with redis_errors(client):
            client.set(key, int(time.time() * 1_000), nx=True)
            found = cast("bytes | None", client.get(key))
    finally:
        client.close()
    return read_live_since_ms(key, found)


class Counts:
    """The counters port of the tasks, on the metrics table; names without a metric are dropped."""

    def __init__(self, metrics: Metrics) -> None:
        from driftline.streams.metrics import METRICS

        self._metrics = metrics
        self._known = {metric.name: metric for metric in METRICS}

    def increment(self, name: str, labels: Mapping[str, str], n: int = 1) -> None:
        """Add to ``driftline_<name>_total``."""
        if n and (found := self._find(f"{name}_total", labels)):
            self._metrics.add(found[0], n, *found[1])

    def set(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """Set ``driftline_<name>``."""
        if found := self._find(name, labels):
            self._metrics.set(found[0], value, *found[1])

    def forget(self, name: str, labels: Mapping[str, str]) -> None:
        """Take ``driftline_<name>`` off the page."""
        if found := self._find(name, labels):
            self._metrics.drop(found[0], *found[1])

    def observe(self, name: str, labels: Mapping[str, str], seconds: Float64) -> None:
        """Add values to ``driftline_<name>_seconds``."""
        if found := self._find(f"{name}_seconds", labels):
            self._metrics.observe_all(found[0], seconds, *found[1])

    def since(self, name: str, labels: Mapping[str, str], time_ms: int) -> None:
        """Add the time that has passed to ``driftline_<name>_seconds``."""
        if found := self._find(f"{name}_seconds", labels):
            self._metrics.observe(found[0], max(0.0, time.time() - time_ms / 1000), *found[1])

    def _find(self, name: str, labels: Mapping[str, str]) -> tuple[Metric, list[str]] | None:
        metric = self._known.get(f"driftline_{name}")
        return None if metric is None else (metric, [labels.get(label, "") for label in metric.labels])
