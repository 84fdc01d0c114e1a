"""The reference of each hour, of a series whose values go by the hour of the day or of the week (`season_fit.py`).

Hours are those of UTC. Which zone they are cut in makes no difference while its offset is whole hours and stays: an hour's
reference is then only called by another number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from driftline.detectors.spec import N_CODES, Float64, Int64, ordered_codes

HOUR_MS: Final = 3_600_000
DAY: Final = 24
WEEK: Final = 168
HOUR_VALUES_LEAST: Final = 100
"""Reference values without which an hour has none of its own, and its values are ranked among all."""
_FIRST_MONDAY: Final = 96
"""Hours from the beginning of Unix time, a Thursday, to the first Monday."""
WAYS: Final = (1, DAY, WEEK)
"""Hours that are told apart: none, of the day, of the week."""


@dataclass(frozen=True, slots=True)
class Season:
    """What a reference has for each hour.

    Attributes
    ----------
    period : 24 from midnight on, or 168 from Monday on, UTC.
    cycles : days or weeks of it, on average over the hours that have a reference of their own.
    counts : by hour, the reference's values by code in the order of `ordered_codes`; None = too few.
    """

    period: int
    cycles: int
    counts: tuple[tuple[int, ...] | None, ...]

    @property
    def name(self) -> str:
        """As `baseline.season` has it."""
        return "hour_of_day" if self.period == DAY else "hour_of_week"

    @property
    def spread_error(self) -> float:
        """The tolerance of spread that covers the errors of the hours.

        A sum over an hour's values, against a reference of c times as many, has 1 + 1 / c times the variance that it would have
        against a known one; bets that tolerate a spread d allow a sum exp(d sqrt 2) times its variance.
        """
        return math.log1p(1.0 / self.cycles) / math.sqrt(2.0)

    @property
    def level_error(self) -> float:
        """Standard deviations that the hours' means may be off: their variance by chance, and four errors of 24 of them beyond that."""
        return math.sqrt(2.2 / min(sum(counts) for counts in self.counts if counts is not None))

    def by_code(self, kind: str, n_bins: int) -> Int64:
        """The counts as an array (period, N_CODES); zeros where there are too few."""
        out: Int64 = np.zeros((self.period, N_CODES), np.int64)
        order = ordered_codes(kind, n_bins)
        for hour, counts in enumerate(self.counts):
            if counts is not None:
                out[hour, order] = counts
        return out

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"period": self.period, "cycles": self.cycles, "counts": [None if own is None else list(own) for own in self.counts]}

    @classmethod
    def from_json(cls, item: Mapping[str, Any], pooled: Sequence[int]) -> Season:
        """The season of `to_json`, of a column whose reference has so many values by code in all hours.

        Raises
        ------
        ValueError : counts that no reference gives.
        """
        counts = tuple(None if own is None else tuple(int(n) for n in own) for own in item["counts"])
        out = cls(int(item["period"]), int(item["cycles"]), counts)
        known = [own for own in counts if own is not None]
        sizes = out.period in (DAY, WEEK) and len(counts) == out.period and bool(known)
        if not sizes or any(len(own) != len(pooled) or min(own) < 0 or sum(own) < HOUR_VALUES_LEAST for own in known):
            raise ValueError("counts by hour that no reference gives")
        # An hour that was seen in a cycle has a value of it.
        if any(sum(own) > whole for own, whole in zip(zip(*known, strict=True), pooled, strict=True)) or not (
            1 <= out.cycles <= max(map(sum, known))
        ):
            raise ValueError("more counts or cycles by hour than the reference has values")
        return out


def compared(season: Season | None, values: int, window: int) -> int:
    """Reference values that stand behind a window: those of as many hours as it holds, in every day or week of the reference.

    Parameters
    ----------
    season : None = the hours are not told apart.
    values : reference values of all hours.
    window : rows.
    """
    if season is None:
        return values
    own = [sum(counts) for counts in season.counts if counts is not None]
    return min(values, max(sum(own) // len(own), window * season.cycles))


def hours_of(time_ms: Int64) -> Int64:
    """Hours since the beginning of Unix time; what lies before it is in the first."""
    hours: Int64 = np.maximum(time_ms, 0) // HOUR_MS
    return hours


def places_of(hours: Int64) -> Int64:
    """Where each row's reference stands among those of a series, by way of telling hours apart; shape (n, len(WAYS))."""
    out: Int64 = np.zeros((len(hours), len(WAYS)), np.int64)
    out[:, 1] = hours % DAY
    out[:, 2] = (hours - _FIRST_MONDAY) % WEEK
    return out


class HourScores(NamedTuple):
    """Figures of codes by scope, column and hour: rows of one table, those of a scope and column one after another.

    Attributes
    ----------
    table : (T, N_CODES)
    first : (S, C) the row of the first hour.
    way : (S, C) index of WAYS: the row of a value is first + `places_of`.
    """

    table: Float64
    first: Int64
    way: Int64


def hour_scores(pooled: Float64, own: Mapping[tuple[int, int], Float64]) -> HourScores:
    """The table of figures (S, C, N_CODES), and of those by hour (period, N_CODES) that some scopes and columns have"""
    first: Int64 = np.arange(pooled.shape[0] * pooled.shape[1], dtype=np.int64).reshape(pooled.shape[:2])
    way: Int64 = np.zeros(pooled.shape[:2], np.int64)
    parts = [pooled.reshape(-1, N_CODES)]
    rows = first.size
    for (s, c), figures in sorted(own.items()):
        first[s, c], way[s, c] = rows, WAYS.index(len(figures))
        parts.append(figures)
        rows += len(figures)
    return HourScores(np.concatenate(parts), first, way)
