"""Ids of the predictions decided last: tells a prediction sent twice, and a label that came too late from an orphan.

Bounded and a function of the waiting log alone: two generations, the older dropped when the newer has `GENERATION` rows
at the end of a block, so at least that many rows back are remembered. The rows are kept as a ring of (id, limit).
An id that is used again further back than that is a new prediction; the label of the first use is gone by then, unless
Redis was lost in between and the cache was filled again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from driftline.streams.columns import ID_TYPE, Ids
from driftline.streams.errors import StateError
from driftline.streams.task import RestoredRing, RingWrite

RING: Final = "decided"
RECORD: Final = np.dtype([("id", "V16"), ("limit_ms", "<i8")])
GENERATION: Final = 25_000


class DecidedIds:
    """The memory of decided rows; `limit_ms` of a row is the last label time it could take.

    Parameters
    ----------
    block_rows : most rows of one block (a commit of ingest); a generation may outgrow its size by one block.
    """

    def __init__(self, generation: int = GENERATION, block_rows: int = 20_000) -> None:
        self._generation = generation
        self.window = 2 * (generation + block_rows)
        self._older: set[bytes] = set()
        self._newer: set[bytes] = set()
        self._sizes = [0, 0]
        self.head = 0
        self._unsaved: list[npt.NDArray[np.void]] = []
        self._grown = False

    def __contains__(self, key: bytes) -> bool:
        return key in self._newer or key in self._older

    def isdisjoint(self, keys: list[bytes]) -> bool:
        """Whether none of the keys is remembered."""
        return self._newer.isdisjoint(keys) and self._older.isdisjoint(keys)

    def repeats(self, keys: list[bytes]) -> npt.NDArray[np.bool_]:
        """Which rows of a block repeat a remembered row or an earlier one of the block."""
        own = set(keys)
        if len(own) == len(keys) and self.isdisjoint(keys):
            return np.zeros(len(keys), np.bool_)
        seen: set[bytes] = set()
        out: list[bool] = []
        for key in keys:
            out.append(key in seen or key in self)
            seen.add(key)
        return np.array(out, np.bool_)

    def add(self, keys: list[bytes], limits: npt.NDArray[np.int64]) -> None:
        """Remember the rows of a block; `keys` tell models apart where ids do not."""
        rows = np.empty(len(keys), RECORD)
        rows["id"], rows["limit_ms"] = np.frombuffer(b"".join(keys), "V16"), limits
        self._newer.update(keys)
        self._sizes[1] += len(keys)
        self.head += len(keys)
        self._unsaved.append(rows)
        if self._sizes[1] >= self._generation:
            self._older, self._newer = self._newer, set()
            self._sizes = [self._sizes[1], 0]

    def sizes(self) -> list[int]:
        return list(self._sizes)

    def ring(self) -> RingWrite | None:
        """The rows since the last call."""
        if not self._unsaved:
            return None
        rows = np.concatenate(self._unsaved)
        self._unsaved = []
        full, self._grown = self._grown or len(rows) >= self.window, False
        return RingWrite(RING, RECORD.itemsize, self.window, self.head, rows[-self.window :].tobytes(), full)

    def restore(self, ring: RestoredRing, sizes: Iterable[int]) -> npt.NDArray[np.void]:
        """Go on from a checkpoint; returns the ring's rows, oldest first.

        After `kafka.commit_rows` was raised the ring is longer, and `head` counts from its first row; it never becomes shorter.
        """
        older, newer = sizes
        if ring.record_bytes != RECORD.itemsize or older + newer > len(ring.rows) // RECORD.itemsize:
            raise StateError(f'its window "{RING}" has not the {older + newer} rows that it should have')
        rows = np.frombuffer(ring.rows, RECORD)
        keys = rows["id"].tolist()
        self._newer = set(keys[len(keys) - newer :])
        self._older = set(keys[len(keys) - newer - older : len(keys) - newer])
        self._sizes = [older, newer]
        self.head = ring.head
        if ring.window < self.window:
            # Written anew, as a longer ring, with the rows that there are; a ring has as many as its head says.
            self.head, self._unsaved, self._grown = len(rows), [rows], True
        self.window = max(self.window, ring.window)
        return rows


def keys_by_model(ids: Ids, hashes: npt.NDArray[np.uint32]) -> list[bytes]:
    """Ids that tell models apart: one transaction may be scored by several, and none of those is a duplicate.

    Mixed with the same hash again, a key is the id.
    """
    mixed = np.array(ids, order="C").view("<u4").reshape(-1, 4)
    mixed[:, 3] ^= hashes
    keys: list[bytes] = mixed.reshape(-1).view(ID_TYPE).tolist()
    return keys
