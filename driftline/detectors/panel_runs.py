"""What the draws of a panel's categories in runs are ranked by (`kernels.runs`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from driftline.detectors.layout import Layout, draws_by_rank, new_are_expected, room
from driftline.detectors.spec import MISSING, OTHER, UNSEEN, Float64, Int64, ordered_codes


class Draws(NamedTuple):
    """Of R series in runs, by code; axes W series whose values have a memory, and those R of them."""

    place: Int64  # (W,) in R, -1 = residuals are judged
    category: Int64  # (R, MISSING) what a code counts as
    share: Float64  # (R, MISSING) of the draws
    low: Float64  # (R, MISSING) where the ranks of a code's draws begin
    width: Float64  # (R, MISSING) and how much room they have


def draws_of(layout: Layout, places: Sequence[tuple[int, int]]) -> Draws:
    """Of the scopes and columns whose values have a memory."""
    found = [draws_by_rank(layout, s, c) for s, c in places]
    own = [(c, draws) for (_, c), draws in zip(places, found, strict=True) if draws is not None]
    place: Int64 = np.full(len(places), -1, np.int64)
    place[[w for w, draws in enumerate(found) if draws is not None]] = np.arange(len(own))
    share, low, width = np.zeros((3, len(own), MISSING))
    category: Int64 = np.tile(np.arange(MISSING), (len(own), 1))
    for r, (c, draws) in enumerate(own):
        order = ordered_codes("categorical", layout.references[c].n_bins)
        share[r, order] = draws / (math.fsum(draws.tolist()) + 1.0)
        low[r, order], width[r, order] = room(draws)
        if new_are_expected(layout, c):
            category[r, UNSEEN] = OTHER
    return Draws(place, category, share, low, width)
