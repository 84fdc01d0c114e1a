"""Sliding windows as ring values: a header with the highest row ever written, then `capacity` records.

The slack beyond the window is what makes older checkpoints loadable: rows written since then may overwrite only
slack. A write too large for that goes to a new value under a new key (PROTOCOL 6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from driftline.streams.errors import StateError
from driftline.streams.state.manifest import RingEntry
from driftline.streams.state.store import Copy
from driftline.streams.task import RestoredRing, RingWrite

# The checkpoint being written and the committed ones that recovery may fall back to.
KEPT_CHECKPOINTS: Final = 3
_MAGIC: Final = b"DLRING1\0"
HEADER_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class RingPlan:
    """How one `RingWrite` changes the store."""

    entry: RingEntry
    length: tuple[str, int] | None = None
    ranges: tuple[tuple[str, int, bytes], ...] = ()
    value: tuple[str, bytes] | None = None
    copy: Copy | None = None


def plan_write(write: RingWrite, old: RingEntry | None, written_to: int, new_key: str) -> RingPlan:
    """Where the rows of `write` go.

    Parameters
    ----------
    old : the ring in the checkpoint before, None for a new ring.
    written_to : the highest row ever written to the old value; above `old.head` after an aborted attempt.
    """
    count = _row_count(write, old)
    if old is None or write.full or (old.record_bytes, old.window) != (write.record_bytes, write.window) or count >= old.window:
        return _fresh(write, new_key)
    if count * KEPT_CHECKPOINTS > old.capacity - old.window:
        return _moved(write, old, written_to, new_key)
    return _in_place(write, old, written_to, count)


def whole_ring(ring: RestoredRing, change: RingWrite | None) -> RingWrite:
    """A write of the full window: what was restored, and the rows since."""
    if change is None:
        return RingWrite(ring.name, ring.record_bytes, ring.window, ring.head, ring.rows, full=True)
    if change.full or (change.record_bytes, change.window) != (ring.record_bytes, ring.window):
        return change
    kept = min(change.head, change.window) * ring.record_bytes
    rows = ring.rows + change.rows
    return RingWrite(ring.name, ring.record_bytes, ring.window, change.head, rows[len(rows) - kept :], full=True)


def _row_count(write: RingWrite, old: RingEntry | None) -> int:
    count, rest = divmod(len(write.rows), write.record_bytes)
    known = 0 if old is None else old.head
    expected = min(write.head, write.window) if write.full else write.head - known
    if rest or count != expected:
        raise ValueError(f'ring "{write.name}": {len(write.rows)} bytes of rows, expected {expected} records of {write.record_bytes} bytes')
    return count


def _fresh(write: RingWrite, key: str) -> RingPlan:
    """A new value with the last `window` rows."""
    size = write.record_bytes
    kept = min(write.head, write.window)
    rows = write.rows[len(write.rows) - kept * size :]
    entry = RingEntry(key, size, write.window, 2 * write.window, write.head - kept, write.head)
    return RingPlan(entry, value=(key, header(write.head) + rows))


def _moved(write: RingWrite, old: RingEntry, written_to: int, key: str) -> RingPlan:
    """A new value with rows of the old one before the new rows; the store copies them itself."""
    size = write.record_bytes
    kept = min(write.head, write.window)
    base = write.head - kept
    entry = RingEntry(key, size, write.window, 2 * write.window, base, write.head)
    if base >= old.head:
        return RingPlan(entry, value=(key, header(write.head) + write.rows[len(write.rows) - kept * size :]))
    parts = tuple(_spans(old, base, old.head))
    copy = Copy(key, old.key, header(write.head), parts, write.rows)
    return RingPlan(entry, length=(old.key, value_length(old, written_to)), copy=copy)


def _in_place(write: RingWrite, old: RingEntry, written_to: int, count: int) -> RingPlan:
    entry = RingEntry(old.key, old.record_bytes, old.window, old.capacity, old.base, write.head)
    condition = (old.key, value_length(old, written_to))
    if count == 0:
        return RingPlan(entry, length=condition)
    ranges: list[tuple[str, int, bytes]] = []
    taken = 0
    for start, end in _spans(old, old.head, write.head):
        ranges.append((old.key, start, write.rows[taken : taken + end - start]))
        taken += end - start
    ranges.append((old.key, 0, header(max(written_to, write.head))))
    return RingPlan(entry, length=condition, ranges=tuple(ranges))


def _spans(ring: RingEntry, first: int, end: int) -> list[tuple[int, int]]:
    """Byte spans of rows [first, end) in the value, in row order; never empty ones."""
    start, count, size = (first - ring.base) % ring.capacity, end - first, ring.record_bytes
    before_wrap = min(count, ring.capacity - start)
    spans = [(HEADER_BYTES + start * size, HEADER_BYTES + (start + before_wrap) * size)]
    if count > before_wrap:
        spans.append((HEADER_BYTES, HEADER_BYTES + (count - before_wrap) * size))
    return [span for span in spans if span[0] < span[1]]


def header(written_to: int) -> bytes:
    return _MAGIC + written_to.to_bytes(8, "little")


def value_length(ring: RingEntry, written_to: int) -> int:
    """Bytes of the value once `written_to` rows were written."""
    return HEADER_BYTES + min(written_to - ring.base, ring.capacity) * ring.record_bytes


def read_ring(name: str, ring: RingEntry, value: bytes | None) -> tuple[RestoredRing, int]:
    """The window that a checkpoint names, and the highest row written.

    Raises
    ------
    StateError : the value is gone, of another length, or rows of this window were overwritten since.
    """
    if value is None or len(value) < HEADER_BYTES or value[:8] != _MAGIC:
        raise StateError(f'ring "{name}": {"missing" if value is None else "damaged header"}')
    written_to = int.from_bytes(value[8:HEADER_BYTES], "little")
    if not ring.head <= written_to:
        raise StateError(f'ring "{name}": the store holds rows up to {written_to}, the checkpoint has {ring.head}: it lost writes')
    if written_to - ring.head > ring.capacity - ring.window:
        raise StateError(f'ring "{name}": {written_to - ring.head} rows were written since this checkpoint, more than the slack')
    if len(value) != value_length(ring, written_to):
        raise StateError(f'ring "{name}": {len(value)} bytes, expected {value_length(ring, written_to)}')
    first = ring.head - min(ring.head, ring.window)
    rows = b"".join(value[start:end] for start, end in _spans(ring, first, ring.head))
    return RestoredRing(name, ring.record_bytes, ring.window, ring.head, rows), written_to
