"""Categories that stay for a while: pages of a visit, the country of a group's bookings. A panel under a budget, as in `categories`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from scipy import signal, stats

from benchmarks.quality.categories import FEW, RUN_LENGTH, Codes, Shares, draw, moved, one_gains, opened, spread
from benchmarks.quality.measure import Delay, FalseAlarms, generator, late_by
from benchmarks.quality.report import Gate, Section, Size

LEARN: Final = 4_000
BEFORE, AFTER = 2_000, 8_000

Draw = Callable[[np.random.Generator, Shares, int], Codes]


def _stays(chance: float) -> Draw:
    """Each value is the one before it with this chance, else drawn anew."""

    def values(g: np.random.Generator, shares: Shares, n: int) -> Codes:
        begins = np.where(g.random(n) < chance, 0, np.arange(n))
        return np.asarray(draw(g, shares, n)[np.maximum.accumulate(begins)])

    return values


def _repeated(times: int) -> Draw:
    return lambda g, shares, n: np.repeat(draw(g, shares, n // times + 1), times)[:n]


def _runs(least: int, most: int) -> Draw:
    """Each draw comes so many times, all numbers of times alike."""

    def values(g: np.random.Generator, shares: Shares, n: int) -> Codes:
        times = g.integers(least, most + 1, n // least + 1)
        return np.asarray(np.repeat(draw(g, shares, len(times)), times)[:n])

    return values


def _groups(g: np.random.Generator, shares: Shares, n: int) -> Codes:
    """Three draws of ten come two to seven times."""
    times = np.where(g.random(n) < 0.3, g.integers(2, 8, n), 1)
    return np.asarray(np.repeat(draw(g, shares, n), times)[:n])


def _ordered(correlation: float) -> Draw:
    """An autoregression of normal values, cut where the shares are."""

    def values(g: np.random.Generator, shares: Shares, n: int) -> Codes:
        normal = signal.lfilter([1.0], [1.0, -correlation], g.normal(size=n + 500))[500:] * math.sqrt(1.0 - correlation * correlation)
        return np.asarray(np.searchsorted(np.cumsum(shares)[:-1], stats.norm.cdf(normal)))

    return values


@dataclass(frozen=True, slots=True)
class Way:
    """How values come, and of which law; of laws other than `FEW` no change is measured."""

    draw: Draw
    shares: Shares = field(default_factory=lambda: FEW)


WAYS: Final[dict[str, Way]] = {
    "stays with a chance of .3": Way(_stays(0.3)),
    "stays with a chance of .5": Way(_stays(0.5)),
    "every value twice": Way(_repeated(2)),
    "every value three times": Way(_repeated(3)),
    "runs of 2 to 5": Way(_runs(2, 5)),
    "runs of 2 to 10": Way(_runs(2, 10)),
    "groups of 2 to 7": Way(_groups),
    "ordered, each like the one before, .6": Way(_ordered(0.6)),
    "ordered, each unlike the one before, -.6": Way(_ordered(-0.6)),
    # Their residuals are not correlated and yet depend on each other.
    "two values, each stays with a chance of .6": Way(_stays(0.6), np.array([0.5, 0.5])),
}
WITHIN: Final[dict[str, Callable[[Shares], Shares]]] = {
    "nothing changed": lambda shares: shares,
    "one gains, PSI .09": lambda shares: one_gains(shares, 0.09, min(6, len(shares) - 1)),
    "all change, PSI .09": lambda shares: spread(shares, 0.09),
}
BEYOND: Final = {"a middle value gains 29 points": moved(FEW, 6, 0.35), "all, PSI .8": spread(FEW, 0.8)}
_MOST_DELAY: Final = {
    ("stays with a chance of .5", "a middle value gains 29 points"): 500.0,
    ("every value twice", "all, PSI .8"): 600.0,
    ("runs of 2 to 5", "a middle value gains 29 points"): 800.0,
    ("groups of 2 to 7", "all, PSI .8"): 600.0,
    ("ordered, each unlike the one before, -.6", "all, PSI .8"): 500.0,
}


def null(name: str, law: str, size: Size) -> FalseAlarms:
    """Episodes on streams whose shares are those of the reference, or differ by less than is no change."""
    columns, way = [], WAYS[name]
    for stream in range(size.null_streams):
        g = generator(size.seed, "category memory", name, law, stream)
        columns.append(np.r_[way.draw(g, way.shares, LEARN), way.draw(g, WITHIN[law](way.shares), size.null_rows)])
    found = opened(np.stack(columns, axis=1), LEARN, size.null_streams / RUN_LENGTH)
    return FalseAlarms(len(found), size.null_streams * size.null_rows)


def delay(name: str, change: str, size: Size, streams: int) -> Delay:
    """Values until a change of shares is found."""
    found, way = [], WAYS[name]
    for stream in range(streams):
        g = generator(size.seed, "category memory", name, change, stream)
        codes = np.r_[way.draw(g, way.shares, LEARN + BEFORE), way.draw(g, BEYOND[change], AFTER)]
        found.append(late_by((row for row, _ in opened(codes[:, None], LEARN, 1.0 / RUN_LENGTH)), LEARN + BEFORE))
    return Delay.of(found)


def category_memory(size: Size) -> Section:
    """False alarms and delays where the reference shows that values come in runs."""
    streams = max(size.change_streams // 8, 8)
    rows, gates = [], []
    for name, way in WAYS.items():
        cells = []
        for law in WITHIN:
            found = null(name, law, size)
            cells.append(str(found))
            gates.append(Gate(f"categories, {name}, {law}", 1e6 / RUN_LENGTH, found.per_million, found.interval[0]))
        for change in BEYOND:
            if way.shares is not FEW:
                cells.append("-")
                continue
            found_after = delay(name, change, size, streams)
            cells.append(str(found_after))
            if (name, change) in _MOST_DELAY:
                gates.append(found_after.gate(f"categories, {name}, {change}", _MOST_DELAY[name, change], AFTER))
        rows.append([name, *cells])
    return Section(
        "Categories that stay for a while",
        f"11 values, .3 to .001, in runs that the reference of {LEARN:,} shows; one false alarm in 100,000 values promised. First alarms "
        f"per million values over {size.null_streams} streams of {size.null_rows:,}, at most 10, then values until a change is found, "
        f"{streams} streams.",
        ["values", *WITHIN, *BEYOND],
        rows,
        gates,
    )
