"""Categories that stay for a while: pages of a visit, the country of a group's bookings. A panel under a budget, as in `categories`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from scipy import signal, stats

from benchmarks.quality.categories import FEW, RUN_LENGTH, Codes, Shares, draw, moved, one_gains, opened, spread
from benchmarks.quality.measure import Delay, FalseAlarms, generator
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


WAYS: Final[dict[str, Draw]] = {
    "stays with a chance of .3": _stays(0.3),
    "stays with a chance of .5": _stays(0.5),
    "every value twice": _repeated(2),
    "every value three times": _repeated(3),
    "groups of 2 to 7": _groups,
    "ordered, each like the one before, .6": _ordered(0.6),
    "ordered, each unlike the one before, -.6": _ordered(-0.6),
}
TWO: Final = np.array([0.5, 0.5])
OF_TWO: Final = "two values, each stays with a chance of .6"
"""Their residuals are not correlated and yet depend on each other."""
WITHIN: Final[dict[str, Callable[[Shares], Shares]]] = {
    "nothing changed": lambda shares: shares,
    "one gains, PSI .09": lambda shares: one_gains(shares, 0.09, min(6, len(shares) - 1)),
    "all change, PSI .09": lambda shares: spread(shares, 0.09),
}
BEYOND: Final = {"a middle value gains 29 points": moved(FEW, 6, 0.35), "all, PSI .8": spread(FEW, 0.8)}
_MOST_DELAY: Final = {
    ("stays with a chance of .3", "all, PSI .8"): 2_000.0,
    ("every value twice", "all, PSI .8"): 1_500.0,
    ("ordered, each unlike the one before, -.6", "all, PSI .8"): 500.0,
}


def null(way: str, law: str, size: Size) -> FalseAlarms:
    """Episodes on streams whose shares are those of the reference, or differ by less than is no change."""
    columns, shares, values = [], TWO if way == OF_TWO else FEW, WAYS.get(way, _stays(0.6))
    for stream in range(size.null_streams):
        g = generator(size.seed, "category memory", way, law, stream)
        columns.append(np.r_[values(g, shares, LEARN), values(g, WITHIN[law](shares), size.null_rows)])
    found = opened(np.stack(columns, axis=1), LEARN, size.null_streams / RUN_LENGTH)
    return FalseAlarms(len(found), size.null_streams * size.null_rows)


def delay(way: str, change: str, size: Size, streams: int) -> Delay:
    """Values until a change of shares is found."""
    delays, missed = [], 0
    for stream in range(streams):
        g = generator(size.seed, "category memory", way, change, stream)
        codes = np.r_[WAYS[way](g, FEW, LEARN + BEFORE), WAYS[way](g, BEYOND[change], AFTER)]
        first = next((row for row, _ in opened(codes[:, None], LEARN, 1.0 / RUN_LENGTH) if row >= LEARN + BEFORE), None)
        missed += first is None
        delays += [] if first is None else [first - LEARN - BEFORE + 1]
    return Delay(tuple(delays), missed)


def category_memory(size: Size) -> Section:
    """False alarms and delays where the reference shows that values come in runs."""
    streams = max(size.change_streams // 8, 8)
    rows, gates = [], []
    for way in (*WAYS, OF_TWO):
        cells = []
        for law in WITHIN:
            found = null(way, law, size)
            cells.append(str(found))
            gates.append(Gate(f"categories, {way}, {law}", 1e6 / RUN_LENGTH, found.per_million, found.interval[0]))
        for change in BEYOND if way in WAYS else ():
            found_after = delay(way, change, size, streams)
            cells.append(str(found_after))
            if (way, change) in _MOST_DELAY:
                late = found_after.within(AFTER)
                error = found_after.error if len(found_after.delays) > 1 else 0.0
                gates.append(Gate(f"categories, {way}, {change}", _MOST_DELAY[way, change], late, late - 1.96 * error))
        rows.append([way, *cells, *([] if way in WAYS else ["-"] * len(BEYOND))])
    return Section(
        "Categories that stay for a while",
        f"11 values, .3 to .001, in runs that the reference of {LEARN:,} shows; one false alarm in 100,000 values promised. First alarms "
        f"per million values over {size.null_streams} streams of {size.null_rows:,}, at most 10, then values until a change is found, "
        f"{streams} streams.",
        ["values", *WITHIN, *BEYOND],
        rows,
        gates,
    )
