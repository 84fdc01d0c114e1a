"""The main job as a user does it: publish a file to a real Kafka, run, and compare with the replay of the file."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson

ROWS = 6_000
CHANGE = 4_000
COLUMNS = ["--time", "at", "--label", "y", "--label-time", "y_at", "--score", "score", "--model", "m", "--drop", "y_at"]


def write_csv(path: Path) -> None:
    """A row a second; `amount` jumps and the labels turn against the score from row 4,000 on; one label in ten never comes."""
    draw = np.random.default_rng(5)
    with path.open("w", newline="") as sink:
        writer = csv.writer(sink)
        writer.writerow(["at", "amount", "channel", "country", "score", "y", "y_at"])
        for i in range(ROWS):
            score = draw.beta(1, 4)
            changed = i >= CHANGE
            label = int(draw.random() < (1 - score if changed else score))
            amount = "" if draw.random() < 0.01 else round(draw.lognormal(3 + 0.6 * changed, 0.5), 3)
            due = 1_700_000_000 + i + int(draw.exponential(100))
            came = draw.random() < 0.9
            row = [1_700_000_000 + i, amount, draw.choice(["web", "app"]), draw.choice(["BR", "MX"]), round(score, 6)]
            writer.writerow([*row, label if came else "", due if came else ""])


def driftline(*arguments: str | Path) -> bytes:
    command = [sys.executable, "-m", "driftline", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode()[-3_000:]
    return done.stdout


def events(lines: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in lines.splitlines()]


def ledgers(found: list[dict[str, Any]]) -> tuple[list[bytes], list[bytes]]:
    """Events of predictions and of outcomes, each in order; ids carry the topic's id and are left out."""
    split: tuple[list[bytes], list[bytes]] = ([], [])
    for event in found:
        outcome = event["series"].startswith(("outcome:", "stream:label", "stream:join", "panel:outcomes"))
        split[outcome].append(orjson.dumps({k: v for k, v in event.items() if k not in ("id", "episode")}))
    return split


def test_what_run_publishes_equals_what_replay_prints_over_the_same_file(
    kafka: Any, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    data, config = tmp_path / "rows.csv", tmp_path / "m.yml"
    write_csv(data)
    config.write_text(
        f"""
version: 1
environment: {topic_prefix.rstrip(".")}
kafka: {{bootstrap: "{kafka.bootstrap}", group_prefix: {topic_prefix.rstrip(".")}}}
redis: {{url: "{redis_url}", key_prefix: {topic_prefix.rstrip(".")}}}
topics: {{prefix: {topic_prefix}ours, partitions: 1}}
http: {{port: 0}}
predictions: {topic_prefix}predictions
labels: {topic_prefix}labels
models:
  m:
    window: 500
    snapshot_every: 500
    segments: [country]
    labels: {{ages: [5m]}}
    baseline: {{learn: 1000, settle: 0s}}
"""
    )
    driftline("topics", "create", config, "--sources")
    driftline("publish", data, "-c", config, *COLUMNS)
    driftline("run", config, "--until-idle", "2")
    ran = events(driftline("tail", "drift", config, "--from", "earliest", "--until-idle", "2", "-o", "json"))
    replayed = events(driftline("replay", data, "-c", config, *COLUMNS, "-o", "json"))

    assert ledgers(ran) == ledgers(replayed)
    opened = {(e["series"], str(e["segment"])): e["position"]["offset"] for e in reversed(ran) if e["kind"] == "drift"}
    assert CHANGE < opened["feature:amount", "None"] < CHANGE + 200
    assert CHANGE < opened["outcome:log_loss", "None"] < CHANGE + 400
    alerts = events(driftline("tail", "alerts", config, "--from", "earliest", "--until-idle", "2", "-o", "json"))
    assert {"feature:amount", "outcome:log_loss"} <= {a["series"] for a in alerts if a["condition"] == "firing"}
