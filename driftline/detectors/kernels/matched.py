"""Codes of a window as they would be among the values of all hours; see `driftline.detectors.matched`."""

from __future__ import annotations

from typing import Final, NamedTuple

from driftline.detectors.kernels.conformal import UInt64Array
from driftline.detectors.kernels.jit import kernel
from driftline.detectors.kernels.portable import uniform
from driftline.detectors.spec import Float64, Int32, Int64, UInt8

_BELOW_ONE: Final = 1.0 - 2.0**-53


class Matching(NamedTuple):
    """Axes: S scopes, M matched columns, T hours of a scope and column that have a reference of their own, B bins."""

    columns: Int64  # (M,)
    own: UInt64Array  # (S, M) the key of each for its random numbers
    way: Int64  # (S, M) how hours are told apart (`season.WAYS`), 0 = they are not
    first: Int64  # (S, M) the place of the first hour among `row`
    row: Int64  # (hours of all,) the row of T, -1 = the hour has no reference of its own
    begins: Float64  # (T, B) share of the hour's reference values in the bins below
    has: Float64  # (T, B) share of them in the bin
    ends: Float64  # (S, M, B) share of the reference values of all hours in the bins up to and with this one


@kernel
def match(codes: UInt8, scopes: Int32, keys: UInt64Array, places: Int64, m: Matching, out: UInt8) -> None:
    """Put each value that lies in the reference's range where it would rank among those of all hours.

    Parameters
    ----------
    codes : (n, C). `scopes` : (n, K). `keys` : (n,), `places` : (n, len(WAYS)), of the rows.
    out : (n, K, C), the codes of each scope; changed in place where hours are told apart.
    """
    bins = m.begins.shape[1]
    for i in range(codes.shape[0]):
        for k in range(scopes.shape[1]):
            s = scopes[i, k]
            for j in range(m.columns.shape[0]):
                way, code = m.way[s, j], codes[i, m.columns[j]]
                if way == 0 or code >= bins:
                    continue
                row = m.row[m.first[s, j] + places[i, way]]
                if row < 0:
                    continue
                # Below 1, or a value beyond all of its hour would have no bin.
                rank = min(m.begins[row, code] + uniform(keys[i] ^ m.own[s, j]) * m.has[row, code], _BELOW_ONE)
                # The first bin whose end lies above the rank.
                low, high = 0, bins - 1
                while low < high:
                    middle = (low + high) // 2
                    if m.ends[s, j, middle] > rank:
                        high = middle
                    else:
                        low = middle + 1
                out[i, k, m.columns[j]] = low
