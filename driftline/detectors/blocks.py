"""Blocks: several numeric columns that are watched jointly, by what a row is worth to a witness of past rows.

A block is a column like another, of the worths x (`kernels.witness`): it has bins, a window, episodes. What it is made with stands in
the baseline: location and scale of its values and the mean of their random Fourier features, no rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

FREQUENCIES: Final = 64
FEATURES: Final = 2 * FREQUENCIES
"""Random Fourier features of a row: a cosine and a sine of each frequency."""
RATE: Final = 1.0 / 200.0
"""Weight of the newest row in the witness: 1/100 finds large changes as soon and small ones a third later."""
CUT_SD: Final = 6.0
"""Bets count a worth as at least minus so many standard deviations: what a bet may stake is bounded by the worst it can lose."""
KURTOSIS_LEAST: Final = 12.0
"""Of worths under the reference's law along any witness; a normal law has 3."""
_LISTS: Final = ("location", "scale", "center", "spread")


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
    hours : the greatest distance of an hour's or a day's mean features from `mean`, with its error; 0 = they do not differ.
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
        # What is divided by has an inverse.
        positive = all(x > 0 and math.isfinite(1.0 / x) for x in lists["scale"] + lists["spread"]) and min(numbers.values()) >= 0
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
        """The distance that is no change: the warning level, or the reference's own hours and its error as a witness comes to see it.

        What hours are off their mean, and what that mean is off the law's, may point the same way. A witness of rows that are as the
        reference's law points to the error e of `mean`, |e|^2 = variance / size, with the cosine |e| / sqrt(|e|^2 + noise^2); along a
        direction that does not look at e it is sd / sqrt(size).
        """
        error = self.variance / max(size, 1)
        seen = error / math.sqrt(error + self.noise * self.noise) if error > 0.0 else 0.0
        return max(warning, self.hours + seen + errors * sd / math.sqrt(max(size, 1)))

    def cut(self, sd: float) -> tuple[float, float]:
        """Minus the least that a worth counts as in a bet, and what cutting there adds to its mean at most.

        (-b - x)+ <= 27 x^4 / (256 b^3), and E x^4 is at most `kurtosis` (12 or four times the reference's) times sd^4.
        """
        least = CUT_SD * sd
        if least >= 1.0:
            return 1.0, 0.0
        # Products, no powers: those of a C library differ in the last bit.
        return least, 27.0 * max(KURTOSIS_LEAST, 4.0 * self.kurtosis) * (sd * sd * sd * sd) / (256.0 * (least * least * least))
