"""The wire form of `driftline.waiting` and `driftline.labels`: compact columns, one block a message.

A block holds rows of one source partition whose ids fall in one target partition, and that source's tick. Layout:
magic with version (4 bytes), length of the JSON head (uint32), head, then raw little-endian buffers in the order
the head lists them. Integers are stored as offsets from their minimum in the narrowest unsigned type; a column
whose values are all equal costs no bytes at all, so that 10^6 waiting predictions stay cheap in the topic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from driftline.streams.column_reader import HEAD, ID_TYPE, MAGIC, NARROW, BlockError, Layout, coded_column, read_columns, rows_of
from driftline.streams.observation import Coded

__all__ = [
    "ID_TYPE", "BlockError", "ClassProbabilities", "Ids", "LabelBlock", "WaitingBlock",
    "decode_labels", "decode_waiting", "encode_labels", "encode_waiting",
]  # fmt: skip

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Ids = npt.NDArray[np.void]


_REQUIRED: Final = frozenset({"ids", "offset", "record_ms", "seen_ms", "time_ms"})
_FLOATS: Final = frozenset({"score", "weight", "value", "probabilities"})
_NAMED: Final = frozenset({"segment", "rows", "probabilities"})
_WAITING: Final = Layout("waiting", _REQUIRED | {"model", "score"}, frozenset({"version", "class", "weight", "unit"}), _NAMED, _FLOATS)
_LABELS: Final = Layout("labels", _REQUIRED | {"value"}, frozenset({"text", "model"}), frozenset(), _FLOATS)


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
    unit: Int64 | None = None
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
        if block.unit is not None:
            out.integers("unit", block.unit)
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
    head, columns = read_columns(value, _WAITING)
    block = WaitingBlock(head.source, head.tick)
    for name, (column, extra) in columns.items():
        prefix, _, rest = name.partition(":")
        if prefix == "segment":
            block.segments[rest] = coded_column(name, column, extra)
        elif prefix == "probabilities":
            rows = rows_of(rest, columns, head.rows)
            if len(column) != len(rows) * len(extra.classes):
                raise BlockError(f'the probabilities of model "{rest[:40]}" do not fit its rows')
            block.probabilities[rest] = ClassProbabilities(extra.classes, rows, column.reshape(len(rows), -1))
        elif name in ("model", "version", "class"):
            setattr(block, "class_" if name == "class" else name, coded_column(name, column, extra))
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
    head, columns = read_columns(value, _LABELS)
    block = LabelBlock(head.source, head.tick)
    for name, (column, extra) in columns.items():
        setattr(block, name, coded_column(name, column, extra) if name in ("text", "model") else column)
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
        kind = next((t for t in NARROW if high - low <= np.iinfo(t).max), np.dtype("<i8"))
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
        return b"".join((HEAD.pack(MAGIC, len(head)), head, *self._buffers))
