"""A change that stays, until it is what is normal, the public way: a file, a configuration, `driftline replay`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import signal, stats

from benchmarks.quality.measure import generator, poisson_interval
from benchmarks.quality.public import replayed_columns
from benchmarks.quality.report import Gate, Section, Size

LEARN: Final = 4_000
CHANGE: Final = LEARN + 500
AFTER: Final = 6_000
EVENTS: Final = 2_000
"""The budget: one false alarm in so many rows, over all series."""
_BACK: Final = 3_000
_START_MS: Final = 1_760_000_000_000
_PHI: Final = 0.6

CONFIG: Final = f"""\
version: 1
predictions: p
models:
  m:
    features: {{up: numeric, down: numeric, same: numeric}}
    segments: [country]
    decision: null
    false_alarms: 1 per {EVENTS} events
    window: 1000
    snapshot_every: 1000000
    baseline: {{learn: {LEARN}, settle: 0s}}
    after_change: {{relearn_after: {AFTER}}}
"""
STEPS: Final = {"up": 1.0, "down": -0.5, "same": 0.0}

Values = np.ndarray[Any, np.dtype[np.floating[Any]]]
Law = Callable[[np.random.Generator, Values], Values]


def _memory(g: np.random.Generator, level: Values) -> Values:
    noise = g.normal(size=len(level)) * np.sqrt(1.0 - _PHI**2)
    return np.asarray(signal.lfilter([1.0], [1.0, -_PHI], noise) + level)


LAWS: Final[dict[str, Law]] = {
    "normal": lambda g, level: g.normal(level),
    "lognormal": lambda g, level: np.exp(g.normal(level)),
    "t3": lambda g, level: g.standard_t(3, len(level)) + level,
    "ten values": lambda g, level: np.round(2.0 * g.normal(level)),
    "a memory of .6": _memory,
}


@dataclass(frozen=True, slots=True)
class Run:
    """One stream: a step that stays, and the way back.

    Attributes
    ----------
    learned : of the two features that moved, those that were learned anew.
    rows, alarms : from there to the way back, over all series.
    found : of these features, those whose way back is found within `_BACK` rows.
    """

    learned: int
    rows: int
    alarms: int
    found: int


def run(law: Law, g: np.random.Generator, stays: int) -> Run:
    """Replay one stream."""
    back = CHANGE + AFTER + stays
    row = np.arange(back + _BACK)
    moved = (row >= CHANGE) & (row < back)
    columns: dict[str, Any] = {name: law(g, step * moved) for name, step in STEPS.items()}
    columns |= {"country": np.array(["BR", "DE", "US"])[g.integers(0, 3, len(row))], "score": g.beta(2, 8, len(row))}
    events = replayed_columns(columns, _START_MS + row * 1_000, CONFIG)
    series = {f"feature:{name}" for name, step in STEPS.items() if step}
    whole = [(e["series"], e["position"]["offset"], e) for e in events if e["segment"] is None]
    learned = {name for name, at, e in whole if e["detector"] == "relearned" and at < back} & series
    since = max((e["position"]["offset"] for e in events if e["kind"] == "baseline" and e["position"]["offset"] < back), default=back)
    alarms = sum(e["kind"] == "drift" and since < e["position"]["offset"] < back for e in events)
    found = {name for name, at, e in whole if e["kind"] == "drift" and at >= back} & learned
    return Run(len(learned), back - since, alarms, len(found))


def relearned(size: Size) -> Section:
    """Whether what stays is learned anew, what that costs, and whether the way back is seen."""
    table, gates = [], []
    streams = max(size.change_streams // 6, 6)
    for name, law in LAWS.items():
        runs = [run(law, generator(size.seed, "relearned", name, stream), 2 * size.null_rows) for stream in range(streams)]
        learned, found = sum(one.learned for one in runs), sum(one.found for one in runs)
        rows, alarms = sum(one.rows for one in runs), sum(one.alarms for one in runs)
        low, high = (1e6 * end / rows for end in poisson_interval(alarms))
        allowed = 1e6 / EVENTS
        gates.append(Gate(f"alarms per million rows after relearning, {name}", allowed, 1e6 * alarms / rows, low))
        for what, count, of in (("learned anew", learned, 2 * streams), ("way back found", found, learned)):
            end = float(stats.binomtest(count, of).proportion_ci(method="exact").high) if of else 0.0
            gates.append(Gate(f"{what}, {name}", 0.95, count / max(of, 1), end, least=True))
        told = f"{1e6 * alarms / rows:.3g} ({low:.3g} to {high:.3g})"
        table.append([name, f"{learned} of {2 * streams}", f"{rows:,}", told, f"{found} of {learned}"])
    return Section(
        "What has stayed is learned anew",
        f"`driftline replay` over three features, a score and three countries, a reference of {LEARN:,}, one false alarm in {EVENTS:,} "
        f"rows over all series (500 per million), `after_change: {{relearn_after: {AFTER}}}`. Two features step by 1 and by -.5 at row "
        f"{CHANGE:,}, stay for {AFTER + 2 * size.null_rows:,} rows and step back. Alarms are of all series, from the last reference to "
        f"the way back, which is found where an event says so within {_BACK:,} rows.",
        ["values", "learned anew", "rows after it", "alarms per million", "way back found"],
        table,
        gates,
    )
