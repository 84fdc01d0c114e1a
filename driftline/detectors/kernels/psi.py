"""The population stability index of a sliding window, exact after every event, for many series.

PSI = sum over groups of (p - q) ln(p / q), with half a count added on both sides: p = (k + .5) / (n + .5 B), so
that no empty group gives infinity. A window that moves by one row changes two groups at most. Both shares sum
to 1, hence ln of the denominators cancels and

    PSI = 1/N sum (k + .5) d(k)  -  sum q d(k),    d(k) = ln(k + .5) - ln(q N0),   N = n + .5 B,  any fixed N0

Each of the two sums moves by one term a group, whatever n does. They are computed anew every 2^16 rows of the
scope, counted on the scope's own rows, so rounding stays below 1e-9 and does not depend on the batch's cut.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from driftline.detectors.kernels.bank import (
    Alarms,
    Float64Array,
    Int32Array,
    Int64Array,
    UInt8Array,
    all_active,
    checked_rows,
    drain,
    pack,
    per_series,
    unpack,
    write_alarm,
)
from driftline.detectors.kernels.jit import inlined, kernel, portable_log

N_CODES = 67
NO_GROUP = 255
"""The group of codes that do not count, NOT_APPLICABLE among them."""

REARM = 0.8
"""An alarm is raised again only after the PSI was below this share of its threshold."""

REFRESH_ROWS = 1 << 16
"""Rows of a scope between exact recomputations of its sums."""

_MAGIC = b"DPSI"
_VERSION = 1


class PsiArrays(NamedTuple):
    """State and settings of a `PsiBank`, as kernels take them; s = scope, c = column, g = group.

    `groups` has one entry for all scopes or one for each.
    """

    window: Int64Array  # (c,) rows
    groups: UInt8Array  # (1 or s, c, N_CODES)
    n_groups: Int32Array  # (s, c)
    expected: Float64Array  # (s, c, g) shares, sum 1 over the series' groups
    log_expected: Float64Array  # (s, c, g) ln(q N0)
    log_half: Float64Array  # (k,) ln(k + .5)
    threshold: Float64Array  # (s, c)
    active: UInt8Array  # (s, c)
    counts: Int32Array  # (s, c, N_CODES)
    group_counts: Int32Array  # (s, c, g)
    grouped: Int64Array  # (s, c) rows in the window that belong to a group
    sums: Float64Array  # (s, c, 2) the two sums of PSI
    armed: UInt8Array  # (s, c)


@inlined
def psi_push(a: PsiArrays, s: int, c: int, entering: int, leaving: int) -> None:
    """One row more, one row less (`leaving` = -1 while the window fills) in one series."""
    a.counts[s, c, entering] += 1
    scope_groups = s if a.groups.shape[0] > 1 else 0
    g_in = a.groups[scope_groups, c, entering]
    g_out = NO_GROUP
    if leaving >= 0:
        a.counts[s, c, leaving] -= 1
        g_out = a.groups[scope_groups, c, leaving]
    if g_in == g_out:
        return
    if g_in != NO_GROUP:
        k = a.group_counts[s, c, g_in]
        low = a.log_half[k] - a.log_expected[s, c, g_in]
        high = a.log_half[k + 1] - a.log_expected[s, c, g_in]
        a.sums[s, c, 0] += (k + 1.5) * high - (k + 0.5) * low
        a.sums[s, c, 1] += a.expected[s, c, g_in] * (high - low)
        a.group_counts[s, c, g_in] = k + 1
        a.grouped[s, c] += 1
    if g_out != NO_GROUP:
        k = a.group_counts[s, c, g_out]
        low = a.log_half[k - 1] - a.log_expected[s, c, g_out]
        high = a.log_half[k] - a.log_expected[s, c, g_out]
        a.sums[s, c, 0] -= (k + 0.5) * high - (k - 0.5) * low
        a.sums[s, c, 1] -= a.expected[s, c, g_out] * (high - low)
        a.group_counts[s, c, g_out] = k - 1
        a.grouped[s, c] -= 1


@kernel
def psi_refresh(a: PsiArrays, s: int, c: int) -> None:
    """Both sums from the counts, in group order."""
    first = 0.0
    second = 0.0
    for g in range(a.n_groups[s, c]):
        k = a.group_counts[s, c, g]
        gap = a.log_half[k] - a.log_expected[s, c, g]
        first += (k + 0.5) * gap
        second += a.expected[s, c, g] * gap
    a.sums[s, c, 0] = first
    a.sums[s, c, 1] = second


@inlined
def psi_value(a: PsiArrays, s: int, c: int) -> float:
    """The PSI of the window as it is."""
    return float(a.sums[s, c, 0] / (a.grouped[s, c] + 0.5 * a.n_groups[s, c]) - a.sums[s, c, 1])


@inlined
def psi_limit(a: PsiArrays, s: int, c: int) -> float:
    """The threshold for the rows that count: under no drift PSI grows as 1/n, so fewer rows raise it."""
    return float(a.threshold[s, c] * (a.window[c] / a.grouped[s, c]))


@inlined
def psi_test(a: PsiArrays, s: int, c: int) -> float:
    """The PSI if it crossed its limit from below on this row, else -1; call it only while the window is full."""
    if a.grouped[s, c] == 0:
        return -1.0
    psi = psi_value(a, s, c)
    limit = psi_limit(a, s, c)
    if psi >= limit:
        if a.armed[s, c]:
            a.armed[s, c] = 0
            return psi
    elif psi < REARM * limit:
        a.armed[s, c] = 1
    return -1.0


@kernel
def _update(
    codes: UInt8Array,
    scopes: Int32Array,
    a: PsiArrays,
    ring: UInt8Array,
    heads: Int64Array,
    out: Alarms,
    row: int,
    slot: int,
) -> tuple[int, int, int]:
    """From (row, slot) until the batch ends or `out` may not hold another row; alarms written and where it stopped."""
    n_columns = codes.shape[1]
    length = ring.shape[1]
    written = 0
    for i in range(row, codes.shape[0]):
        for j in range(slot, scopes.shape[1]):
            s = 0 + int(scopes[i, j])
            if s < 0:
                continue
            if written + n_columns > out.shape[0]:
                return written, i, j
            head = heads[s]
            place = head % length
            for c in range(n_columns):
                code = codes[i, c]
                if a.active[s, c]:
                    window = a.window[c]
                    leaving = -1
                    if head >= window:
                        behind = place - window
                        if behind < 0:
                            behind += length
                        leaving = int(ring[s, behind, c])
                    psi_push(a, s, c, code, leaving)
                    if (head + 1) % REFRESH_ROWS == 0:
                        psi_refresh(a, s, c)
                    if head + 1 >= window:
                        psi = psi_test(a, s, c)
                        if psi >= 0.0:
                            write_alarm(out[written], i, s, c, psi, psi_limit(a, s, c), 0, 0)
                            written += 1
                ring[s, place, c] = code
            heads[s] = head + 1
        slot = 0
    return written, codes.shape[0], 0


def smoothed_shares(counts: ArrayLike) -> Float64Array:
    """Shares (k + .5) / (n + .5 B) over the last axis, whose length is B."""
    counts = np.asarray(counts, np.float64)
    shares: Float64Array = (counts + 0.5) / (counts.sum(axis=-1, keepdims=True) + 0.5 * counts.shape[-1])
    return shares


@kernel
def _distinct(counts: Int32Array, out: UInt8Array) -> int:
    """Fill the codes that each column's window holds, of counts (c, N_CODES); how many there are."""
    found = 0
    for c in range(counts.shape[0]):
        own = 0
        for code in range(N_CODES):
            own += counts[c, code] > 0
        out[c] = own
        found += own
    return found


@kernel
def _gather(counts: Int32Array, codes: UInt8Array, found: Int32Array) -> None:
    """Fill these codes, column after column, and their counts."""
    at = 0
    for c in range(counts.shape[0]):
        for code in range(N_CODES):
            if counts[c, code] > 0:
                codes[at], found[at] = code, counts[c, code]
                at += 1


@kernel
def _fill_log_half(logs: Float64Array) -> None:
    for k in range(logs.shape[0]):
        logs[k] = portable_log(k + 0.5)


def _log_half(longest: int) -> Float64Array:
    logs = np.empty(longest + 2)
    _fill_log_half(logs)
    return logs


class PsiBank:
    """The PSI of one sliding window for each (scope, column), over rows of codes.

    The ring of the last rows belongs to the caller: `ring` uint8 (n_scopes, length, C) with length >= every
    window, and `heads` int64 (n_scopes), the rows each scope has had; `update` writes both. A row of scope s
    with number h is at `ring[s, h % length]`.

    Parameters
    ----------
    window : rows, one or one a column
    groups : uint8 (C, 67) or (n_scopes, C, 67): the group of each code, 0 .. B-1, or `NO_GROUP`
    expected : shares of the reference, (n_scopes, C, most groups) or broadcast to it, smoothed as by
        `smoothed_shares`; the first B of a series sum to 1
    threshold : PSI that is an alarm for a full window, (n_scopes, C) or broadcast to it
    n_groups : B of each series, (n_scopes, C) or broadcast; None = the largest group of `groups` plus one
    active : (n_scopes, C), 0 = this series has no PSI (its ring is written all the same)
    """

    def __init__(
        self,
        n_scopes: int,
        n_columns: int,
        *,
        window: ArrayLike,
        groups: ArrayLike,
        expected: ArrayLike,
        threshold: ArrayLike,
        n_groups: ArrayLike | None = None,
        active: ArrayLike | None = None,
    ) -> None:
        self.n_scopes, self.n_columns = n_scopes, n_columns
        of_code = np.array(groups, np.uint8)
        of_code = of_code[None] if of_code.ndim == 2 else of_code
        if of_code.shape not in {(1, n_columns, N_CODES), (n_scopes, n_columns, N_CODES)}:
            raise ValueError(f"expected groups of shape ({n_columns}, {N_CODES}) or with {n_scopes} scopes before, got {of_code.shape}")
        largest = np.where(of_code == NO_GROUP, -1, of_code.astype(np.int32)).max(axis=2) + 1
        sizes = np.array(np.broadcast_to(largest if n_groups is None else np.asarray(n_groups), (n_scopes, n_columns)), np.int32)
        most = max(1, int(sizes.max(initial=1)))
        given = np.asarray(expected, np.float64)
        if np.any(largest > sizes) or given.shape[-1] < most:
            raise ValueError(f"expected shares for {max(most, int(largest.max(initial=1)))} groups, got {given.shape[-1]}")
        shares = np.array(np.broadcast_to(given[..., :most], (n_scopes, n_columns, most)))
        rows = np.array(np.broadcast_to(np.asarray(window, np.int64), (n_columns,)))
        if np.any(rows < 1):
            raise ValueError("expected windows of at least 1 row")
        self.arrays = PsiArrays(
            window=rows,
            groups=of_code,
            n_groups=sizes,
            expected=shares,
            log_expected=_log_expected(shares, sizes, rows),
            log_half=_log_half(int(rows.max(initial=1))),
            threshold=per_series(threshold, n_scopes, n_columns),
            active=all_active(n_scopes, n_columns, active),
            counts=np.zeros((n_scopes, n_columns, N_CODES), np.int32),
            group_counts=np.zeros((n_scopes, n_columns, most), np.int32),
            grouped=np.zeros((n_scopes, n_columns), np.int64),
            sums=np.zeros((n_scopes, n_columns, 2)),
            armed=np.ones((n_scopes, n_columns), np.uint8),
        )
        self._refresh_all()

    def _refresh_all(self) -> None:
        for scope in range(self.n_scopes):
            for column in range(self.n_columns):
                psi_refresh(self.arrays, scope, column)

    def new_ring(self) -> tuple[UInt8Array, Int64Array]:
        """An empty ring and heads of the right shape."""
        length = int(self.arrays.window.max(initial=1))
        return np.zeros((self.n_scopes, length, self.n_columns), np.uint8), np.zeros(self.n_scopes, np.int64)

    def update(self, codes: UInt8Array, scopes: Int32Array, ring: UInt8Array, heads: Int64Array) -> Alarms:
        """Add a batch of rows of codes (n, C) to their scopes (n, S); writes `ring` and `heads`.

        Raises
        ------
        ValueError : a code above 66, a scope or a ring that does not fit
        """
        codes, scopes = checked_rows(codes, scopes, np.uint8, self.n_columns, self.n_scopes)
        if codes.size and int(codes.max()) >= N_CODES:
            raise ValueError(f"expected codes below {N_CODES}, got {int(codes.max())}")
        longest = int(self.arrays.window.max(initial=1))
        if ring.shape != (self.n_scopes, max(ring.shape[1], longest), self.n_columns) or heads.shape != (self.n_scopes,):
            raise ValueError(f"expected a ring of ({self.n_scopes}, >= {longest}, {self.n_columns}), got {ring.shape}")

        def step(out: Alarms, row: int, slot: int) -> tuple[int, int, int]:
            return _update(codes, scopes, self.arrays, ring, heads, out, row, slot)

        return drain(step, codes.shape[0], self.n_columns)

    def values(self) -> Float64Array:
        """PSI of every series now (n_scopes, C); 0 where no row counts or the series is not active."""
        a = self.arrays
        size = a.grouped + 0.5 * a.n_groups
        psi = np.divide(a.sums[:, :, 0], size, out=np.zeros_like(size), where=size > 0) - a.sums[:, :, 1]
        values: Float64Array = np.where((a.grouped > 0) & (a.active != 0), psi, 0.0)
        return values

    def export(self, scope: int) -> bytes:
        """The state of one scope without its ring, which the caller keeps."""
        a = self.arrays
        counts = a.counts[scope]
        distinct = np.zeros(self.n_columns, np.uint8)
        held = _distinct(counts, distinct)
        codes, found = np.empty(held, np.uint8), np.empty(held, np.int32)
        _gather(counts, codes, found)
        return pack(_MAGIC, _VERSION, self.n_columns, [distinct, codes, found, a.sums[scope], a.armed[scope]])

    def restore(self, scope: int, blob: bytes) -> None:
        """Continue one scope from `export`, as if it had never stopped; the ring must be of the same moment.

        Raises
        ------
        ValueError : of another kind or version, or counts that no window has
        """
        a, n = self.arrays, self.n_columns
        dtypes = ["u1", "u1", "<i4", "<f8", "u1"]
        distinct, codes, counts, sums, armed = unpack(blob, _MAGIC, _VERSION, n, dtypes, [n, None, None, 2 * n, n])
        columns = np.repeat(np.arange(n), distinct)
        if not len(columns) == len(codes) == len(counts) or np.any(codes >= N_CODES) or np.any(counts <= 0):
            raise ValueError("damaged state of DPSI: codes and counts do not fit")
        places = columns * N_CODES + codes
        # kernels look logarithms up by count: none may be above the window
        if np.any(np.diff(places) <= 0) or np.any(np.bincount(columns, counts, minlength=n) > a.window):
            raise ValueError("damaged state of DPSI: more rows than the window has")
        a.counts[scope] = 0
        a.counts[scope, columns, codes] = counts
        a.sums[scope] = sums.reshape(n, 2)
        a.armed[scope] = armed
        self.regroup(scope)

    def regroup(self, scope: int) -> None:
        """Make the counts of groups anew from the counts of codes; the sums are the caller's."""
        a = self.arrays
        a.group_counts[scope] = 0
        of_code = a.groups[scope if len(a.groups) > 1 else 0]
        columns, codes = np.nonzero(of_code != NO_GROUP)
        np.add.at(a.group_counts[scope], (columns, of_code[columns, codes]), a.counts[scope, columns, codes])
        a.grouped[scope] = a.group_counts[scope].sum(axis=1)


def _log_expected(shares: Float64Array, n_groups: Int32Array, window: Int64Array) -> Float64Array:
    """Ln of the expected smoothed counts of a full window; close to ln(k + .5), so the sums stay small."""
    logs = np.zeros_like(shares)
    for scope, column in np.ndindex(*n_groups.shape):
        used = shares[scope, column, : n_groups[scope, column]]
        if np.any(used <= 0) or (used.size and abs(float(used.sum()) - 1.0) > 1e-9):
            raise ValueError(f"expected positive shares that sum to 1 in scope {scope}, column {column}, got {used.tolist()}")
        size = float(window[column]) + 0.5 * used.size
        logs[scope, column, : used.size] = [portable_log(float(share) * size) for share in used]
    return logs
