"""River's detectors for many series: one Python object for each scope and series that asks for one."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from driftline.detectors.kernels.bank import ALARM, Alarms
from driftline.detectors.river_adapter import RiverDetector
from driftline.detectors.spec import Float64, Int32, UInt8

_LENGTH: Final = struct.Struct("<I")


class RiverBank:
    """The interface of the compiled banks over `RiverDetector`.

    river tells neither statistic nor threshold nor where a change began: an alarm has statistic 1, threshold 1, and
    the size of the detector's memory as `back`. A value costs what river's Python call costs, .3 us and up.

    Parameters
    ----------
    named : class of river.drift and its parameters, one a column.
    active : (n_scopes, n_columns), 0 = this series has no detector.
    """

    def __init__(self, n_scopes: int, named: Sequence[tuple[str, Mapping[str, Any]]], *, active: UInt8) -> None:
        self._detectors = [
            [RiverDetector(name, params) if active[scope, column] else None for column, (name, params) in enumerate(named)]
            for scope in range(n_scopes)
        ]

    def update(self, values: Float64, scopes: Int32) -> Alarms:
        """Add a batch of rows (n, C) to their scopes (n, 1); NaN and infinities are skipped."""
        found = []
        for scope in np.unique(scopes).tolist():
            rows = np.flatnonzero(scopes[:, 0] == scope)
            for column, detector in enumerate(self._detectors[scope] if scope >= 0 else ()):
                if detector is None:
                    continue
                for row, value in zip(rows.tolist(), values[rows, column].tolist(), strict=True):
                    detector.update(value)
                    if detector.drift_detected:
                        found.append((row, scope, column, 1.0, 1.0, 0, detector.width))
        return np.array(found, ALARM)

    def take(self, scope: int, column: int, other: RiverBank, from_scope: int, from_column: int) -> None:
        """Go on with one detector of another bank, of the same class and parameters; that bank must not be used any more."""
        if self._detectors[scope][column] is not None and (held := other._detectors[from_scope][from_column]) is not None:
            self._detectors[scope][column] = held

    def export(self, scope: int) -> bytes:
        """The state of one scope."""
        blobs = [b"" if detector is None else detector.export() for detector in self._detectors[scope]]
        return b"".join(_LENGTH.pack(len(blob)) + blob for blob in blobs)

    def restore(self, scope: int, blob: bytes) -> None:
        """Continue one scope from `export`, as if it had never stopped.

        Raises
        ------
        ValueError : damaged, or of other detectors.
        """
        at = 0
        for detector in self._detectors[scope]:
            if at + _LENGTH.size > len(blob):
                raise ValueError("damaged state of river detectors: it ends too early")
            (length,) = _LENGTH.unpack_from(blob, at)
            part = blob[at + _LENGTH.size : at + _LENGTH.size + length]
            at += _LENGTH.size + length
            if len(part) != length or (detector is None) != (length == 0):
                raise ValueError("damaged state of river detectors: a length does not fit")
            if detector is not None:
                detector.restore(part)
        if at != len(blob):
            raise ValueError(f"damaged state of river detectors: {len(blob) - at} bytes too many")
