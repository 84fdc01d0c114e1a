"""Rows that do not say what they are of, though their model has a `unit`: each of them is watched, as without one."""

from __future__ import annotations

import logging
from typing import Final

import numpy as np
import numpy.typing as npt

from driftline.streams.counters import Counters
from driftline.streams.observation import NO_UNIT

_log = logging.getLogger(__name__)

ROWS_LEAST: Final = 1_000
"""So many rows without a single unit are no chance: guests who have none come among others who have one."""


class UnsaidUnits:
    """Counts such rows, and warns once of a model none of whose rows since the start says its unit.

    Shared by the tasks of a worker: the rows of a model are on many partitions.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._rows: dict[str, int] = {}
        self._settled: set[str] = set()

    def add(self, model: str, path: str, units: npt.NDArray[np.int64]) -> None:
        """Take a batch of a model's rows.

        Parameters
        ----------
        path : where the unit should be, as configured.
        units : shape (n,), `NO_UNIT` where a row says none.
        """
        unsaid = int(np.count_nonzero(units == NO_UNIT))
        if unsaid:
            self._counters.increment("unit_missing", {"model": model}, unsaid)
        if model in self._settled or not len(units):
            return
        rows = self._rows[model] = self._rows.get(model, 0) + len(units)
        if unsaid < len(units):
            self._settled.add(model)
        elif rows >= ROWS_LEAST:
            self._settled.add(model)
            note = "every row is watched, as without a unit: is the path right?"
            _log.warning("unit_missing model=%s unit=%r rows=%d note=%r", model, path, rows, note)
