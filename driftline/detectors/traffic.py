"""Whether what changed is who is asked about, not what is true of them: a model-level effect in its two parts.

A mean over all rows is the sum of each segment value's mean times its share, so that its distance from the baseline is
*mix* + *within* (Kitagawa 1955, JASA 50, eq. 3; Oaxaca 1973 and Blinder 1973 for means of regressions):

    mix = sum_s (p_s - p0_s) mu0_s        within = sum_s p_s (mu_s - mu0_s)

p_s, mu_s share and mean of segment value s in the window, p0_s, mu0_s in the baseline; a rate is the mean of zeros and ones. A
distribution has no such sum. There the baseline is weighted anew to the window's shares, sum_s p_s P0_s (DiNardo, Fortin and
Lemieux 1996, Econometrica 64): mix is the PSI of that against the baseline, within the PSI of the window against that.

The window of a segment value holds its own last rows, which began earlier the rarer it is. So the values of the rows of the
window of all rows are kept beside it, two bytes a row and segment key; the split is of exactly the rows that the effect is of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from driftline.detectors.dependence import CELLS, RANKS
from driftline.detectors.episodes import E_BITS, E_OPEN, E_SEVERITY, EVIDENCE, MIX_BIT, NO_DETECTOR, RECOVERED, Notes
from driftline.detectors.explained import ShareMoved, TrafficSplit
from driftline.detectors.groups import grouped, psi_of, smoothed
from driftline.detectors.layout import SKIP, Layout
from driftline.detectors.levels import LEVEL_LEAST, MEAN_EFFECT, PSI_EFFECT, RATE_EFFECT
from driftline.detectors.ring import RUN_BIT, Windows
from driftline.detectors.spec import N_CODES, OTHER_SEGMENT, Float64, Int32, Int64, RingState
from driftline.detectors.tables import NO_GROUP, Tables, reference_least

RING: Final = "traffic"
"""The name of the ring of segment values."""
UNKNOWN: Final = np.iinfo(np.uint16).max
"""A row that was taken before its segment values were kept."""
MOVED_SHOWN: Final = 3
THIN_SHARE: Final = 0.02
"""Rows whose segment values have no reference may be this part of the window or of the baseline. A mean is at most 4 standard
deviations off there, mostly far less than 1: .02 of that changes no verdict."""
ERRORS: Final = 3.0
"""Standard errors within which the part within segments is no change. Values that make an alarm early are large by chance within segments
too: of 120 series whose mix alone changed 3 were taken for more, of 87 that changed within alone none for mix (docs/subscribing.md)."""

UInt16 = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class _Parts:
    """The two parts on the scale of the effect.

    Attributes
    ----------
    excess : the part within without what chance alone adds on average; `error` its standard error.
    """

    mix: float
    within: float
    excess: float
    error: float


class Traffic:
    """The segment values of the rows in the window of all rows, by segment key."""

    def __init__(self, layout: Layout, tables: Tables, window: int) -> None:
        self._layout, self._tables = layout, tables
        self._keys = list(layout.segments)
        sizes = [len(values) + 1 for values in layout.segments.values()]
        self._first: Int32 = np.cumsum([1, *sizes[:-1]]).astype(np.int32)
        self._sizes = sizes
        self._ring: UInt16 = np.full((window, len(self._keys)), UNKNOWN, np.uint16)
        self._head = 0
        self._exported = 0

    def push(self, scopes: Int32) -> None:
        """Take the scopes of some rows, shape (n, 1 + keys), once they are in the window."""
        n, length = len(scopes), len(self._ring)
        kept = min(n, length)
        places = np.arange(self._head + n - kept, self._head + n) % length
        self._ring[places] = (scopes[n - kept :, 1:] - self._first).astype(np.uint16)
        self._head += n

    def split(self, note: Any, windows: Windows, scopes: Int32) -> TrafficSplit | None:
        """The parts of the effect that a note of all rows tells, by the segment key whose mix explains most of it.

        Parameters
        ----------
        note : its `row` is the last one in the window.
        scopes : of the batch it is in, whose rows before it have not been pushed.

        Returns
        -------
        None for runs of equal values and blocks, for numbers that go by the hour, for too few rows, where too many are of segment
        values without a reference, and where the only key has the column's own values.
        """
        q, kind, rows = int(note["series"]), int(note["effect_kind"]), int(note["counts"].sum())
        c = int(self._tables.series_column[q])
        # What rows are worth to a block's witness depends on the rows before them, of whatever segment value.
        if self._tables.is_run[q] or int(note["n"]) < LEVEL_LEAST or self._layout.references[c].block is not None:
            return None
        # Its window is compared with the same hours of the reference, whose segment values and their levels are not known by the hour:
        # a mix that goes by the hour would pass for the cause of whatever happens in it.
        if kind != RATE_EFFECT and self._layout.hours_matched(0, c) is not None:
            return None
        head, length = int(windows.heads[0]), windows.ring.shape[1]
        codes = windows.ring[0, np.arange(head - rows, head) % length, c] & (RUN_BIT - 1)
        values = self._values(rows, scopes[: int(note["row"]) + 1])
        dependence = max(float(note["dependence"][RANKS if kind == MEAN_EFFECT else CELLS]), 1.0)
        found = []
        for k, key in enumerate(self._keys):
            # Within its own values nothing of a column can change: whatever it does would be called mix.
            if key in self._layout.columns[c].own_keys or (values[:, k] == UNKNOWN).any():
                continue
            joint = np.bincount(values[:, k].astype(np.int64) * N_CODES + codes, minlength=self._sizes[k] * N_CODES)
            one = self._split(k, key, q, kind, joint.reshape(self._sizes[k], N_CODES), float(note["effect"]), dependence)
            if one is not None:
                found.append(one)
        return min(found, key=lambda one: abs(one.within), default=None)

    def ring(self) -> RingState | None:
        """The rows since the last call, or all where they are more than the window holds; None = none are new."""
        since, self._exported = self._exported, self._head
        if since == self._head:
            return None
        length = len(self._ring)
        full = self._head - since > length
        rows = min(self._head, length) if full else self._head - since
        order = np.arange(self._head - rows, self._head) % length
        return RingState(RING, 2 * len(self._keys), length, self._head, self._ring[order].astype("<u2").tobytes(), full)

    def restore(self, ring: RingState | None, head: int) -> None:
        """Go on from `ring`; one of another moment, as a release without it leaves, tells nothing.

        Raises
        ------
        ValueError : damaged.
        """
        self._head = head
        if ring is None or ring.head != head:
            self.write_all()
            return
        length, keys = self._ring.shape
        rows = min(head, length)
        if (ring.record_bytes, ring.window, len(ring.rows)) != (2 * keys, length, rows * 2 * keys):
            raise ValueError(f"ring {RING}: expected {rows} rows of {2 * keys} bytes, got {len(ring.rows)} bytes of {ring.record_bytes}")
        held = np.frombuffer(ring.rows, "<u2").reshape(rows, keys)
        if rows and bool(((held >= np.array(self._sizes)) & (held != UNKNOWN)).any()):
            raise ValueError(f"ring {RING}: an unknown segment value")
        self._ring[np.arange(head - rows, head) % length] = held
        self._exported = head

    def carry(self, other: Traffic | None, head: int) -> None:
        """Go on from another panel's, key by key; keys it did not have are unknown for its rows."""
        self._head = head
        if other is None:
            return
        held = min(head, len(self._ring), len(other._ring))
        rows = np.arange(head - held, head)
        for k, key in enumerate(self._keys):
            if other._layout.segments.get(key) == self._layout.segments[key]:
                self._ring[rows % len(self._ring), k] = other._ring[rows % len(other._ring), other._keys.index(key)]

    def write_all(self) -> None:
        """Let the next `ring` hold all rows."""
        self._exported = self._head - len(self._ring) - 1

    def _values(self, rows: int, scopes: Int32) -> UInt16:
        """The segment values of the last `rows` rows up to the end of `scopes`."""
        own = (scopes[max(len(scopes) - rows, 0) :, 1:] - self._first).astype(np.uint16)
        before = rows - len(own)
        if before <= 0:
            return own
        held = self._ring[np.arange(self._head - before, self._head) % len(self._ring)]
        return np.concatenate((held, own))

    def _split(self, k: int, key: str, q: int, kind: int, window: Int64, effect: float, dependence: float) -> TrafficSplit | None:
        t = self._tables
        first, size = int(self._first[k]), self._sizes[k]
        reference = self._layout.counts[first : first + size, t.series_column[q]]
        counted = _counted(t, q, kind)
        names = [*self._layout.segments[key], OTHER_SEGMENT]
        weights = reference[:, counted].sum(axis=1)
        pooled = _pooled(window[:, counted].sum(axis=1), weights, reference_least(self._layout.counts))
        if pooled is None:
            return None
        window, reference = _merged(window, pooled), _merged(reference, pooled)
        n, m = window[:, counted].sum(axis=1), reference[:, counted].sum(axis=1)
        share, share_before = n / n.sum(), m / m.sum()
        if kind == RATE_EFFECT:
            rates = _merged_rates(t.rate[first : first + size, q], weights, pooled)
            parts = _of_rate(t, q, window, rates, n, m, share, share_before, dependence)
        elif kind == MEAN_EFFECT:
            parts = _of_mean(t, q, window, reference, n, m, share, share_before, dependence)
        else:
            parts = _of_distribution(t, q, window, reference, n, m, share, dependence)
        named = [names[i] for i, to in enumerate(pooled) if to == i]
        order = np.argsort(-np.abs(share - share_before), kind="stable")[:MOVED_SHOWN].tolist()
        moved = tuple(ShareMoved(named[i], float(share_before[i]), float(share[i])) for i in order)
        return TrafficSplit(key, parts.mix, parts.within, _alone(parts, effect, float(t.bounds[q, 0]), kind), moved)


def weigh(notes: Notes, windows: Windows, traffic: Traffic, scopes: Int32) -> tuple[Notes, list[TrafficSplit | None]]:
    """The notes that stay, each with the parts of its effect; what the mix alone has done is a warning at most.

    An episode that is held down so is looked at every so many rows (`episodes._looks`); where the mix still explains it, nothing is said.

    Parameters
    ----------
    notes : made on one row, with what depends on the window filled in; severities are changed in place.
    """
    kept: list[int] = []
    splits: list[TrafficSplit | None] = []
    told: dict[int, int] = {}
    for i, note in enumerate(notes):
        q, split = int(note["series"]), None
        if int(note["scope"]) == 0 and int(note["kind"]) != RECOVERED:
            split = traffic.split(note, windows, scopes)
            own, before = int(note["own_severity"]), told.get(q, int(note["severity_before"]))
            after = told[q] = max(before, min(own, 1) if split is not None and split.alone else own)
            note["severity"] = after
            episode = windows.episodes[0, q]
            if episode[E_OPEN]:
                episode[E_SEVERITY] = after
                bits = int(episode[E_BITS]) & ~(1 << MIX_BIT)
                episode[E_BITS] = bits | (1 << MIX_BIT if own > after else 0)
            if after == before and int(note["kind"]) == EVIDENCE and int(note["detector"]) == NO_DETECTOR:
                continue
        kept.append(i)
        splits.append(split)
    return notes[kept], splits


def _alone(parts: _Parts, effect: float, least: float, kind: int) -> bool:
    """Whether the mix is all that changed: the part within is below what counts, or not to be told from none beside the mix."""
    mix, excess = abs(parts.mix), abs(parts.excess)
    same_side = kind == PSI_EFFECT or parts.mix * effect > 0.0
    small = excess < least or excess <= min(ERRORS * parts.error, 0.5 * mix)
    return abs(effect) >= least and same_side and small and mix > excess


def _counted(t: Tables, q: int, kind: int) -> NDArray[np.bool_]:
    """Codes that are a value of what the effect is of."""
    c = t.series_column[q]
    if kind == RATE_EFFECT:
        return np.asarray(t.flags[q] != SKIP)
    return np.asarray(~np.isnan(t.score[0, c]) if kind == MEAN_EFFECT else t.group[0, c] != NO_GROUP)


def _pooled(n: Int64, m: Int64, least: int) -> list[int] | None:
    """For each segment value its own place, or that of ``other``, where those without enough reference are one.

    None = there still is not enough, of rows that matter.
    """
    other = len(n) - 1
    pooled = [s if int(m[s]) >= least else other for s in range(len(n))]
    rest = [s for s, to in enumerate(pooled) if to == other]
    has, had = int(n[rest].sum()), int(m[rest].sum())
    if had < least and (has > THIN_SHARE * int(n.sum()) or had > THIN_SHARE * int(m.sum())):
        return None
    return pooled


def _merged(counts: Int64, pooled: Sequence[int]) -> Int64:
    """Rows of `counts` as `pooled` says, in the order of those that stay."""
    out: Int64 = np.zeros_like(counts)
    np.add.at(out, np.array(pooled), counts)
    return out[[s for s, to in enumerate(pooled) if s == to]]


def _merged_rates(rates: Float64, weights: Int64, pooled: Sequence[int]) -> Float64:
    """Rates of the segment values that stay; NaN where the baseline has none of it."""
    out = []
    for s in [s for s, to in enumerate(pooled) if s == to]:
        own = [other for other, to in enumerate(pooled) if to == s]
        total = int(weights[own].sum())
        out.append(math.fsum((weights[own] * rates[own]).tolist()) / total if total else math.nan)
    return np.array(out)


def _of_mean(
    t: Tables, q: int, window: Int64, reference: Int64, n: Int64, m: Int64, share: Float64, before: Float64, dependence: float
) -> _Parts:
    score = np.nan_to_num(t.score[0, t.series_column[q]])
    base = _levels([math.fsum((row * score).tolist()) for row in reference], m)
    sums = np.array([math.fsum((row * score).tolist()) for row in window])
    noise = dependence / float(n.sum()) + math.fsum((share * share / np.maximum(m, 1)).tolist())
    return _of_levels(sums, base, n, share, before, 1.0, noise)


def _of_rate(
    t: Tables, q: int, window: Int64, rates: Float64, n: Int64, m: Int64, share: Float64, before: Float64, dependence: float
) -> _Parts:
    hits = window[:, t.flags[q] == 1].sum(axis=1).astype(np.float64)
    whole = float(t.rate[0, q])
    likely = min(max(whole, 1.0 / float(t.size[0, q])), 1.0)
    floor = max(likely, float(t.rate_floor[q]))
    base = np.where(np.isnan(rates), whole, rates)
    spread = base * (1.0 - base)
    noise = dependence * likely * (1.0 - likely) / float(n.sum()) + math.fsum((share * share * spread / np.maximum(m, 1)).tolist())
    return _of_levels(hits, base, n, share, before, floor, noise)


def _levels(sums: Sequence[float], m: Int64) -> Float64:
    """Means of the segment values; one that the baseline lacks is taken to be as all rows are."""
    whole = math.fsum(sums) / float(m.sum())
    return np.array([total / int(count) if count else whole for total, count in zip(sums, m, strict=True)])


def _of_levels(sums: Float64, base: Float64, n: Int64, share: Float64, before: Float64, scale: float, noise: float) -> _Parts:
    mix = math.fsum(((share - before) * base).tolist()) / scale
    within = (math.fsum(sums.tolist()) / float(n.sum()) - math.fsum((share * base).tolist())) / scale
    return _Parts(mix, within, within, math.sqrt(noise) / scale)


def _of_distribution(
    t: Tables, q: int, window: Int64, reference: Int64, n: Int64, m: Int64, share: Float64, dependence: float
) -> _Parts:
    c = int(t.series_column[q])
    group, used = t.group[0, c], int(t.groups[0, c])
    total = float(m.sum())
    own, has = (np.array([grouped(row, group, used) for row in counts]) for counts in (reference, window))
    # A value that the baseline lacks is taken to be as all rows are.
    known = np.where((m > 0)[:, None], own / np.maximum(m, 1)[:, None], own.sum(axis=0) / total)
    weighted = np.array([math.fsum(column) for column in (share[:, None] * known).T.tolist()]) * total
    mixed = smoothed(weighted)
    mix, within = psi_of(mixed, t.share[0, c, :used]), psi_of(smoothed(has.sum(axis=0)), mixed)
    noise = dependence / float(n.sum()) + math.fsum((share * share / np.maximum(m, 1)).tolist())
    freedom = float(t.freedom[0, c])
    return _Parts(mix, within, max(within - freedom * noise, 0.0), noise * math.sqrt(2.0 * freedom))
