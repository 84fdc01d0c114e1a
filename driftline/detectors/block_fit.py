"""The reference of a block, from the rows of a baseline: location, scale, mean features, and how far apart rows are independent.

Sums run row by row, so that neither the cut of the rows nor the machine shows in them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from driftline.detectors.autoregression import Dependence
from driftline.detectors.baseline import ColumnReference
from driftline.detectors.blocks import FEATURES, Block
from driftline.detectors.kernels.dependence import check_sequence, new_checks
from driftline.detectors.kernels.witness import Frame, add_moments, fill_features, lagged
from driftline.detectors.quantiles import reference_with_means
from driftline.detectors.season import hours_of
from driftline.detectors.spec import Float64, Int64, PanelRows
from driftline.detectors.witnesses import Witnesses, block_rows, frame_of

VALUES_LEAST: Final = 100
LAGS: Final = (1, 2, 4, 8, 16, 32, 64, 128)
_FAR: Final = 8
"""Rows so many times as far apart are what near ones are compared with, as in the self-check: hours and trends are no memory."""
_ALLOWED: Final = 0.02
_ERRORS: Final = 4.0
_HOUR_ROWS_LEAST: Final = 100
_PIECE: Final = 4096


def block_reference(name: str, names: Sequence[str], chunks: Sequence[PanelRows], ordered: Sequence[PanelRows]) -> ColumnReference:
    """The reference of a block: of what its rows are worth to a witness of those before them.

    Parameters
    ----------
    name : of the column, which fixes the directions; `names` are those of its values.
    chunks : all rows that are kept.
    ordered : the first ones, in stream order, none left out.
    """
    block = fit_block(names, name, chunks, ordered)
    witness = Witnesses([(name, block)])
    values = np.concatenate([witness.update(chunk)[:, 0] for chunk in chunks])
    reference = reference_with_means(name, values)
    if not reference.sd:
        return replace(reference, block=block)
    scaled = (values[~np.isnan(values)] - (reference.mean or 0.0)) / reference.sd
    kurtosis = math.fsum((scaled**4).tolist()) / len(scaled)
    return replace(reference, block=replace(block, size=len(scaled), kurtosis=kurtosis))


def fit_block(names: Sequence[str], frame_name: str, chunks: Sequence[PanelRows], ordered: Sequence[PanelRows]) -> Block:
    """What a block is made with; without a mean where too few rows have all values."""
    block = Block(tuple(names))
    whole, hours = _whole(block.names, chunks)
    if len(whole) < VALUES_LEAST:
        return block
    location, scale = zip(*(_place(whole[:, i]) for i in range(whole.shape[1])), strict=True)
    block = replace(block, location=location, scale=scale, mean=(0.0,) * FEATURES, size=len(whole))
    frame = frame_of(block, frame_name)
    sums, moments = np.zeros((2, FEATURES)), np.zeros((2, block.width))
    by_hour: Float64 = np.zeros((24, 2, FEATURES))
    for z, phi, own in _pieces(whole, hours, frame):
        add_moments(phi, sums)
        add_moments(z, moments)
        for hour in np.unique(own).tolist():
            add_moments(np.ascontiguousarray(phi[own == hour]), by_hour[hour])
    n = len(whole)
    mean: Float64 = sums[0] / n
    center: Float64 = moments[0] / n
    spread = [math.sqrt(max(square / n - middle * middle, 0.0)) or 1.0 for square, middle in zip(moments[1].tolist(), center, strict=True)]
    # |phi| is 1 for every row.
    variance = max(1.0 - math.fsum((mean * mean).tolist()), 0.0)
    block = replace(block, mean=tuple(mean.tolist()), center=tuple(center.tolist()), spread=tuple(spread), variance=variance)
    counts = np.bincount(hours, minlength=24)
    usual = np.where((counts >= _HOUR_ROWS_LEAST)[:, None], by_hour[:, 0] / np.maximum(counts, 1)[:, None], mean)
    every, square = _apart(*_whole(block.names, ordered), frame_of(block, frame_name), usual, variance)
    return replace(block, every=every, hours=_hours(by_hour[:, 0], counts, mean, variance, square, every))


def _whole(names: Sequence[str], chunks: Sequence[PanelRows]) -> tuple[Float64, Int64]:
    """The rows that have all values, and the hour of the day of each."""
    values = [block_rows(names, chunk) for chunk in chunks]
    kept = [~np.isnan(own).any(axis=1) for own in values]
    hours = [hours_of(chunk.time_ms)[own] % 24 for chunk, own in zip(chunks, kept, strict=True)]
    # Rows of before a vector came do not know how long it is.
    having = [own[some] for own, some in zip(values, kept, strict=True) if some.any()]
    return np.concatenate(having) if having else np.zeros((0, len(names))), np.concatenate(hours)


def _place(values: Float64) -> tuple[float, float]:
    """Median, and the distance of the quartiles over that of a standard normal law; order statistics, whatever the tails are.

    Where half of the values are one, the standard deviation within the middle 98 %, and 1 where there is none.
    """
    ordered = np.sort(values)
    at = [float(ordered[min(math.ceil(q * len(ordered)), len(ordered)) - 1]) for q in (0.01, 0.25, 0.5, 0.75, 0.99)]
    lowest, lower, middle, upper, highest = (min(max(x, -1e150), 1e150) for x in at)
    scale = (upper - lower) / 1.349
    if scale <= 0.0:
        off = [(min(max(x, lowest), highest) - middle) for x in ordered.tolist()]
        largest = max(map(abs, off))
        scale = largest * math.sqrt(math.fsum((x / largest) ** 2 for x in off) / len(off)) if largest > 0.0 else 0.0
    return middle, scale if scale > 1e-300 else 1.0


def _pieces(whole: Float64, hours: Int64, frame: Frame) -> Iterator[tuple[Float64, Float64, Int64]]:
    """Standardised values, features and hours, of so few rows at once that memory does not follow the reference."""
    for first in range(0, len(whole), _PIECE):
        part = np.ascontiguousarray(whole[first : first + _PIECE])
        z, phi = np.empty(part.shape), np.empty((len(part), FEATURES))
        fill_features(part, frame, z, phi)
        yield z, phi, hours[first : first + _PIECE]


def _apart(whole: Float64, hours: Int64, frame: Frame, usual: Float64, variance: float) -> tuple[int, float]:
    """One row in how many is independent of the one before; and the mean square of products of rows far apart.

    A lag is seen where rows so far apart are more alike than rows eight times as far apart, by .02 of the variance and four
    standard errors. What is common to the rows of an hour, `usual` (24, 2 H), is no memory.
    """
    z, phi = np.empty(whole.shape), np.empty((len(whole), FEATURES))
    n = fill_features(np.ascontiguousarray(whole), frame, z, phi)
    phi -= usual[hours]
    every, square = 1, variance * variance
    for lag in LAGS:
        if n < 4 * _FAR * lag or variance <= 0.0:
            break
        near, far = lagged(phi, lag), lagged(phi, _FAR * lag)
        if lag == 1:
            square = far[1]
        # Where rows follow each other, so do their products.
        error = math.sqrt((near[1] + far[1]) * every / n)
        if near[0] - far[0] > _ALLOWED * variance + _ERRORS * error:
            every = 2 * lag
    return every, square


def _hours(sums: Float64, counts: Int64, mean: Float64, variance: float, square: float, every: int) -> float:
    """The greatest distance of an hour's mean features from the mean of all that chance does not explain."""
    found = 0.0
    for hour in np.flatnonzero(counts >= _HOUR_ROWS_LEAST).tolist():
        gap = sums[hour] / counts[hour] - mean
        n = counts[hour] / every
        beyond = math.fsum((gap * gap).tolist()) - variance / n
        if beyond > _ERRORS * math.sqrt(2.0 * square) / n:
            found = max(found, beyond)
    return math.sqrt(found)


def left_of(references: Sequence[ColumnReference], ordered: Sequence[PanelRows]) -> dict[tuple[int, int], Dependence]:
    """What dependence is left in what rows are worth to blocks, over all rows in stream order."""
    found: dict[tuple[int, int], Dependence] = {}
    for c, reference in enumerate(references):
        if reference.block is None or not reference.sd:
            continue
        witness, checks = Witnesses([(reference.name, reference.block)]), new_checks(1)
        for chunk in ordered:
            values = witness.update(chunk)[:, 0]
            check_sequence(values[~np.isnan(values)] / reference.sd, 0, checks)
        if checks.level[0]:
            found[0, c] = Dependence(int(checks.level[0]), float(checks.found[0]))
    return found
