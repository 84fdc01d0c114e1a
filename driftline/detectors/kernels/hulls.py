"""The starts that a change of the mean may have: corners of the lower convex hull of a monitor's sums, and of their negatives.

Why no other point can be one, and which of them it is: `focus`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.detectors.kernels.bank import Float64Array, Int64Array
from driftline.detectors.kernels.jit import inlined

CORNERS: Final = 48
"""Corners kept on each side. A hull of n independent values has about ln n; where a path bends steadily and fills
them, the second oldest corner is dropped, which moves only dates near it."""
HULL_TYPES: Final = ("<i8", "<f8", "u1", "<i8", "<f8")
"""Of `hull_arrays`."""
_COUNT_MOST = 2**53


class Hulls(NamedTuple):
    """State of all monitors M: what they have had, and the corners of both sides, oldest first."""

    seen: Int64Array  # (M,)
    total: Float64Array  # (M,)
    size: Int64Array  # (M, 2) corners in use
    at: Int64Array  # (M, 2, CORNERS) the values before each
    sums: Float64Array  # (M, 2, CORNERS) the height of each


@inlined
def _pop(m: int, side: int, t: int, s: float, bounded: bool, at: Int64Array, sums: Float64Array, size: int) -> int:
    """Corners that stay when the point (t, s) joins."""
    while size > 0:
        last_at, last = at[m, side, size - 1], sums[m, side, size - 1]
        if bounded and s <= last:
            size -= 1
            continue
        if size == 1:
            break
        before_at, before = at[m, side, size - 2], sums[m, side, size - 2]
        # Slopes compared without a division: equal ones make no corner.
        if (last - before) * (t - last_at) < (s - last) * (last_at - before_at):
            break
        size -= 1
    return size


@inlined
def hull_push(m: int, x: float, bounded: bool, h: Hulls) -> None:
    """One value: the point before it may become the start of a change; `bounded`: the mean before a change is in a band around 0."""
    for side in range(2):
        height: float = h.total[m] if side == 0 else -h.total[m]
        kept = _pop(m, side, h.seen[m], height, bounded, h.at, h.sums, h.size[m, side])
        if kept == CORNERS:
            for k in range(1, CORNERS - 1):
                h.at[m, side, k] = h.at[m, side, k + 1]
                h.sums[m, side, k] = h.sums[m, side, k + 1]
            kept -= 1
        h.at[m, side, kept] = h.seen[m]
        h.sums[m, side, kept] = height
        h.size[m, side] = kept + 1
    h.seen[m] += 1
    h.total[m] += x


@inlined
def hull_reset(m: int, h: Hulls) -> None:
    """Forget a monitor's values."""
    h.seen[m] = 0
    h.total[m] = 0.0
    h.size[m, 0] = 0
    h.size[m, 1] = 0


def new_hulls(n: int) -> Hulls:
    """Hulls of n monitors without values."""
    return Hulls(
        seen=np.zeros(n, np.int64),
        total=np.zeros(n),
        size=np.zeros((n, 2), np.int64),
        at=np.zeros((n, 2, CORNERS), np.int64),
        sums=np.zeros((n, 2, CORNERS)),
    )


def hulls_of(h: Hulls, part: slice) -> Hulls:
    """Those of some monitors; views, no copies."""
    return Hulls(h.seen[part], h.total[part], h.size[part], h.at[part], h.sums[part])


def hull_arrays(h: Hulls) -> list[NDArray[Any]]:
    """What a checkpoint keeps: only corners in use."""
    used = np.arange(CORNERS) < h.size[:, :, None]
    return [h.seen, h.total, h.size.astype(np.uint8), h.at[used], h.sums[used]]


def restore_hulls(h: Hulls, arrays: Sequence[NDArray[Any]], slack: Float64Array | None = None) -> None:
    """Write the hulls of `hull_arrays`.

    Parameters
    ----------
    slack : what an older program took off each value before it summed them, shape (M,).

    Raises
    ------
    ValueError : corners that no values lead to; nothing is then written
    """
    seen, total, sizes, at, sums = arrays
    n = len(h.seen)
    size = sizes.astype(np.int64).reshape(n, 2) if len(sizes) == 2 * n else np.full((n, 2), CORNERS + 1)
    used = np.arange(CORNERS) < size[:, :, None]
    sound = len(seen) == len(total) == n and np.all(size <= CORNERS) and len(at) == len(sums) == int(size.sum())
    if not (sound and np.all((seen >= 0) & (seen <= _COUNT_MOST)) and np.all(np.isfinite(total)) and np.all(np.isfinite(sums))):
        raise ValueError("damaged hulls: corners that no values lead to")
    places = np.zeros((n, 2, CORNERS), np.int64)
    places[used] = at
    rising = np.diff(places, axis=2)[used[:, :, 1:]] > 0
    within = (places >= 0) & (places < np.maximum(seen, 1)[:, None, None])
    if not (np.all(rising) and np.all(within[used]) and np.array_equal(size > 0, np.repeat(seen[:, None] > 0, 2, axis=1))):
        raise ValueError("damaged hulls: corners that no values lead to")
    h.seen[:], h.total[:], h.size[:], h.at[:] = seen, total, size, places
    h.sums[:] = 0.0
    h.sums[used] = sums
    if slack is not None:
        h.sums[:] += np.where(used, slack[:, None, None] * places, 0.0)
