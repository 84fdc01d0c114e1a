"""Categories that come in runs, each run drawn anew: the values that are draws, whatever the lengths of the runs are.

Where the values of successive runs are independent with shares s, of whatever lengths, a value that differs from the one before it, a,
is b with chance s_b / (1 - s_a): runs that happen to be of one value are one. With chance s_a such a value counts as another a
instead, so that what is judged has the shares s given all before it, exactly. A value like the one before it says how long a run is, and
is not judged.
"""

from __future__ import annotations

import numpy as np

from driftline.detectors.kernels.bank import Float64Array, Int32Array, Int64Array, UInt8Array
from driftline.detectors.kernels.dependence import Checks, check_push
from driftline.detectors.kernels.jit import inlined, kernel
from driftline.detectors.kernels.portable import mixed, uniform
from driftline.detectors.spec import MISSING

DRAW_SALT = np.uint64(0xA3EC647659359ACD)
"""Whether a value counts as the one before it is decided by other numbers than the place among ties."""


@inlined
def drawn(code: int, before: int, share: Float64Array, u: float) -> int:
    """The category that a value stands for among independent draws; -1 = it is none of them.

    Parameters
    ----------
    before : the value before it, -1 = there was none: nobody knows when the first run began
    share : of the draws, by code
    u : uniform on (0, 1)
    """
    if before < 0 or code == before:
        return -1
    return before if u < share[before] else code


@inlined
def _row(code: int, scope: int, rows: Int64Array) -> int:
    """The row of a value's scope; -1 = it is no category, or the scope is not asked for."""
    return -1 if code >= MISSING else rows[scope]


@kernel
def count_changes(codes: UInt8Array, c: int, scopes: Int32Array, rows: Int64Array, last: Int64Array, changes: Int64Array) -> None:
    """Add rows of one column to the numbers of values by the one before, of values that differ from it.

    Parameters
    ----------
    rows : of each scope in what follows, -1 = not asked for
    last : (R,) the value before, -1 = none. `changes`: (R, MISSING, MISSING)
    """
    for i in range(codes.shape[0]):
        code = codes[i, c]
        for j in range(scopes.shape[1]):
            r = _row(code, scopes[i, j], rows)
            if r < 0:
                continue
            if last[r] >= 0 and last[r] != code:
                changes[r, last[r], code] += 1
            last[r] = code


@kernel
def check_draws(
    codes: UInt8Array, c: int, scopes: Int32Array, rows: Int64Array, last: Int64Array, share: Float64Array, score: Float64Array,
    checks: Checks,
) -> None:  # fmt: skip
    """Look whether the draws of one column depend on each other: a sequence for each row of `share` and `score`, (R, MISSING) by code."""
    for i in range(codes.shape[0]):
        code = codes[i, c]
        for j in range(scopes.shape[1]):
            r = _row(code, scopes[i, j], rows)
            if r < 0:
                continue
            # Of its number among the draws so far: any fixed number does, and this one is the same however rows are cut.
            u = uniform(mixed(np.uint64(checks.values[r]) ^ DRAW_SALT))
            b = drawn(int(code), last[r], share[r], u)
            last[r] = code
            if b >= 0:
                check_push(r, score[r, b], checks)
