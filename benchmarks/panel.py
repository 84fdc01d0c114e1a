"""Microseconds an event of a panel of 20 numeric features: coding, change detectors, windows and the whole.

    python -m benchmarks.panel [--rounds 100] [--json FILE]

Batches of 1,000 rows without drift, baseline learned from 5,000 rows, windows of 5,000, each feature with PSI, ADWIN,
Page-Hinkley and the rates of missing, invalid and out-of-range values and of constant runs: 100 series. Without segments
and with a key of 10 values; without a budget of false alarms and with one, for which 80 series have an e-detector too (it
opens the episodes, and the others are evidence). Processor time, so that another program does not show; median and fastest batch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from driftline.detectors.panel import Panel
from driftline.detectors.spec import Column, ColumnDetector, PanelBudget, PanelRows, PanelSpec, Series

ROWS = 1_000
FEATURES = 20
LEARN_ROUNDS = 5
WARM_ROUNDS = 10
VALUES = 10
BUDGET = PanelBudget(per_unit=1e-6, by_rows=True, cap=6_000.0)


def column(name: str, covered: tuple[ColumnDetector, ...]) -> Column:
    """A numeric feature with the default monitors, and what a budget adds."""
    watched = (*(ColumnDetector(detector) for detector in ("psi", "adwin", "page_hinkley")), *covered)
    rate = (ColumnDetector("rate"), *covered)
    flags = tuple(
        Series(f"quality:{name}:{flag}", flag, () if flag == "constant" else rate, 5_000, 1e8, direction="up")
        for flag in ("missing", "invalid", "out_of_range", "constant")
    )
    return Column(name, "numeric", (Series(f"feature:{name}", None, watched, 5_000, 1e8), *flags))


def batch(generator: np.random.Generator, k: int, names: list[str], segments: int) -> PanelRows:
    """1,000 rows of standard normal values."""
    keys = {"shop": (generator.integers(0, VALUES, ROWS).astype(np.int32), [f"s{i}" for i in range(VALUES)])} if segments else {}
    at = np.arange(k * ROWS, (k + 1) * ROWS)
    return PanelRows(
        n=ROWS, numeric=generator.normal(size=(ROWS, len(names))), numeric_names=names, categorical={}, segments=keys,
        source=np.zeros(ROWS, np.uint16), offset=at, time_ms=at * 10,
    )  # fmt: skip


def measure(rounds: int, segments: int, budget: PanelBudget | None) -> dict[str, float]:
    """Microseconds an event of `Panel.update`, median and best."""
    names = [f"f{i:02d}" for i in range(FEATURES)]
    covered = () if budget is None else (ColumnDetector("e_detector"),)
    columns = tuple(column(name, covered) for name in names)
    panel = Panel(PanelSpec(columns=columns, segments={"shop": VALUES} if segments else {}, budget=budget))
    generator = np.random.default_rng(20250917)
    seconds = []
    for k in range(LEARN_ROUNDS + WARM_ROUNDS + rounds):
        rows = batch(generator, k, names, segments)
        start = time.process_time()
        panel.update(rows)
        seconds.append(time.process_time() - start)
    timed = seconds[LEARN_ROUNDS + WARM_ROUNDS :]
    return {"median_us": statistics.median(timed) / ROWS * 1e6, "best_us": min(timed) / ROWS * 1e6}


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=100, help="timed batches")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    rows = [
        {"segments": segments, "features": FEATURES, "budget": budget is not None, **measure(options.rounds, segments, budget)}
        for segments in (0, VALUES)
        for budget in (None, BUDGET)
    ]
    print(f"{'segment values':<16}{'budget':<8}{'median us':>12}{'best us':>10}")
    for row in rows:
        print(f"{row['segments']:<16}{'yes' if row['budget'] else 'no':<8}{row['median_us']:>12.2f}{row['best_us']:>10.2f}")
    if options.json:
        options.json.write_text(json.dumps({"batch_rows": ROWS, "rounds": options.rounds, "results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
