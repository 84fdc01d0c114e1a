"""A bank of one series, with river's interface: what the notebook classes share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from driftline.detectors.kernels.bank import Alarms, Float64Array, Int32Array, Int64Array, series_rows


class _Bank(Protocol):
    def update(self, values: Float64Array, scopes: Int32Array) -> Alarms:
        """Add a batch of rows to their scopes."""


_OneBank = TypeVar("_OneBank", bound=_Bank)


class OneSeries(ABC, Generic[_OneBank]):
    """One detector: a bank with one scope and one column."""

    def __init__(self, bank: _OneBank) -> None:
        self._bank = bank
        self._last_finite = False

    @property
    @abstractmethod
    def _fired(self) -> bool:
        """Whether the last finite value raised an alarm."""

    def update(self, x: float) -> None:
        """Add one value; NaN and infinities change nothing but `drift_detected`, which they clear."""
        self.update_many([x])

    def update_many(self, values: ArrayLike) -> Int64Array:
        """Add values in stream order; positions in `values` of those that raised an alarm."""
        rows, scopes = series_rows(values)
        alarms = self._bank.update(rows, scopes)
        self._last_finite = bool(len(rows)) and bool(np.isfinite(rows[-1, 0]))
        return alarms["row"].astype(np.int64)

    @property
    def drift_detected(self) -> bool:
        """Whether the last value raised an alarm."""
        return self._last_finite and self._fired
