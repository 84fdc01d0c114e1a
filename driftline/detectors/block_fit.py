"""The reference of a block, from the rows of a baseline: location, scale, mean features, and how far apart rows are independent.

Sums run row by row, so that neither the cut of the rows nor the machine shows in them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from driftline.detectors.autoregression import Dependence
from driftline.detectors.baseline import ColumnReference
from driftline.detectors.blocks import FEATURES, Block
from driftline.detectors.kernels.dependence import check_sequence, new_checks
from driftline.detectors.kernels.witness import Frame, add_moments, fill_features, lagged
from driftline.detectors.quantiles import reference_with_means
from driftline.detectors.season import DAY, WAYS, WEEK, hours_of, places_of
from driftline.detectors.season_fit import COVERED_LEAST
from driftline.detectors.spec import Bool, Column, Float64, Int64, PanelRows
from driftline.detectors.witnesses import Witnesses, block_rows, frame_of

VALUES_LEAST: Final = 100
LAGS: Final = (1, 2, 4, 8, 16, 32, 64, 128)
_FAR: Final = 8
"""Rows so many times as far apart are what near ones are compared with, as in the self-check: hours and trends are no memory."""
_ALLOWED: Final = 0.02
_ERRORS: Final = 4.0
_HOUR_ROWS_LEAST: Final = 100
_PIECE: Final = 1024
_CELLS: Final = 8_000_000
"""Numbers of a block that are sorted at once: 64 MB."""


@dataclass(frozen=True, slots=True)
class _Places:
    """Hours of the day, days and hours of the week whose features differ: how far, and from how many independent rows.

    `covered`: hours of the week hold enough rows to be told.
    """

    hours: Sequence[tuple[float, float]] = ()
    days: Sequence[tuple[float, float]] = ()
    both: Sequence[tuple[float, float]] = ()
    covered: bool = False


def block_reference(column: Column, chunks: Sequence[PanelRows], ordered: Sequence[PanelRows]) -> ColumnReference:
    """The reference of a block: of what its rows are worth to a witness of those before them.

    Parameters
    ----------
    column : its name fixes the directions, its factors are the values.
    chunks : all rows that are kept.
    ordered : the first ones, in stream order, none left out.
    """
    name = column.name
    block, places = fit_block(column, chunks, ordered)
    witness = Witnesses([(name, block)])
    values = np.concatenate([witness.update(chunk)[:, 0] for chunk in chunks])
    reference = reference_with_means(name, values)
    if not reference.sd:
        return replace(reference, block=block)
    scaled = (values[~np.isnan(values)] - (reference.mean or 0.0)) / reference.sd
    # Products: numpy's power has code of its own for some processors, and the bits of this one stand in files.
    square = scaled * scaled
    kurtosis = math.fsum((square * square).tolist()) / len(scaled)
    return replace(reference, block=replace(block, size=len(scaled), kurtosis=kurtosis, hours=_farthest(places, reference.sd)))


def fit_block(column: Column, chunks: Sequence[PanelRows], ordered: Sequence[PanelRows]) -> tuple[Block, _Places]:
    """What a block is made with, without a mean where too few rows have all values; and the hours and days that differ."""
    block, width = Block(column.factors), column.width or _width(column.factors, chunks)
    whole = _Whole(block.names, chunks, width)
    if whole.n < VALUES_LEAST:
        return block, _Places()
    location, scale = zip(*whole.places(), strict=True)
    block = replace(block, location=location, scale=scale, mean=(0.0,) * FEATURES, size=whole.n)
    frame = frame_of(block, column.name)
    sums, moments = np.zeros((2, FEATURES)), np.zeros((2, block.width))
    by_hour: Float64 = np.zeros((WEEK, 2, FEATURES))
    for z, phi, own in whole.features(frame):
        add_moments(phi, sums)
        add_moments(z, moments)
        for hour in np.unique(own).tolist():
            add_moments(np.ascontiguousarray(phi[own == hour]), by_hour[hour])
    n = whole.n
    mean: Float64 = sums[0] / n
    center: Float64 = moments[0] / n
    spread = [math.sqrt(max(square / n - middle * middle, 0.0)) or 1.0 for square, middle in zip(moments[1].tolist(), center, strict=True)]
    # |phi| is 1 for every row.
    variance = max(1.0 - math.fsum((mean * mean).tolist()), 0.0)
    block = replace(block, mean=tuple(mean.tolist()), center=tuple(center.tolist()), spread=tuple(spread), variance=variance)
    counts = np.bincount(whole.hours(), minlength=WEEK)
    in_week = by_hour[:, 0]
    in_day, of_day = in_week.reshape(-1, DAY, FEATURES).sum(axis=0), counts.reshape(-1, DAY).sum(axis=0)
    of_days, days_of = counts.reshape(-1, DAY).sum(axis=1), in_week.reshape(-1, DAY, FEATURES).sum(axis=1)
    # Before it has seen a week the reference knows no days.
    by_day = _spans_week(chunks)
    usual = np.tile(_beside(in_day, of_day, mean), (WEEK // DAY, 1)) + mean
    if by_day:
        usual += np.repeat(_beside(days_of, of_days, mean), DAY, axis=0)
    every, square = _apart(_Whole(block.names, ordered, width), frame_of(block, column.name), usual, variance)
    block = replace(block, every=every)

    def off(sums: Float64, own: Int64) -> list[tuple[float, float]]:
        return _off(sums, own, mean, variance, square, every)

    if not by_day:
        return block, _Places(off(in_day, of_day))
    covered = counts[counts >= _HOUR_ROWS_LEAST].sum() >= COVERED_LEAST * whole.n
    return block, _Places(off(in_day, of_day), off(days_of, of_days), off(in_week, counts), bool(covered))


def _beside(sums: Float64, counts: Int64, mean: Float64) -> Float64:
    """What mean features of hours or days are off the mean of all; 0 where there are too few rows."""
    off: Float64 = np.where((counts >= _HOUR_ROWS_LEAST)[:, None], sums / np.maximum(counts, 1)[:, None] - mean, 0.0)
    return off


def _width(names: Sequence[str], chunks: Sequence[PanelRows]) -> int:
    """Of a block whose width nobody said: its names, or what its vector first is."""
    known = (chunk.vectors[name] for chunk in chunks for name in names if len(names) == 1 and name in chunk.vectors)
    first = (vector.shape[1] for vector in known if not np.isnan(vector[:, 0]).all())
    return next(first, len(names))


class _Whole:
    """The rows of chunks that have all values, so few at once as doubles that memory does not follow the reference."""

    def __init__(self, names: Sequence[str], chunks: Sequence[PanelRows], width: int) -> None:
        self._names, self._width = names, width
        self._pieces = [chunk.slice(first, first + _PIECE) for chunk in chunks for first in range(0, chunk.n, _PIECE)]
        self._kept: list[Bool] = [np.asarray(~np.isnan(block_rows(names, piece, width)).any(axis=1)) for piece in self._pieces]
        self.n = sum(int(own.sum()) for own in self._kept)

    def hours(self) -> Int64:
        """The hour of the week of each row."""
        own = [self._hours(piece, kept) for piece, kept in zip(self._pieces, self._kept, strict=True)]
        return np.concatenate(own) if own else np.zeros(0, np.int64)

    def places(self) -> list[tuple[float, float]]:
        """Median and scale of each of the values."""
        at_once = max(_CELLS // max(self.n, 1), 1)
        return [_place(column) for first in range(0, self._width, at_once) for column in self._columns(first, first + at_once).T]

    def features(self, frame: Frame) -> Iterator[tuple[Float64, Float64, Int64]]:
        """Standardised values, features and hours of the week."""
        for piece, kept in zip(self._pieces, self._kept, strict=True):
            values = np.ascontiguousarray(block_rows(self._names, piece, self._width)[kept])
            z, phi = np.empty(values.shape), np.empty((len(values), FEATURES))
            fill_features(values, frame, z, phi)
            yield z, phi, self._hours(piece, kept)

    def _columns(self, first: int, last: int) -> Float64:
        """Some of the values of all rows."""
        out = np.empty((self.n, min(last, self._width) - first))
        row = 0
        for piece, kept in zip(self._pieces, self._kept, strict=True):
            n = int(kept.sum())
            if n:
                vector = piece.vectors.get(self._names[0]) if len(self._names) == 1 else None
                values = block_rows(self._names, piece, self._width) if vector is None else vector
                out[row : row + n] = values[kept, first:last]
            row += n
        return out

    @staticmethod
    def _hours(piece: PanelRows, kept: Bool) -> Int64:
        own: Int64 = places_of(hours_of(piece.time_ms))[kept, WAYS.index(WEEK)]
        return own


def _spans_week(chunks: Sequence[PanelRows]) -> bool:
    hours = [hours_of(chunk.time_ms) for chunk in chunks if chunk.n]
    return max(int(own.max()) for own in hours) - min(int(own.min()) for own in hours) >= WEEK - 1


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
        parts = [x / largest for x in off] if largest > 0.0 else [0.0]
        scale = largest * math.sqrt(math.fsum(x * x for x in parts) / len(parts))
    return middle, scale if scale > 1e-300 else 1.0


def _apart(whole: _Whole, frame: Frame, usual: Float64, variance: float) -> tuple[int, float]:
    """One row in how many is independent of the one before; and the mean square of products of rows far apart.

    A lag is seen where rows so far apart are more alike than rows eight times as far apart, by .02 of the variance and four
    standard errors. What is common to the rows of an hour of the day and of a day, `usual` (168, 2 H), is no memory.
    """
    phi, n = np.empty((whole.n, FEATURES)), 0
    for _, own, hours in whole.features(frame):
        phi[n : n + len(own)] = own - usual[hours]
        n += len(own)
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


def _off(sums: Float64, counts: Int64, mean: Float64, variance: float, square: float, every: int) -> list[tuple[float, float]]:
    """Distances of mean features from the mean of all, of hours or days where chance does not explain them, and the rows of each."""
    found = []
    for place in np.flatnonzero(counts >= _HOUR_ROWS_LEAST).tolist():
        gap = sums[place] / counts[place] - mean
        n = float(counts[place]) / every
        beyond = math.fsum((gap * gap).tolist()) - variance / n
        if beyond > _ERRORS * math.sqrt(2.0 * square) / n:
            found.append((math.sqrt(beyond), n))
    return found


def _farthest(places: _Places, sd: float) -> float:
    """The greatest distance of an hour that the reference's law may have: four standard errors beyond what was seen.

    Where hours of the week are too small to be told, what an hour and a day are off may add up.
    """

    def most(own: Sequence[tuple[float, float]]) -> float:
        return max((distance + _ERRORS * sd / math.sqrt(n) for distance, n in own), default=0.0)

    hours, days = most(places.hours), most(places.days)
    return max(hours, days, most(places.both)) if places.covered else hours + days


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
