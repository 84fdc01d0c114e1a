"""Rows while which a ledger's time stands still, as one before them was dated ahead of them all.

A ledger's time never goes back. A lone record ahead of the records before it is set back by ingest, but the first one of a
source partition has nothing before it, and several confirm each other; so may rows be that stand in another order than that
of time. Until time has passed them no budget of false alarms comes in, and nobody would know why nothing is found. Only
words and a counter follow from what stands here: it is no state, and a restart begins to count anew.
"""

from __future__ import annotations

import logging
from typing import Final

import numpy as np
import numpy.typing as npt

from driftline.schemas.contracts import rfc3339_ms
from driftline.streams.counters import Counters
from driftline.streams.detect.sources import SourceTable
from driftline.streams.observation import Observations

_log = logging.getLogger(__name__)

BEHIND_MS: Final = 3_600_000
"""Rows of several producers come minutes out of order; of a week's budget a gap counts an hour at most (`budget.py`)."""
ROWS_LEAST: Final = 100
_NOTE: Final = (
    "these rows come with times an hour or more before that; until rows have passed it false_alarms allows no alarm: "
    "correct or leave out what is dated ahead, or put the rows into the order of time"
)


class Standstill:
    """Counts the rows of one ledger that are far behind its time, and warns once of each standstill.

    Parameters
    ----------
    sources : names the record that brought the time, where a row of this worker's life did.
    """

    def __init__(self, model: str, ledger: str, sources: SourceTable, counters: Counters) -> None:
        self._model, self._ledger, self._sources, self._counters = model, ledger, sources, counters
        self._reached_ms = -1
        self._place = "unknown"
        self._rows = 0

    def look(self, batch: Observations, clock: npt.NDArray[np.int64]) -> None:
        """Take a batch whose rows have moved the ledger's time.

        Parameters
        ----------
        clock : shape (n,), ms, the ledger's time at each row.
        """
        now_ms = int(clock[-1])
        if int(batch.record_ms.min()) > now_ms - BEHIND_MS:
            if now_ms > self._reached_ms:
                self._move(batch, clock, int(np.searchsorted(clock, now_ms)))
            return
        behind = clock - batch.record_ms >= BEHIND_MS
        self._counters.increment("rows_behind", {"model": self._model}, int(np.count_nonzero(behind)))
        moves = np.flatnonzero(np.diff(clock, prepend=self._reached_ms) > 0)
        starts = np.union1d(moves, [0])
        counts = np.add.reduceat(behind, starts, dtype=np.int64)
        told = (counts > 0) | (starts == 0) | (starts == starts[-1])
        for start, count in zip(starts[told].tolist(), counts[told].tolist(), strict=True):
            if int(clock[start]) > self._reached_ms:
                self._move(batch, clock, start)
            self._stand(count)

    def _move(self, batch: Observations, clock: npt.NDArray[np.int64], row: int) -> None:
        self._reached_ms, self._rows, self._place = int(clock[row]), 0, "unknown"
        if int(batch.record_ms[row]) == self._reached_ms:
            topic, partition = self._sources[int(batch.source[row])]
            self._place = f"{topic}[{partition}]@{int(batch.offset[row])}"

    def _stand(self, rows: int) -> None:
        before, self._rows = self._rows, self._rows + rows
        if before < ROWS_LEAST <= self._rows:
            _log.warning(
                "time_stands_still model=%s ledger=%s at=%s record=%s rows=%d note=%r",
                self._model, self._ledger, rfc3339_ms(self._reached_ms), self._place, self._rows, _NOTE,
            )  # fmt: skip
