"""Alarms without drift: what the default settings promise against what they raise.

    python -m benchmarks.null [--events 10000000] [--seed 1] [--json FILE]

Batches of Observations go straight into the detect task that `driftline run` and `driftline replay` run; ingest is left
out, it decides nothing and is slow. Twenty numeric features, independent rows: seven normal, seven Student's t with 3
degrees, six lognormal; default monitors, a baseline learned from the first 5,000 rows, settle 0. Every default detector
promises at least 1e8 values between false alarms of one series.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from driftline.schemas.loading import parse_config
from driftline.streams.cluster import Cluster
from driftline.streams.detect.task import DetectProcessor
from driftline.streams.observation import Observations, code, encode
from driftline.streams.task import MemoryRecord, RestoredState

ROWS = 1_000
NAMES = [f"f{i:02d}" for i in range(20)]
RUN_LENGTH = 1e8
WATCHED = {"psi": 20, "adwin": 20, "page_hinkley": 20, "rate": 60}
"""Series that each detector watches in the panel of features; `rate`: missing, invalid, out of range."""

TOPICS = {"driftline.observations": 1, "driftline.drift": 1, "driftline.snapshots": 1, "predictions": 1}


def new_task() -> Any:
    """The detect task of one observations partition, with default settings."""
    config = parse_config(
        "version: 1\npredictions: predictions\nmodels:\n  m:\n    baseline: {learn: 5000, settle: 0s}\n"
        f"    features: {{{', '.join(f'{name}: numeric' for name in NAMES)}}}\n",
        name="null",
    )
    return DetectProcessor(config, Cluster("c", {"predictions": "t"}, TOPICS)).open("detect/0", RestoredState())


def batch(generator: np.random.Generator, k: int) -> bytes:
    """1,000 rows of the three laws."""
    values = np.empty((ROWS, 20))
    values[:, :7] = generator.normal(size=(ROWS, 7))
    values[:, 7:14] = generator.standard_t(3, size=(ROWS, 7))
    values[:, 14:] = generator.lognormal(size=(ROWS, 6))
    offset = np.arange(k * ROWS, (k + 1) * ROWS)
    return encode(
        Observations(
            "predictions", "m", "ingest/predictions/0", k + 1, [("predictions", 0)], offset=offset, source=np.zeros(ROWS, np.uint16),
            time_ms=offset * 10, record_ms=offset * 10, version=code(["v1"] * ROWS), numeric_names=NAMES, numeric=values,
            score=generator.beta(1, 9, ROWS),
        )
    )  # fmt: skip


def count(events: int, seed: int) -> Counter[tuple[str, str]]:
    """Alarms by panel and detector: an episode's first, and each further detector's that adds to it."""
    task, generator, found = new_task(), np.random.default_rng(seed), Counter[tuple[str, str]]()
    for k in range(events // ROWS):
        record = MemoryRecord("driftline.observations", 0, k, b"m", batch(generator, k), 0)
        for output in task.process({("driftline.observations", 0): [record]}):
            if output.topic != "driftline.drift":
                continue
            event = orjson.loads(output.value)
            if event["kind"] in ("drift", "evidence"):
                series = event["series"]
                found[series.split(":")[0] if ":" in series else series, event["detector"]] += 1
                print(f"  {event['kind']} {series} {event['detector']} at {event['position']['offset']}: {event['reason']}", flush=True)
        task.checkpoint()
    return found


def interval(alarms: int) -> tuple[float, float]:
    """The exact 95 % interval of a Poisson mean (Garwood 1936), by bisection on the cumulated probabilities."""

    def solve(tail: int, wanted: float) -> float:
        low, high = 0.0, 10.0 * (tail + 5)
        for _ in range(100):
            middle = 0.5 * (low + high)
            below = sum(math.exp(-middle + i * math.log(middle) - math.lgamma(i + 1)) for i in range(tail + 1))
            low, high = (middle, high) if below > wanted else (low, middle)
        return low

    return (solve(alarms - 1, 0.975) if alarms else 0.0), solve(alarms, 0.025)


def main() -> None:
    """Run, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    start = time.process_time()
    found = count(options.events, options.seed)
    rows = []
    print(f"{options.events} events, seed {options.seed}, {time.process_time() - start:.0f} s of processor time")
    print(f"{'detector':<16}{'series':>8}{'promised <=':>14}{'alarms':>8}  95 % interval")
    for detector, series in WATCHED.items():
        alarms = sum(n for (panel, name), n in found.items() if name == detector and panel in ("feature", "quality"))
        low, high = interval(alarms)
        promised = series * options.events / RUN_LENGTH
        rows.append({"detector": detector, "series": series, "promised_most": promised, "alarms": alarms, "interval": [low, high]})
        print(f"{detector:<16}{series:>8}{promised:>14.1f}{alarms:>8}  {low:.1f} to {high:.1f}")
    print("all alarms by panel and detector:", dict(found) or "none")
    if options.json:
        options.json.write_text(json.dumps({"events": options.events, "seed": options.seed, "results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
