"""Figures with their uncertainty: rates of false alarms, delays, intervals."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.quality.report import Gate
from benchmarks.quality.streams import Change, Law, Values

Detect = Callable[[Values, Values, int], Any]
"""(reference, values, seed) to alarm positions."""


def poisson_interval(count: int) -> tuple[float, float]:
    """The exact 95 % interval of a Poisson mean (Garwood 1936)."""
    low = 0.0 if count == 0 else float(stats.chi2.ppf(0.025, 2 * count)) / 2
    return low, float(stats.chi2.ppf(0.975, 2 * count + 2)) / 2


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """Alarms on values without a change."""

    alarms: int
    values: int

    @property
    def per_million(self) -> float:
        return self.alarms / self.values * 1e6

    @property
    def interval(self) -> tuple[float, float]:
        low, high = poisson_interval(self.alarms)
        return low / self.values * 1e6, high / self.values * 1e6

    def __str__(self) -> str:
        low, high = self.interval
        return f"{_short(self.per_million)} ({_short(low)} to {_short(high)})"


@dataclass(frozen=True, slots=True)
class Delay:
    """Values from the change to the first alarm after it, over streams."""

    delays: tuple[int, ...]
    missed: int

    @classmethod
    def of(cls, found: Sequence[int | None]) -> Delay:
        """Of one delay a stream, None where the change was missed."""
        return cls(tuple(one for one in found if one is not None), sum(one is None for one in found))

    @property
    def mean(self) -> float:
        return float(np.mean(self.delays)) if self.delays else math.nan

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return float(np.std(self.delays, ddof=1) / math.sqrt(len(self.delays))) if len(self.delays) > 1 else math.nan

    @property
    def median(self) -> float:
        """Over all streams, a missed change being later than any found one."""
        total = len(self.delays) + self.missed
        ranked = sorted(self.delays)
        return float(ranked[(total - 1) // 2]) if len(ranked) > (total - 1) // 2 else math.inf

    @property
    def missed_share(self) -> float:
        return self.missed / (len(self.delays) + self.missed)

    def within(self, rows: int) -> float:
        """The mean, a missed change counted as found after `rows`: what a detector misses must not make it look fast."""
        return (sum(self.delays) + rows * self.missed) / (len(self.delays) + self.missed)

    def gate(self, name: str, most: float, rows: int) -> Gate:
        """That the mean `within` so many rows is at most so much."""
        late = self.within(rows)
        return Gate(name, most, late, late - 1.96 * (self.error if len(self.delays) > 1 else 0.0))

    def __str__(self) -> str:
        missed = f", {self.missed_share:.0%} missed" if self.missed else ""
        error = f" +- {1.96 * self.error:.0f}" if len(self.delays) > 1 else ""
        return "none found" if not self.delays else f"{self.mean:.0f}{error}{missed}"


@dataclass(slots=True)
class Dates:
    """How far dates of changes are off, and how often their intervals hold the truth."""

    off: list[int] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    held: int = 0

    def add(self, since: int, earliest: int, latest: int, truth: int) -> None:
        """One date with the ends of its interval."""
        self.off.append(abs(since - truth))
        self.widths.append(latest - earliest)
        self.held += earliest <= truth <= latest

    def cells(self) -> list[str]:
        """For a table: off by (median, 90th percentile), width of the interval (median), how many hold the truth."""
        spread = [f"{np.median(self.off):.0f}", f"{np.percentile(self.off, 90):.0f}", f"{np.median(self.widths):.0f}"]
        return [*spread, f"{self._share:.1%} of {len(self.off)}"]

    def gate(self, name: str, least: float) -> Gate:
        """That so many intervals hold the truth."""
        bound = self._share + 1.96 * math.sqrt(self._share * (1 - self._share) / len(self.off))
        return Gate(f"intervals that hold the start, {name}, at least", least, self._share, bound, least=True)

    @property
    def _share(self) -> float:
        return self.held / len(self.off)


def generator(seed: int, *about: object) -> np.random.Generator:
    """Random numbers of one stream: of the seed and what it is for, whatever else runs."""
    return np.random.default_rng([seed, *(zlib.crc32(str(part).encode()) for part in about)])


def false_alarms(law: Law, name: str, detect: Detect, *, streams: int, rows: int, reference: int, seed: int) -> FalseAlarms:
    """Alarms on streams of a law, each after a reference of its own."""
    found = 0
    for stream in range(streams):
        values = law.draw(generator(seed, "null", name, stream), reference + rows)
        found += len(detect(values[:reference], values[reference:], seed * 100_003 + stream))
    return FalseAlarms(found, streams * rows)


def delay(change: Change, detect: Detect, *, streams: int, before: int, after: int, reference: int, seed: int) -> Delay:
    """Delays on streams with one change."""
    found = []
    for stream in range(streams):
        g = generator(seed, "change", change.name, stream)
        values = np.concatenate([change.before.draw(g, reference + before), change.after(g, after)])
        found.append(late_by(detect(values[:reference], values[reference:], seed * 100_003 + stream), before))
    return Delay.of(found)


def late_by(alarms: Iterable[int], start: int) -> int | None:
    """Values from a change at `start` to the first alarm since, that of the alarm included."""
    return next((int(a) - start + 1 for a in alarms if a >= start), None)


def nearest_setting(settings: Sequence[float], rate_of: Callable[[float], FalseAlarms], wanted: float) -> tuple[float, FalseAlarms]:
    """Of settings from fewest to most false alarms the last whose rate is at most `wanted` a million, by bisection."""
    low, high = 0, len(settings) - 1
    best = (settings[0], rate_of(settings[0]))
    while low <= high:
        middle = (low + high) // 2
        found = rate_of(settings[middle])
        if found.per_million <= wanted:
            best = (settings[middle], found)
            low = middle + 1
        else:
            high = middle - 1
    return best


def _short(x: float) -> str:
    return f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 1 else f"{x:.2g}"
