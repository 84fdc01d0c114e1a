"""What all banks share: the alarm record, checked inputs, and the frame of exported state.

A bank holds one detector for each (scope, column). A row carries a value for each column and goes to every
scope id >= 0 that its row of `scopes` names. One compiled call takes a whole batch; because each series sees
its values one after another in row order, the batch's cut never shows in the result.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftline.detectors.kernels.jit import inlined

Float64Array = NDArray[np.float64]
Int16Array = NDArray[np.int16]
Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
UInt8Array = NDArray[np.uint8]
Alarms = NDArray[np.void]

ALARM = np.dtype(
    [
        ("row", "<i8"),
        ("scope", "<i4"),
        ("column", "<i4"),
        ("statistic", "<f8"),
        ("threshold", "<f8"),
        ("direction", "i1"),
        ("back", "<i8"),
    ],
    align=True,
)
"""An alarm: the batch's row, the series, the evidence, the sign of the change (0 = not known) and `back`, the
number of the series' own values since the estimated start of the change (0 = not known)."""

BUFFER_ALARMS = 256
"""Alarms a kernel writes before it hands them over and goes on; any number comes through."""

@inlined
def write_alarm(
    alarm: Any, row: int, scope: int, column: int, statistic: float, threshold: float, direction: int, back: int
) -> None:
    """Fill a record of ALARM."""
    alarm["row"] = row
    alarm["scope"] = scope
    alarm["column"] = column
    alarm["statistic"] = statistic
    alarm["threshold"] = threshold
    alarm["direction"] = direction
    alarm["back"] = back


_FRAME = struct.Struct("<4sHHII")
_LENGTH = struct.Struct("<I")
_FOREIGN = ">" if sys.byteorder == "little" else "="
"""Byte order of arrays that are not little-endian: numpy calls the machine's own `=`."""


def drain(step: Callable[[Alarms, int, int], tuple[int, int, int]], rows: int, room: int) -> Alarms:
    """All alarms of a batch, in order, however many there are.

    Parameters
    ----------
    step : runs a kernel from (row, position in the row's scopes) until the batch ends or fewer than `room`
        places are left; returns the alarms written and where it stopped
    """
    buffer = np.empty(max(BUFFER_ALARMS, room), ALARM)
    parts: list[Alarms] = []
    row = slot = 0
    while row < rows:
        written, row, slot = step(buffer, row, slot)
        if written:
            parts.append(buffer[:written].copy())
    return np.concatenate(parts) if parts else np.zeros(0, ALARM)


def per_series(values: ArrayLike, n_scopes: int, n_columns: int) -> Float64Array:
    """A parameter as an own array (n_scopes, n_columns); a scalar or one value a column is repeated."""
    return np.array(np.broadcast_to(np.asarray(values, np.float64), (n_scopes, n_columns)), order="C")


def per_monitor(values: ArrayLike, n: int) -> Float64Array:
    """A parameter as an own array (n,); a scalar is repeated."""
    return np.array(np.broadcast_to(np.asarray(values, np.float64), (n,)), order="C")


def all_active(n_scopes: int, n_columns: int, active: ArrayLike | None) -> UInt8Array:
    """The mask of series that have this detector; None = all of them."""
    mask = np.ones((n_scopes, n_columns), np.uint8)
    if active is not None:
        mask[...] = np.asarray(active, bool)
    return mask


def checked_rows(rows: Any, scopes: Any, dtype: type, n_columns: int, n_scopes: int) -> tuple[Any, Int32Array]:
    """Contiguous rows and scopes of one batch; a kernel does no bounds checks, so they are made here.

    Raises
    ------
    ValueError : the shape or a scope id does not fit the bank
    """
    rows = np.ascontiguousarray(rows, dtype)
    scopes = np.ascontiguousarray(scopes, np.int32)
    if rows.ndim != 2 or rows.shape[1] != n_columns:
        raise ValueError(f"expected rows of shape (n, {n_columns}), got {rows.shape}")
    if scopes.ndim != 2 or scopes.shape[0] != rows.shape[0]:
        raise ValueError(f"expected scopes of shape ({rows.shape[0]}, S), got {scopes.shape}")
    if scopes.size and int(scopes.max()) >= n_scopes:
        raise ValueError(f"expected scope ids below {n_scopes}, got {int(scopes.max())}")
    return rows, scopes


def series_rows(values: ArrayLike) -> tuple[Float64Array, Int32Array]:
    """One series' values as rows of a bank with one scope and one column."""
    rows = np.asarray(values, np.float64).reshape(-1, 1)
    return rows, np.zeros(rows.shape, np.int32)


def pack(magic: bytes, version: int, n_columns: int, arrays: Iterable[NDArray[Any]]) -> bytes:
    """State of one scope: a frame and each array with its length, little-endian, no pickle."""
    arrays = list(arrays)
    parts = [_FRAME.pack(magic, version, len(arrays), n_columns, 0)]
    for array in arrays:
        payload = (array.byteswap() if array.dtype.byteorder == _FOREIGN else array).tobytes()
        parts += [_LENGTH.pack(len(payload)), payload]
    return b"".join(parts)


def version_of(blob: bytes) -> int:
    """The version that a state says it is of; -1 = too short to say."""
    return int(_FRAME.unpack_from(blob)[1]) if len(blob) >= _FRAME.size else -1


def unpack(
    blob: bytes, magic: bytes, version: int, n_columns: int, dtypes: list[str], lengths: list[int | None] | None = None
) -> list[NDArray[Any]]:
    """The arrays of `pack`, flat and writable.

    Parameters
    ----------
    lengths : items each array must have; None = any number

    Raises
    ------
    ValueError : another kind, version or number of columns, or a damaged length
    """
    if len(blob) < _FRAME.size:
        raise ValueError(f"expected state of {magic.decode()}, got {len(blob)} bytes")
    found, found_version, count, columns, _ = _FRAME.unpack_from(blob)
    if (found, found_version, count, columns) != (magic, version, len(dtypes), n_columns):
        raise ValueError(
            f"expected state of {magic.decode()} version {version} with {n_columns} columns, "
            f"got {found!r} version {found_version} with {columns} columns"
        )
    arrays: list[NDArray[Any]] = []
    at = _FRAME.size
    for dtype in dtypes:
        if at + 4 > len(blob):
            raise ValueError(f"damaged state of {magic.decode()}: ends after {len(blob)} bytes")
        (length,) = struct.unpack_from("<I", blob, at)
        if at + 4 + length > len(blob) or length % np.dtype(dtype).itemsize:
            raise ValueError(f"damaged state of {magic.decode()}: a length of {length} bytes at {at} does not fit")
        arrays.append(np.frombuffer(blob, dtype, length // np.dtype(dtype).itemsize, at + 4).copy())
        at += 4 + length
    if at != len(blob):
        raise ValueError(f"damaged state of {magic.decode()}: {len(blob) - at} bytes too many")
    for k, wanted in enumerate(lengths or []):
        if wanted is not None and len(arrays[k]) != wanted:
            raise ValueError(f"damaged state of {magic.decode()}: expected {wanted} items in array {k}, got {len(arrays[k])}")
    return arrays
