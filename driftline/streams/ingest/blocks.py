"""Waiting rows and label rows of a batch, cut by the partition their ids belong to, and by what fits in a message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from driftline.streams.columns import ClassProbabilities, LabelBlock, WaitingBlock, encode_labels, encode_waiting
from driftline.streams.ingest.labels import LabelRows
from driftline.streams.ingest.predictions import Predictions, partition_of
from driftline.streams.observation import NO_UNIT, Coded
from driftline.streams.task import PartitionId

Int64 = npt.NDArray[np.int64]
Block = TypeVar("Block", WaitingBlock, LabelBlock)

MESSAGE_BYTES_MAX: Final = 4 << 20
"""Half of what the topics take: a message is cut in halves until each is no longer than this."""
_NO_TICK: Final = -1
_CLASSES_KEPT: Final = 1_000


def waiting_messages(block: WaitingBlock) -> list[bytes]:
    """The messages of a waiting block, rows in order; only the last one carries the tick, as rows before it may be late by it."""
    return _messages(block, encode_waiting, _take)


def label_messages(block: LabelBlock) -> list[bytes]:
    """The messages of a label block, as `waiting_messages`."""
    return _messages(block, encode_labels, _take_labels)


def _messages(block: Block, encode: Callable[[Block], bytes], take: Callable[[Block, Int64], Block]) -> list[bytes]:
    value = encode(block)
    if len(value) <= MESSAGE_BYTES_MAX or len(block) < 2:
        return [value]
    rows = np.arange(len(block))
    first, second = (take(block, half) for half in np.array_split(rows, 2))
    first.tick_ms = _NO_TICK
    return _messages(first, encode, take) + _messages(second, encode, take)


def waiting_blocks(groups: Sequence[Predictions], source: PartitionId, tick_ms: int, partitions: int) -> dict[int, WaitingBlock]:
    """One block for each target partition that has rows, rows of all models in offset order."""
    if not groups:
        return {}
    whole = _together(groups, source, tick_ms)
    if len(groups) > 1:
        whole = _take(whole, np.argsort(whole.offset, kind="stable"))
    return {partition: _take(whole, rows) for partition, rows in _split(partition_of(whole.ids, partitions), partitions)}


def label_blocks(rows: LabelRows, source: PartitionId, tick_ms: int, partitions: int) -> dict[int, LabelBlock]:
    """One block for each target partition that has rows."""
    whole = LabelBlock(
        source, tick_ms, rows.ids, rows.offset, rows.record_ms, rows.seen_ms, rows.time_ms, rows.value, rows.text, rows.model
    )
    return {partition: _take_labels(whole, own) for partition, own in _split(partition_of(rows.ids, partitions), partitions)}


def _split(targets: Int64, partitions: int) -> list[tuple[int, Int64]]:
    """(partition, its rows in order) for each partition that has any."""
    order = np.argsort(targets, kind="stable")
    bounds = np.searchsorted(targets[order], np.arange(partitions + 1)).tolist()
    return [(p, order[a:b]) for p, (a, b) in enumerate(pairwise(bounds)) if b > a]


def _together(groups: Sequence[Predictions], source: PartitionId, tick_ms: int) -> WaitingBlock:
    sizes = [len(group) for group in groups]
    starts = np.concatenate(([0], np.cumsum(sizes)))
    block = WaitingBlock(source, tick_ms)
    block.ids = _joined([group.ids for group in groups])
    block.offset = _joined([group.offset for group in groups])
    block.record_ms = _joined([group.record_ms for group in groups])
    block.seen_ms = _joined([group.seen_ms for group in groups])
    block.time_ms = _joined([group.time_ms for group in groups])
    block.model = Coded(np.repeat(np.arange(len(groups), dtype=np.int32), sizes), [group.plan.name for group in groups])
    block.score = _joined([_score(group) for group in groups])
    block.version = _texts([group.version for group in groups], sizes)
    block.class_ = _texts([group.class_ for group in groups], sizes)
    for key in dict.fromkeys(key for group in groups for key in group.segments):
        column = _texts([group.segments.get(key) for group in groups], sizes)
        if column is not None:
            block.segments[key] = column
    if any(group.weight is not None for group in groups):
        block.weight = _joined([np.full(len(g), np.nan) if g.weight is None else g.weight for g in groups])
    if any(group.unit is not None for group in groups):
        block.unit = _joined([np.full(len(g), NO_UNIT) if g.unit is None else g.unit for g in groups])
    for group, start in zip(groups, starts.tolist(), strict=False):
        if group.probabilities is not None:
            rows = np.flatnonzero(~np.isnan(group.probabilities).all(axis=1))
            block.probabilities[group.plan.name] = ClassProbabilities(group.classes, rows + start, group.probabilities[rows])
    return block


def _score(group: Predictions) -> npt.NDArray[np.float64]:
    column = group.score if group.score is not None else group.confidence
    return column if column is not None else np.full(len(group), np.nan)


def _joined(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _texts(parts: list[Coded | None], sizes: list[int]) -> Coded | None:
    """Text columns one after the other, with one list of values."""
    if len(parts) == 1:
        return parts[0]
    if all(part is None for part in parts):
        return None
    values: dict[str, int] = {}
    codes: list[npt.NDArray[np.int32]] = []
    for part, size in zip(parts, sizes, strict=True):
        if part is None:
            codes.append(np.full(size, -1, np.int32))
            continue
        table = np.array([*(values.setdefault(v, len(values)) for v in part.values), -1], np.int32)
        codes.append(table[part.codes])
    return Coded(np.concatenate(codes), list(values))


def _take(block: WaitingBlock, rows: Int64) -> WaitingBlock:
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


def _take_labels(block: LabelBlock, rows: Int64) -> LabelBlock:
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
