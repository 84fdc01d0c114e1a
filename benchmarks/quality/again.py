"""A second change while the first one is open, the public way: a file, a configuration, `driftline replay`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import stats

from benchmarks.quality.measure import generator
from benchmarks.quality.public import replayed_columns
from benchmarks.quality.report import Gate, Section, Size

LEARN: Final = 4_000
CHANGE: Final = LEARN + 20_000
APART: Final = 20_000
"""Rows between the first change and the second one."""
_AFTER: Final = 3_000
_RAMP: Final = 50_000
EVENTS: Final = 100_000
"""The budget: one false alarm in so many rows, over all series."""
START_MS: Final = 1_760_000_000_000

CONFIG: Final = f"""\
version: 1
predictions: p
models:
  m:
    features: {{amount: numeric, kind: categorical}}
    decision: null
    false_alarms: 1 per {EVENTS} events
    window: 1000
    snapshot_every: 1000000
    baseline: {{learn: {LEARN}, settle: 0s}}
"""


@dataclass(frozen=True, slots=True)
class Case:
    """Mean of `amount`, and its share of missing values, after the first change and after the second."""

    name: str
    means: tuple[float, float]
    missing: tuple[float, float] = (0.0, 0.0)

    @property
    def series(self) -> str:
        return "quality:amount:missing" if self.missing[0] else "feature:amount"


CASES: Final = (
    Case(".5 sd, then .5 sd further", (0.5, 1.0)),
    Case("1 sd, then half-way back", (1.0, 0.5)),
    Case("-1 sd, then half-way back", (-1.0, -0.5)),
    Case(".5 sd, then .5 sd to the other side", (0.5, -0.5)),
    Case("5 sd, then .5 sd further", (5.0, 5.5)),
    Case("missing values 10 %, then 20 %", (0.0, 0.0), (0.1, 0.2)),
)


def events_of(amount: np.ndarray[Any, Any], g: np.random.Generator) -> list[dict[str, Any]]:
    """The drift events of a stream."""
    n = len(amount)
    columns = {"amount": amount, "kind": np.array(["x", "y", "z"])[g.integers(0, 3, n)], "score": g.beta(2, 8, n)}
    return replayed_columns(columns, START_MS + np.arange(n) * 1_000, CONFIG)


def delay(case: Case, g: np.random.Generator) -> int | None:
    """Rows until the second change is found; None = it is not, within `_AFTER`."""
    at = CHANGE + APART
    row = np.arange(at + _AFTER)
    part = (row >= CHANGE).astype(int) + (row >= at)
    amount = g.normal(np.array([0.0, *case.means])[part], 1.0)
    amount[g.random(len(row)) < np.array([0.01, *case.missing])[part] * bool(case.missing[0])] = np.nan
    found = (e["position"]["offset"] for e in events_of(amount, g) if e["series"] == case.series and e["again"] is not None)
    return next((offset - at + 1 for offset in found if offset >= at), None)


def further(amount: np.ndarray[Any, Any], g: np.random.Generator) -> tuple[int, int]:
    """Further changes of `amount`, and recoveries from the first one."""
    own = [e for e in events_of(amount, g) if e["series"] == "feature:amount" and e["position"]["offset"] > CHANGE + _AFTER]
    return sum(e["again"] is not None for e in own), sum(e["kind"] == "recovery" for e in own)


def again(size: Size) -> Section:
    """Whether a second change shows, and only then."""
    table, gates = [], []
    for case in CASES:
        streams = max(size.change_streams // 10, 6)
        delays = [delay(case, generator(size.seed, "again", case.name, stream)) for stream in range(streams)]
        found = [one for one in delays if one is not None]
        high = stats.binomtest(len(found), streams).proportion_ci(method="exact").high
        gates.append(Gate(f"second change found, {case.name}", 0.95, len(found) / streams, high, least=True))
        table.append([case.name, f"{len(found)} of {streams}", f"{np.median(found):.0f}" if found else "-"])
    rows = 10 * size.null_rows
    g = generator(size.seed, "again", "step")
    count, ended = further(np.r_[g.normal(size=CHANGE), g.normal(1.0, 1.0, rows)], g)
    low = float(stats.chi2.ppf(0.025, 2 * count) / 2) if count else 0.0
    gates.append(Gate(f"further changes of a step that stays for {rows:,} rows", rows / EVENTS, count, low))
    gates.append(Gate("recoveries from it", 0.0, ended, ended))
    table.append([f"a step of 1 sd that stays for {rows:,} rows", f"{count} further changes, {ended} recoveries", "-"])
    g = generator(size.seed, "again", "ramp")
    count, _ = further(np.r_[g.normal(size=CHANGE), g.normal(size=_RAMP) + np.arange(_RAMP) / 5_000.0], g)
    most = float(np.ceil(np.log2(_RAMP / 1_000)) + 1)
    gates.append(Gate(f"further changes of a ramp of {_RAMP:,} rows", most, count, count))
    table.append([f"a ramp of 10 sd over {_RAMP:,} rows", f"{count} further changes", "-"])
    return Section(
        "A second change while the first is open",
        f"`driftline replay` over a numeric and a categorical feature and a score, a reference of {LEARN:,}, one false alarm in {EVENTS:,} "
        f"rows over all series. The first change comes {CHANGE - LEARN:,} rows after the reference and stays, the second {APART:,} rows "
        f"later; it is found where an event says so within {_AFTER:,} rows.",
        ["stream", "found", "rows until found, median"],
        table,
        gates,
    )
