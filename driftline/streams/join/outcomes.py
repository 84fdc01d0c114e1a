"""Outcome batches: predictions of age with what is known of their labels, one batch a model and waiting block."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from driftline.schemas.config import Model
from driftline.streams.columns import WaitingBlock
from driftline.streams.ingest.values import scalar_text, texts
from driftline.streams.join.decide import Matches
from driftline.streams.observation import IMPLICIT, LABELLED, UNLABELLED, Coded, Observations

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

_YES_NO: Final = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}


@dataclass(frozen=True, slots=True)
class Truth:
    """Labels of some rows of a block in the terms of their model's task."""

    label: Float64 | None
    classes: list[str | None] | None
    state: npt.NDArray[np.int8]


def truth_of(model: Model, matches: Matches, rows: Int64) -> Truth:
    """The labels of `rows`: numbers for binary and regression, class names for multi-class, `absent` where none came."""
    found = matches.found[rows]
    state = np.where(found, LABELLED, UNLABELLED).astype(np.int8)
    values = matches.value[rows]
    if model.task == "multiclass":
        stated = [_class(matches, int(row)) if has else None for row, has in zip(rows, found, strict=True)]
        if model.labels.absent is not None:
            state[~found] = IMPLICIT
            absent = scalar_text(model.labels.absent)
            stated = [absent if not has else text for text, has in zip(stated, found, strict=True)]
        return Truth(None, stated, state)
    for row, text in matches.texts.items():
        values[rows == row] = _spelled(text)
    # A text that is no number says nothing about a number: the prediction stays without a label.
    state[found & np.isnan(values)] = UNLABELLED
    absent_value = _absent(model)
    if absent_value is not None:
        state[~found] = IMPLICIT
        values[~found] = absent_value
    return Truth(values, None, state)


def outcomes(
    block: WaitingBlock, model: tuple[str, Model], rows: Int64, matches: Matches, *, task: str, age_ms: int | None
) -> Observations:
    """The outcome batch of one model's rows of a block; its sequence number is set by the sender."""
    name, spec = model
    truth = truth_of(spec, matches, rows)
    whole = len(rows) == len(block)

    def cut(column: npt.NDArray[Any]) -> Any:
        return column if whole else column[rows]

    record_ms = cut(block.record_ms)
    delay = np.where(truth.state == LABELLED, (matches.time_ms[rows] - record_ms).astype(np.float64), math.nan)
    weight = None if block.weight is None else cut(block.weight)
    return Observations(
        "outcomes", name, task, 0, [block.source], age_ms=age_ms,
        offset=cut(block.offset), source=np.zeros(len(rows), np.uint16), time_ms=cut(block.time_ms), record_ms=record_ms,
        version=_text(block.version, rows, whole), class_=_text(block.class_, rows, whole), score=cut(block.score),
        segments={key: column for key in spec.segments if (column := _text(block.segments.get(key), rows, whole)) is not None},
        weight=None if weight is None or np.isnan(weight).all() else weight,
        unit=None if block.unit is None or spec.unit is None else cut(block.unit),
        label=truth.label, label_class=None if truth.classes is None else texts(truth.classes),
        label_probability=_probability(block, name, rows, truth.classes), delay_ms=delay, label_state=truth.state,
    )  # fmt: skip


def _absent(model: Model) -> float | None:
    absent = model.labels.absent
    if isinstance(absent, str):
        absent = _spelled(absent)
    return None if absent is None or math.isnan(absent) else float(absent)


def _class(matches: Matches, row: int) -> str | None:
    return matches.texts[row] if row in matches.texts else scalar_text(float(matches.value[row]))


def _spelled(text: str) -> float:
    """The number a text spells; NaN for none."""
    try:
        number = float(text)
    except ValueError:
        return _YES_NO.get(text.strip().lower(), math.nan)
    return number if math.isfinite(number) else math.nan


def _text(column: Coded | None, rows: Int64, whole: bool) -> Coded | None:
    if column is None or whole:
        return column
    codes = column.codes[rows]
    return None if (codes < 0).all() else Coded(codes, column.values)


def _probability(block: WaitingBlock, name: str, rows: Int64, classes: list[str | None] | None) -> Float64 | None:
    """What the score vector said of the true class."""
    vectors = block.probabilities.get(name)
    if vectors is None or classes is None:
        return None
    column = {name: i for i, name in enumerate(vectors.classes)}
    place = np.full(len(block), -1, np.int64)
    place[vectors.rows] = np.arange(len(vectors.rows))
    found = [
        vectors.values[at, column[c]] if at >= 0 and c in column else math.nan for at, c in zip(place[rows].tolist(), classes, strict=True)
    ]
    return np.array(found, np.float64)
