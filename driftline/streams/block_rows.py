"""Rows of waiting and label blocks: some of one block, several blocks as one, one for each partition, and as messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from driftline.streams.columns import ClassProbabilities, Ids, LabelBlock, WaitingBlock, encode_labels, encode_waiting
from driftline.streams.observation import NO_UNIT, Coded, several

Int64 = npt.NDArray[np.int64]
Block = TypeVar("Block", WaitingBlock, LabelBlock)

MESSAGE_BYTES_MAX: Final = 4 << 20
"""Half of what the topics take: a message is cut in halves until each is no longer than this."""
NO_TICK: Final = -1
_CLASSES_KEPT: Final = 1_000


def partition_of(ids: Ids, partitions: int) -> Int64:
    """The partition of `driftline.waiting` and `driftline.labels` each id belongs to."""
    return (ids.view("<u8")[::2] % np.uint64(partitions)).astype(np.int64)


def waiting_messages(block: WaitingBlock) -> list[bytes]:
    """The messages of a waiting block, rows in order; only the last one carries the tick, as rows before it may be late by it."""
    return _messages(block, encode_waiting, take_waiting)


def label_messages(block: LabelBlock) -> list[bytes]:
    """The messages of a label block, as `waiting_messages`."""
    return _messages(block, encode_labels, take_labels)


def _messages(block: Block, encode: Callable[[Block], bytes], take: Callable[[Block, Int64], Block]) -> list[bytes]:
    value = encode(block)
    if len(value) <= MESSAGE_BYTES_MAX or len(block) < 2:
        return [value]
    rows = np.arange(len(block))
    first, second = (take(block, half) for half in np.array_split(rows, 2))
    first.tick_ms = NO_TICK
    return _messages(first, encode, take) + _messages(second, encode, take)


def split(targets: Int64, partitions: int) -> list[tuple[int, Int64]]:
    """(partition, its rows in order) for each partition that has any."""
    order = np.argsort(targets, kind="stable")
    bounds = np.searchsorted(targets[order], np.arange(partitions + 1)).tolist()
    return [(p, order[a:b]) for p, (a, b) in enumerate(pairwise(bounds)) if b > a]


def several_waiting(blocks: Sequence[WaitingBlock]) -> WaitingBlock:
    """Blocks of one source as one, rows in the order given; the tick is the last one's."""
    if len(blocks) == 1:
        return blocks[0]
    sizes = [len(block) for block in blocks]
    out = WaitingBlock(blocks[0].source, blocks[-1].tick_ms)
    for name in ("ids", "offset", "record_ms", "seen_ms", "time_ms", "score"):
        setattr(out, name, joined([getattr(block, name) for block in blocks]))
    model = texts([block.model for block in blocks], sizes)
    assert model is not None
    out.model = model
    out.version = texts([block.version for block in blocks], sizes)
    out.class_ = texts([block.class_ for block in blocks], sizes)
    for key in dict.fromkeys(key for block in blocks for key in block.segments):
        column = texts([block.segments.get(key) for block in blocks], sizes)
        assert column is not None
        out.segments[key] = column
    if any(block.weight is not None for block in blocks):
        out.weight = joined([np.full(len(b), np.nan) if b.weight is None else b.weight for b in blocks])
    if any(block.unit is not None for block in blocks):
        out.unit = joined([np.full(len(b), NO_UNIT) if b.unit is None else b.unit for b in blocks])
    starts = np.concatenate(([0], np.cumsum(sizes)))
    for name in dict.fromkeys(name for block in blocks for name in block.probabilities):
        held = [(int(start), b.probabilities[name]) for start, b in zip(starts, blocks, strict=False) if name in b.probabilities]
        out.probabilities[name] = _vectors(held)
    return out


def several_labels(blocks: Sequence[LabelBlock]) -> LabelBlock:
    """As `several_waiting`."""
    if len(blocks) == 1:
        return blocks[0]
    sizes = [len(block) for block in blocks]
    out = LabelBlock(blocks[0].source, blocks[-1].tick_ms)
    for name in ("ids", "offset", "record_ms", "seen_ms", "time_ms", "value"):
        setattr(out, name, joined([getattr(block, name) for block in blocks]))
    out.text = texts([block.text for block in blocks], sizes)
    out.model = texts([block.model for block in blocks], sizes)
    return out


def _vectors(held: Sequence[tuple[int, ClassProbabilities]]) -> ClassProbabilities:
    """The score vectors of several blocks, each with the row its block begins at; a class that one does not name is NaN there."""
    classes = {name: column for column, name in enumerate(dict.fromkeys(name for _, one in held for name in one.classes))}
    parts = []
    for _, one in held:
        values = np.full((len(one.rows), len(classes)), np.nan)
        values[:, [classes[name] for name in one.classes]] = one.values
        parts.append(values)
    return ClassProbabilities(list(classes), joined([start + one.rows for start, one in held]), np.concatenate(parts))


def joined(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Columns one after the other; a lone one is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def texts(parts: list[Coded | None], sizes: list[int]) -> Coded | None:
    """Text columns one after the other, with one list of values."""
    if len(parts) == 1:
        return parts[0]
    if all(part is None for part in parts):
        return None
    return several([Coded(np.full(size, -1, np.int32), []) if part is None else part for part, size in zip(parts, sizes, strict=True)])


def take_waiting(block: WaitingBlock, rows: Int64) -> WaitingBlock:
    """Some rows of a block, in the order given."""
    out = WaitingBlock(block.source, block.tick_ms, block.ids[rows], block.offset[rows])
    out.record_ms, out.seen_ms, out.time_ms = block.record_ms[rows], block.seen_ms[rows], block.time_ms[rows]
    out.model = _code_at(block.model, rows)
    out.score = block.score[rows]
    out.version = None if block.version is None else _code_at(block.version, rows)
    out.class_ = None if block.class_ is None else _code_at(block.class_, rows)
    out.segments = {key: _code_at(column, rows) for key, column in block.segments.items()}
    out.weight = None if block.weight is None else block.weight[rows]
    out.unit = None if block.unit is None else block.unit[rows]
    if block.probabilities:
        place = np.full(len(block), -1, np.int64)
        place[rows] = np.arange(len(rows))
        for model, vectors in block.probabilities.items():
            now = place[vectors.rows]
            order = np.argsort(now, kind="stable")
            order = order[now[order] >= 0]
            if len(order):
                out.probabilities[model] = _classes_in_use(ClassProbabilities(vectors.classes, now[order], vectors.values[order]))
    return out


def _classes_in_use(vectors: ClassProbabilities) -> ClassProbabilities:
    """Long lists of classes are cut to those that some row has: a producer may name as many as it likes."""
    if len(vectors.classes) <= _CLASSES_KEPT:
        return vectors
    used = np.flatnonzero(~np.isnan(vectors.values).all(axis=0))
    return ClassProbabilities([vectors.classes[c] for c in used.tolist()], vectors.rows, vectors.values[:, used])


def take_labels(block: LabelBlock, rows: Int64) -> LabelBlock:
    """Some rows of a block, in the order given."""
    return LabelBlock(
        block.source, block.tick_ms, block.ids[rows], block.offset[rows], block.record_ms[rows], block.seen_ms[rows], block.time_ms[rows],
        block.value[rows], None if block.text is None else _code_at(block.text, rows),
        None if block.model is None else _code_at(block.model, rows),
    )  # fmt: skip


def _code_at(column: Coded, rows: Int64) -> Coded:
    """A part of a text column; long lists of values are cut to those in use, or every partition would carry all."""
    codes = column.codes[rows]
    if len(column.values) <= 8:
        return Coded(codes, column.values)
    used, inverse = np.unique(codes, return_inverse=True)
    missing = int(len(used) > 0 and used[0] < 0)
    return Coded((inverse - missing).astype(np.int32), [column.values[c] for c in used[missing:].tolist()])
