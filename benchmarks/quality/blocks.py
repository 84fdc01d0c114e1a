"""Blocks of features that are watched jointly: false alarms while they stay, delay of joint changes, beside their own series and a
windowed maximum mean discrepancy."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.quality.measure import Delay, FalseAlarms, generator, late_by, nearest_setting
from benchmarks.quality.memory import RUN_LENGTH, WINDOW, rows_of
from benchmarks.quality.memory import TOLERANCE as TOLERANCE_SD
from benchmarks.quality.report import Gate, Section, Size
from benchmarks.quality.streams import Values
from driftline.detectors.panel import Panel
from driftline.detectors.spec import Column, ColumnDetector, PanelBudget, PanelSpec, Series
from driftline.schemas.series import block_series

VALUES = 16
REFERENCE = 5_000
BEFORE, AFTER = 2_000, 5_000
PEER_WINDOW = 500
STREAMS = 20
TOLERANCE = 0.02
FREQUENCIES = 64
_RUN_LENGTHS = tuple(10.0 ** (k / 3) for k in range(21, 5, -1))
_LIMITS = tuple(np.linspace(12.0, 2.0, 61).tolist())

Draw = Callable[[np.random.Generator, int], Values]
Detect = Callable[[Values, Values], list[int]]


def normal(g: np.random.Generator, n: int) -> Values:
    """Independent standard normal columns."""
    return g.normal(size=(n, VALUES))


def factor(share: float) -> Draw:
    """Normal columns that share a factor, which makes `share` of the variance of each."""
    return lambda g, n: math.sqrt(share) * g.normal(size=(n, 1)) + math.sqrt(1.0 - share) * g.normal(size=(n, VALUES))


LAWS: dict[str, Draw] = {
    "independent normal": normal,
    "one factor of .5": factor(0.5),
    "one factor of .9": factor(0.9),
    "t3": lambda g, n: g.standard_t(3, (n, VALUES)),
    "lognormal": lambda g, n: np.exp(g.normal(size=(n, VALUES))),
    "counts, mean .3": lambda g, n: g.poisson(0.3, (n, VALUES)).astype(np.float64),
    "spreads that go together": lambda g, n: g.normal(size=(n, VALUES)) * np.exp(0.5 * g.normal(size=(n, 1))),
}


def _first_moved(by: float) -> Draw:
    return lambda g, n: normal(g, n) + np.array([by] + [0.0] * (VALUES - 1))


CHANGES: dict[str, Draw] = {
    ".1 sd in all 16": lambda g, n: normal(g, n) + 0.1,
    ".25 sd in all 16": lambda g, n: normal(g, n) + 0.25,
    ".5 sd in one of 16": _first_moved(0.5),
    "1 sd in one of 16": _first_moved(1.0),
    "all spread by 1.25": lambda g, n: normal(g, n) * 1.25,
    "a factor of .3, features as they were": factor(0.3),
}
_WITHIN = {".25 sd in all 16": 220.0, "a factor of .3, features as they were": 600.0}


def watch(blocks: int, learn: int, run_length: float, *, joint: bool = True) -> Panel:
    """A panel of blocks with one false alarm in so many rows of each; or of one block's columns, with as many together."""
    detectors = (ColumnDetector("e_detector"),)
    names = [tuple(f"f{VALUES * b + i}" for i in range(VALUES)) for b in range(blocks)]
    if joint:
        own = [block_series(str(b)) for b in range(blocks)]
        columns = [
            Column(name, "numeric", (Series(name, None, detectors, WINDOW, direction="up", warning=TOLERANCE),), factors=of, joint=True)
            for name, of in zip(own, names, strict=True)
        ]
    else:
        columns = [Column(name, "numeric", (Series(name, None, detectors, WINDOW, warning=TOLERANCE_SD),)) for of in names for name in of]
    per_unit = blocks / run_length
    budget = PanelBudget(per_unit, True, 1.0 / (168 * per_unit))
    return Panel(PanelSpec(columns=tuple(columns), window=WINDOW, learn_rows=learn, budget=budget))


def features(values: Values) -> Values:
    """Random Fourier features with directions of a generator of their own."""
    angles = values @ (np.random.default_rng(20250917).normal(size=(values.shape[1], FREQUENCIES)) / math.sqrt(values.shape[1]))
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / math.sqrt(FREQUENCIES)


def windowed(limit: float, reference: Values, values: Values) -> list[int]:
    """The squared discrepancy of the last rows' mean features, less its mean, in its standard deviations; an alarm rests a window."""
    place, scale = np.median(reference, axis=0), np.subtract(*np.percentile(reference, (75, 25), axis=0)) / 1.349
    scale = np.where(scale > 0, scale, reference.std(axis=0) + 1e-12)
    known = features((reference - place) / scale)
    mean, part = known.mean(axis=0), (1.0 / PEER_WINDOW + 1.0 / len(reference))
    covariance = np.cov(known.T)
    own = features((np.concatenate([reference[-PEER_WINDOW:], values]) - place) / scale) - mean
    sums = np.concatenate([np.zeros((1, own.shape[1])), np.cumsum(own, axis=0)])
    gaps = (sums[PEER_WINDOW + 1 :] - sums[1:-PEER_WINDOW]) / PEER_WINDOW
    statistic = ((gaps * gaps).sum(axis=1) - part * np.trace(covariance)) / (part * math.sqrt(2.0 * (covariance * covariance).sum()))
    found: list[int] = []
    for at in np.flatnonzero(statistic > limit).tolist():
        if not found or at >= found[-1] + PEER_WINDOW:
            found.append(at)
    return found


def _streams(draw: Draw, name: str, size: Size) -> list[Values]:
    """At most `STREAMS`: each has as many columns as `VALUES` of the other tables' streams."""
    streams = min(size.null_streams, STREAMS)
    return [draw(generator(size.seed, "blocks", name, stream), REFERENCE + size.null_rows) for stream in range(streams)]


def _null(values: list[Values], run_length: float) -> FalseAlarms:
    """Episodes of blocks, all in one panel."""
    watched = watch(len(values), REFERENCE, run_length)
    found = watched.update(rows_of(np.concatenate(values, axis=1), 0))
    return FalseAlarms(sum(s.kind == "open" for s in found), len(values) * (len(values[0]) - REFERENCE))


def _peer_null(values: list[Values], limit: float) -> FalseAlarms:
    found = sum(len(windowed(limit, one[:REFERENCE], one[REFERENCE:])) for one in values)
    return FalseAlarms(found, len(values) * (len(values[0]) - REFERENCE))


def _delay(what: str, draw: Draw, detect: Detect, size: Size, streams: int) -> Delay:
    found = []
    for stream in range(streams):
        g = generator(size.seed, "blocks", what, stream)
        values = np.concatenate([normal(g, REFERENCE + BEFORE), draw(g, AFTER)])
        found.append(late_by(detect(values[:REFERENCE], values[REFERENCE:]), BEFORE))
    return Delay.of(found)


def _ours(run_length: float, joint: bool, reference: Values, values: Values) -> list[int]:
    watched = watch(1, REFERENCE, run_length, joint=joint)
    watched.update(rows_of(reference, 0))
    return [s.row for s in watched.update(rows_of(values, len(reference))) if s.kind == "open"]


def blocks(size: Size) -> Section:
    """False alarms and delays."""
    wanted = 1e6 / RUN_LENGTH
    independent = _streams(normal, "tuning", size)
    limit, peer_rate = nearest_setting(_LIMITS, lambda at: _peer_null(independent, at), wanted)
    tuned, own_rate = nearest_setting(_RUN_LENGTHS, lambda run_length: _null(independent, run_length), wanted)
    rows, gates = [], []
    for name, draw in LAWS.items():
        values = _streams(draw, name, size)
        found = _null(values, RUN_LENGTH)
        rows.append([f"{name}: false alarms per million", str(found), str(_null(values, tuned)), "", str(_peer_null(values, limit))])
        gates.append(Gate(f"blocks, {name}", wanted, found.per_million, found.interval[0]))
    streams = max(min(size.change_streams // 3, STREAMS), 3)
    for what, draw in CHANGES.items():
        own = [functools.partial(_ours, RUN_LENGTH, True), functools.partial(_ours, tuned, True)]
        promised, fast = (_delay(what, draw, detect, size, streams) for detect in own)
        others: list[Any] = [functools.partial(_ours, RUN_LENGTH, False), functools.partial(windowed, limit)]
        alone, peer = (_delay(what, draw, detect, size, streams) for detect in others)
        rows.append([f"{what}: delay", str(promised), str(fast), str(alone), str(peer)])
        if what in _WITHIN:
            gates.append(promised.gate(f"delay, {what}", _WITHIN[what], AFTER))
    return Section(
        "Blocks: features that change together",
        f"Blocks of {VALUES} features as `blocks` makes them, reference {REFERENCE:,}, tolerance {TOLERANCE:g}, 1 false alarm in 100,000 "
        f"rows promised. {min(size.null_streams, STREAMS)} streams of {size.null_rows:,} rows a law without a change, {streams} streams a "
        f"change, mean delay with 95 % interval. Then the same at 1 in {tuned:.0e}; the {VALUES} features' own series under the same "
        f"budget without the block; and the squared maximum mean discrepancy of the last {PEER_WINDOW} rows' random Fourier features at "
        f"{limit:.1f} of its standard deviations. The second and the last have the most false alarms up to 10 per million on independent "
        f"normal values "
        f"({own_rate}; {peer_rate}).",
        ["block", "as promised", "tuned", "the features alone", "windowed discrepancy, tuned"],
        rows,
        gates,
    )
