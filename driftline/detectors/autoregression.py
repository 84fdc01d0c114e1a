"""What the values of a reference owe to those before them: fitted once, in stream order, where there is such a debt.

A value's score under the reference (`coding.scores`) follows x_t = sum_k phi_k x_{t-k} + e_t (`autoregression_fit.py`). What is
judged afterwards is e_t, ranked among the residuals of the reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

ORDER_MOST: Final = 8
"""Orders that are tried. What remembers longer than this is no short memory but a season or a level that wanders."""
STRIDES: Final = 5
"""1, 4, 16, 64 and 256 values apart."""
EDGES_KEPT: Final = 64
"""Edges of residual bins, padded with infinities so that a search takes six steps."""


@dataclass(frozen=True, slots=True)
class Autoregression:
    """The memory of one series.

    Attributes
    ----------
    coefficients : of the values before, the newest first, where the values' standard deviation is 1.
    sd : of the residuals, likewise.
    edges : of the residuals' bins, increasing; bin i holds those in (edges[i-1], edges[i]], the outer ones those that lie
        beyond every residual of the reference.
    counts : residuals of the reference in each bin.
    runs : of categories that come in runs, each drawn anew, those of the reference that begin with each after another one, in the order
        of `ordered_codes`: what is judged is then the draws (`kernels.runs`) and no residuals. Empty = they do not.
    """

    coefficients: tuple[float, ...]
    sd: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    runs: tuple[int, ...] = ()

    @property
    def gain(self) -> float:
        """The shift of the residuals, in their standard deviations, for a lasting shift of the values by one of theirs."""
        return abs(1.0 - math.fsum(self.coefficients)) / self.sd

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        own = {"coefficients": list(self.coefficients), "sd": self.sd, "edges": list(self.edges), "counts": list(self.counts)}
        return own | ({"runs": list(self.runs)} if self.runs else {})

    @classmethod
    def from_json(cls, item: Mapping[str, Any]) -> Autoregression:
        """The series of `to_json`.

        Raises
        ------
        ValueError : no numbers that a fit gives.
        """
        out = cls(
            coefficients=tuple(float(x) for x in item["coefficients"]),
            sd=float(item["sd"]),
            edges=tuple(float(x) for x in item["edges"]),
            counts=tuple(int(x) for x in item["counts"]),
            runs=tuple(int(x) for x in item.get("runs", ())),
        )
        numbers = np.array([*out.coefficients, out.sd, *out.edges], np.float64)
        sizes = 1 <= len(out.coefficients) <= ORDER_MOST and 1 <= len(out.edges) < EDGES_KEPT and len(out.counts) == len(out.edges) + 1
        if not (sizes and np.isfinite(numbers).all() and out.sd > 0 and (np.diff(out.edges) > 0).all() and min(out.counts + out.runs) >= 0):
            raise ValueError("coefficients or bins of residuals that no fit gives")
        return out


@dataclass(frozen=True, slots=True)
class Dependence:
    """What is left of a reference's memory: strides at which its values, or their residuals, still depend on each other.

    Attributes
    ----------
    level : the greatest of them, as a power of 4, and 1.
    correlation : found there (`kernels.dependence`).
    """

    level: int
    correlation: float

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"level": self.level, "correlation": self.correlation}

    @classmethod
    def from_json(cls, item: Mapping[str, Any]) -> Dependence:
        """The series of `to_json`.

        Raises
        ------
        ValueError : no numbers that a check gives.
        """
        out = cls(int(item["level"]), float(item["correlation"]))
        if not (1 <= out.level <= STRIDES and math.isfinite(out.correlation)):
            raise ValueError("a dependence that no check gives")
        return out


def worth_one(memory: Autoregression | None, left: Dependence | None, n: int) -> float:
    """How many of `n` values in a row are worth one independent one, for their mean, by what a reference knows; 1 to `n`.

    The variance of a mean over that of independent values: 1 / gain^2 (Priestley 1981, Spectral Analysis and Time Series, 5.3.1).
    A memory of more than half the greatest order that has not fallen by half over it is one of a level that wanders, nobody knows how
    slowly: what values that far apart have in common is then taken for one level that all `n` share, and is not averaged out. So is
    what residuals have in common where they still depend.
    """
    found, common = 1.0, 0.0 if left is None else max(left.correlation, 0.0)
    if memory is not None:
        found = 1.0 / (memory.gain * memory.gain) if memory.gain > 0.0 else float(n)
        common *= memory.sd * memory.sd
        if len(memory.coefficients) > ORDER_MOST // 2:
            correlations = _correlations(memory.coefficients)
            if correlations[-1] >= 0.5 * correlations[0]:
                common = max(common, correlations[-1])
    return min(max(found, 1.0 + n * common, 1.0), float(max(n, 1)))


def _correlations(coefficients: tuple[float, ...]) -> list[float]:
    """The autocorrelations at lags 1 to the order, from the Yule-Walker equations r_k = sum_j phi_j r_|k-j|, r_0 = 1.

    Where they have no one solution, as of a random walk, 1: it never forgets.
    """
    order = len(coefficients)
    equations = [[float(k == j) for j in range(order)] + [coefficients[k]] for k in range(order)]
    for k in range(order):
        for j in range(order):
            if j != k:
                equations[k][abs(k - j) - 1] -= coefficients[j]
    return _solved(equations) or [1.0] * order


def _solved(rows: list[list[float]]) -> list[float] | None:
    """The solution of n equations, each with its right side last, by elimination; None = not one.

    No library's: what is judged rests on it, and the order in which those add depends on the machine.
    """
    n = len(rows)
    for k in range(n):
        pivot = max(range(k, n), key=lambda i: abs(rows[i][k]))
        rows[k], rows[pivot] = rows[pivot], rows[k]
        if rows[k][k] == 0.0:
            return None
        for i in range(k + 1, n):
            factor = rows[i][k] / rows[k][k]
            rows[i] = [x - factor * y for x, y in zip(rows[i], rows[k], strict=True)]
    found = [0.0] * n
    for k in reversed(range(n)):
        found[k] = (rows[k][n] - math.fsum(rows[k][j] * found[j] for j in range(k + 1, n))) / rows[k][k]
    return found
