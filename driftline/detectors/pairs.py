"""Pairs of numeric columns, watched by the product of their standardised values.

What two columns have to do with each other may change while each of them stays as it was. The product of two values in
standard deviations has the correlation as its mean, so it moves then. A product is a column like another: it has a reference,
ranks, a memory and a season of its own. It carries what it is made with, so that nothing else of a baseline is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftline.detectors.spec import MAX_BINS, Float64


@dataclass(frozen=True, slots=True)
class Factor:
    """One of two columns that are multiplied: where its values lie in the reference, and what they score there.

    Attributes
    ----------
    edges, low, high : as a `ColumnReference` has them.
    scores : the standardised score (`coding.scores`) of the codes in order of rank, the values beyond the range included;
        empty for a column without a value. They are kept, not made anew, since the last bit of a logarithm depends on the
        machine, and products that are equal must stay so.
    """

    name: str
    edges: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    scores: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"name": self.name, "edges": list(self.edges), "low": self.low, "high": self.high, "scores": list(self.scores)}

    @classmethod
    def from_json(cls, item: Mapping[str, Any]) -> Factor:
        """The factor of `to_json`.

        Raises
        ------
        ValueError : no bins and scores that a reference gives.
        """
        if not isinstance(item["name"], str):
            raise ValueError(f"a factor's name {item['name']!r}")
        low, high = (None if item[end] is None else float(item[end]) for end in ("low", "high"))
        out = cls(item["name"], tuple(map(float, item["edges"])), low, high, tuple(map(float, item["scores"])))
        numbers: Float64 = np.array([*out.edges, *out.scores, *(end for end in (low, high) if end is not None)], np.float64)
        sizes = len(out.edges) < MAX_BINS and len(out.scores) in (0, len(out.edges) + 3)
        if not (sizes and np.isfinite(numbers).all() and (np.diff(out.edges) > 0).all()) or (low is None) != (high is None):
            raise ValueError(f"bins or scores of factor {out.name!r} that no reference gives")
        return out
