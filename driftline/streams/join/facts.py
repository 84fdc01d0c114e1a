"""Facts: what the label cache holds of a label, as bytes that Redis and memory keep alike.

A fact is a fixed head and, for a label that is a text, the text. The facts of one id stand one after the other, newest
first; they are only ever added (PROTOCOL 14), and the same source position is the same label.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Final

import numpy as np
import numpy.typing as npt
import xxhash

from driftline.streams.columns import LabelBlock
from driftline.streams.task import PartitionId

FACT: Final = np.dtype(
    {
        "names": ["time_ms", "labels_offset", "source", "offset", "model", "value", "text_bytes", "counted"],
        "formats": ["<i8", "<i8", "<u4", "<i8", "<u4", "<f8", "<u2", "u1"],
        "offsets": [0, 8, 16, 20, 28, 32, 40, 42],
        "itemsize": 43,
    }
)
FACT_BYTES: Final = 43
COUNTED_AT: Final = 42
_MODEL: Final = slice(28, 32)
_ANY_MODEL: Final = bytes(4)
_TEXT_AT: Final = 40
_HEAD: Final = struct.Struct("<qqIqIdHB")


class FactError(ValueError):
    """Bytes that are no facts."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A label as cached.

    Attributes
    ----------
    time_ms : the running maximum of its source partition's times, itself and the ticks before it included.
    labels_offset : its offset in the labels topic; visible only to attempts that have read beyond it.
    source, offset : source position; the partition as a 32-bit hash, which orders equal times in a fixed way.
    model : 32-bit hash of the model it names, 0 = the id alone joins.
    counted : already counted in a metric, so no orphan when swept.
    """

    time_ms: int
    labels_offset: int
    source: int
    offset: int
    model: int
    value: float
    text: str | None
    counted: bool

    @property
    def order(self) -> tuple[int, int, int]:
        """Which of several labels comes first."""
        return (self.time_ms, self.source, self.offset)

    @property
    def same_as(self) -> tuple[str | None, float]:
        """Equal for labels that do not contradict each other."""
        return (self.text, 0.0 if self.text is not None else self.value)

    def encode(self, *, counted: bool) -> bytes:
        text = b"" if self.text is None else self.text.encode()
        return _HEAD.pack(self.time_ms, self.labels_offset, self.source, self.offset, self.model, self.value, len(text), counted) + text


def source_hash(source: PartitionId) -> int:
    """The 32 bits a fact names its source partition by."""
    return xxhash.xxh32_intdigest(f"{source[0]}/{source[1]}".encode())


def model_hash(name: str) -> int:
    """The 32 bits a fact names a model by; never 0."""
    return xxhash.xxh32_intdigest(name.encode()) or 1


def facts_of(block: LabelBlock, labels_offset: int, counted: npt.NDArray[np.bool_]) -> list[bytes]:
    """The facts of a label block's rows."""
    n = len(block)
    heads = np.zeros(n, FACT)
    heads["time_ms"] = block.seen_ms
    heads["labels_offset"] = labels_offset
    heads["source"] = source_hash(block.source)
    heads["offset"] = block.offset
    heads["value"] = block.value
    heads["counted"] = counted
    if block.model is not None:
        hashes = np.array([*map(model_hash, block.model.values), 0], np.uint32)
        heads["model"] = hashes[block.model.codes]
    if block.text is None:
        return _cut(heads)
    texts = [value.encode() for value in block.text.values]
    sizes = np.array([*map(len, texts), 0], np.uint16)
    heads["text_bytes"] = sizes[block.text.codes]
    return [
        head + (texts[c] if c >= 0 else b"")
        for head, c in zip(_cut(heads), block.text.codes.tolist(), strict=True)
    ]


def as_counted(packed: bytes) -> bytes:
    """The facts of one id, all of them counted."""
    if len(packed) == FACT_BYTES:
        return packed[:COUNTED_AT] + b"\x01"
    return b"".join(fact.encode(counted=True) for fact in reversed(read_facts(packed)))


def after_decision(packed: bytes, model: int, limit_ms: int) -> bytes:
    """What stays of the facts of one id when a prediction of `model`, one of several, has been decided.

    Labels that name the model are used up, but for those too late for it; labels that name none may be another's. All
    that this prediction could see are counted now; labels that name another model are as they were.
    """
    if len(packed) == FACT_BYTES:
        named = packed[_MODEL]
        if named == model.to_bytes(4, "little"):
            return as_counted(packed) if first_ms(packed) > limit_ms else b""
        return as_counted(packed) if named == _ANY_MODEL else packed
    kept = [fact for fact in read_facts(packed) if fact.model != model or fact.time_ms > limit_ms]
    return b"".join(fact.encode(counted=fact.counted or fact.model in (0, model)) for fact in reversed(kept))


def after_decisions(
    ids: Sequence[bytes], packed: Sequence[bytes | None], models: npt.NDArray[np.uint32], limits_ms: npt.NDArray[np.int64],
    decided: npt.NDArray[np.bool_],
) -> dict[bytes, bytes]:  # fmt: skip
    """The same for a block of predictions, in their order: what stays of each id of which anything was used up.

    Parameters
    ----------
    packed : shape (n,), the facts of each id.
    models, limits_ms, decided : shape (n,), of each prediction; the labels of one that is not decided stay as they are.
    """
    gone = np.zeros(len(ids), np.bool_)
    # The labels of an id that comes twice are used up by one prediction after the other.
    if len(set(ids)) == len(ids):
        gone = decided & _used_up(packed, models, limits_ms)
    left = dict.fromkeys(compress(ids, gone.tolist()), b"")
    for row in np.flatnonzero(decided & ~gone).tolist():
        if (value := packed[row]) is not None:
            before = left.get(ids[row], value)
            after = after_decision(before, int(models[row]), int(limits_ms[row]))
            if after != before:
                left[ids[row]] = after
    return left


def _used_up(packed: Sequence[bytes | None], models: npt.NDArray[np.uint32], limits_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Where nothing stays, as in nearly every row: one label, which names the model and is in time."""
    rows = [row for row, value in enumerate(packed) if value is not None and len(value) == FACT_BYTES]
    heads = np.frombuffer(b"".join(packed[row] for row in rows), FACT)   # type: ignore[misc]
    found = np.zeros(len(packed), np.bool_)
    found[rows] = (heads["model"] == models[rows]) & (heads["time_ms"] <= limits_ms[rows])
    return found


def first_ms(packed: bytes) -> int:
    """The time of the first label of one id."""
    if len(packed) == FACT_BYTES:
        return int.from_bytes(packed[:8], "little", signed=True)
    return read_facts(packed)[0].time_ms


def latest_ms(packed: bytes) -> int:
    """The time of the latest label of one id."""
    if len(packed) == FACT_BYTES:
        return int.from_bytes(packed[:8], "little", signed=True)
    return max(fact.time_ms for fact in read_facts(packed))


def check_facts(packed: bytes) -> None:
    """See that all of it are facts.

    Raises
    ------
    FactError : a fact is cut short or its text is none; looked up later, it would end the worker.
    """
    if len(packed) == FACT_BYTES and packed[_TEXT_AT:COUNTED_AT] == b"\0\0" and packed[COUNTED_AT] <= 1:
        return
    at = 0
    try:
        while at < len(packed):
            *_, size, counted = _HEAD.unpack_from(packed, at)
            at += FACT_BYTES
            packed[at : at + size].decode()
            at += size
            if counted > 1:
                raise FactError(f"a damaged label of {len(packed)} bytes: counted {counted} times")
    except (struct.error, UnicodeDecodeError) as error:
        raise FactError(f"a damaged label of {len(packed)} bytes: {error}") from error
    if not packed or at != len(packed):
        raise FactError(f"a damaged label of {len(packed)} bytes, expected {at}")


def read_facts(packed: bytes) -> list[Fact]:
    """The facts of one id, each source position once, the earliest first."""
    found: dict[tuple[int, int], Fact] = {}
    at = 0
    while at < len(packed):
        time_ms, labels_offset, source, offset, model, value, size, counted = _HEAD.unpack_from(packed, at)
        at += FACT_BYTES
        text = packed[at : at + size].decode() if size else None
        at += size
        found[source, offset] = Fact(time_ms, labels_offset, source, offset, model, value, text, bool(counted))
    return sorted(found.values(), key=lambda fact: fact.order)


def _cut(heads: npt.NDArray[np.void]) -> list[bytes]:
    cut: list[bytes] = np.frombuffer(heads.tobytes(), f"V{FACT_BYTES}").tolist()
    return cut
