"""Blocks at work: what the rows of a panel are worth to the witness of each, and what is most unlike the reference in them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from driftline.detectors.blocks import FEATURES, RATE, Block
from driftline.detectors.conformal import series_key
from driftline.detectors.explained import BinEvidence
from driftline.detectors.kernels.bank import pack, unpack
from driftline.detectors.kernels.jit import portable_log
from driftline.detectors.kernels.witness import Frame, Witness, directions, new_witness, run_witness, unsound
from driftline.detectors.spec import Float64, Int64, PanelRows

SHOWN: Final = 3
_MAGIC: Final = b"DWIT"
_VERSION: Final = 1
_PIECE: Final = 1024


def frame_of(block: Block, name: str) -> Frame:
    """What the kernels look up; `name` of the column fixes the directions."""
    return Frame(
        location=np.array(block.location),
        inverse=1.0 / np.array(block.scale),
        directions=directions(series_key(name), block.width),
        mean=np.array(block.mean),
        every=np.array([block.every], np.int64),
    )


def block_rows(names: Sequence[str], rows: PanelRows, width: int | None = None) -> Float64:
    """The values of a block, shape (n, d); NaN where one is missing, invalid, or does not apply.

    Parameters
    ----------
    width : d where it is known: a vector of another length says nothing.
    """
    if len(names) == 1 and names[0] in rows.vectors:
        vector: Float64 = rows.vectors[names[0]].astype(np.float64)
        return vector if width in (None, vector.shape[1]) else np.full((rows.n, width or 0), np.nan)
    if len(names) == 1:
        return np.full((rows.n, width or 1), np.nan)
    place = {name: i for i, name in enumerate(rows.numeric_names)}
    out: Float64 = np.full((rows.n, len(names)), np.nan)
    for i, name in enumerate(names):
        if name not in place:
            continue
        out[:, i] = rows.numeric[:, place[name]]
        if name in rows.not_applicable:
            out[rows.not_applicable[name], i] = np.nan
        if rows.invalid is not None:
            out[rows.invalid[rows.invalid[:, 1] == place[name], 0], i] = np.nan
    return out


def worths(block: Block, frame: Frame, state: Witness, rows: PanelRows) -> Float64:
    """What each row is worth to the witness of those before it, which goes on with them; NaN = it is not judged."""
    out: Float64 = np.empty(rows.n)
    z, phi = np.empty(block.width), np.empty(FEATURES)
    # Few at once: as doubles a baseline's vectors would be twice as many bytes again.
    for first in range(0, rows.n, _PIECE):
        part = rows if rows.n <= _PIECE else rows.slice(first, min(first + _PIECE, rows.n))
        run_witness(block_rows(block.names, part, block.width), frame, state, z, phi, out[first : first + _PIECE])
    return out


class Witnesses:
    """The blocks of a panel, in the order of their columns.

    Parameters
    ----------
    blocks : (name of the column, its reference).
    """

    def __init__(self, blocks: Sequence[tuple[str, Block]]) -> None:
        self._blocks = [block for _, block in blocks]
        self._frames = [frame_of(block, name) if block.mean else None for name, block in blocks]
        self._states = [new_witness(block.width) for _, block in blocks]
        self._before = self._states
        self._rows: PanelRows | None = None

    def update(self, rows: PanelRows) -> Float64:
        """What each row is worth, shape (n, blocks); NaN = it is not judged."""
        self._before, self._rows = [_copied(state) for state in self._states], rows
        out: Float64 = np.full((rows.n, len(self._blocks)), np.nan)
        for b, (block, frame, state) in enumerate(zip(self._blocks, self._frames, self._states, strict=True)):
            if frame is not None:
                out[:, b] = worths(block, frame, state, rows)
        return out

    def explain(self, b: int, row: int) -> tuple[BinEvidence, ...]:
        """The values of a block that are most unlike the reference's at a row of the last batch, the most unlike first.

        Of each the mean, in the reference's standard deviations, and the spread, relative to the reference's, over about the last
        200 rows that were judged; what chance alone would show is left out. None where only the dependence has changed.
        """
        block, frame, rows = self._blocks[b], self._frames[b], self._rows
        if rows is None or frame is None:
            return ()
        # The state is that of the batch's end: what it was at this row is found by taking the rows again.
        state = _copied(self._before[b])
        worths(block, frame, state, rows.slice(0, row + 1))
        return unlike(block, state)

    def carry(self, other: Witnesses, places: Mapping[int, int]) -> None:
        """Go on with the witnesses of another panel over the same baseline; its blocks' places by ours."""
        for b, was in places.items():
            self._states[b] = other._states[was]

    def export(self) -> bytes:
        """The state of all blocks."""
        arrays = [array for state in self._states for array in state]
        return pack(_MAGIC, _VERSION, len(self._blocks), arrays)

    def restore(self, blob: bytes) -> None:
        """Go on from `export`.

        Raises
        ------
        ValueError : damaged, or of other blocks.
        """
        shapes = [array.shape for state in self._states for array in state]
        types = ["<f8", "<f8", "<i8"] * len(self._blocks)
        found = unpack(blob, _MAGIC, _VERSION, len(self._blocks), types, [math.prod(shape) for shape in shapes])
        arrays = [array.reshape(shape) for array, shape in zip(found, shapes, strict=True)]
        states = [Witness(*arrays[3 * b : 3 * b + 3]) for b in range(len(self._blocks))]
        if any(map(unsound, states)):
            raise ValueError("damaged state of DWIT: a witness of no rows")
        self._states = states


def _copied(state: Witness) -> Witness:
    return Witness(state.theta.copy(), state.profile.copy(), state.counts.copy())


def unlike(block: Block, state: Witness) -> tuple[BinEvidence, ...]:
    """The values whose mean or spread a witness's rows have off the reference's most."""
    taken: Int64 = state.counts
    n = min(float(taken[1]), (2.0 - RATE) / RATE)
    if n < 1.0:
        return ()
    # What the greatest of 2 d normal numbers hardly reaches.
    noted = 1.0 + math.sqrt(2.0 * portable_log(2.0 * block.width))
    found: list[tuple[float, BinEvidence]] = []
    names = block.names if len(block.names) > 1 else [f"{block.names[0]}[{i}]" for i in range(block.width)]
    for i, name in enumerate(names):
        middle = float(state.profile[0, i])
        square = float(state.profile[1, i]) - middle * middle
        gap, ratio = (middle - block.center[i]) / block.spread[i], math.sqrt(max(square, 0.0)) / block.spread[i]
        shift, spread = gap * math.sqrt(n), (ratio - 1.0) * math.sqrt(2.0 * n)
        # Half old rows and half moved ones have a spread too: where the mean has moved it is what is told.
        if abs(shift) >= noted:
            found.append((abs(shift), BinEvidence(f"mean of {name}", 0.0, gap, gap * gap / 2.0)))
        elif abs(spread) >= noted:
            found.append((abs(spread), BinEvidence(f"spread of {name}", 1.0, ratio, (ratio - 1.0) * (ratio - 1.0))))
    found.sort(key=lambda pair: -pair[0])
    return tuple(evidence for _, evidence in found[:SHOWN])
