"""Bins of equal mass of a reference's numbers, and their moments: order statistics and exact sums, so that no order shows."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Final

import numpy as np

from driftline.detectors.baseline import ColumnReference
from driftline.detectors.spec import MAX_BINS, Float64

ATOM_BINS: Final = 2
"""A value with more mass than two bins gets a bin of its own; it swallows a quantile edge, so the bins never run out."""


def numeric_reference(name: str, finite: Float64, tails: tuple[float, ...]) -> ColumnReference:
    """Quantile bins of finite values: order statistics only, so no order of summation can show."""
    if not len(finite):
        return ColumnReference(name=name, kind="numeric")
    ordered = np.sort(finite)
    # -0.0 and 0.0 are one value; the file should not depend on which one came first.
    ordered += 0.0
    distinct, counts = np.unique(ordered, return_counts=True)
    n = len(ordered)
    bins = MAX_BINS - len(tails)
    ranks = [-(-n * j // bins) for j in range(1, bins)]
    edges = {float(ordered[rank - 1]) for rank in ranks}
    tail_edges = {f"{q:g}": float(ordered[min(max(math.ceil(q * n), 1), n) - 1]) for q in tails}
    edges |= set(tail_edges.values())
    atoms = [float(value) for value in distinct[counts * bins > ATOM_BINS * n]]
    edges |= {math.nextafter(atom, -math.inf) for atom in atoms} | set(atoms)
    low, high = float(ordered[0]), float(ordered[-1])
    inner = sorted(edge for edge in edges if low <= edge < high)
    mean, sd = mean_and_sd(ordered)
    return ColumnReference(
        name=name,
        kind="numeric",
        edges=tuple(inner),
        low=low,
        high=high,
        mean=mean,
        sd=sd,
        atom=float(counts.max()) / n,
        tails=tail_edges,
    )


def reference_with_means(name: str, values: Float64) -> ColumnReference:
    """Quantile bins of the values that are no NaN, and the mean of each."""
    values = np.sort(values[~np.isnan(values)])
    reference = numeric_reference(name, values, ())
    if reference.high is None:
        return reference
    ends = [0, *np.searchsorted(values, reference.edges, side="right").tolist(), len(values)]
    tops = (*reference.edges, reference.high)
    # Just below a value that has a bin of its own there may be one without any.
    means = (math.fsum(values[a:b].tolist()) / (b - a) if b > a else top for (a, b), top in zip(pairwise(ends), tops, strict=True))
    return replace(reference, means=tuple(means))


def mean_and_sd(values: Float64) -> tuple[float, float]:
    """Mean and standard deviation (divisor n), exactly summed; values up to the largest float do not overflow."""
    largest = max(abs(float(values.max())), abs(float(values.min())))
    if largest == 0.0:
        return 0.0, 0.0
    # A power of two, so that scaling is exact (subnormal results aside).
    exponent = math.frexp(largest)[1]
    scaled = np.ldexp(values, -exponent)
    mean = math.fsum(scaled.tolist()) / len(values)
    variance = math.fsum(((scaled - mean) ** 2).tolist()) / len(values)
    return math.ldexp(mean, exponent), _ldexp(math.sqrt(variance), exponent)


def _ldexp(x: float, exponent: int) -> float:
    try:
        return math.ldexp(x, exponent)
    except OverflowError:
        return math.nextafter(math.inf, 0.0)
