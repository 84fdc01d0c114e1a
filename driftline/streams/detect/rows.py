"""From an observation batch to the rows of a panel: which numbers the series are made of.

The losses live here and nowhere else. A value that does not exist for a row (a miss rate of a negative) is *not
applicable*, which is not the same as missing: the row then does not count for that column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numba
import numpy as np
import numpy.typing as npt

from driftline.detectors.spec import PanelRows
from driftline.schemas.config import Model
from driftline.schemas.stream_series import INVALID_ROWS, LABEL_DELAY, LABELLED_ROWS
from driftline.streams.observation import UNLABELLED, Coded, Observations

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

PROBABILITY_FLOOR: Final = 1e-6
"""Log loss is clipped at -ln of this (13.8): one confident mistake must not outweigh a day."""


def feature_rows(batch: Observations, segments: list[str], lengths: Mapping[str, int] | None = None) -> PanelRows:
    """All features as they came, and a 0/1 column for rows with any invalid value.

    A vector is also a column of zeros, NaN where there is none: what may be missing or invalid is watched as of any feature.

    Parameters
    ----------
    lengths : of vectors, as declared. Rows that ingest wrote under another length are invalid, as ingest would have them now.
    """
    n = len(batch)
    invalid = np.zeros(n)
    vectors, pairs = _of_length(batch, lengths or {})
    if pairs is not None and len(pairs):
        invalid[pairs[:, 0]] = 1.0
        # Those of vectors and our own column are appended to the numeric ones, so indexes of categorical features move up.
        moved = pairs.copy()
        numbers, texts = len(batch.numeric_names), len(batch.categorical)
        of_text = (pairs[:, 1] >= numbers) & (pairs[:, 1] < numbers + texts)
        moved[of_text, 1] += len(batch.vectors) + 1
        moved[pairs[:, 1] >= numbers + texts, 1] -= texts
        pairs = moved
    numeric = np.empty((n, len(batch.numeric_names) + len(batch.vectors) + 1))
    if batch.numeric is not None:
        numeric[:, : len(batch.numeric_names)] = batch.numeric
    for place, vector in enumerate(vectors.values(), len(batch.numeric_names)):
        numeric[:, place] = np.where(np.isnan(vector[:, 0]), np.nan, 0.0)
    numeric[:, -1] = invalid
    return _rows(
        batch,
        segments,
        numeric=numeric,
        names=[*batch.numeric_names, *batch.vectors, INVALID_ROWS],
        categorical={name: (text.codes, text.values) for name, text in batch.categorical.items()},
        invalid=pairs,
        vectors=vectors,
    )


def _of_length(batch: Observations, lengths: Mapping[str, int]) -> tuple[dict[str, Float32], npt.NDArray[np.int32] | None]:
    """The vectors, NaN where they are of another length than declared; and the invalid values with those rows."""
    vectors, pairs = batch.vectors, batch.invalid
    first = len(batch.numeric_names) + len(batch.categorical)
    for place, (name, vector) in enumerate(batch.vectors.items(), first):
        length = lengths.get(name, vector.shape[1])
        if length == vector.shape[1]:
            continue
        having = np.flatnonzero(~np.isnan(vector[:, 0]))
        more = np.column_stack([having, np.full(len(having), place)]).astype(np.int32)
        pairs = more if pairs is None else np.concatenate([pairs, more])
        vectors = vectors | {name: np.full((len(batch), length), np.nan, np.float32)}
    return vectors, pairs


def score_rows(batch: Observations, model: Model, segments: list[str]) -> PanelRows:
    """Score, decision, class, confidence, entropy and the service's own fields."""
    n = len(batch)
    columns: dict[str, Float64] = {}
    skipped: dict[str, Bool] = {}
    score = _column(batch.score, n)
    if model.task == "multiclass":
        columns["confidence"], columns["entropy"] = _column(batch.confidence, n), _column(batch.entropy, n)
    else:
        columns["score"] = score
    if model.task == "binary" and model.decision is not None:
        columns["decision"] = (score >= model.decision).astype(np.float64)
        skipped["decision"] = np.isnan(score)
    columns["service:latency"] = latency = _column(batch.latency_ms, n)
    skipped["service:latency"] = np.isnan(latency)
    error = batch.error if batch.error is not None else np.full(n, -1, np.int8)
    columns["service:error"] = error.astype(np.float64)
    skipped["service:error"] = error < 0
    categorical = {}
    if model.task != "regression":
        categorical["class"] = _text(batch.class_, n)
        skipped["class"] = categorical["class"][0] < 0
    return _matrix(batch, segments, columns, categorical, skipped)


def outcome_rows(batch: Observations, model: Model, segments: list[str]) -> PanelRows:
    """Losses of labelled rows, the delay of their labels, and whether a label came at all."""
    n = len(batch)
    state = batch.label_state if batch.label_state is not None else np.full(n, UNLABELLED, np.int8)
    unlabelled = state == UNLABELLED
    score, label = _column(batch.score, n), _column(batch.label, n)
    columns: dict[str, Float64] = {}
    skipped: dict[str, Bool] = {}
    categorical = {}
    if model.task == "binary":
        usable = ~(unlabelled | np.isnan(score) | np.isnan(label))
        columns["outcome:log_loss"] = binary_log_loss(score, label)
        columns["outcome:residual"] = label - score
        skipped["outcome:log_loss"] = skipped["outcome:residual"] = ~usable
        flagged = score >= (model.decision if model.decision is not None else math.inf)
        columns["outcome:miss"], skipped["outcome:miss"] = (~flagged).astype(np.float64), ~(usable & (label > 0.5))
        columns["outcome:false_alarm"], skipped["outcome:false_alarm"] = (label <= 0.5).astype(np.float64), ~(usable & flagged)
    elif model.task == "regression":
        columns["outcome:error"] = label - score
        columns["outcome:absolute_error"] = np.abs(label - score)
        skipped["outcome:error"] = skipped["outcome:absolute_error"] = unlabelled | np.isnan(columns["outcome:error"])
    else:
        probability = _column(batch.label_probability, n)
        columns["outcome:log_loss"] = binary_log_loss(probability, np.ones(n))
        skipped["outcome:log_loss"] = unlabelled | np.isnan(probability)
        truth, answer = _text(batch.label_class, n), _text(batch.class_, n)
        columns["outcome:wrong"] = _differ(truth, answer)
        skipped["outcome:wrong"] = unlabelled | (truth[0] < 0) | (answer[0] < 0)
        categorical["outcome:class"] = truth
        skipped["outcome:class"] = unlabelled | (truth[0] < 0)
    columns[LABEL_DELAY] = delay = _column(batch.delay_ms, n)
    skipped[LABEL_DELAY] = np.isnan(delay)
    columns[LABELLED_ROWS] = (state == 0).astype(np.float64)
    return _matrix(batch, segments, columns, categorical, skipped)


@numba.njit(cache=True)
def _log_losses(probability: Float64, label: Float64, floor: float) -> Float64:
    out = np.empty(len(probability))
    for i in range(len(probability)):
        p = probability[i] if label[i] > 0.5 else 1.0 - probability[i]
        out[i] = -math.log(min(max(p, floor), 1.0)) if p == p else np.nan
    return out


def binary_log_loss(probability: Float64, label: Float64) -> Float64:
    """-ln of the probability given to the truth, clipped to [0, 13.8]; NaN where either is NaN.

    A scalar loop: numpy's vector logarithm differs in the last bit between CPUs, and this reaches output bits.
    """
    losses: Float64 = _log_losses(probability, label, PROBABILITY_FLOOR)
    losses[np.isnan(label)] = np.nan
    return losses


def take(batch: Observations, rows: npt.NDArray[np.int64]) -> Observations:
    """The batch with only these rows, in this order; features and invalid values are left out."""
    out = Observations(batch.kind, batch.model, batch.task, batch.seq, batch.sources, batch.tick_ms, batch.age_ms)
    arrays = ("offset", "source", "time_ms", "record_ms", "score", "confidence", "entropy", "latency_ms", "error", "weight")
    for name in (*arrays, "label", "label_probability", "delay_ms", "label_state"):
        if (column := getattr(batch, name)) is not None:
            setattr(out, name, column[rows])
    for name in ("version", "class_", "label_class"):
        if (text := getattr(batch, name)) is not None:
            setattr(out, name, Coded(text.codes[rows], text.values))
    out.segments = {key: Coded(text.codes[rows], text.values) for key, text in batch.segments.items()}
    return out


def _matrix(
    batch: Observations,
    segments: list[str],
    columns: dict[str, Float64],
    categorical: dict[str, tuple[npt.NDArray[np.int32], list[str]]],
    skipped: dict[str, Bool],
) -> PanelRows:
    numeric = np.empty((len(batch), len(columns)))
    for index, column in enumerate(columns.values()):
        numeric[:, index] = column
    return _rows(batch, segments, numeric=numeric, names=list(columns), categorical=categorical, skipped=skipped)


def _rows(
    batch: Observations,
    segments: list[str],
    *,
    numeric: Float64,
    names: list[str],
    categorical: dict[str, tuple[npt.NDArray[np.int32], list[str]]],
    invalid: npt.NDArray[np.int32] | None = None,
    skipped: dict[str, Bool] | None = None,
    vectors: dict[str, Float32] | None = None,
) -> PanelRows:
    n = len(batch)
    return PanelRows(
        n=n,
        numeric=numeric,
        numeric_names=names,
        categorical=categorical,
        invalid=invalid,
        not_applicable=skipped or {},
        segments={key: _text(batch.segments.get(key), n) for key in segments},
        source=batch.source,
        offset=batch.offset,
        time_ms=batch.time_ms,
        vectors=vectors or {},
    )


def _column(values: Float64 | None, n: int) -> Float64:
    return values if values is not None else np.full(n, np.nan)


def _text(text: Coded | None, n: int) -> tuple[npt.NDArray[np.int32], list[str]]:
    return (text.codes, text.values) if text is not None else (np.full(n, -1, np.int32), [])


def _differ(a: tuple[npt.NDArray[np.int32], list[str]], b: tuple[npt.NDArray[np.int32], list[str]]) -> Float64:
    """1.0 where two text columns differ, whatever their dictionaries."""
    place = {value: index for index, value in enumerate(a[1])}
    translated = np.array([place.get(value, -2) for value in b[1]] or [-2], np.int32)[b[0]]
    differs: Float64 = (a[0] != translated).astype(np.float64)
    return differs
