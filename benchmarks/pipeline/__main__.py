"""Figures of the whole pipeline beside what else a user could run: `python -m benchmarks.pipeline --help`."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.environments import environment
from benchmarks.pipeline import ours
from benchmarks.pipeline.stream import Shape, pairs, publish
from driftline.streams.local.kafka import LocalKafka
from driftline.streams.local.redis import LocalRedis

FAUST_ROWS = 8_000
QUIX_ROWS = 40_000
QUIX_ENVIRONMENT = Path(".services/bench-quix")
QUIX_PACKAGES = ("quixstreams==3.28.1", "river", "orjson")
"""It pins another confluent-kafka than ours."""
REFERENCE_MS = 1_700_000_000_000
"""Slow contenders read fewer rows: their figure per row is steady long before."""


@dataclass(frozen=True, slots=True)
class Services:
    kafka: LocalKafka
    redis: LocalRedis


def contenders(services: Services, rows: int, quix_python: str | None) -> dict[str, Any]:
    """(a), (b) and (c), each to the end of topics of its own with as many rows as it is given."""
    scripts = [("a: bare consumer", "bare", sys.executable, rows), ("b: Faust + river", "faust_river", sys.executable, FAUST_ROWS)]
    if quix_python:
        scripts.append(("c: Quix Streams + river", "quix_river", quix_python, QUIX_ROWS))
    # Away from the checkout, where Faust leaves its files, and in Quix's environment the checkout's modules are found too.
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    found = {}
    for name, script, python, most in scripts:
        count = min(most, rows)
        topics = [f"{script}.{what}" for what in ("predictions", "labels")]
        admin = AdminClient({"bootstrap.servers": services.kafka.bootstrap})
        for future in admin.create_topics([NewTopic(topic, 1, 1) for topic in topics]).values():
            future.result()
        publish(services.kafka.bootstrap, topics[0], topics[1], Shape(rows=count, wall=True))
        command = [python, "-m", f"benchmarks.pipeline.{script}", services.kafka.bootstrap, *topics, str(count)]
        with tempfile.TemporaryDirectory() as scratch:
            done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=scratch, env=environment)
        # Faust's worker logs what is printed, with a prefix.
        lines = [line[line.index("{") :] for line in (done.stdout + done.stderr).splitlines() if '{"cpu_us"' in line]
        found[name] = json.loads(lines[-1]) if lines else {"error": (done.stderr or done.stdout)[-400:]}
        print(name, found[name], flush=True)
    return found


def baseline_file(directory: Path, *, segments: bool) -> str:
    """A baseline built from a file, as a user would, of rows from before the measured stream."""
    rows = directory / f"reference-{segments}.jsonl"
    config = directory / f"reference-{segments}.yml"
    with rows.open("wb") as sink:
        for at, label_at, _, prediction, _, label in pairs(Shape(rows=20_000, start_ms=REFERENCE_MS)):
            for topic, time_ms, value in (("predictions", at, prediction), ("labels", label_at, label)):
                sink.write(orjson.dumps({"topic": f"reference.{topic}", "time_ms": time_ms, "value": orjson.Fragment(value)}) + b"\n")
    setup = ours.Setup("reference", segments=segments)
    config.write_text(ours.config_text(setup, "localhost:9092", "redis://localhost:6379/0", "reference", {}))
    out = directory / f"baseline-{segments}.json"
    if out.exists():
        return str(out)
    build = [sys.executable, "-m", "driftline", "baseline", "build", str(config)]
    subprocess.run([*build, "--model", "bench", "--from-file", str(rows), "-o", str(out)], check=True)
    return str(out)


def machine() -> dict[str, Any]:
    """Where and with what the figures were made."""
    packages = ("confluent-kafka", "numpy", "numba", "river", "redis", "pyarrow", "msgspec", "faust-streaming")
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "cpu": next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?"),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def table(results: dict[str, Any]) -> str:
    """The figures as Markdown."""
    bare = results["contenders"].get("a: bare consumer", {}).get("cpu_us")
    lines = ["| what | CPU us per pair | of that Redis | times (a) | RSS MiB | guarantee |", "|---|---|---|---|---|---|"]
    for name, row in results["contenders"].items():
        if "cpu_us" in row:
            ratio = row["cpu_us"] / bare if bare else float("nan")
            lines.append(f"| {name} | {row['cpu_us']:.1f} | - | {ratio:.2f} | {row['rss_mib']:.0f} | none |")
    for row in results["ours"]:
        ratio = row["cpu_us"] / bare if bare else float("nan")
        memory = sum(row["rss_mib"].values())
        lines.append(f"| d: {row['name']} | {row['cpu_us']:.1f} | {row['redis_us']:.1f} | {ratio:.2f} | {memory:.0f} | exactly once |")
    for row in results["alone"]:
        ratio = row["cpu_us"] / bare if bare else float("nan")
        lines.append(f"| d: {row['name']} | {row['cpu_us']:.1f} | {row['redis_us']:.1f} | {ratio:.2f} | - | exactly once |")
    stages = [*results["ours"], *results["alone"]]
    lines += ["", "| stage | " + " | ".join(r["name"] for r in stages) + " |", "|---|" + "---|" * len(stages)]
    for stage in ours.STAGES:
        lines.append(f"| {stage} | " + " | ".join(f"{r['stages_us'].get(stage, float('nan')):.1f}" for r in stages) + " |")
    if results.get("latency"):
        found = results["latency"]
        lines += ["", f"Latency at {found['rate']:.0f} pairs/s: {found}"]
    return "\n".join(lines)


BUDGET = ours.Setup("false-alarms-1-per-week", monitors="    false_alarms: 1 per week")
"""Every series has an e-detector beside ADWIN, Page-Hinkley and PSI, whose events are evidence then."""


def setups(curves: bool) -> list[ours.Setup]:
    """What is measured of (d)."""
    found = [ours.Setup("no-segments"), BUDGET, ours.Setup("one-key-of-10", segments=True)]
    if curves:
        found += [ours.Setup(f"models-{n}", models=tuple(f"bench{i}" for i in range(n))) for n in (10, 50)]
        found += [ours.Setup(f"partitions-{n}", partitions=n) for n in (4, 8)]
    return found


def waiting_setup(rows: int) -> ours.Setup:
    """Every label comes at once and waits with its prediction until that is `rows` ms old, at one row a millisecond."""
    return ours.Setup(f"waiting-{rows}", age_ms=rows, label_rows=0)


def save(path: Path, results: dict[str, Any]) -> None:
    path.write_text(json.dumps(results, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="measured pairs of each run")
    parser.add_argument("--waiting", type=int, default=0, help="predictions waiting for their label while measuring")
    parser.add_argument("--curves", action="store_true", help="also partitions 1 to 8 and models 1 to 50")
    parser.add_argument("--latency-rate", type=float, help="pairs a second; 0 leaves latency out; default: half of what (d) keeps up with")
    parser.add_argument("--with-quix", action="store_true", help=f"also Quix Streams, in an environment made at {QUIX_ENVIRONMENT}")
    parser.add_argument("--quix-python", help="the Python of an environment with quixstreams and river")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/pipeline.json"))
    options = parser.parse_args(arguments)
    if options.with_quix and options.quix_python is None:
        options.quix_python = environment(QUIX_ENVIRONMENT, QUIX_PACKAGES)
    before = json.loads(options.json.read_text()) if options.json.exists() else None
    with tempfile.TemporaryDirectory() as name, LocalKafka(heap="1g") as kafka, LocalRedis() as redis:
        directory, services = Path(name), Services(kafka, redis)
        results: dict[str, Any] = {"machine": machine(), "contenders": contenders(services, options.rows, options.quix_python), "ours": []}
        for setup in setups(options.curves):
            baselines = {"bench": baseline_file(directory, segments=setup.segments)} if setup.models == ("bench",) else {}
            row = ours.cpu_per_pair(setup, services, directory, rows=options.rows, waiting=0, baselines=baselines)
            results["ours"].append(row)
            print(row, flush=True)
        baselines = {"bench": baseline_file(directory, segments=False)}
        results["alone"] = []
        for setup in setups(False)[:2]:
            results["alone"].append(ours.cpu_alone(setup, services, directory, rows=options.rows, baselines=baselines))
            print(results["alone"][-1], flush=True)
        rate = options.latency_rate
        if rate is None:
            results["live_pairs_per_second"] = ours.live_pairs_per_second(services, directory, rows=options.rows, baselines=baselines)
            rate = results["live_pairs_per_second"] / 2
        if rate:
            results["latency"] = ours.latency(services, directory, rate=rate, seconds=30, baselines=baselines)
            print(results["latency"], flush=True)
        save(options.json, results)
        if options.waiting:
            setup, baselines = waiting_setup(options.waiting), {"bench": baseline_file(directory, segments=False)}
            results["waiting"] = ours.cpu_per_pair(setup, services, directory, rows=50_000, waiting=options.waiting, baselines=baselines)
            print(results["waiting"], flush=True)
        save(options.json, results)
    print(table(results))
    if before:
        was = {row["name"]: row["cpu_us"] for row in before["ours"]}
        for row in results["ours"]:
            if row["name"] in was:
                print(f"{row['name']}: {was[row['name']]:.1f} -> {row['cpu_us']:.1f} us per pair")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
