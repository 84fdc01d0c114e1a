"""What explains a signal: bins, statistics, and the parts of its effect; plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class BinEvidence:
    """One bin's share in the baseline and in the window, and its part of PSI (or of the rate's change)."""

    bin: str
    expected: float
    observed: float
    contribution: float


class WindowStatistic(NamedTuple):
    """One statistic of a window against the baseline (`evidence.py`).

    Attributes
    ----------
    size : how far apart they are on the statistic's own scale, with what chance alone adds taken off.
    null_level : the value without drift, on average. `n_eff`: independent values that the comparison is worth.
    p : chance of such a value without drift; None for too few values.
    """

    name: str
    value: float
    size: float
    null_level: float
    n_eff: float
    p: float | None


class ShareMoved(NamedTuple):
    """The share of a segment value in the baseline and in the window."""

    value: str
    expected: float
    observed: float


class TrafficSplit(NamedTuple):
    """A model-level effect in two parts (`traffic.py`), on the scale of the effect.

    Attributes
    ----------
    segment : the key of the segment values.
    mix : by their shares having changed. `within`: by what is true of each having changed.
    alone : there is no sign of another cause than the mix.
    moved : the segment values whose share moved most.
    """

    segment: str
    mix: float
    within: float
    alone: bool
    moved: tuple[ShareMoved, ...]


class ChangedAgain(NamedTuple):
    """A further change of an open episode.

    Attributes
    ----------
    number : which of the episode's it is; 2 = the second.
    value_before : the level before it, on the scale of the signal's `value`.
    effect_size : against that level, as the signal's own is against the baseline.
    median_before, correlation_before : in the series' own unit.
    """

    number: int
    value_before: float
    effect_size: float
    median_before: float | None
    correlation_before: float | None


def mix_words(segment: str, moved: Sequence[tuple[str, float, float]]) -> str:
    """What is said of a change that the mix of segments explains, for example ``the mix of country moved: BR 12 % -> 31 %``.

    Parameters
    ----------
    moved : value, its share in the baseline and in the window.
    """
    shares = ", ".join(f"{value} {100 * expected:.3g} % -> {100 * observed:.3g} %" for value, expected, observed in moved)
    return f"the mix of {segment} moved: {shares}; within each {segment} nothing changed"
