"""Small streams with known changes, as files; made here, never read from real data."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np

HEADER = ["txn_id", "ts", "amount", "age", "country", "comment", "card_id", "created_at", "score", "is_fraud", "label_at"]
START_MS = 1_700_000_000_000


def write_transactions(path: Path, rows: int, *, shift_at: int | None = None, seed: int = 5) -> Path:
    """A fraud-like CSV (gzip by name): one row a second; `amount` moves up by one standard deviation at row `shift_at`."""
    rng = np.random.default_rng(seed)
    amount, age = rng.normal(0.0, 1.0, rows), rng.normal(40.0, 9.0, rows)
    country = rng.choice(["de", "fr", "us"], rows, p=[0.5, 0.3, 0.2])
    score = 1 / (1 + np.exp(-(1.5 * amount - 1)))
    fraud = (rng.random(rows) < score).astype(int)
    if shift_at is not None:
        amount[shift_at:] += 1.0
    delay = rng.exponential(600_000, rows).astype(int)
    opener = gzip.open if path.name.endswith(".gz") else open
    with opener(path, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for i in range(rows):
            time_ms = START_MS + i * 1_000
            stamp = str(np.datetime64(time_ms, "ms")) + "Z"
            comment = f"customer called about order {i} and wanted to know where the parcel is now"
            card = f"card{rng.integers(10**9)}"
            values = [f"t{i:07d}", stamp, f"{amount[i]:.4f}", f"{age[i]:.1f}", country[i], comment, card, stamp]
            writer.writerow([*values, f"{score[i]:.5f}", fraud[i], time_ms + delay[i]])
    return path


COLUMN_OPTIONS = ["--id", "txn_id", "--time", "ts", "--score", "score", "--label", "is_fraud", "--label-time", "label_at"]
NO_LABEL_OPTIONS = ["--id", "txn_id", "--time", "ts", "--score", "score"]


def config_text(
    *, labels: bool, bootstrap: str = "localhost:9092", redis: str = "redis://localhost:6379/0", prefix: str = "driftline"
) -> str:
    """A configuration for these streams, with one partition a topic."""
    lines = [
        f'kafka: {{bootstrap: "{bootstrap}", group_prefix: "{prefix}"}}',
        f'redis: {{url: "{redis}", key_prefix: "{prefix}"}}',
        f"topics: {{prefix: {prefix}, partitions: 1}}",
        "http: {port: 0}",
        f"predictions: [{{topic: {prefix}-in.predictions}}]",
        *([f"labels: [{{topic: {prefix}-in.labels}}]"] if labels else []),
        "models:",
        "  fraud:",
        "    features: {amount: numeric, age: numeric, country: categorical}",
        "    segments: [country]",
        *(["    labels: {ages: [30m]}"] if labels else []),
        "    baseline: {learn: 2000}",
        "    window: 1000",
    ]
    return "\n".join(lines) + "\n"
