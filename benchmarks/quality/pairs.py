"""Pairs of features whose correlation is watched: false alarms while it stays, delay when it changes, beside a windowed correlation."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.quality.measure import Delay, FalseAlarms, generator, late_by, nearest_setting
from benchmarks.quality.memory import RUN_LENGTH, TOLERANCE, WINDOW, rows_of
from benchmarks.quality.report import Gate, Section, Size
from benchmarks.quality.streams import Values
from driftline.detectors.panel import Panel
from driftline.detectors.spec import Column, ColumnDetector, PanelBudget, PanelSpec, Series
from driftline.schemas.series import correlation_series, pair_of

REFERENCE = 5_000
BEFORE, AFTER = 2_000, 5_000
PEER_WINDOW = 500
_RUN_LENGTHS = tuple(10.0 ** (k / 3) for k in range(21, 8, -1))
_LIMITS = tuple(np.linspace(12.0, 3.0, 46).tolist())

Draw = Callable[[np.random.Generator, int], Values]
Detect = Callable[[Values, Values], list[int]]


def normal(rho: float) -> Draw:
    """Two normal columns with a correlation."""

    def draw(g: np.random.Generator, n: int) -> Values:
        first, noise = g.normal(size=n), g.normal(size=n)
        return np.column_stack([first, rho * first + math.sqrt(1.0 - rho * rho) * noise])

    return draw


def _t3(rho: float) -> Draw:
    return lambda g, n: normal(rho)(g, n) / np.sqrt(g.chisquare(3, size=(n, 1)) / 3.0)


LAWS: dict[str, Draw] = {
    "independent": normal(0.0),
    "correlation .5": normal(0.5),
    "correlation .9": normal(0.9),
    "t3, correlation .5": _t3(0.5),
    "lognormal, correlation .5": lambda g, n: np.exp(normal(0.5)(g, n)),
    "counts, correlation .5": lambda g, n: np.floor(np.exp(normal(0.5)(g, n))),
    "spreads that go together": lambda g, n: normal(0.0)(g, n) * np.exp(0.5 * g.normal(size=(n, 1))),
}
CHANGES = ((0.0, 0.5), (0.0, 0.3), (0.5, 0.0), (0.8, 0.5), (0.8, 0.0), (0.5, -0.5))


def watch(pairs: int, learn: int, run_length: float, *, features: bool = False) -> Panel:
    """A panel of the pairs f0 and f1, f2 and f3, ..., with one false alarm in so many values of each; with the columns themselves too."""
    detectors = (ColumnDetector("e_detector"),)

    def series(name: str) -> tuple[Series, ...]:
        return (Series(name, None, detectors, WINDOW, warning=TOLERANCE),)

    names = [(f"f{2 * p}", f"f{2 * p + 1}") for p in range(pairs)]
    columns = [Column(correlation_series(a, b), "numeric", series(correlation_series(a, b)), factors=(a, b)) for a, b in names]
    columns += [Column(name, "numeric", series(name)) for pair in names for name in pair] if features else []
    per_unit = len(columns) / run_length
    budget = PanelBudget(per_unit, True, 1.0 / (168 * per_unit))
    return Panel(PanelSpec(columns=tuple(columns), window=WINDOW, learn_rows=learn, budget=budget))


def windowed(limit: float, reference: Values, values: Values) -> list[int]:
    """Pearson's correlation of the last rows against the reference's, in standard errors of Fisher's z; an alarm rests a window."""
    x = np.concatenate([reference[-PEER_WINDOW:], values])
    # Sums over windows from running sums: centred, so that they lose no digits.
    x = x - reference.mean(axis=0)
    sums = [np.concatenate([[0.0], np.cumsum(c)]) for c in (x[:, 0], x[:, 1], x[:, 0] ** 2, x[:, 1] ** 2, x[:, 0] * x[:, 1])]
    a, b, aa, bb, ab = ((s[PEER_WINDOW + 1 :] - s[1:-PEER_WINDOW]) / PEER_WINDOW for s in sums)
    r = (ab - a * b) / np.sqrt((aa - a * a) * (bb - b * b))
    known = np.asarray(np.corrcoef(reference.T))[0, 1]
    error = math.sqrt(1.0 / (PEER_WINDOW - 3) + 1.0 / (len(reference) - 3))
    over = np.flatnonzero(np.abs(np.arctanh(np.clip(r, -0.999999, 0.999999)) - math.atanh(known)) > limit * error)
    found: list[int] = []
    for at in over.tolist():
        if not found or at >= found[-1] + PEER_WINDOW:
            found.append(at)
    return found


def _streams(draw: Draw, name: str, size: Size, streams: int) -> list[Values]:
    return [draw(generator(size.seed, "pairs", name, stream), REFERENCE + size.null_rows) for stream in range(streams)]


def _null(values: list[Values], run_length: float) -> FalseAlarms:
    """Episodes of pairs, all in one panel."""
    watched = watch(len(values), REFERENCE, run_length)
    found = watched.update(rows_of(np.concatenate(values, axis=1), 0))
    return FalseAlarms(sum(s.kind == "open" for s in found), len(values) * (len(values[0]) - REFERENCE))


def _peer_null(values: list[Values], limit: float) -> FalseAlarms:
    found = sum(len(windowed(limit, one[:REFERENCE], one[REFERENCE:])) for one in values)
    return FalseAlarms(found, len(values) * (len(values[0]) - REFERENCE))


def _delay(before: float, after: float, detect: Detect, size: Size, streams: int) -> Delay:
    found = []
    for stream in range(streams):
        g = generator(size.seed, "pairs", before, after, stream)
        values = np.concatenate([normal(before)(g, REFERENCE + BEFORE), normal(after)(g, AFTER)])
        found.append(late_by(detect(values[:REFERENCE], values[REFERENCE:]), BEFORE))
    return Delay.of(found)


def _ours(run_length: float, others: list[str], reference: Values, values: Values) -> list[int]:
    """Episodes of the pair; what the two columns' own series raise is named in `others`."""
    watched = watch(1, REFERENCE, run_length, features=True)
    watched.update(rows_of(reference, 0))
    opened = [s for s in watched.update(rows_of(values, len(reference))) if s.kind == "open"]
    others += [s.series for s in opened if not pair_of(s.series)]
    return [s.row for s in opened if pair_of(s.series)]


def pairs(size: Size) -> Section:
    """False alarms and delays."""
    wanted = 1e6 / RUN_LENGTH
    independent = _streams(LAWS["independent"], "tuning", size, size.tuning_streams)
    limit, peer_rate = nearest_setting(_LIMITS, lambda at: _peer_null(independent, at), wanted)
    tuned, own_rate = nearest_setting(_RUN_LENGTHS, lambda run_length: _null(independent, run_length), wanted)
    rows, gates = [], []
    for name, draw in LAWS.items():
        values = _streams(draw, name, size, size.null_streams)
        found = _null(values, RUN_LENGTH)
        rows.append([f"{name}: false alarms per million", str(found), str(_null(values, tuned)), str(_peer_null(values, limit))])
        gates.append(Gate(f"pairs, {name}", wanted, found.per_million, found.interval[0]))
    streams = max(size.change_streams // 3, 3)
    silent: list[str] = []
    for before, after in CHANGES:
        own, fast = functools.partial(_ours, RUN_LENGTH, silent), functools.partial(_ours, tuned, [])
        promised = _delay(before, after, own, size, streams)
        others: list[Any] = [_delay(before, after, detect, size, streams) for detect in (fast, functools.partial(windowed, limit))]
        rows.append([f"{before:g} to {after:g}: delay", str(promised), *map(str, others)])
        if (before, after) == (0.0, 0.5):
            gates.append(promised.gate("delay, correlation 0 to .5", 250.0, AFTER))
    gates.append(Gate("alarms of the features themselves", 1.0, len(silent), len(silent)))
    return Section(
        "Pairs: a correlation that changes alone",
        f"Pairs as `correlations` makes them, reference {REFERENCE:,}, tolerance {TOLERANCE:g} sd, 1 false alarm in 100,000 values "
        f"promised. {size.null_streams} streams of {size.null_rows:,} rows a law without a change, {streams} streams a change, mean delay "
        f"with 95 % interval. Then the same at 1 in {tuned:.0e}, and Pearson's correlation of the last {PEER_WINDOW} rows at {limit:.1f} "
        f"standard errors of Fisher's z: each has the most false alarms up to 10 per million on independent normal values ({own_rate}; "
        f"{peer_rate}). The two features' own series, watched beside the pair at the promise, must be silent.",
        ["pair", "as promised", "tuned", "windowed correlation, tuned"],
        rows,
        gates,
    )
