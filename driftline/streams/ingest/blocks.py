"""Waiting rows and label rows of a batch, cut by the partition their ids belong to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from driftline.streams.block_rows import joined, partition_of, split, take_labels, take_waiting, texts
from driftline.streams.columns import ClassProbabilities, LabelBlock, WaitingBlock
from driftline.streams.ingest.labels import LabelRows
from driftline.streams.ingest.predictions import Predictions
from driftline.streams.observation import NO_UNIT, Coded
from driftline.streams.task import PartitionId


def waiting_blocks(groups: Sequence[Predictions], source: PartitionId, tick_ms: int, partitions: int) -> dict[int, WaitingBlock]:
    """One block for each target partition that has rows, rows of all models in offset order."""
    if not groups:
        return {}
    whole = _together(groups, source, tick_ms)
    if len(groups) > 1:
        whole = take_waiting(whole, np.argsort(whole.offset, kind="stable"))
    return {partition: take_waiting(whole, rows) for partition, rows in split(partition_of(whole.ids, partitions), partitions)}


def label_blocks(rows: LabelRows, source: PartitionId, tick_ms: int, partitions: int) -> dict[int, LabelBlock]:
    """One block for each target partition that has rows."""
    whole = LabelBlock(
        source, tick_ms, rows.ids, rows.offset, rows.record_ms, rows.seen_ms, rows.time_ms, rows.value, rows.text, rows.model
    )
    return {partition: take_labels(whole, own) for partition, own in split(partition_of(rows.ids, partitions), partitions)}


def _together(groups: Sequence[Predictions], source: PartitionId, tick_ms: int) -> WaitingBlock:
    sizes = [len(group) for group in groups]
    starts = np.concatenate(([0], np.cumsum(sizes)))
    block = WaitingBlock(source, tick_ms)
    block.ids = joined([group.ids for group in groups])
    block.offset = joined([group.offset for group in groups])
    block.record_ms = joined([group.record_ms for group in groups])
    block.seen_ms = joined([group.seen_ms for group in groups])
    block.time_ms = joined([group.time_ms for group in groups])
    block.model = Coded(np.repeat(np.arange(len(groups), dtype=np.int32), sizes), [group.plan.name for group in groups])
    block.score = joined([_score(group) for group in groups])
    block.version = texts([group.version for group in groups], sizes)
    block.class_ = texts([group.class_ for group in groups], sizes)
    for key in dict.fromkeys(key for group in groups for key in group.segments):
        column = texts([group.segments.get(key) for group in groups], sizes)
        if column is not None:
            block.segments[key] = column
    if any(group.weight is not None for group in groups):
        block.weight = joined([np.full(len(g), np.nan) if g.weight is None else g.weight for g in groups])
    if any(group.unit is not None for group in groups):
        block.unit = joined([np.full(len(g), NO_UNIT) if g.unit is None else g.unit for g in groups])
    for group, start in zip(groups, starts.tolist(), strict=False):
        if group.probabilities is not None:
            rows = np.flatnonzero(~np.isnan(group.probabilities).all(axis=1))
            block.probabilities[group.plan.name] = ClassProbabilities(group.classes, rows + start, group.probabilities[rows])
    return block


def _score(group: Predictions) -> npt.NDArray[np.float64]:
    column = group.score if group.score is not None else group.confidence
    return column if column is not None else np.full(len(group), np.nan)
