"""What a fault costs, and what exactly once costs without one: `python -m benchmarks.recovery --help`.

All on a real Kafka and Redis, with `driftline run` as a user starts it: one model of 20 features and one segment key of
ten values, windows of 5,000 full, detect the worker that is lost.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import redis
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.pipeline import ours
from benchmarks.pipeline.__main__ import Services, baseline_file, machine
from driftline.schemas.loading import load_config
from driftline.streams.kafka import consumer_properties
from driftline.streams.local.kafka import LocalKafka
from driftline.streams.local.process import free_port
from driftline.streams.local.redis import LocalRedis
from driftline.streams.state.base import BASE_SECONDS

STARTS = 5
FILLING = 60_000
"""Pairs that fill the windows."""
REPLAYED = 300_000
"""Pairs that a rebuild replays: a base checkpoint comes every million rows or every minute."""
SETUP = ours.Setup("recovery", segments=True, partitions=4)
_CALM = 5.0
"""Seconds until a group has given a member that is new all it shall have."""
DETECT_PORT = 2
"""Workers of one `run` take ports in order: ingest, join, detect."""


class Detect:
    """`driftline run --processors detect`, which can be killed without taking the others with it."""

    def __init__(self, config: Path, name: str) -> None:
        self.log_file = config.with_name(f"{config.stem}-{name}-{time.monotonic_ns()}.log")
        command = [sys.executable, "-m", "driftline", "run", str(config), "--processors", "detect", "--time", "data"]
        environment = {**os.environ, "DRIFTLINE_INSTANCE": name}
        self.started = time.time()
        with self.log_file.open("wb") as sink:
            self.process = subprocess.Popen(command, stdout=sink, stderr=sink, env=environment, start_new_session=True)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def tasks(self) -> set[str]:
        """All it has begun, whether or not it has them still."""
        return set(re.findall(r" task_started task=(\S+)", self.log))

    def until(self, event: str, *, about: str = "", seconds: float = 180.0) -> float:
        """Wait for a line of the log; when it was written."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            lines = [line for line in self.log.splitlines() if f" {event} " in line and about in line]
            if lines:
                return dt.datetime.fromisoformat(lines[0].split(" ", 1)[0]).timestamp()
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise SystemExit(f"detect did not come to {event}:\n{self.log[-2_000:]}")

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@contextlib.contextmanager
def detect(config: Path, name: str = "a") -> Iterator[Detect]:
    worker = Detect(config, name)
    try:
        yield worker
    finally:
        worker.kill()


def page(port: int) -> dict[str, list[Any]]:
    """Samples of a worker's metrics by family."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return {family.name: list(family.samples) for family in text_string_to_metric_families(answer.read().decode())}


def quantile(samples: Sequence[Any], q: float) -> float:
    """The upper bound of the bucket that holds this quantile of a histogram, in seconds."""
    buckets = [(float(s.labels["le"]), s.value) for s in samples if s.name.endswith("_bucket")]
    total = max(count for _, count in buckets)
    return next(bound for bound, count in sorted(buckets) if count >= q * total)


def grown(now: dict[str, list[Any]], then: dict[str, list[Any]], family: str, suffix: str) -> float:
    """How much the samples of a family have grown between two looks."""
    return total(now[family], suffix) - total(then[family], suffix)


def total(samples: Sequence[Any], suffix: str) -> float:
    return float(sum(s.value for s in samples if s.name.endswith(suffix)))


def prepare(services: Services, directory: Path, baseline: str, port: int) -> tuple[Path, dict[str, Any]]:
    """A configuration whose windows are full, its state in Redis and Kafka, and what its metrics said.

    Between the rows that fill the windows and the measured ones stands a base checkpoint, so that a rebuild replays these.
    """
    setup = replace(SETUP, http_port=port)
    prefix = f"bench-{os.getpid()}-recovery"
    config = directory / f"{prefix}.yml"
    config.write_text(ours.config_text(setup, services.kafka.bootstrap, services.redis.url, prefix, {"bench": baseline}))
    subprocess.run([sys.executable, "-m", "driftline", "topics", "create", str(config), "--sources"], check=True, capture_output=True)
    feed = ours.Feed(services.kafka.bootstrap, prefix, ours.Progress(services.kafka.bootstrap, prefix, setup), setup, 0)
    with ours.running(config, "--time", "data", "--start", "earliest") as workers:
        feed.send(workers, FILLING)
        first = page(port + DETECT_PORT)
        time.sleep(BASE_SECONDS)
        feed.send(workers, 1)
        second = page(port + DETECT_PORT)
        sent = feed.sent
        feed.prepare(REPLAYED)
        began = time.monotonic()
        feed.send(workers, REPLAYED)
        seconds = time.monotonic() - began - ours.SETTLED_SECONDS
        third = page(port + DETECT_PORT)
    feed.progress.close()
    if grown(third, second, "driftline_base_checkpoint_seconds", "_count"):
        raise SystemExit("a second base checkpoint came before the measured rows were read: this machine is too slow for so many")
    bases = grown(second, first, "driftline_base_checkpoint_seconds", "_count")
    return config, {
        "series": int(total(third["driftline_subjects_monitored"], "")),
        "pairs": feed.sent - sent,
        "pairs_per_second": (feed.sent - sent) / seconds,
        "commits": int(total(third["driftline_commit_seconds"], "_count")),
        "commit_p50_s": quantile(third["driftline_commit_seconds"], 0.5),
        "commit_p99_s": quantile(third["driftline_commit_seconds"], 0.99),
        "base_checkpoint_bytes": grown(second, first, "driftline_base_checkpoint_bytes", "_total") / bases,
        "base_checkpoint_ms": 1000 * grown(second, first, "driftline_base_checkpoint_seconds", "_sum") / bases,
    }  # fmt: skip


def from_checkpoint(config: Path) -> dict[str, Any]:
    """Seconds from the process' start, and from the assignment of partitions, to a state that is loaded; kill -9 between."""
    whole, load = [], []
    for _ in range(STARTS):
        with detect(config) as worker:
            assigned = worker.until("partitions_assigned")
            ready = worker.until("task_started", about="state=")
            whole.append(ready - worker.started)
            load.append(ready - assigned)
    return {"starts": STARTS, "start_to_loaded_s": statistics.median(whole), "assigned_to_loaded_s": statistics.median(load),
            "worst_assigned_to_loaded_s": max(load)}  # fmt: skip


def rebuild(config: Path, services: Services, pairs: int) -> dict[str, Any]:
    """Redis is emptied: seconds to replay the observations since the newest base, and how many pairs that is a second."""
    redis.Redis.from_url(services.redis.url).flushall()
    with detect(config) as worker:
        started = worker.until("task_started", about="replay=True")
        replayed = worker.until("task_replayed", seconds=600)
        id_ = re.search(r"by=base id=(\S+)", worker.log)
    seconds = replayed - started
    return {"pairs": pairs, "seconds": seconds, "pairs_per_second": pairs / seconds, "base": id_.group(1) if id_ else None}


def hand_over(config: Path) -> dict[str, Any]:
    """Seconds until another worker has loaded the partitions of one that was killed, by the default settings."""
    # Two workers of one stage on one machine: neither listens on a port of the file.
    text = re.sub(r"^http: .*$", "http: {port: 0}", config.read_text(), flags=re.MULTILINE)
    config = config.with_stem(f"{config.stem}-two")
    config.write_text(text)
    with detect(config, "a") as victim:
        victim.until("task_started")
        with detect(config, "b") as heir:
            heir.until("task_started")
            time.sleep(_CALM)
            taken = victim.tasks - heir.tasks
            killed = time.time()
            victim.kill()
            deadline = time.monotonic() + 180
            while taken - heir.tasks:
                if time.monotonic() > deadline:
                    raise SystemExit(f"nobody took {taken - heir.tasks} over:\n{heir.log[-2_000:]}")
                time.sleep(0.05)
            kafka = load_config(config).kafka
            return {
                "tasks": len(taken),
                "seconds": time.time() - killed,
                "session_timeout_s": int(consumer_properties(kafka, "g")["session.timeout.ms"]) / 1000,
                "transaction_timeout_s": kafka.transaction_timeout / 1000,
            }


def guarantees(services: Services, directory: Path, baseline: str, *, rows: int, rounds: int) -> dict[str, Any]:
    """CPU microseconds per pair of both guarantees, in turns."""
    found: dict[str, list[float]] = {"exactly_once": [], "at_least_once": []}
    for number in range(rounds):
        for guarantee, values in found.items():
            setup = ours.Setup(f"{guarantee}-{number}", guarantee=guarantee)
            row = ours.cpu_per_pair(setup, services, directory, rows=rows, waiting=0, baselines={"bench": baseline})
            values.append(row["cpu_us"])
            print(guarantee, round(row["cpu_us"], 2), flush=True)
    middle = {guarantee: statistics.median(values) for guarantee, values in found.items()}
    return {**found, "ratio": middle["exactly_once"] / middle["at_least_once"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="pairs of each run that compares guarantees")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each guarantee")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/recovery.json"))
    options = parser.parse_args()
    port = free_port()
    with tempfile.TemporaryDirectory() as name, LocalKafka(heap="1g") as kafka, LocalRedis() as store:
        directory, services = Path(name), Services(kafka, store)
        config, found = prepare(services, directory, baseline_file(directory, segments=True), port)
        results: dict[str, Any] = {"machine": machine(), "state": found}
        print(found, flush=True)
        plain = baseline_file(directory, segments=False)
        for what, measure in (
            ("rebuild", lambda: rebuild(config, services, found["pairs"])),
            ("checkpoint", lambda: from_checkpoint(config)),
            ("hand_over", lambda: hand_over(config)),
            ("guarantees", lambda: guarantees(services, directory, plain, rows=options.rows, rounds=options.rounds)),
        ):
            results[what] = measure()
            print(what, results[what], flush=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
