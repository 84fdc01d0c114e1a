"""Entries of the label cache's journal: what happened to the cache, as bytes that give it back when they are read in order.

An entry is a head (kind, rows, size of each value or 0), the ids one after the other, the sizes of the values where
they differ, and the values.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Final

import numpy as np

from driftline.streams.join.facts import FACT_BYTES

ID_BYTES: Final = 16
FACTS_MAX: Final = 64
ADDED: Final = 1
"""Facts that came, one an id; an id may stand in it twice."""
HELD: Final = 2
"""All the facts of each id."""
GONE: Final = 3
"""Ids that are held no more."""
_HEAD: Final = struct.Struct("<BII")

Rows = tuple[int, list[bytes], list[bytes]]
"""Kind, ids and values (none for `GONE`)."""


class JournalError(ValueError):
    """An entry that is damaged or of a kind this version does not know."""


def pack(kind: int, ids: Sequence[bytes], values: Sequence[bytes] = ()) -> bytes:
    """An entry."""
    head = _HEAD.pack(kind, len(ids), FACT_BYTES)
    if not values:
        return head + b"".join(ids)
    if set(map(len, values)) == {FACT_BYTES}:
        return b"".join((head, *ids, *values))
    sizes = np.fromiter(map(len, values), np.uint32, len(values)).astype("<u4").tobytes()
    return b"".join((_HEAD.pack(kind, len(ids), 0), *ids, sizes, *values))


def unpack(entry: bytes) -> Rows:
    """The rows of an entry.

    Raises
    ------
    JournalError : not an entry of ours.
    """
    try:
        kind, n, size = _HEAD.unpack_from(entry)
        at = _HEAD.size + n * ID_BYTES
        ids = np.frombuffer(entry, f"V{ID_BYTES}", n, _HEAD.size).tolist()
        if kind == GONE:
            return _whole(entry, at, (kind, ids, []))
        if kind not in (ADDED, HELD):
            raise JournalError(f"label journal: an entry of unknown kind {kind}")
        if size > len(entry):
            # numpy has no type of such a size, and says so by another error than for a short entry
            raise JournalError(f"label journal: values of {size} bytes in an entry of {len(entry)}")
        if size:
            return _whole(entry, at + n * size, (kind, ids, np.frombuffer(entry, f"V{size}", n, at).tolist()))
        sizes = np.frombuffer(entry, "<u4", n, at).tolist()
    except (struct.error, ValueError) as error:
        raise JournalError(f"label journal: a damaged entry of {len(entry)} bytes: {error}") from error
    bounds = list(accumulate(sizes, initial=at + 4 * n))
    return _whole(entry, bounds[-1], (kind, ids, [entry[first:last] for first, last in pairwise(bounds)]))


def _whole(entry: bytes, end: int, rows: Rows) -> Rows:
    if end != len(entry):
        raise JournalError(f"label journal: an entry of {len(entry)} bytes, expected {end}")
    return rows


def replay(entries: Iterable[bytes], into: dict[bytes, bytes]) -> None:
    """Do to a cache what the entries say was done."""
    for entry in entries:
        kind, ids, values = unpack(entry)
        if kind == ADDED:
            add(into, ids, values)
        elif kind == HELD:
            into.update(zip(ids, values, strict=True))
        else:
            for key in ids:
                into.pop(key, None)


def add(into: dict[bytes, bytes], ids: Sequence[bytes], facts: Sequence[bytes]) -> tuple[int, int]:
    """Facts to those held, the newest first; a fact that is held already changes nothing.

    An id keeps about `FACTS_MAX` of them: one that every label bears ("unknown") would cost more with each.

    Returns
    -------
    Bytes that are held more than before, and facts that were passed over.
    """
    keep = into.setdefault
    before, more, over = len(into), 0, 0
    for key, fact in zip(ids, facts, strict=True):
        held = keep(key, fact)
        if held is fact:
            more += len(fact)
        elif fact not in held:
            if len(held) >= FACTS_MAX * FACT_BYTES:
                over += 1
                continue
            into[key] = fact + held
            more += len(fact)
    return more + (len(into) - before) * ID_BYTES, over
