"""Blocks: several numeric columns that are watched jointly, by what a row is worth to a witness of past rows.

A block is a column like another, of the worths x (`kernels.witness`): it has bins, a window, episodes. What it is made with stands in
the baseline: location and scale of its values and the mean of their random Fourier features, no rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from driftline.detectors.conformal import series_key
from driftline.detectors.explained import BinEvidence
from driftline.detectors.kernels.bank import pack, unpack
from driftline.detectors.kernels.jit import portable_log
from driftline.detectors.kernels.witness import FEATURES, RATE, Frame, Witness, directions, new_witness, run_witness, unsound
from driftline.detectors.spec import Float64, Int64, PanelRows

CUT_SD: Final = 6.0
"""Bets count a worth as at least minus so many standard deviations: what a bet may stake is bounded by the worst it can lose."""
KURTOSIS_LEAST: Final = 12.0
"""Of worths under the reference's law along any witness; a normal law has 3."""
SHOWN: Final = 3
_MAGIC: Final = b"DWIT"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Block:
    """The reference of a block.

    Attributes
    ----------
    names : of its columns, d of them, or of one vector of d numbers.
    location, scale : of each; value less location over scale is standardised.
    center, spread : mean and standard deviation of the standardised values.
    mean : of the random Fourier features.
    variance : of the features, summed over them.
    every : one row in so many is judged: nearer ones depend on each other in the reference.
    hours : the greatest distance of an hour's mean features from `mean`, 0 = hours do not differ.
    size : rows that were judged. `kurtosis`: of what they were worth.
    """

    names: tuple[str, ...]
    location: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    center: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    variance: float = 0.0
    every: int = 1
    hours: float = 0.0
    size: int = 0
    kurtosis: float = 3.0

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        lists = {name: list(getattr(self, name)) for name in ("names", *_LISTS, "mean")}
        return lists | {name: getattr(self, name) for name in ("variance", "every", "hours", "size", "kurtosis")}

    @classmethod
    def from_json(cls, item: Mapping[str, Any]) -> Block:
        """The block of `to_json`.

        Raises
        ------
        ValueError : numbers that no reference gives.
        """
        names = tuple(item["names"])
        lists = {name: tuple(map(float, item[name])) for name in (*_LISTS, "mean")}
        numbers = {name: float(item[name]) for name in ("variance", "hours", "kurtosis")}
        every, size = item["every"], item["size"]
        known = len(lists["mean"]) > 0
        width = len(lists["location"]) if known and len(names) == 1 else len(names) * known
        sizes = all(len(lists[name]) == width for name in _LISTS) and len(lists["mean"]) in (0, FEATURES) and (width > 0) == known
        flat = [x for values in (*lists.values(), numbers.values()) for x in values]
        positive = all(x > 0 for x in lists["scale"] + lists["spread"]) and min(numbers.values()) >= 0
        whole = isinstance(every, int) and isinstance(size, int) and every >= 1 and size >= 0
        if not (names and all(isinstance(name, str) for name in names) and sizes and all(map(math.isfinite, flat)) and positive and whole):
            raise ValueError(f"numbers of block {names!r} that no reference gives")
        return cls(names, **lists, **numbers, every=every, size=size)  # type: ignore[arg-type]

    @property
    def width(self) -> int:
        """Its numbers, d."""
        return len(self.location)

    @property
    def noise(self) -> float:
        """The length of a witness of rows that are as the reference."""
        return math.sqrt(self.variance * RATE / (2.0 - RATE))

    def tolerance(self, warning: float, sd: float, size: int, errors: float) -> float:
        """The distance that is no change: the warning level, the reference's own hours, and its error as a witness comes to see it.

        A witness of rows that are as the reference's law points to the error e of `mean`, |e|^2 = variance / size, with the cosine
        |e| / sqrt(|e|^2 + noise^2); along a direction that does not look at e it is sd / sqrt(size).
        """
        error = self.variance / max(size, 1)
        seen = error / math.sqrt(error + self.noise * self.noise) if error > 0.0 else 0.0
        return max(warning, self.hours, seen + errors * sd / math.sqrt(max(size, 1)))

    def cut(self, sd: float) -> tuple[float, float]:
        """Minus the least that a worth counts as in a bet, and what cutting there adds to its mean at most.

        (-b - x)+ <= 27 x^4 / (256 b^3), and E x^4 is at most `kurtosis` (12 or four times the reference's) times sd^4.
        """
        least = CUT_SD * sd
        if least >= 1.0:
            return 1.0, 0.0
        return least, 27.0 * max(KURTOSIS_LEAST, 4.0 * self.kurtosis) * sd**4 / (256.0 * least**3)

    def frame(self, name: str) -> Frame:
        """What the kernels look up; `name` of the column fixes the directions."""
        return Frame(
            location=np.array(self.location),
            inverse=1.0 / np.array(self.scale),
            directions=directions(series_key(name), self.width),
            mean=np.array(self.mean),
            every=np.array([self.every], np.int64),
        )


_LISTS: Final = ("location", "scale", "center", "spread")


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
    run_witness(block_rows(block.names, rows, block.width), frame, state, np.empty(block.width), np.empty(FEATURES), out)
    return out


class Witnesses:
    """The blocks of a panel, in the order of their columns.

    Parameters
    ----------
    blocks : (name of the column, its reference).
    """

    def __init__(self, blocks: Sequence[tuple[str, Block]]) -> None:
        self._blocks = [block for _, block in blocks]
        self._frames = [block.frame(name) if block.mean else None for name, block in blocks]
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
        gap = (float(state.profile[0, i]) - block.center[i]) / block.spread[i]
        square = float(state.profile[1, i]) - float(state.profile[0, i]) ** 2
        ratio = math.sqrt(max(square, 0.0)) / block.spread[i]
        shift, spread = gap * math.sqrt(n), (ratio - 1.0) * math.sqrt(2.0 * n)
        # Half old rows and half moved ones have a spread too: where the mean has moved it is what is told.
        if abs(shift) >= noted:
            found.append((abs(shift), BinEvidence(f"mean of {name}", 0.0, gap, gap * gap / 2.0)))
        elif abs(spread) >= noted:
            found.append((abs(spread), BinEvidence(f"spread of {name}", 1.0, ratio, (ratio - 1.0) ** 2)))
    found.sort(key=lambda pair: -pair[0])
    return tuple(evidence for _, evidence in found[:SHOWN])
