"""(d) Driftline's ingest, join and detect: CPU of every process by stage, memory, and latency of drift events."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import psutil
import redis
from confluent_kafka import Consumer, TopicPartition

from benchmarks.pipeline.stream import FEATURES, MODELS_ONE, Pair, Shape, pairs, publish
from driftline.streams.join.journal import replay

STAGES = ("ingest", "join", "detect")
WARM_ROWS = 25_000
WARM_ROWS_A_MODEL = 6_000
"""Enough to learn a baseline, where there is no file of one."""
STALL_SECONDS = 240.0
SETTLED_SECONDS = 1.5
MARKERS = 2
QUIET_SECONDS = 10.0
SETTLE_SECONDS = 8
SETTLE_RATE = 1_000
LONG_SESSION_MS = 250_000
CLOSING_ROWS = 3_500
"""Rows after the measured ones: a block of waiting rows is decided whole, once its last row is of age."""


@dataclass(frozen=True, slots=True)
class Setup:
    """One measured configuration."""

    name: str
    segments: bool = False
    models: tuple[str, ...] = MODELS_ONE
    partitions: int = 1
    age_ms: int = 2_000
    label_rows: int = 1_000
    monitors: str = ""
    window: int = 5_000
    guarantee: str = "exactly_once"
    http_port: int = 0
    session_ms: int = 10_000


def config_text(setup: Setup, bootstrap: str, redis_url: str, prefix: str, baselines: dict[str, str]) -> str:
    """The configuration of a run, as a user would write it."""
    lines = [
        "version: 1",
        f"environment: {prefix}",
        f'kafka: {{bootstrap: "{bootstrap}", group_prefix: {prefix}, guarantee: {setup.guarantee}, '
        f"properties: {{session.timeout.ms: {setup.session_ms}}}}}",
        f'redis: {{url: "{redis_url}", key_prefix: {prefix}}}',
        f"topics: {{prefix: {prefix}.out, partitions: {setup.partitions}}}",
        f"http: {{port: {setup.http_port}}}",
        f"predictions: {prefix}.predictions",
        f"labels: {{topic: {prefix}.labels, fields: {{model: {'model' if len(setup.models) > 1 else 'null'}}}}}",
        "models:",
    ]
    for model in setup.models:
        lines += [f"  {model}:", f"    window: {setup.window}", f"    labels: {{ages: [{setup.age_ms}ms]}}"]
        lines += ["    features:"]
        lines += [f"      {name}: numeric" for name in FEATURES]
        if setup.segments:
            lines += ["    segments: {segment: {path: segment, max: 10}}"]
        if model in baselines:
            lines += [f"    baseline: {{file: {baselines[model]}}}"]
        lines += setup.monitors.splitlines()
    return "\n".join(lines) + "\n"


class Workers:
    """`driftline run` without the alert app, and the CPU of its processes by stage."""

    def __init__(self, config: Path, *options: str) -> None:
        command = [sys.executable, "-m", "driftline", "run", str(config), "--processors", "ingest,join,detect", *options]
        self._log = config.with_suffix(".log").open("wb")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)

    def by_stage(self) -> dict[str, psutil.Process]:
        found = {}
        for child in psutil.Process(self._process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                line = " ".join(child.cmdline())
                for stage in STAGES:
                    if stage in line.split("--processors")[-1].split()[:1]:
                        found[stage] = child
        return found

    def cpu_seconds(self) -> dict[str, float]:
        return {stage: sum(p.cpu_times()[:2]) for stage, p in self.by_stage().items()}

    def rss_mib(self) -> dict[str, float]:
        return {stage: p.memory_info().rss / 2**20 for stage, p in self.by_stage().items()}

    def log_tail(self) -> str:
        return Path(self._log.name).read_text()[-2_000:]

    def wait_until_started(self, tasks: int) -> None:
        deadline = time.monotonic() + STALL_SECONDS
        while Path(self._log.name).read_text().count(" task_started ") < tasks:
            if not self.alive() or time.monotonic() > deadline:
                raise SystemExit(f"driftline run did not start:\n{self.log_tail()}")
            time.sleep(0.2)

    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        if self.alive():
            self._process.kill()
        self._log.close()


@contextlib.contextmanager
def running(config: Path, *options: str) -> Iterator[Workers]:
    workers = Workers(config, *options)
    try:
        yield workers
    finally:
        workers.stop()


class Progress:
    """How far the workers are, from what their groups have committed."""

    def __init__(self, bootstrap: str, prefix: str, setup: Setup) -> None:
        ours = [(f"{prefix}.out.{name}", setup.partitions) for name in ("waiting", "labels", "observations")]
        inputs = {
            f"{prefix}.ingest": [(f"{prefix}.predictions", 1), (f"{prefix}.labels", 1)],
            f"{prefix}.join-{setup.age_ms}ms": ours[:2],
            f"{prefix}.detect": ours[2:],
        }
        self._waiting = ours[0][0]
        self._groups = {
            stage: (
                Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False}),
                [TopicPartition(topic, p) for topic, n in topics for p in range(n)],
            )
            for stage, (group, topics) in zip(STAGES, inputs.items(), strict=True)
        }

    def _look(self, stages: Sequence[str]) -> tuple[list[int], int]:
        """Committed offsets, and records that are still to be read; waiting rows that are not of age are none."""
        offsets: list[int] = []
        behind = 0
        for consumer, partitions in map(self._groups.__getitem__, stages):
            for place in consumer.committed(partitions, 10):
                offsets.append(place.offset)
                _, end = consumer.get_watermark_offsets(TopicPartition(place.topic, place.partition), 10)
                # The end of a transaction stands in the log too, behind what is committed.
                if place.topic != self._waiting and end - max(place.offset, 0) > MARKERS:
                    behind += end - max(place.offset, 0)
        return offsets, behind

    def wait(self, workers: Workers, stages: Sequence[str] = STAGES) -> None:
        """Block until these stages have read everything and nothing has moved for a while."""
        moved = time.monotonic()
        before: list[int] = []
        while True:
            offsets, behind = self._look(stages)
            if offsets != before:
                before, moved = offsets, time.monotonic()
            idle = time.monotonic() - moved
            if not behind and idle > SETTLED_SECONDS:
                return
            if not workers.alive() or idle > STALL_SECONDS:
                raise SystemExit(f"driftline run stopped or stalls with {behind} records to read:\n{workers.log_tail()}")
            time.sleep(0.25)

    def close(self) -> None:
        for consumer, _ in self._groups.values():
            consumer.close()


class Feed:
    """Sends rows, and waits until detect has seen all that can be of age."""

    def __init__(self, bootstrap: str, prefix: str, progress: Progress, setup: Setup, waiting: int) -> None:
        self._topics = (bootstrap, f"{prefix}.predictions", f"{prefix}.labels")
        self._setup, self._waiting = setup, waiting
        self._start_ms = int(time.time() * 1000) - 3 * 86_400_000
        self._ready: list[Pair] | None = None
        self.progress = progress
        self.sent = 0

    def _shape(self, rows: int) -> Shape:
        return Shape(rows=rows, first=self.sent, start_ms=self._start_ms, label_rows=self._setup.label_rows, models=self._setup.models)

    def prepare(self, rows: int) -> None:
        """Make the next rows now: sent in a moment, so that the workers meet a backlog, as the contenders do."""
        self._ready = list(pairs(self._shape(rows)))

    def publish(self, rows: int) -> None:
        """Send rows, then a few that bring them of age."""
        for count in (rows, CLOSING_ROWS):
            ready, self._ready = self._ready, None
            publish(*self._topics, self._shape(count), ready=ready)
            self.sent += count

    def send(self, workers: Workers, rows: int) -> None:
        """Publish rows and wait until all stages have read what can be read of them."""
        self.publish(rows)
        self.progress.wait(workers)


def redis_memory(store: redis.Redis, prefix: str) -> dict[str, int]:
    """Bytes of the label cache and of detect's state; and how many labels wait."""
    found = {"labels": 0, "label_rows": 0, "state": 0}
    for key in store.scan_iter(f"{{{prefix}*", count=1_000):
        size = store.memory_usage(key, samples=0) or 0
        if key.endswith(b":labels"):
            held: dict[bytes, bytes] = {}
            replay((entry for entry in store.lrange(key, 0, -1) if isinstance(entry, bytes)), held)
            found["label_rows"] += len(held)
            found["labels"] += size
        elif b"detect" in key:
            found["state"] += size
    return found


def bytes_per_record(kafka: Any, topic: str, rows: int) -> float:
    """Bytes of a topic's log on disk for each row of the input."""
    directory = getattr(kafka, "directory", None)
    if directory is None:
        return float("nan")
    return sum(path.stat().st_size for path in Path(directory).glob(f"data/{topic}-*/*.log")) / rows


def cpu_per_pair(setup: Setup, services: Any, directory: Path, *, rows: int, waiting: int, baselines: dict[str, str]) -> dict[str, Any]:
    """CPU microseconds per (prediction + label) of each stage and of Redis, after `waiting` rows of warm-up."""
    prefix = f"bench-{os.getpid()}-{setup.name}".replace("_", "-")
    config = directory / f"{prefix}.yml"
    config.write_text(config_text(setup, services.kafka.bootstrap, services.redis.url, prefix, baselines))
    subprocess.run([sys.executable, "-m", "driftline", "topics", "create", str(config), "--sources"], check=True, capture_output=True)
    store = redis.Redis.from_url(services.redis.url)
    feed = Feed(services.kafka.bootstrap, prefix, Progress(services.kafka.bootstrap, prefix, setup), setup, waiting)
    with running(config, "--time", "data", "--start", "earliest") as workers:
        feed.send(workers, max(WARM_ROWS, WARM_ROWS_A_MODEL * len(setup.models)) + waiting)
        feed.prepare(rows)
        time.sleep(1.0)
        sent, before, redis_before, began = feed.sent, workers.cpu_seconds(), redis_cpu(store), time.monotonic()
        feed.send(workers, rows)
        seconds = time.monotonic() - began - SETTLED_SECONDS
        after, redis_after, rss = workers.cpu_seconds(), redis_cpu(store), workers.rss_mib()
        rows = feed.sent - sent
        memory = redis_memory(store, prefix)
        topic = bytes_per_record(services.kafka, f"{prefix}.out.waiting", feed.sent)
    feed.progress.close()
    stages = {stage: (after[stage] - before.get(stage, 0.0)) / rows * 1e6 for stage in after}
    redis_us = (redis_after - redis_before) / rows * 1e6
    return {
        "name": setup.name, "rows": rows, "waiting": waiting, "stages_us": stages, "redis_us": redis_us,
        "cpu_us": sum(stages.values()) + redis_us, "rss_mib": rss, "pairs_per_second": rows / seconds, "redis_bytes": memory,
        "waiting_topic_bytes": topic,
    }  # fmt: skip


def cpu_alone(setup: Setup, services: Any, directory: Path, *, rows: int, baselines: dict[str, str]) -> dict[str, Any]:
    """The same with one stage at work at a time, over a backlog that stands when it begins: as the contenders are measured.

    The other two are stopped (SIGSTOP) meanwhile, with sessions long enough to outlive that.
    """
    prefix = f"bench-{os.getpid()}-{setup.name}-alone"
    config = directory / f"{prefix}.yml"
    long = replace(setup, session_ms=LONG_SESSION_MS)
    config.write_text(config_text(long, services.kafka.bootstrap, services.redis.url, prefix, baselines))
    subprocess.run([sys.executable, "-m", "driftline", "topics", "create", str(config), "--sources"], check=True, capture_output=True)
    store = redis.Redis.from_url(services.redis.url)
    feed = Feed(services.kafka.bootstrap, prefix, Progress(services.kafka.bootstrap, prefix, long), long, 0)
    stages: dict[str, float] = {}
    seconds: dict[str, float] = {}
    with running(config, "--time", "data", "--start", "earliest") as workers:
        feed.send(workers, max(WARM_ROWS, WARM_ROWS_A_MODEL * len(setup.models)))
        processes = workers.by_stage()
        redis_us = 0.0
        try:
            for process in processes.values():
                process.suspend()
            sent = feed.sent
            feed.publish(rows)
            rows = feed.sent - sent
            for stage in STAGES:
                process, before, redis_before, began = processes[stage], workers.cpu_seconds()[stage], redis_cpu(store), time.monotonic()
                process.resume()
                feed.progress.wait(workers, [stage])
                seconds[stage] = time.monotonic() - began - SETTLED_SECONDS
                stages[stage] = (workers.cpu_seconds()[stage] - before) / rows * 1e6
                redis_us += (redis_cpu(store) - redis_before) / rows * 1e6
                process.suspend()
        finally:
            for process in processes.values():
                process.resume()
    feed.progress.close()
    rates = {stage: rows / took for stage, took in seconds.items()}
    return {
        "name": f"{setup.name}, each stage alone", "rows": rows, "stages_us": stages, "redis_us": redis_us,
        "cpu_us": sum(stages.values()) + redis_us, "pairs_per_second": rates,
    }  # fmt: skip


EAGER = """    monitors:
      - {id: eager, series: ["feature:*"], detectors: [adwin, page_hinkley, psi], window: 200, run_length: 1000}"""


def live_pairs_per_second(services: Any, directory: Path, *, rows: int, baselines: dict[str, str]) -> float:
    """Pairs a second from the first append to the last commit, while the publisher has its share of the cores.

    A backlog that stands is read faster: nobody appends meanwhile.
    """
    setup = Setup("live", monitors=EAGER, window=200)
    prefix = f"bench-{os.getpid()}-{setup.name}"
    config = directory / f"{prefix}.yml"
    config.write_text(config_text(setup, services.kafka.bootstrap, services.redis.url, prefix, baselines))
    subprocess.run([sys.executable, "-m", "driftline", "topics", "create", str(config), "--sources"], check=True, capture_output=True)
    feed = Feed(services.kafka.bootstrap, prefix, Progress(services.kafka.bootstrap, prefix, setup), setup, 0)
    with running(config, "--time", "data", "--start", "earliest") as workers:
        feed.send(workers, WARM_ROWS)
        feed.prepare(rows)
        time.sleep(1.0)
        sent, began = feed.sent, time.monotonic()
        feed.send(workers, rows)
        found = (feed.sent - sent) / (time.monotonic() - began - SETTLED_SECONDS)
    feed.progress.close()
    return found


def redis_cpu(store: redis.Redis) -> float:
    """CPU seconds of the Redis server so far."""
    info = store.info("cpu")
    return float(info["used_cpu_sys"]) + float(info["used_cpu_user"])


def latency(services: Any, directory: Path, *, rate: float, seconds: float, baselines: dict[str, str]) -> dict[str, Any]:
    """Milliseconds from a prediction's append to its drift event at a `read_committed` subscriber, at a fixed rate.

    Open loop: the publisher never waits for the workers, so a stall is not hidden (no coordinated omission).
    """
    prefix = f"bench-{os.getpid()}-latency"
    config = directory / f"{prefix}.yml"
    setup = Setup("latency", monitors=EAGER, window=200)
    config.write_text(config_text(setup, services.kafka.bootstrap, services.redis.url, prefix, baselines))
    subprocess.run([sys.executable, "-m", "driftline", "topics", "create", str(config), "--sources"], check=True, capture_output=True)
    reader = Consumer({"bootstrap.servers": services.kafka.bootstrap, "group.id": prefix, "isolation.level": "read_committed",
                       "enable.auto.commit": False, "fetch.wait.max.ms": 10})  # fmt: skip
    reader.assign([TopicPartition(f"{prefix}.out.drift", 0, 0)])
    # Loading compiled kernels and the first rows of a model are its start, not its latency: they pass at a low rate, and no
    # backlog of them is left. All rows are made before the first is sent: making them would take from the workers.
    settle = SETTLE_RATE * SETTLE_SECONDS
    timed = f"wall=True, start_ms=int(time.time() * 1000), step_ms={1000 / rate}, shift_every={int(rate)}"  # one shift a second
    code = (
        "import time; from benchmarks.pipeline.stream import Shape, pairs, publish; "
        f"first, rest = Shape(rows={settle}, {timed}), Shape(rows={int(rate * seconds)}, first={settle}, {timed}); "
        f"ready = list(pairs(first)), list(pairs(rest)); to = '{services.kafka.bootstrap}', '{prefix}.predictions', '{prefix}.labels'; "
        f"publish(*to, first, rate={SETTLE_RATE}, ready=ready[0]); print(time.time() * 1000, flush=True); "
        f"publish(*to, rest, rate={rate}, ready=ready[1])"
    )
    seen: list[tuple[float, float]] = []
    with running(config, "--start", "earliest") as workers:
        workers.wait_until_started(tasks=4)
        sender = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        idle = time.monotonic()
        while sender.poll() is None or time.monotonic() - idle < QUIET_SECONDS:
            message = reader.poll(0.1)
            if message is not None and message.error() is None:
                idle = time.monotonic()
                event = orjson.loads(message.value() or b"")
                if event["kind"] in ("drift", "evidence", "recovery"):
                    seen.append((event["record_time_ms"], time.time() * 1000 - event["record_time_ms"]))
    settled_ms = float(sender.communicate()[0])
    delays = [delay for at_ms, delay in seen if at_ms >= settled_ms]
    reader.close()
    delays.sort()
    pick = lambda q: delays[min(len(delays) - 1, int(q * len(delays)))] if delays else None  # noqa: E731
    return {"rate": rate, "drift_events": len(delays), "p50_ms": pick(0.5), "p90_ms": pick(0.9), "p99_ms": pick(0.99)}
