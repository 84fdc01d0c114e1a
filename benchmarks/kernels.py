"""Nanoseconds an update of each bank, and of river called from Python.

    python benchmarks/kernels.py [--rounds 100] [--json FILE]

One scope, batches of 1,000 rows, 1 and 20 columns, values without drift. Windows are filled before the clock
starts; the table shows the median and the fastest batch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from driftline.detectors.blocks import FEATURES
from driftline.detectors.kernels import AdwinBank, ConformalBank, CusumBank, EDetectorBank, EwmaBank, PageHinkleyBank, PsiBank, RateBank
from driftline.detectors.kernels.bank import Float64Array
from driftline.detectors.kernels.portable import position_keys
from driftline.detectors.kernels.psi import NO_GROUP
from driftline.detectors.kernels.shares import Bins
from driftline.detectors.kernels.witness import Frame, directions, new_witness, run_witness

ROWS = 1_000
BINS = 10
WARM_ROUNDS = 60

Batch = Callable[[int], None]


def batches(columns: int, rounds: int) -> dict[str, Batch]:
    """For each bank a function that takes batch number k."""
    generator = np.random.default_rng(20250917)
    values = generator.normal(size=(rounds, ROWS, columns))
    codes = generator.integers(0, BINS, (rounds, ROWS, columns)).astype(np.uint8)
    scopes = np.zeros((ROWS, 1), np.int32)
    groups = np.full((columns, 67), NO_GROUP, np.uint8)
    groups[:, :BINS] = np.arange(BINS)
    hits = np.tile(np.where(np.arange(67) == 3, 1, 0), (columns, 1))
    adwin = AdwinBank(1, columns, delta=1e-6)
    page_hinkley = PageHinkleyBank(1, columns, threshold=60.0)
    cusum, ewma = CusumBank(1, columns, setting=0.25, threshold=60.0), EwmaBank(1, columns, setting=0.01, threshold=60.0)
    psi = PsiBank(1, columns, window=5_000, groups=groups, expected=np.full(BINS, 1 / BINS), threshold=0.1)
    rate = RateBank(1, column_of=np.arange(columns), hits=hits, rate_up=0.1, rate_down=0.1, run_length=1e8)
    ring, heads = psi.new_ring()
    own, offset = np.arange(columns, dtype=np.uint64)[None], np.arange(ROWS)
    conformal = ConformalBank(1, columns, counts=np.full(64, 40), own_keys=own)
    budget = EDetectorBank(columns, rate=1e-8, tolerance=0.1)
    shares = Bins([statistics.NormalDist().inv_cdf(b / 60) for b in range(1, 60)], [1 / 60] * 60, 0.1)
    categories = EDetectorBank(columns, rate=1e-8, tolerance=0.1, bins=dict.fromkeys(range(columns), shares))
    fine = generator.integers(0, 64, (rounds, ROWS, columns)).astype(np.uint8)
    monitors = np.tile(np.arange(columns, dtype=np.int32), (ROWS, 1))

    def score(k: int) -> Float64Array:
        return conformal.update(fine[k], scopes, position_keys(np.zeros(ROWS, np.uint64), offset + k * ROWS))

    return {
        "AdwinBank": lambda k: void(adwin.update(values[k], scopes)),
        "PageHinkleyBank": lambda k: void(page_hinkley.update(values[k], scopes)),
        "CusumBank": lambda k: void(cusum.update(values[k], scopes)),
        "EwmaBank": lambda k: void(ewma.update(values[k], scopes)),
        "PsiBank": lambda k: void(psi.update(codes[k], scopes, ring, heads)),
        "ConformalBank": lambda k: void(score(k)),
        "EDetectorBank": lambda k: void(budget.update(values[k], monitors, offset + k * ROWS)),
        "EDetectorBank of 60 categories": lambda k: void(categories.update(values[k], monitors, offset + k * ROWS)),
        "both, the chain": lambda k: void(budget.update(score(k), monitors, offset + k * ROWS)),
        "RateBank": lambda k: void(rate.update(codes[k], scopes)),
    }


def void(_: object) -> None:
    """Nothing: the benchmark does not look at alarms."""


def block_batches(values: int) -> dict[str, Batch]:
    """A block of so many values: what each row is worth to its witness, which learns from it; one update is a row."""
    generator = np.random.default_rng(20250917)
    rows = generator.normal(size=(4, ROWS, values))
    whole = rows.reshape(-1, values)
    frame = Frame(whole.mean(axis=0), 1 / whole.std(axis=0), directions(1, values), np.zeros(FEATURES), np.ones(1, np.int64))
    state, scratch, out = new_witness(values), (np.empty(values), np.empty(FEATURES)), np.empty(ROWS)
    return {f"block of {values} values": lambda k: run_witness(rows[k % len(rows)], frame, state, *scratch, out)}


def river_batches(rounds: int) -> dict[str, Batch]:
    """River's own classes, one value a call."""
    from driftline.detectors.river_adapter import river_detectors

    values = np.random.default_rng(20250917).normal(size=(rounds, ROWS))

    def feed(detector: Any, k: int) -> None:
        for value in values[k].tolist():
            detector.update(value)

    known = river_detectors()
    adwin, page_hinkley = known["ADWIN"](delta=1e-6), known["PageHinkley"](delta=0.125, threshold=60.0, alpha=1.0)
    return {"river ADWIN": lambda k: feed(adwin, k), "river PageHinkley": lambda k: feed(page_hinkley, k)}


def measure(batch: Batch, rounds: int, updates: int) -> dict[str, float]:
    """Median and best nanoseconds an update."""
    seconds = []
    for k in range(rounds):
        start = time.perf_counter()
        batch(k)
        seconds.append(time.perf_counter() - start)
    timed = seconds[WARM_ROUNDS:]
    return {"median_ns": statistics.median(timed) / updates * 1e9, "best_ns": min(timed) / updates * 1e9}


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=100, help="timed batches")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    rounds = WARM_ROUNDS + options.rounds
    rows: list[dict[str, object]] = []
    for columns in (20, 1):
        for name, batch in batches(columns, rounds).items():
            rows.append({"name": name, "columns": columns, **measure(batch, rounds, ROWS * columns)})
    for values in (4, 16, 128, 768):
        for name, batch in block_batches(values).items():
            rows.append({"name": name, "columns": 1, **measure(batch, rounds, ROWS)})
    for name, batch in river_batches(rounds).items():
        rows.append({"name": name, "columns": 1, **measure(batch, rounds, ROWS)})
    print(f"{'detector':<20}{'columns':>8}{'median ns':>12}{'best ns':>10}")
    for row in rows:
        print(f"{row['name']:<20}{row['columns']:>8}{row['median_ns']:>12.1f}{row['best_ns']:>10.1f}")
    if options.json:
        options.json.write_text(json.dumps({"batch_rows": ROWS, "rounds": options.rounds, "results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
