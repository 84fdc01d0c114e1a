"""What the e-detectors of a panel are fed: of each row, the score of every monitor's value against the frozen reference.

A value becomes the rank of its bin's reference count, spread over the bin by a hash of series, scope and source position,
as a normal number. Where the reference's values depend on those before (`autoregression.py`) it is the residual that is
ranked, among the residuals of the reference: the first values of such a series are only remembered. Flags stay zeros and ones.

Where the reference has seasons (`season.py`) a value's rank and score are those among the values of its hour; what is whitened is
what that leaves.

What comes out is checked for dependence (`kernels.dependence`) and for the hour of the day (`kernels.season`), value by value.
Categories that come in runs are judged by their draws (`kernels.runs`): what is like the value before it has no score.

Where there is either, the budget's promise is *suspended* for the series, and one value in so many, or one a day, is judged; what
was gathered before that is void.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.detectors.autoregression import EDGES_KEPT, ORDER_MOST, STRIDES, Autoregression
from driftline.detectors.baseline import scope_names
from driftline.detectors.conformal import series_key
from driftline.detectors.kernels.autoregression import bin_of, padded_edges, remember, residual
from driftline.detectors.kernels.bank import Int16Array, pack, unpack, version_of
from driftline.detectors.kernels.conformal import SCORE_MOST, UInt64Array
from driftline.detectors.kernels.dependence import Checks, check_push, new_checks, stride_of, unsound
from driftline.detectors.kernels.jit import inlined, kernel
from driftline.detectors.kernels.portable import normal_quantile, position_keys, uniform
from driftline.detectors.kernels.runs import DRAW_SALT, drawn
from driftline.detectors.kernels.season import Hours, begin_hour, count_value, new_hours, unsound_hours, value_due
from driftline.detectors.layout import SKIP, Layout, ranks_room, room
from driftline.detectors.panel_runs import Draws, draws_of
from driftline.detectors.season import hour_scores, hours_of, places_of
from driftline.detectors.season_fit import own_scores
from driftline.detectors.spec import MISSING, Float64, Int32, Int64, PanelRows, Suspended, UInt8
from driftline.detectors.tables import Tables

_MAGIC: Final = b"DSCR"
_VERSION: Final = 2
_WITHOUT_HOURS: Final = 1
"""The version before, which did not look at the hour."""
_TYPES: Final = ["<f8", "<i8", "<f8", "<f8", "<i8", "u1", "<i8", "<f8", "<i8", "<i8"]
_HOUR_TYPES: Final = ["<i8", "<f8", "<i8", "<f8", "<f8", "<f8", "<f8", "u1", "<f8", "<i8"]

_NOT_IN_RUNS: Final = 2**62

VALUE: Final = 0
FLAG: Final = 1
WORTH: Final = 2
"""What is judged: the rank of a value, zeros and ones, or what a row is worth to a block's witness (`blocks.py`), in its sd."""

TURN = np.dtype([("row", "<i8"), ("monitor", "<i8"), ("level", "<i8"), ("found", "<f8"), ("effect", "<f8"), ("day", "<f8")], align=True)
"""What a monitor's checks said before that changed at a row: level and correlation; variance of the hours and values of a day, 0 where
the hour was not refused."""
Turns = NDArray[np.void]


class Monitors(NamedTuple):
    """What does not change; axes S scopes, K budgeted series, C columns, W monitors whose values have a memory."""

    own: UInt64Array  # (S, K) the key of each for its random numbers
    series: Int64  # (K,)
    columns: Int64  # (K,)
    form: UInt8  # (K,) VALUE, FLAG or WORTH
    least: Float64  # (K,) of a worth, in standard deviations
    scale: Float64  # (K,) 1 / the standard deviation of worths
    active: UInt8  # (S, K)
    flags: UInt8  # (Q, N_CODES)
    first: Int64  # (S, C) the row of the first hour in the tables of T rows
    way: Int64  # (S, C) how hours are told apart (`season.WAYS`)
    low: Float64  # (T, N_CODES) where the ranks of a code's values begin; NaN without a level
    width: Float64  # (T, N_CODES) and how much room they have
    score: Float64  # (T, N_CODES)
    whitened: Int64  # (S, K) the place in W, -1 = no memory
    order: Int64  # (W,)
    coefficients: Float64  # (W, ORDER_MOST)
    edges: Float64  # (W, EDGES_KEPT)
    residual_low: Float64  # (W, EDGES_KEPT) as `low` and `width`, by bin of the residual
    residual_width: Float64  # (W, EDGES_KEPT)
    draws: Draws


class Memory(NamedTuple):
    """What rows change."""

    past: Float64  # (W, ORDER_MOST) scores of the last values, the newest first
    seen: Int64  # (W,) values, up to the order
    change: Int64  # (W,) of the last value, where draws are judged (`post_change.Rows.changes`)


class PanelScores:
    """The scores of a panel's budgeted series.

    Parameters
    ----------
    series : the budgeted ones, by their place among all.

    Attributes
    ----------
    keys : of the source positions of the rows of the last batch, shape (n,).
    changes : of the last batch, as `post_change.Rows` has them.
    gain : what a shift of the values by 1 is of what is judged, shape (S, K).
    draws : of the reference, of series that come in runs; of others as many as any could have, shape (S, K).
    """

    def __init__(self, layout: Layout, tables: Tables, series: Int64) -> None:
        n_scopes, n = len(layout.counts), len(series)
        self.n = n
        members = series.tolist()
        names = scope_names(layout.segments)
        own = [[series_key("=".join(name or ()) + "/" + layout.series[q].name) for q in members] for name in names]
        low, width = ranks_room(layout)
        score = hour_scores(tables.score, own_scores(layout.season, layout.references, tables.score))
        valued: dict[int, list[int]] = {c: [] for c in range(len(layout.columns))}
        for k, q in enumerate(members):
            if layout.series[q].flag is None:
                valued[layout.column_of[q]].append(k)
        places = [
            (s, c, k) for s, c in sorted(layout.memory) for k in valued[c] if tables.watched[s, members[k]]
        ]
        memories = [layout.memory[s, c] for s, c, _ in places]
        self.gain: Float64 = np.ones((n_scopes, n))
        self.draws: Int64 = np.full((n_scopes, n), _NOT_IN_RUNS)
        whitened: Int64 = np.full((n_scopes, n), -1, np.int64)
        for w, ((s, _, k), memory) in enumerate(zip(places, memories, strict=True)):
            whitened[s, k], self.gain[s, k] = w, 1.0 if memory.runs else memory.gain
            if memory.runs:
                self.draws[s, k] = sum(memory.runs)
        count = len(memories)
        self.monitors = Monitors(
            own=np.array(own, np.uint64).reshape(n_scopes, n),
            series=series,
            columns=tables.series_column[series],
            form=np.array([_form(layout, q) for q in members], np.uint8),
            least=np.array([_least(layout, q) for q in members], np.float64),
            scale=np.array([1.0 / (layout.references[layout.column_of[q]].sd or 1.0) for q in members], np.float64),
            active=np.ascontiguousarray(tables.watched[:, series]),
            flags=tables.flags,
            first=low.first,
            way=low.way,
            low=low.table,
            width=width.table,
            score=score.table,
            whitened=whitened,
            order=np.array([1 if m.runs else len(m.coefficients) for m in memories], np.int64),
            coefficients=np.zeros((count, ORDER_MOST)),
            edges=np.zeros((count, EDGES_KEPT)),
            residual_low=np.zeros((count, EDGES_KEPT)),
            residual_width=np.zeros((count, EDGES_KEPT)),
            draws=draws_of(layout, [place[:2] for place in places]),
        )
        _write_memories(self.monitors, memories)
        self.memory = Memory(past=np.zeros((count, ORDER_MOST)), seen=np.zeros(count, np.int64), change=np.full(count, -1, np.int64))
        self.checks, self.hours = new_checks(n_scopes * n), new_hours(n_scopes * n)
        # Variance of the hours' means that is no effect; `allow_hours`.
        self._allowed = np.full(n_scopes * n, np.inf)
        self._variance = np.ones(n_scopes * n)
        for (s, c), left in layout.dependence.items():
            for k in valued[c]:
                m = s * n + k
                self.checks.refused[m, left.level - 1], self.checks.level[m], self.checks.found[m] = 1, left.level, left.correlation
        self._turns: Turns = np.zeros(0, TURN)
        self.keys: UInt64Array = np.zeros(0, np.uint64)
        self.changes: Int16Array = np.zeros((0, 0), np.int16)

    def in_runs(self, scope: int, k: int) -> bool:
        """Whether the draws of a series are judged, and no other values."""
        return bool(self.draws[scope, k] != _NOT_IN_RUNS)

    def allow_hours(self, deviation: Float64, variance: Float64) -> None:
        """Set the standard deviation of the hours' means that is no effect, and the variance of values; (S, K) each."""
        self._allowed, self._variance = (deviation * deviation).ravel(), variance.ravel()

    def update(self, codes: UInt8, values: Float64, scopes: Int32, rows: PanelRows) -> tuple[Float64, Int32]:
        """Take rows: what each monitor of a row is fed, NaN where it has no value that is judged, +inf where it begins anew, and
        which it is, -1 for none; (n, W).
        """
        self.keys = keys = position_keys(rows.source.astype(np.uint64), rows.offset)
        shape = (len(codes), scopes.shape[1] * self.n)
        scores, monitors = np.empty(shape), np.empty(shape, np.int32)
        hours = hours_of(rows.time_ms)
        if len(self.monitors.draws.share):
            self.changes = np.full(shape, -1, np.int16)
        # A level changes at every eighth value of a stride at most, the hour once a day; of what is not touched no memory is taken.
        turns = np.empty(scores.size // 4 + len(hours) * scopes.shape[1] + (STRIDES + 1) * len(self.checks.level) + 1, TURN)
        turned = _fill_scores(
            codes, values, scopes, keys, hours, places_of(hours), self.monitors, self.memory, self.checks, self.hours, self._allowed,
            scores, monitors, turns, self.changes,
        )  # fmt: skip
        self._turns = turns[:turned].copy()
        return scores, monitors

    def suspended(self, scope: int, k: int, row: int) -> Suspended | None:
        """Whether and why a monitor is suspended at a row of the last batch, after its value."""
        m = scope * self.n + k
        own = self._turns[self._turns["monitor"] == m]
        level, found = int(self.checks.level[m]), float(self.checks.found[m])
        effect, day = (self.hours.found[m] * self.hours.refused[m]).tolist()
        later = own[own["row"] > row]
        if len(later):
            level, found, effect, day = (later[0][name].item() for name in ("level", "found", "effect", "day"))
        if effect > 0.0:
            values = max(round(day), 2)
            # The variance is that of the reference; a rate or a spread that has grown since may have more by the hour alone.
            return Suspended(values, min(effect / float(self._variance[m]), 1.0), values, cause="hour_effect")
        return Suspended(stride_of(level - 1), found, stride_of(level)) if level else None

    def suspended_series(self) -> int:
        """Monitors that are suspended now."""
        held = (self.checks.level > 0) | (self.hours.refused > 0)
        return int(np.count_nonzero(held[self.monitors.active.ravel() > 0]))

    def take(self, scope: int, k: int, other: PanelScores, from_scope: int, from_k: int) -> None:
        """Go on with what another panel over the same reference knows of a series."""
        for mine, theirs in _pairs(self.checks, other.checks) + _pairs(self.hours, other.hours):
            mine[scope * self.n + k] = theirs[from_scope * other.n + from_k]
        w, was = self.monitors.whitened[scope, k], other.monitors.whitened[from_scope, from_k]
        if w >= 0 and was >= 0:
            self.memory.past[w], self.memory.seen[w] = other.memory.past[was], other.memory.seen[was]

    def export(self, scope: int) -> bytes:
        """What is known of the series of one scope."""
        own, part = self._own(scope), self._part(scope)
        checks = [array[part] for array in _arrays(self.checks) + _arrays(self.hours)]
        return pack(_MAGIC, _VERSION, len(own), [self.memory.past[own], self.memory.seen[own], *checks])

    def restore(self, scope: int, blob: bytes) -> None:
        """Go on from `export`.

        Raises
        ------
        ValueError : damaged, or of another number of series.
        """
        own, part, n = self._own(scope), self._part(scope), self.n
        shapes = [mine[part].shape for mine in _arrays(self.checks)]
        hour_shapes = [mine[part].shape for mine in _arrays(self.hours)]
        sizes = [len(own) * ORDER_MOST, len(own), *map(math.prod, shapes)]
        if version_of(blob) == _WITHOUT_HOURS:
            past, seen, *found = unpack(blob, _MAGIC, _WITHOUT_HOURS, len(own), _TYPES, [*sizes])
            hours = new_hours(n)
        else:
            types, all_sizes = _TYPES + _HOUR_TYPES, sizes + list(map(math.prod, hour_shapes))
            past, seen, *found = unpack(blob, _MAGIC, _VERSION, len(own), types, [*all_sizes])
            parts = zip(found[len(shapes) :], hour_shapes, strict=True)
            hours = Hours(*(array.reshape(shape) for array, shape in parts))
        checks = Checks(*(array.reshape(shape) for array, shape in zip(found[: len(shapes)], shapes, strict=True)))
        sound = np.isfinite(past).all() and np.all((seen >= 0) & (seen <= self.monitors.order[own]))
        codes = past.reshape(len(own), ORDER_MOST)[self.monitors.draws.place[own] >= 0, 0] if sound else past
        sound = sound and np.all((codes >= 0) & (codes < MISSING) & (codes == np.floor(codes)))
        if not sound or unsound(checks) or unsound_hours(hours):
            raise ValueError("damaged state of DSCR: values that no series has")
        self.memory.past[own], self.memory.seen[own] = past.reshape(len(own), ORDER_MOST), seen
        for mine, theirs in _pairs(self.checks, checks) + _pairs(self.hours, hours):
            mine[part] = theirs

    def _part(self, scope: int) -> slice:
        return slice(scope * self.n, (scope + 1) * self.n)

    def _own(self, scope: int) -> Int64:
        places = self.monitors.whitened[scope]
        own: Int64 = places[places >= 0]
        return own


def _write_memories(m: Monitors, memories: list[Autoregression]) -> None:
    for w, memory in enumerate(memories):
        m.coefficients[w, : len(memory.coefficients)] = memory.coefficients
        m.edges[w] = padded_edges(memory.edges)
        counts = np.array(memory.counts, np.float64)
        # As beyond the range of the values: had the reference not had it, its least residual would lie below all others.
        counts[[0, -1]] += 1.0
        m.residual_low[w, : len(counts)], m.residual_width[w, : len(counts)] = room(counts)


def _form(layout: Layout, q: int) -> int:
    if layout.series[q].flag is not None:
        return FLAG
    return VALUE if layout.references[layout.column_of[q]].block is None else WORTH


def _least(layout: Layout, q: int) -> float:
    """What a worth counts as at least, in its standard deviation."""
    reference = layout.references[layout.column_of[q]]
    return -reference.block.cut(reference.sd)[0] / reference.sd if reference.block is not None and reference.sd else -np.inf


def _arrays(checks: Any) -> list[NDArray[Any]]:
    return list(checks)


def _pairs(mine: Checks | Hours, theirs: Checks | Hours) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    return list(zip(_arrays(mine), _arrays(theirs), strict=True))


@inlined
def _score(m: Monitors, memory: Memory, s: int, k: int, code: int, value: float, places: Int64, i: int, key: np.uint64) -> float:
    """The score of one value of row i, or 0 or 1; NaN = none."""
    if m.form[k] == WORTH:
        return max(value * m.scale[k], m.least[k]) if value == value else np.nan
    if m.form[k] == FLAG:
        hit = m.flags[m.series[k], code]
        return np.nan if hit == SKIP else float(hit)
    c, w = m.columns[k], m.whitened[s, k]
    row = m.first[s, c] + places[i, m.way[s, c]]
    p = np.nan
    if w < 0:
        p = m.low[row, code] + uniform(key ^ m.own[s, k]) * m.width[row, code]
    elif m.draws.place[w] >= 0:
        r = m.draws.place[w]
        if code < MISSING:
            own = m.draws.category[r, code]
            before = int(memory.past[w, 0]) if memory.seen[w] else -1
            memory.change[w] = before * MISSING + own
            b = drawn(own, before, m.draws.share[r], uniform(key ^ m.own[s, k] ^ DRAW_SALT))
            if b >= 0:
                p = m.draws.low[r, b] + uniform(key ^ m.own[s, k]) * m.draws.width[r, b]
            memory.past[w, 0], memory.seen[w] = float(own), 1
    else:
        known = m.score[row, code]
        if known == known:
            order = m.order[w]
            if memory.seen[w] == order:
                b = bin_of(residual(known, m.coefficients[w], memory.past[w], order), m.edges[w])
                p = m.residual_low[w, b] + uniform(key ^ m.own[s, k]) * m.residual_width[w, b]
            else:
                memory.seen[w] += 1
            remember(known, memory.past[w], order)
    return min(max(normal_quantile(p), -SCORE_MOST), SCORE_MOST) if p == p else np.nan


@kernel
def _fill_scores(
    codes: UInt8,
    values: Float64,
    scopes: Int32,
    keys: UInt64Array,
    hours: Int64,
    places: Int64,
    m: Monitors,
    memory: Memory,
    checks: Checks,
    hour_checks: Hours,
    allowed: Float64,
    out: Float64,
    monitors: Int32,
    turns: Turns,
    changes: Int16Array,
) -> int:
    """Fill what each monitor of a row is fed and which it is; the turns written."""
    n, turned = m.series.shape[0], 0
    for i in range(codes.shape[0]):
        for j in range(scopes.shape[1]):
            s = scopes[i, j]
            for k in range(n):
                place = s * n + k
                x = np.nan
                if m.active[s, k]:
                    c = m.columns[k]
                    x = _score(m, memory, s, k, codes[i, c], values[i, c], places, i, keys[i])
                if x == x:
                    level, found = checks.level[place], checks.found[place]
                    was = hour_checks.refused[place]
                    judged = check_push(place, x, checks)
                    if hours[i] > hour_checks.hour[place]:
                        begin_hour(place, hours[i], allowed[place], hour_checks)
                    count_value(place, x, hours[i], hour_checks)
                    refused = hour_checks.refused[place]
                    checks.suspended[place] += refused and checks.level[place] == 0
                    if checks.level[place] != level or refused != was:
                        turns[turned]["row"], turns[turned]["monitor"] = i, place
                        turns[turned]["level"], turns[turned]["found"] = level, found
                        # What was found is kept after the hour is taken back, and there is nothing before it is refused.
                        turns[turned]["effect"] = hour_checks.found[place, 0] if was else 0.0
                        turns[turned]["day"] = hour_checks.found[place, 1]
                        turned += 1
                        x = np.inf
                    # Another number than the one that breaks ties: the place of a judged value must not lean to its rank.
                    elif not judged or (refused and not value_due(place, checks.values[place], keys[i] ^ ~m.own[s, k], hour_checks)):
                        x = np.nan
                out[i, j * n + k] = x
                if changes.shape[0] and x == x and m.form[k] == VALUE and m.whitened[s, k] >= 0:
                    changes[i, j * n + k] = memory.change[m.whitened[s, k]]
                monitors[i, j * n + k] = place if m.active[s, k] else -1
    return turned
