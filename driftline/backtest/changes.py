"""Changes put into recorded rows: what a producer with the fault would have sent, in the columns that ingest made of it.

Each is seeded and touches the rows of one model from one number up to another. The score of a row stays
what it was: the model is not at hand to answer the changed features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from driftline.backtest.recording import ModelRows, Piece, Recording, covers
from driftline.schemas.series import pair_of
from driftline.streams.observation import UNLABELLED, Coded, Float64, Int64, Observations, encode

Kind = Literal["shift", "scale", "nulls", "unseen", "correlation", "labels"]
Bools = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int32]

KINDS: Final[tuple[Kind, ...]] = ("shift", "scale", "nulls", "unseen", "correlation", "labels")
NUMERIC: Final = frozenset({"shift", "scale", "correlation"})
UNSEEN_VALUE: Final = "(never seen before)"
BLOCK_ROWS: Final = 1_000
"""Values are permuted among so many rows: a slow movement of the feature itself stays where it was."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change.

    Attributes
    ----------
    feature : empty for labels.
    size : shift in `spread`; factor of scale; share of the rows for nulls, unseen and labels; none for correlation.
    start, stop : numbers of the first changed prediction and of the first one that is not.
    spread : the reference sd of the feature, or of the regression's errors.
    key : of the segments, when the feature is one: its rows then move between segment values.
    blocks : series of the blocks that the feature is in.
    """

    kind: Kind
    model: str
    feature: str
    size: float
    start: int
    stop: int
    seed: int
    spread: float = 1.0
    key: str | None = None
    blocks: frozenset[str] = frozenset()

    def generator(self) -> np.random.Generator:
        """The same for the same change, whichever others are tried."""
        name = int.from_bytes(self.feature.encode()[-8:], "big")
        return np.random.Generator(np.random.PCG64([self.seed, KINDS.index(self.kind), self.start, name]))

    def touched(self, series: str, segment: str) -> bool:
        """Whether what a series sees is changed by this; an alarm elsewhere is a false accusation."""
        if self.kind == "labels":
            return series.startswith("outcome:")
        if self.key is not None and segment.startswith(f"{self.key}="):
            return True
        if self.feature in pair_of(series) or series in self.blocks:
            return True
        return series == f"feature:{self.feature}" or series.startswith(f"quality:{self.feature}:")


def span(change: Change, rows: ModelRows) -> tuple[int, int] | None:
    """The records from the first to after the last that has rows of a change; None when none has."""
    pieces = covers(rows.outcomes if change.kind == "labels" else rows.predictions, change.start, change.stop)
    return (pieces[0].record, pieces[-1].record + 1) if pieces else None


def inject(change: Change, recording: Recording) -> dict[int, bytes]:
    """The records that a change alters, by their index, as they are with it."""
    rows = recording.models[change.model]
    side = rows.outcomes if change.kind == "labels" else rows.predictions
    parts = list(_parts(recording, covers(side, change.start, change.stop), change))
    rng = change.generator()
    match change.kind:
        case "shift":
            _numeric(parts, change, lambda values: shifted(values, change.size * change.spread))
        case "scale":
            _numeric(parts, change, lambda values: values * change.size)
        case "correlation":
            _numeric(parts, change, lambda values: permuted(values, rng))
        case "nulls" | "unseen":
            hit = rng.random(change.stop - change.start) < change.size
            _replaced(parts, change, hit)
            if change.key is not None:
                parts += _moved(recording, rows, change, hit)
        case "labels":
            hit = rng.random(change.stop - change.start) < change.size
            for part in parts:
                _relabel(part, hit[part.rows - change.start], change)
    return {part.record: encode(part.batch) for part in parts}


def shifted(values: Float64, by: float) -> Float64:
    """Missing values stay missing."""
    return values + by


def permuted(values: Float64, rng: np.random.Generator, block: int = BLOCK_ROWS) -> Float64:
    """The same values in another order within each block of rows."""
    out = values.copy()
    for first in range(0, len(out), block):
        rng.shuffle(out[first : first + block])
    return out


@dataclass(slots=True)
class _Part:
    """The changed rows of one record: their places in its batch, and their numbers."""

    record: int
    batch: Observations
    at: Int64
    rows: Int64


def _parts(recording: Recording, pieces: Sequence[Piece], change: Change) -> Iterator[_Part]:
    for piece in pieces:
        at = np.flatnonzero((piece.rows >= change.start) & (piece.rows < change.stop))
        yield _Part(piece.record, recording.batch(piece.record), at, piece.rows[at])


def _numeric(parts: Sequence[_Part], change: Change, alter: Callable[[Float64], Float64]) -> None:
    """Alter all changed values of a feature as one column."""
    having = [part for part in parts if change.feature in part.batch.numeric_names]
    if not having:
        return
    columns = [part.batch.numeric_names.index(change.feature) for part in having]
    values = [_matrix(part.batch)[part.at, column] for part, column in zip(having, columns, strict=True)]
    altered = alter(np.concatenate(values))
    first = 0
    for part, column in zip(having, columns, strict=True):
        matrix = _matrix(part.batch).copy()
        matrix[part.at, column] = altered[first : first + len(part.at)]
        part.batch.numeric = matrix
        first += len(part.at)


def _matrix(batch: Observations) -> Float64:
    assert batch.numeric is not None
    return batch.numeric


def _replaced(parts: Sequence[_Part], change: Change, hit: Bools) -> None:
    """Put a null, or a category that was never there, into the rows that were drawn."""
    for part in parts:
        at = part.at[hit[part.rows - change.start]]
        batch = part.batch
        if change.feature in batch.numeric_names:
            column = batch.numeric_names.index(change.feature)
            matrix = _matrix(batch).copy()
            matrix[at, column] = np.nan
            batch.numeric = matrix
        elif change.feature in batch.categorical:
            column = len(batch.numeric_names) + list(batch.categorical).index(change.feature)
            batch.categorical[change.feature] = _coded(batch.categorical[change.feature], at, change.kind)
        else:
            continue
        if batch.invalid is not None:
            batch.invalid = batch.invalid[~((batch.invalid[:, 1] == column) & np.isin(batch.invalid[:, 0], at))]
        if change.key in batch.segments:
            batch.segments[change.key] = _coded(batch.segments[change.key], at, change.kind)


def _coded(text: Coded, at: Int64, kind: Kind) -> Coded:
    codes: Codes = text.codes.copy()
    if kind == "nulls":
        codes[at] = -1
        return Coded(codes, text.values)
    values = text.values if UNSEEN_VALUE in text.values else [*text.values, UNSEEN_VALUE]
    codes[at] = values.index(UNSEEN_VALUE)
    return Coded(codes, values)


def _moved(recording: Recording, rows: ModelRows, change: Change, hit: Bools) -> list[_Part]:
    """The outcomes of the same rows: they carry the segment values of their predictions."""
    assert change.key is not None
    found = list(_parts(recording, covers(rows.outcomes, change.start, change.stop), change))
    for part in found:
        if change.key in part.batch.segments:
            at = part.at[hit[part.rows - change.start]]
            part.batch.segments[change.key] = _coded(part.batch.segments[change.key], at, change.kind)
    return found


def _relabel(part: _Part, hit: Bools, change: Change) -> None:
    """Labels that say something else: the other class, or a number further off."""
    batch = part.batch
    if batch.label is not None:
        labels = batch.label.copy()
        at = part.at[hit & _known(batch, part.at)]
        labels[at] = labels[at] + change.spread if change.spread else 1.0 - labels[at]
        batch.label = labels
    if batch.label_class is not None and len(batch.label_class.values) > 1:
        text = batch.label_class
        at = part.at[hit & (text.codes[part.at] >= 0)]
        codes: Codes = text.codes.copy()
        codes[at] = (codes[at] + 1) % len(text.values)
        batch.label_class = replace(text, codes=codes)
        if batch.label_probability is not None:
            # The record keeps the probability of the class that was true, not of the one that now is.
            probability = batch.label_probability.copy()
            probability[at] = np.nan
            batch.label_probability = probability


def _known(batch: Observations, at: Int64) -> Bools:
    assert batch.label is not None
    known: Any = np.isfinite(batch.label[at])
    if batch.label_state is not None:
        known &= batch.label_state[at] != UNLABELLED
    found: Bools = known
    return found
