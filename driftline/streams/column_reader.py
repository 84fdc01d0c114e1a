"""Read the wire form that `columns.py` writes: nothing in a block is believed before it is checked against the block's own size."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from driftline.streams.bounded import Index, Signed64
from driftline.streams.errors import UPGRADE_HINT, FatalError
from driftline.streams.observation import Coded

ID_TYPE: Final = np.dtype("V16")
MAGIC: Final = b"DLB\x02"
HEAD: Final = struct.Struct("<4sI")
NARROW: Final = (np.dtype("<u1"), np.dtype("<u2"), np.dtype("<u4"))
_INTEGERS: Final = {kind.str: kind for kind in (*NARROW, np.dtype("<i8"))}

# Columns of equal values cost no bytes: a small block could ask for any amount of memory. A commit of 20,000 rows with
# 100 segments is an eighth of this; scores of 1,000 classes that are all one value are as much as there is.
_CELLS_MAX: Final = 1 << 24

_FOREIGN: Final = "does another program write to this topic? The processor stops before it: nothing of ours may be skipped"


class BlockError(FatalError):
    """A record that is not a block this version can read; never dead-lettered, always a stop."""

    def __init__(self, message: str, *, hint: str = _FOREIGN) -> None:
        super().__init__(message, hint=hint)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a kind of block may hold.

    Attributes
    ----------
    required : columns of every block with rows.
    prefixes : of columns that are named after something, as ``segment:country``.
    floats : columns and prefixes of 64-bit floats; all others but the ids are integers.
    """

    kind: str
    required: frozenset[str]
    optional: frozenset[str]
    prefixes: frozenset[str]
    floats: frozenset[str]

    def knows(self, name: str) -> bool:
        prefix, named, _ = name.partition(":")
        return name in self.required or name in self.optional or (bool(named) and prefix in self.prefixes)



class Extra(msgspec.Struct):
    """What a column is beside its bytes."""

    base: Signed64 = 0
    bits: Signed64 = 0
    n: Index = 0
    values: list[str] | None = None
    classes: list[str] = []


class Head(msgspec.Struct):
    """What stands before the columns; each is name, form, bytes and `Extra`."""

    kind: str
    source: tuple[str, Index]
    tick: Signed64
    rows: Index
    columns: list[tuple[str, str, Index, Extra]]


Columns = dict[str, tuple[npt.NDArray[Any], Extra]]
_decoder = msgspec.json.Decoder(Head)


def read_columns(value: bytes, layout: Layout) -> tuple[Head, Columns]:
    """Head and columns of a block.

    Raises
    ------
    BlockError : not such a block, damaged, or of a newer version.
    """
    head, at = _head(value, layout.kind)
    columns: Columns = {}
    cells = 0
    for name, form, size, extra in head.columns:
        if at + size > len(value):
            raise BlockError(f'block of {layout.kind} is cut short in column "{name[:40]}"')
        if name in columns or not layout.knows(name):
            raise BlockError(f'block of {layout.kind} has a column "{name[:40]}" that it should not have')
        prefix = name.partition(":")[0]
        # Two rows of a block never have the same number: a constant column of such is one row.
        rows = 1 if prefix == "rows" else head.rows
        cells += (rows if form == "constant" else extra.n) if not size else 0
        if cells > _CELLS_MAX:
            raise BlockError(f"block of {layout.kind} asks for more than {_CELLS_MAX} cells")
        part = memoryview(value)[at : at + size]
        column = _floats(form, part, extra) if prefix in layout.floats else _whole(name, form, part, rows, extra)
        if prefix not in ("rows", "probabilities") and len(column) != head.rows:
            raise BlockError(f'block of {layout.kind}: column "{name[:40]}" has {len(column)} rows, expected {head.rows}')
        columns[name] = (column, extra)
        at += size
    if at != len(value) or (not layout.required <= columns.keys() if head.rows else columns):
        raise BlockError(f"block of {layout.kind} has other columns than its {head.rows} rows need")
    return head, columns


def coded_column(name: str, column: npt.NDArray[Any], extra: Extra) -> Coded:
    """A column of texts; BlockError where a code names none."""
    values = extra.values
    if values is None or (len(column) and not (int(column.min()) >= -1 and int(column.max()) < len(values))):
        raise BlockError(f'column "{name[:40]}" names values that it does not have')
    return Coded(column.astype(np.int32), values)


def rows_of(model: str, columns: Columns, rows: int) -> npt.NDArray[np.int64]:
    """The rows that have probabilities of a model; BlockError where they are none of the block."""
    own: npt.NDArray[np.int64] = columns[f"rows:{model}"][0] if f"rows:{model}" in columns else np.empty(0, np.int64)
    if not len(own) or int(own[0]) < 0 or int(own[-1]) >= rows or not (np.diff(own) > 0).all():
        raise BlockError(f'the probabilities of model "{model[:40]}" do not fit its rows')
    return own


def _head(value: bytes, kind: str) -> tuple[Head, int]:
    """The head, and where the columns begin."""
    if len(value) < HEAD.size or value[:3] != MAGIC[:3]:
        raise BlockError(f"expected a block of {kind}, got {value[:8]!r}")
    magic, length = HEAD.unpack_from(value)
    if magic != MAGIC:
        raise BlockError(f"block version {magic[3]}: this worker reads version {MAGIC[3]}", hint=UPGRADE_HINT)
    try:
        head = _decoder.decode(value[HEAD.size : HEAD.size + length])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BlockError(f"block of {kind} cannot be read: {error}") from error
    if head.kind != kind:
        raise BlockError(f'expected a block of {kind}, got one of "{head.kind[:40]}"')
    return head, HEAD.size + length


def _floats(form: str, part: memoryview, extra: Extra) -> npt.NDArray[Any]:
    if form == "same" and not len(part):
        return np.full(extra.n, extra.bits, np.int64).view(np.float64)
    if form != "<f8" or len(part) % 8:
        raise _unreadable(form, part)
    return np.frombuffer(part, "<f8")


def _whole(name: str, form: str, part: memoryview, rows: int, extra: Extra) -> npt.NDArray[Any]:
    if name == "ids":
        if form != "ids" or len(part) != rows * ID_TYPE.itemsize:
            raise _unreadable(form, part)
        return np.frombuffer(part, ID_TYPE)
    if form == "constant" and not len(part):
        return np.full(rows, extra.base, np.int64)
    kind = _INTEGERS.get(form)
    if kind is None or len(part) % kind.itemsize:
        raise _unreadable(form, part)
    return np.frombuffer(part, kind).astype(np.int64) + np.int64(extra.base)


def _unreadable(form: str, part: memoryview) -> BlockError:
    return BlockError(f'a column of {len(part)} bytes in the form "{form[:40]}" cannot be read')
