"""Rows of a file as the prediction and label messages a model service would have sent, in time order.

`publish` sends them to Kafka and `replay` hands them to the processors: both read the same sequence, which is a
function of the file and the options alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from driftline.schemas.config import Fields, LabelFields
from driftline.streams.delay import Delay
from driftline.streams.source_file import NO_TIME, RowBatch, SourceFileError, read_batches, times_ms
from driftline.streams.source_score import Logistic, ScoreFrom

Side = Literal["prediction", "label"]


class Message(NamedTuple):
    """One message; `row` is the row of the file it came from, `time_ms` becomes the record's timestamp."""

    side: Side
    row: int
    key: bytes
    value: bytes
    time_ms: int
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class RowMapping:
    """Which column is what. A name that is no column is a constant for `model` and `version`.

    Attributes
    ----------
    id : None = the row's number.
    model_fixed : `model` is the model's name, even where a column has that name: of a label, say.
    time : None = `start_ms` plus the row's number times `interval_ms`.
    label_time, label_delay : when the label comes; with neither, at its prediction's time.
    segments : (name, column) pairs sent beside the features; a feature needs no mention to be a segment.
    """

    features: tuple[str, ...]
    model: str
    id: str | None = None
    time: str | None = None
    time_unit: str = "auto"
    start_ms: int = 0
    interval_ms: int = 1_000
    label: str | None = None
    label_time: str | None = None
    label_delay: Delay | None = None
    seed: int = 0
    version: str | None = None
    score: str | None = None
    class_: str | None = None
    latency_ms: str | None = None
    error: str | None = None
    weight: str | None = None
    segments: tuple[tuple[str, str], ...] = ()
    model_fixed: bool = False


@dataclass(slots=True)
class Counts:
    """What became of the rows."""

    predictions: int = 0
    labels: int = 0
    bad_times: int = 0


_DEFAULT_FIELDS: Final = Fields()
_DEFAULT_LABEL_FIELDS: Final = LabelFields()


class RowMessages:
    """Turns batches of rows into messages; labels wait here until event time reaches them.

    A label is sent before the first prediction that is not older than it, so the two topics interleave as they
    would have done live. Memory is that of the labels not yet due.
    """

    def __init__(
        self,
        mapping: RowMapping,
        columns: Sequence[str],
        *,
        fields: Fields = _DEFAULT_FIELDS,
        label_fields: LabelFields = _DEFAULT_LABEL_FIELDS,
        feature_paths: dict[str, str] | None = None,
    ) -> None:
        self.mapping = mapping
        self.counts = Counts()
        self._columns = frozenset(columns)
        self._check_columns()
        self._prediction = _Layout(fields, feature_paths or {})
        self._label_fields = label_fields
        self._label = _LabelLayout(label_fields)
        self._rng = np.random.Generator(np.random.PCG64(mapping.seed))
        self._due: list[tuple[int, int, Message]] = []
        self._now = NO_TIME

    def feed(self, batch: RowBatch, scores: npt.NDArray[np.float64] | None = None) -> list[Message]:
        """The messages that these rows bring, in order; `scores` takes the place of the score column."""
        times = self._times(batch)
        values = self._scalars(batch, times, scores)
        predictions = self._prediction.encode(values, self._features(batch), self._segments(batch))
        ids = values["id"]
        labels = self._labels(batch, times, ids)
        out: list[Message] = []
        due = self._due
        for i, (time, (key, value, headers)) in enumerate(zip(times.tolist(), predictions, strict=True)):
            if time > self._now:
                self._now = time
                while due and due[0][0] <= time:
                    out.append(heapq.heappop(due)[2])
            out.append(Message("prediction", batch.first_row + i, key, value, time, headers))
            if labels is not None and (label := labels[i]) is not None:
                heapq.heappush(due, (label.time_ms, label.row, label))
        self.counts.predictions += batch.rows
        return out

    def finish(self) -> list[Message]:
        """The labels that are still on their way, in order."""
        out = [message for _, _, message in sorted(self._due, key=lambda item: item[:2])]
        self._due.clear()
        return out

    def _check_columns(self) -> None:
        m = self.mapping
        named = [m.id, m.time, m.label, m.label_time, m.score, m.class_, m.latency_ms, m.error, m.weight]
        for column in [*named, *m.features, *(column for _, column in m.segments)]:
            if column is not None and column not in self._columns:
                near = ", ".join(f'"{name}"' for name in sorted(self._columns))
                raise SourceFileError(f'no column "{column}"; the file has {near}')

    def _times(self, batch: RowBatch) -> npt.NDArray[np.int64]:
        """Event times; a row without one takes the time of the row before it as its record time."""
        m = self.mapping
        if m.time is None:
            return np.arange(batch.first_row, batch.first_row + batch.rows, dtype=np.int64) * m.interval_ms + m.start_ms
        times = times_ms(batch.columns[m.time], m.time_unit)
        for i in np.flatnonzero(times == NO_TIME):
            self.counts.bad_times += 1
            before = times[i - 1] if i else self._now
            times[i] = before if before != NO_TIME else 0
        return times

    def _scalars(self, batch: RowBatch, times: npt.NDArray[np.int64], scores: npt.NDArray[np.float64] | None) -> dict[str, list[Any]]:
        m = self.mapping
        rows = range(batch.first_row, batch.first_row + batch.rows)
        out: dict[str, list[Any]] = {"id": _texts(batch, m.id) if m.id else [str(row) for row in rows]}
        out["time"] = _as_sent(times, self._prediction.fields.time_unit)
        out["model"] = self._models(batch)
        if m.version is not None:
            out["version"] = _texts(batch, m.version) if m.version in self._columns else [m.version] * batch.rows
        if scores is not None:
            out["score"] = scores.tolist()
        elif m.score is not None:
            out["score"] = _numbers(batch, m.score, "--score")
        for name, column, option in (("latency_ms", m.latency_ms, "--latency"), ("weight", m.weight, "--weight")):
            if column is not None:
                out[name] = _numbers(batch, column, option)
        for name, column in (("class_", m.class_), ("error", m.error)):
            if column is not None:
                out[name] = _plain_values(batch, column)
        return out

    def _models(self, batch: RowBatch) -> list[Any]:
        m = self.mapping
        return _texts(batch, m.model) if m.model in self._columns and not m.model_fixed else [m.model] * batch.rows

    def _features(self, batch: RowBatch) -> dict[str, list[Any]]:
        return {name: _plain_values(batch, name) for name in self.mapping.features}

    def _segments(self, batch: RowBatch) -> dict[str, list[Any]]:
        return {name: _plain_values(batch, column) for name, column in self.mapping.segments}

    def _labels(self, batch: RowBatch, times: npt.NDArray[np.int64], ids: list[Any]) -> list[Message | None] | None:
        m = self.mapping
        if m.label is None:
            return None
        if m.label_time is not None:
            label_times = times_ms(batch.columns[m.label_time], m.time_unit)
        elif m.label_delay is not None:
            label_times = times + m.label_delay.draw(self._rng, batch.rows)
        else:
            label_times = times
        label_texts = _plain_values(batch, m.label)
        models = self._models(batch)
        sent = _as_sent(label_times, self._label_fields.time_unit)
        out: list[Message | None] = []
        for i, (id_, label, time) in enumerate(zip(ids, label_texts, label_times.tolist(), strict=True)):
            if label is None or time == NO_TIME:
                out.append(None)
                continue
            key, value, headers = self._label.encode(id_, sent[i], models[i], label)
            out.append(Message("label", batch.first_row + i, key, value, time, headers))
            self.counts.labels += 1
        return out


def file_messages(
    path: str | Path,
    messages: RowMessages,
    *,
    score_from: ScoreFrom | None = None,
    rows: int | None = None,
    as_text: frozenset[str] = frozenset(),
) -> Iterator[list[Message]]:
    """All messages of a file, a batch of rows at a time; with `score_from` the training rows are not sent.

    Raises
    ------
    SourceFileError : the file cannot be read, or has no more rows than the score is trained on.
    """
    batches = read_batches(path, as_text=as_text, rows=rows)
    if score_from is None:
        for batch in batches:
            yield messages.feed(batch)
    else:
        model, batches = _trained(batches, score_from, messages.mapping.features)
        for batch in batches:
            yield messages.feed(batch, model.score(batch))
    yield messages.finish()


def _trained(batches: Iterator[RowBatch], score_from: ScoreFrom, features: tuple[str, ...]) -> tuple[Logistic, Iterator[RowBatch]]:
    """The fitted model and the rows after those it was fitted on."""
    training: list[RowBatch] = []
    missing = score_from.rows
    for batch in batches:
        training.append(batch.head(missing))
        missing -= training[-1].rows
        if missing == 0:
            break
    else:
        raise SourceFileError(f"the score is trained on {score_from.rows} rows; the file has only {score_from.rows - missing}")
    model = Logistic(features)
    model.fit(training, score_from.label)
    rest = batch.slice(training[-1].rows)
    return model, chain([rest] if rest.rows else [], batches)


class _Layout:
    """Where the configuration says the parts of a prediction stand, so that what we send is what it reads."""

    def __init__(self, fields: Fields, feature_paths: dict[str, str]) -> None:
        self.fields = fields
        self._feature_paths = feature_paths

    def encode(
        self, scalars: dict[str, list[Any]], features: dict[str, list[Any]], segments: dict[str, list[Any]]
    ) -> Iterator[tuple[bytes, bytes, tuple[tuple[str, bytes], ...]]]:
        """(key, value, headers) of each row."""
        f = self.fields
        ids = scalars["id"]
        keys: Iterable[Any] = ids
        placed: list[tuple[tuple[str, ...], list[Any]]] = []
        header_names: list[str] = []
        header_values: list[list[Any]] = []
        for name, values in scalars.items():
            path = getattr(f, name)
            if path is None or path == "topic" or path.startswith("const:"):
                continue
            if path == "key":
                keys = values
            elif path.startswith("header:"):
                header_names.append(path.removeprefix("header:"))
                header_values.append(values)
            else:
                placed.append((tuple(path.split(".")), values))
        inside = {name: values for name, values in features.items() if name not in self._feature_paths}
        placed += [(tuple(self._feature_paths[name].split(".")), values) for name, values in features.items() if name not in inside]
        placed += [(tuple(path.split(".")), values) for path, values in segments.items()]
        events = _events(placed, self._feature_objects(inside, len(ids)), f.features)
        headers = _headers(header_names, header_values)
        for key, event, header in zip(keys, events, headers, strict=False):
            yield _key(key), orjson.dumps(event, option=orjson.OPT_NON_STR_KEYS, default=str), header

    def _feature_objects(self, features: dict[str, list[Any]], rows: int) -> Iterable[Any]:
        """The object (or, for a nameless vector, the list) of features of each row."""
        names = self.fields.feature_names
        if names is not None:
            columns = [features.get(name, [None] * rows) for name in names]
            return map(list, zip(*columns, strict=True)) if columns else repeat([], rows)
        if not features:
            return ({} for _ in range(rows))
        return (dict(zip(features, row, strict=True)) for row in zip(*features.values(), strict=True))


def _events(placed: list[tuple[tuple[str, ...], list[Any]]], objects: Iterable[Any], root: str) -> Iterator[dict[str, Any]]:
    """Events with every value at its path; `root` is where the features stand, "" for the top."""
    top = [(path[0], values) for path, values in placed if len(path) == 1]
    nested = [(path, values) for path, values in placed if len(path) > 1]
    names = [name for name, _ in top]
    root_path = tuple(root.split(".")) if root else ()
    rows = zip(*(values for _, values in top), strict=True) if top else repeat(())
    for i, (row, features) in enumerate(zip(rows, objects, strict=False)):
        event: dict[str, Any] = dict(zip(names, row, strict=True))
        if not root_path:
            event = {**features, **event}
        else:
            _put(event, root_path, features)
        for path, values in nested:
            _put(event, path, values[i])
        yield event


class _LabelLayout:
    """The same for a label."""

    def __init__(self, fields: LabelFields) -> None:
        self._fields = fields

    def encode(self, id_: Any, time: Any, model: str | None, label: Any) -> tuple[bytes, bytes, tuple[tuple[str, bytes], ...]]:
        f = self._fields
        event: dict[str, Any] = {}
        headers: list[tuple[str, bytes]] = []
        key = id_
        for path, value in ((f.id, id_), (f.time, time), (f.model, model), (f.value, label)):
            if path is None or path == "topic" or path.startswith("const:"):
                continue
            if path == "key":
                key = value
            elif path.startswith("header:"):
                headers.append((path.removeprefix("header:"), str(value).encode()))
            else:
                _put(event, tuple(path.split(".")), value)
        return _key(key), orjson.dumps(event, default=str), tuple(headers)


def _put(event: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        event = event.setdefault(part, {})
    event[path[-1]] = value


def _key(value: Any) -> bytes:
    return str(value).encode() if value is not None else b""


def _headers(names: list[str], columns: list[list[Any]]) -> Iterator[tuple[tuple[str, bytes], ...]]:
    if not names:
        return repeat(())
    return (tuple((name, str(value).encode()) for name, value in zip(names, row, strict=True)) for row in zip(*columns, strict=True))


def _plain_values(batch: RowBatch, column: str) -> list[Any]:
    """The values; orjson writes NaN and the infinities as null, which JSON has no other word for."""
    values: list[Any] = batch.columns[column].to_pylist()
    return values


def _numbers(batch: RowBatch, column: str, option: str) -> list[Any]:
    """The values of a column of numbers; numbers that the file has as text are read, lists of probabilities stay.

    Raises
    ------
    SourceFileError : a value is no number: every row would be invalid where it is read.
    """
    values = _plain_values(batch, column)
    for i, value in enumerate(values):
        if value is None or (isinstance(value, int | float | list) and not isinstance(value, bool)):
            continue
        try:
            values[i] = float(value) if isinstance(value, str) else None
        except ValueError:
            values[i] = None
        if values[i] is None:
            place = f"row {batch.first_row + i + 1}"
            raise SourceFileError(f'{option} "{column}": expected numbers, got {str(value)[:60]!r} in {place}')
    return values


def _texts(batch: RowBatch, column: str) -> list[str | None]:
    return [None if value is None else str(value) for value in batch.columns[column].to_pylist()]


def _as_sent(times: npt.NDArray[np.int64], unit: str) -> list[Any]:
    """Times in the unit the configuration reads; ISO where it says so, else the number."""
    match unit:
        case "iso":
            return [None if time == NO_TIME else str(np.datetime64(time, "ms")) + "Z" for time in times.tolist()]
        case "s":
            return [None if time == NO_TIME else time / 1_000 for time in times.tolist()]
        case "us":
            return [None if time == NO_TIME else time * 1_000 for time in times.tolist()]
    return [None if time == NO_TIME else time for time in times.tolist()]
