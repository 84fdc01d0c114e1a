"""The wire form of `driftline.waiting` and `driftline.labels`: compact columns, one block a message.

A block holds rows of one source partition whose ids fall in one target partition, and that source's tick. Layout:
magic with version (4 bytes), length of the JSON head (uint32), head, then raw little-endian buffers in the order
the head lists them. Integers are stored as offsets from their minimum in the narrowest unsigned type; a column
whose values are all equal costs no bytes at all, so that 10^6 waiting predictions stay cheap in the topic.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from driftline.streams.observation import Coded

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Ids = npt.NDArray[np.void]

ID_BYTES: Final = 16
ID_TYPE: Final = np.dtype("V16")
MAGIC: Final = b"DLB\x02"
_HEAD: Final = struct.Struct("<4sI")
_NARROW: Final = (np.dtype("<u1"), np.dtype("<u2"), np.dtype("<u4"))


class BlockError(ValueError):
    """A record that is not a block this version can read; never dead-lettered, always a stop."""


@dataclass(slots=True)
class ClassProbabilities:
    """The score vectors of one multi-class model's rows in a block.

    Attributes
    ----------
    classes : names of the columns.
    rows : shape (m,), rows of the block, ascending.
    values : shape (m, len(classes)).
    """

    classes: list[str]
    rows: npt.NDArray[np.int64]
    values: Float64


@dataclass(slots=True)
class WaitingBlock:
    """Predictions that wait for their labels; one entry a row, in offset order of one source partition.

    Attributes
    ----------
    tick_ms : how far the source partition has come, this block included.
    ids : shape (n,), xxh3-128 digests of the canonical ids.
    seen_ms : shape (n,), the running maximum of the source partition's times at the row, ticks included: unlike `tick_ms`
        it does not depend on where batches were cut.
    segments : per segment key; -1 where the row's model does not have it.
    probabilities : by model.
    """

    source: tuple[str, int]
    tick_ms: int
    ids: Ids = field(default_factory=lambda: np.empty(0, ID_TYPE))
    offset: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    record_ms: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    seen_ms: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    time_ms: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    model: Coded = field(default_factory=lambda: Coded(np.empty(0, np.int32), []))
    score: Float64 = field(default_factory=lambda: np.empty(0, np.float64))
    version: Coded | None = None
    class_: Coded | None = None
    segments: dict[str, Coded] = field(default_factory=dict)
    weight: Float64 | None = None
    probabilities: dict[str, ClassProbabilities] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(slots=True)
class LabelBlock:
    """Labels of one source partition; `seen_ms` as in a waiting block, `value` is NaN where the label is a text."""

    source: tuple[str, int]
    tick_ms: int
    ids: Ids = field(default_factory=lambda: np.empty(0, ID_TYPE))
    offset: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    record_ms: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    seen_ms: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    time_ms: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    value: Float64 = field(default_factory=lambda: np.empty(0, np.float64))
    text: Coded | None = None
    model: Coded | None = None

    def __len__(self) -> int:
        return len(self.ids)


def encode_waiting(block: WaitingBlock) -> bytes:
    """The message of a waiting block; equal blocks give equal bytes."""
    out = _Writer("waiting", block.source, block.tick_ms, len(block))
    if len(block):
        out.raw("ids", block.ids)
        out.integers("offset", block.offset)
        out.integers("record_ms", block.record_ms)
        out.integers("seen_ms", block.seen_ms - block.record_ms)
        out.integers("time_ms", block.time_ms - block.record_ms)
        out.coded("model", block.model)
        out.floats("score", block.score)
        out.optional_coded("version", block.version)
        out.optional_coded("class", block.class_)
        for name, segment in block.segments.items():
            out.coded("segment:" + name, segment)
        if block.weight is not None:
            out.floats("weight", block.weight)
        for model, vectors in block.probabilities.items():
            out.integers("rows:" + model, vectors.rows)
            out.floats("probabilities:" + model, np.ascontiguousarray(vectors.values).reshape(-1), classes=vectors.classes)
    return out.bytes()


def encode_labels(block: LabelBlock) -> bytes:
    """The message of a label block; equal blocks give equal bytes."""
    out = _Writer("labels", block.source, block.tick_ms, len(block))
    if len(block):
        out.raw("ids", block.ids)
        out.integers("offset", block.offset)
        out.integers("record_ms", block.record_ms)
        out.integers("seen_ms", block.seen_ms - block.record_ms)
        out.integers("time_ms", block.time_ms - block.record_ms)
        out.floats("value", block.value)
        out.optional_coded("text", block.text)
        out.optional_coded("model", block.model)
    return out.bytes()


def decode_waiting(value: bytes) -> WaitingBlock:
    """The waiting block in a message.

    Raises
    ------
    BlockError : not a waiting block, cut short, or of a newer version.
    """
    head, columns = _read(value, "waiting")
    block = WaitingBlock((head["source"][0], head["source"][1]), head["tick"])
    for name, (column, extra) in columns.items():
        prefix, _, rest = name.partition(":")
        if prefix == "segment":
            block.segments[rest] = Coded(column, extra["values"])
        elif prefix == "probabilities":
            vectors = column.reshape(-1, len(extra["classes"]))
            block.probabilities[rest] = ClassProbabilities(extra["classes"], columns["rows:" + rest][0], vectors)
        elif name in ("model", "version", "class"):
            setattr(block, "class_" if name == "class" else name, Coded(column, extra["values"]))
        elif prefix != "rows":
            setattr(block, name, column)
    if len(block):
        block.seen_ms = block.seen_ms + block.record_ms
        block.time_ms = block.time_ms + block.record_ms
    return block


def decode_labels(value: bytes) -> LabelBlock:
    """The label block in a message.

    Raises
    ------
    BlockError : not a label block, cut short, or of a newer version.
    """
    head, columns = _read(value, "labels")
    block = LabelBlock((head["source"][0], head["source"][1]), head["tick"])
    for name, (column, extra) in columns.items():
        setattr(block, name, Coded(column, extra["values"]) if name in ("text", "model") else column)
    if len(block):
        block.seen_ms = block.seen_ms + block.record_ms
        block.time_ms = block.time_ms + block.record_ms
    return block


class _Writer:
    """Collects columns; the head is written when their number is known."""

    def __init__(self, kind: str, source: tuple[str, int], tick_ms: int, rows: int) -> None:
        self._head: dict[str, Any] = {"kind": kind, "source": source, "tick": tick_ms, "rows": rows}
        self._columns: list[list[Any]] = []
        self._buffers: list[bytes] = []

    def _add(self, name: str, form: str, buffer: bytes, extra: dict[str, Any]) -> None:
        self._columns.append([name, form, len(buffer), extra])
        self._buffers.append(buffer)

    def raw(self, name: str, ids: Ids) -> None:
        self._add(name, "ids", ids.tobytes(), {})

    def integers(self, name: str, column: npt.NDArray[Any], **extra: Any) -> None:
        low, high = int(column.min()), int(column.max())
        extra["base"] = low
        if low == high:
            self._add(name, "constant", b"", extra)
            return
        kind = next((t for t in _NARROW if high - low <= np.iinfo(t).max), np.dtype("<i8"))
        if kind.itemsize == 8:
            extra["base"] = low = 0
        self._add(name, kind.str, (column - low).astype(kind).tobytes(), extra)

    def floats(self, name: str, column: Float64, **extra: Any) -> None:
        """Bits are kept: a constant is told by its eight bytes, so NaN and -0.0 come back as they were."""
        bits = np.ascontiguousarray(column).view(np.int64)
        if len(bits) and (bits == bits[0]).all():
            extra["bits"] = int(bits[0])
            self._add(name, "same", b"", {**extra, "n": len(bits)})
        else:
            self._add(name, "<f8", column.astype("<f8", copy=False).tobytes(), extra)

    def coded(self, name: str, text: Coded) -> None:
        self.integers(name, text.codes, values=text.values)

    def optional_coded(self, name: str, text: Coded | None) -> None:
        if text is not None:
            self.coded(name, text)

    def bytes(self) -> bytes:
        head = orjson.dumps({**self._head, "columns": self._columns})
        return b"".join((_HEAD.pack(MAGIC, len(head)), head, *self._buffers))


def _read(value: bytes, kind: str) -> tuple[dict[str, Any], dict[str, tuple[Any, dict[str, Any]]]]:
    if len(value) < _HEAD.size or value[:3] != MAGIC[:3]:
        raise BlockError(f"expected a block of {kind}, got {value[:8]!r}")
    magic, length = _HEAD.unpack_from(value)
    if magic != MAGIC:
        raise BlockError(f"block version {magic[3]}: this worker reads version {MAGIC[3]}; upgrade it first")
    try:
        head: dict[str, Any] = orjson.loads(value[_HEAD.size : _HEAD.size + length])
        if head["kind"] != kind:
            raise BlockError(f'expected a block of {kind}, got one of "{head["kind"]}"')
        columns: dict[str, tuple[Any, dict[str, Any]]] = {}
        at = _HEAD.size + length
        for name, form, size, extra in head["columns"]:
            if at + size > len(value):
                raise BlockError(f'block of {kind} is cut short in column "{name}"')
            columns[name] = (_column(form, value, at, size, head["rows"], extra, name), extra)
            at += size
    except (KeyError, TypeError, ValueError) as error:
        raise error if isinstance(error, BlockError) else BlockError(f"block of {kind} cannot be read: {error}") from error
    return head, columns


def _column(form: str, value: bytes, at: int, size: int, rows: int, extra: Mapping[str, Any], name: str) -> npt.NDArray[Any]:
    coded = "values" in extra
    if form == "ids":
        return np.frombuffer(value, ID_TYPE, rows, at)
    if form == "constant":
        return np.full(_rows(name, rows), extra["base"], np.int32 if coded else np.int64)
    if form == "same":
        return np.full(extra["n"], extra["bits"], np.int64).view(np.float64)
    column = np.frombuffer(value, form, size // np.dtype(form).itemsize, at)
    if form == "<f8":
        return column
    whole: Int64 = column.astype(np.int64) + extra["base"]
    return whole.astype(np.int32) if coded else whole


def _rows(name: str, rows: int) -> int:
    """A constant `rows:<model>` column has one entry: two rows of a block never have the same number."""
    return 1 if name.startswith("rows:") else rows
