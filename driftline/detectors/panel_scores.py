"""What the e-detectors of a panel are fed: of each row, the score of every monitor's value against the frozen reference.

A value becomes the rank of its bin's reference count, spread over the bin by a hash of series, scope and source position,
as a normal number. Where the reference's values depend on those before (`autoregression.py`) it is the residual that is
ranked, among the residuals of the reference: the first values of such a series are only remembered. Flags stay zeros and ones.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from driftline.detectors.autoregression import EDGES_KEPT, ORDER_MOST, Autoregression
from driftline.detectors.baseline import scope_names
from driftline.detectors.conformal import series_key
from driftline.detectors.kernels.autoregression import bin_of, padded_edges, remember, residual
from driftline.detectors.kernels.bank import pack, unpack
from driftline.detectors.kernels.conformal import SCORE_MOST, UInt64Array
from driftline.detectors.kernels.jit import kernel
from driftline.detectors.kernels.portable import normal_quantile, position_keys, uniform
from driftline.detectors.layout import SKIP, Layout, left_out
from driftline.detectors.spec import ABOVE, BELOW, N_CODES, OTHER, UNSEEN, Float64, Int32, Int64, PanelRows, UInt8
from driftline.detectors.tables import Tables

_MAGIC: Final = b"DSCR"
_VERSION: Final = 1


class Monitors(NamedTuple):
    """What does not change; axes S scopes, K budgeted series, C columns, W monitors whose values have a memory."""

    own: UInt64Array  # (S, K) the key of each for its random numbers
    series: Int64  # (K,)
    columns: Int64  # (K,)
    flag: UInt8  # (K,)
    active: UInt8  # (S, K)
    flags: UInt8  # (Q, N_CODES)
    low: Float64  # (S, C, N_CODES) where the ranks of a code's values begin; NaN without a level
    width: Float64  # (S, C, N_CODES) and how much room they have
    score: Float64  # (S, C, N_CODES)
    whitened: Int64  # (S, K) the place in W, -1 = no memory
    order: Int64  # (W,)
    coefficients: Float64  # (W, ORDER_MOST)
    edges: Float64  # (W, EDGES_KEPT)
    residual_low: Float64  # (W, EDGES_KEPT) as `low` and `width`, by bin of the residual
    residual_width: Float64  # (W, EDGES_KEPT)


class Memory(NamedTuple):
    """What rows change."""

    past: Float64  # (W, ORDER_MOST) scores of the last values, the newest first
    seen: Int64  # (W,) values, up to the order


class PanelScores:
    """The scores of a panel's budgeted series.

    Parameters
    ----------
    series : the budgeted ones, by their place among all.
    """

    def __init__(self, layout: Layout, tables: Tables, series: Int64) -> None:
        n_scopes, n = len(layout.counts), len(series)
        self.n = n
        members = series.tolist()
        names = scope_names(layout.segments)
        own = [[series_key("=".join(name or ()) + "/" + layout.series[q].name) for q in members] for name in names]
        low, width = _ranks(layout)
        self.gain: Float64 = np.ones((n_scopes, n))
        whitened: Int64 = np.full((n_scopes, n), -1, np.int64)
        memories: list[Autoregression] = []
        for (s, c), memory in sorted(layout.memory.items()):
            for k in [k for k, q in enumerate(members) if layout.column_of[q] == c and layout.series[q].flag is None]:
                if tables.watched[s, members[k]]:
                    whitened[s, k], self.gain[s, k] = len(memories), memory.gain
                    memories.append(memory)
        count = len(memories)
        self.monitors = Monitors(
            own=np.array(own, np.uint64).reshape(n_scopes, n),
            series=series,
            columns=tables.series_column[series],
            flag=np.array([layout.series[q].flag is not None for q in members], np.uint8),
            active=np.ascontiguousarray(tables.watched[:, series]),
            flags=tables.flags,
            low=low,
            width=width,
            score=tables.score,
            whitened=whitened,
            order=np.array([len(m.coefficients) for m in memories], np.int64),
            coefficients=np.zeros((count, ORDER_MOST)),
            edges=np.zeros((count, EDGES_KEPT)),
            residual_low=np.zeros((count, EDGES_KEPT)),
            residual_width=np.zeros((count, EDGES_KEPT)),
        )
        for w, memory in enumerate(memories):
            self.monitors.coefficients[w, : len(memory.coefficients)] = memory.coefficients
            self.monitors.edges[w] = padded_edges(memory.edges)
            counts = np.array(memory.counts, np.float64)
            # As beyond the range of the values: had the reference not had it, its least residual would lie below all others.
            counts[[0, -1]] += 1.0
            total = counts.sum() + 1.0
            self.monitors.residual_low[w, : len(counts)] = (np.cumsum(counts) - counts) / total
            self.monitors.residual_width[w, : len(counts)] = (counts + 1.0) / total
        self.memory = Memory(past=np.zeros((count, ORDER_MOST)), seen=np.zeros(count, np.int64))

    def update(self, codes: UInt8, scopes: Int32, rows: PanelRows) -> tuple[Float64, Int32]:
        """Take rows: what each monitor of a row is fed, NaN where it has no value, and which it is, -1 for none; (n, W)."""
        shape = (len(codes), scopes.shape[1] * self.n)
        scores, monitors = np.empty(shape), np.empty(shape, np.int32)
        keys = position_keys(rows.source.astype(np.uint64), rows.offset)
        _fill_scores(codes, scopes, keys, self.monitors, self.memory, scores, monitors)
        return scores, monitors

    def take(self, scope: int, k: int, other: PanelScores, from_scope: int, from_k: int) -> None:
        """Go on with the values that another panel over the same reference remembers of a series."""
        w, was = self.monitors.whitened[scope, k], other.monitors.whitened[from_scope, from_k]
        if w >= 0 and was >= 0:
            self.memory.past[w], self.memory.seen[w] = other.memory.past[was], other.memory.seen[was]

    def export(self, scope: int) -> bytes:
        """What is remembered of the series of one scope."""
        own = self._own(scope)
        return pack(_MAGIC, _VERSION, len(own), [self.memory.past[own], self.memory.seen[own]])

    def restore(self, scope: int, blob: bytes) -> None:
        """Go on from `export`.

        Raises
        ------
        ValueError : damaged, or of another number of series with a memory.
        """
        own = self._own(scope)
        past, seen = unpack(blob, _MAGIC, _VERSION, len(own), ["<f8", "<i8"], [len(own) * ORDER_MOST, len(own)])
        if not (np.isfinite(past).all() and np.all((seen >= 0) & (seen <= self.monitors.order[own]))):
            raise ValueError("damaged state of DSCR: values that no series has")
        self.memory.past[own], self.memory.seen[own] = past.reshape(len(own), ORDER_MOST), seen

    def _own(self, scope: int) -> Int64:
        places = self.monitors.whitened[scope]
        own: Int64 = places[places >= 0]
        return own


def _ranks(layout: Layout) -> tuple[Float64, Float64]:
    """Where the ranks of a code's values begin under a scope's reference, and how much room they have; NaN without a level."""
    low: Float64 = np.full((len(layout.counts), len(layout.columns), N_CODES), np.nan)
    width = low.copy()
    for c, reference in enumerate(layout.references):
        inner = range(reference.n_bins)
        order = [*inner, OTHER, UNSEEN] if reference.kind == "categorical" else [BELOW, *inner, ABOVE]
        # A value that was never seen has room by what the reference would not have seen without itself.
        beyond = np.array([left_out(layout, scope, c)[order] for scope in range(len(layout.counts))])
        counts = layout.counts[:, c, order] + beyond
        total = counts.sum(axis=1, keepdims=True) + 1.0
        low[:, c, order] = (np.cumsum(counts, axis=1) - counts) / total
        width[:, c, order] = (counts + 1.0) / total
    return low, width


@kernel
def _fill_scores(codes: UInt8, scopes: Int32, keys: UInt64Array, m: Monitors, memory: Memory, scores: Float64, monitors: Int32) -> None:
    """Fill what each monitor of a row is fed and which it is."""
    n = m.series.shape[0]
    for i in range(codes.shape[0]):
        for j in range(scopes.shape[1]):
            s = scopes[i, j]
            for k in range(n):
                c = m.columns[k]
                code = codes[i, c]
                x = np.nan
                if not m.active[s, k]:
                    x = np.nan
                elif m.flag[k]:
                    hit = m.flags[m.series[k], code]
                    if hit != SKIP:
                        x = float(hit)
                else:
                    w = m.whitened[s, k]
                    p = np.nan
                    if w < 0:
                        p = m.low[s, c, code] + uniform(keys[i] ^ m.own[s, k]) * m.width[s, c, code]
                    else:
                        value = m.score[s, c, code]
                        if value == value:
                            order = m.order[w]
                            if memory.seen[w] == order:
                                b = bin_of(residual(value, m.coefficients[w], memory.past[w], order), m.edges[w])
                                p = m.residual_low[w, b] + uniform(keys[i] ^ m.own[s, k]) * m.residual_width[w, b]
                            else:
                                memory.seen[w] += 1
                            remember(value, memory.past[w], order)
                    if p == p:
                        x = min(max(normal_quantile(p), -SCORE_MOST), SCORE_MOST)
                scores[i, j * n + k] = x
                monitors[i, j * n + k] = s * n + k if m.active[s, k] else -1
