"""What a further change of an open episode was against: the level that the series had since the change before it.

Levels are as in `levels.py`, of more values than a window has.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from driftline.detectors.episodes import Notes
from driftline.detectors.groups import grouped, psi_of, smoothed
from driftline.detectors.layout import SKIP
from driftline.detectors.levels import MEAN_EFFECT, PSI_EFFECT
from driftline.detectors.spec import Float64, Int64
from driftline.detectors.tables import Tables


def fill_before(notes: Notes, t: Tables, codes_of: Callable[[int, int], Int64], partly: Callable[[int, int, int], bool]) -> None:
    """Write into the notes of further changes what they are against.

    Parameters
    ----------
    codes_of : of a scope and series, the values since the change before, by code.
    partly : whether but some of a series' values are judged, as of a scope, series and row.
    """
    for i in np.flatnonzero(notes["again"] > 0).tolist():
        note = notes[i]
        s, q, kind, value = int(note["scope"]), int(note["series"]), int(note["effect_kind"]), float(note["value"])
        codes, since = codes_of(s, q), note["counts"].astype(np.int64)
        if not partly(s, q, int(note["row"])) and (rest := np.maximum(codes - since, 0)).any():
            # The values since this change have joined those before it.
            codes = rest
        note["codes_before"] = codes
        if kind == PSI_EFFECT:
            c = int(t.series_column[q])
            share = _shares(t, s, c, codes)
            note["before"] = psi_of(share, t.share[s, c, : len(share)])
            note["step"] = psi_of(_shares(t, s, c, since), share)
        elif kind == MEAN_EFFECT:
            note["before"] = _mean(codes, t.score[s, int(t.series_column[q])].tolist())
            note["step"] = value - float(note["before"])
        else:
            note["before"] = int(codes[t.flags[q] == 1].sum()) / max(int(codes[t.flags[q] != SKIP].sum()), 1)
            note["step"] = (value - float(note["before"])) / max(float(note["before"]), float(t.rate_floor[q]))


def _mean(codes: Int64, score: list[float]) -> float:
    counted = [(n, x) for n, x in zip(codes.tolist(), score, strict=True) if n and not math.isnan(x)]
    mean: float = math.fsum(n * x for n, x in counted) / max(sum(n for n, _ in counted), 1)
    return mean


def _shares(t: Tables, s: int, c: int, codes: Int64) -> Float64:
    return smoothed(grouped(codes, t.group[s, c], int(t.groups[s, c])))
