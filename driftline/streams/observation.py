"""Observation batches: the columnar records of `driftline.observations`, as Arrow IPC.

One record is one micro-batch of one model from one task. Everything that is not a column stands as JSON in the
Arrow schema's metadata under ``driftline``. Three kinds:

- ``predictions``: rows of one source partition, in offset order, with features, scores and service fields;
- ``outcomes``: predictions that came of age, with the label known by then, in prediction order; without rows it is a
  tick: every prediction source has passed `tick_ms`;
- ``tick``: no rows; `tick_ms` says how far time has come on `sources[0]`.

Missing numbers are NaN, missing texts are null; a value of the wrong type is missing *and* listed in `invalid`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from driftline.streams.arrow_frames import FrameError, check_uncompressed
from driftline.streams.bounded import Count, Index, Signed64
from driftline.streams.errors import UPGRADE_HINT, FatalError

Kind = Literal["predictions", "outcomes", "tick"]
Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

WIRE_VERSION: Final = 1
LABELLED: Final = 0
IMPLICIT: Final = 1
UNLABELLED: Final = 2
NO_UNIT: Final = 0
"""Of a row that does not say what it is of."""

_META_KEY: Final = b"driftline"
_FOREIGN: Final = "does another program write to this topic? The processor stops before it: nothing of ours may be skipped"


class ObservationError(FatalError):
    """A record that is not an observation batch this version can read; never dead-lettered, always a stop."""

    def __init__(self, message: str, *, hint: str = _FOREIGN) -> None:
        super().__init__(message, hint=hint)


@dataclass(frozen=True, slots=True)
class Coded:
    """A text column: `codes[i]` indexes `values`, -1 is missing."""

    codes: npt.NDArray[np.int32]
    values: list[str]

    def __len__(self) -> int:
        return len(self.codes)


@dataclass(slots=True)
class Observations:
    """One batch; arrays have one entry a row.

    Attributes
    ----------
    sources : (topic, partition) pairs that `source` indexes.
    time_ms, record_ms : event time (or record time where it is implausible) and the broker's time.
    numeric : shape (n, len(numeric_names)); NaN = missing; infinities as sent.
    invalid : (row, feature) pairs, shape (k, 2); feature indexes numeric_names + categorical names + names of vectors.
    vectors : shape (n, length) each; a row is NaN where it has none.
    score : probability or regression output; NaN = missing. confidence, entropy: multi-class only.
    unit : hash of what the row is of, `NO_UNIT` = it does not say; only of models that have a unit.
    label, delay_ms, label_state : outcomes only.
    generation : 0, or of a task that an operator had rebuilt: its `seq` began anew.
    """

    kind: Kind
    model: str
    task: str
    seq: int
    sources: list[tuple[str, int]]
    tick_ms: int | None = None
    age_ms: int | None = None
    offset: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    source: npt.NDArray[np.uint16] = field(default_factory=lambda: np.empty(0, np.uint16))
    time_ms: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    record_ms: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    version: Coded | None = None
    numeric_names: list[str] = field(default_factory=list)
    numeric: Float64 | None = None
    categorical: dict[str, Coded] = field(default_factory=dict)
    invalid: npt.NDArray[np.int32] | None = None
    vectors: dict[str, Float32] = field(default_factory=dict)
    segments: dict[str, Coded] = field(default_factory=dict)
    score: Float64 | None = None
    confidence: Float64 | None = None
    entropy: Float64 | None = None
    class_: Coded | None = None
    latency_ms: Float64 | None = None
    error: npt.NDArray[np.int8] | None = None
    weight: Float64 | None = None
    unit: Int64 | None = None
    label: Float64 | None = None
    label_class: Coded | None = None
    label_probability: Float64 | None = None
    delay_ms: Float64 | None = None
    label_state: npt.NDArray[np.int8] | None = None
    generation: int = 0

    def __len__(self) -> int:
        return len(self.offset)


_TEXT: Final = ("version", "class_", "label_class")
_REQUIRED: Final = (("offset", np.int64), ("source", np.uint16), ("time_ms", np.int64), ("record_ms", np.int64))
_OPTIONAL: Final = (
    ("score", np.float64),
    ("confidence", np.float64),
    ("entropy", np.float64),
    ("latency_ms", np.float64),
    ("error", np.int8),
    ("weight", np.float64),
    ("unit", np.int64),
    ("label", np.float64),
    ("label_probability", np.float64),
    ("delay_ms", np.float64),
    ("label_state", np.int8),
)

_ARRAYS: Final = {name: pa.from_numpy_dtype(np.dtype(kind)) for name, kind in (*_REQUIRED, *_OPTIONAL)}
_TEXT_TYPE: Final = pa.dictionary(pa.int32(), pa.string())


def encode(batch: Observations) -> bytes:
    """The Arrow IPC stream of a batch; equal batches give equal bytes."""
    names: list[str] = []
    arrays: list[pa.Array] = []

    def add(name: str, array: pa.Array) -> None:
        names.append(name)
        arrays.append(array)

    for name, _ in _REQUIRED:
        add(name, pa.array(getattr(batch, name)))
    for name, _ in _OPTIONAL:
        if (column := getattr(batch, name)) is not None:
            add(name, pa.array(column))
    if batch.numeric is not None:
        flat = pa.array(np.ascontiguousarray(batch.numeric).reshape(-1))
        add("numeric", pa.FixedSizeListArray.from_arrays(flat, batch.numeric.shape[1]))
    for name, vector in batch.vectors.items():
        add("vector:" + name, pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vector).reshape(-1)), vector.shape[1]))
    for name in _TEXT:
        if (text := getattr(batch, name)) is not None:
            add(name, _dictionary(text))
    for prefix, texts in (("categorical:", batch.categorical), ("segment:", batch.segments)):
        for name, text in texts.items():
            add(prefix + name, _dictionary(text))
    meta: dict[str, Any] = {
        "v": WIRE_VERSION,
        "kind": batch.kind,
        "model": batch.model,
        "task": batch.task,
        "seq": batch.seq,
        "sources": batch.sources,
        "tick_ms": batch.tick_ms,
        "age_ms": batch.age_ms,
        "numeric": batch.numeric_names,
    }
    if batch.generation:
        meta["generation"] = batch.generation
    if batch.invalid is not None and len(batch.invalid):
        meta["invalid"] = batch.invalid.tolist()
    schema = pa.schema([pa.field(n, a.type) for n, a in zip(names, arrays, strict=True)], metadata={_META_KEY: orjson.dumps(meta)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded


def decode(value: bytes) -> Observations:
    """The batch in an Arrow IPC stream.

    Raises
    ------
    ObservationError : not such a stream, or one of a newer wire version.
    """
    meta, names, batch = _read(value)
    out = Observations(
        kind=meta.kind,
        model=meta.model,
        task=meta.task,
        seq=meta.seq,
        sources=meta.sources,
        tick_ms=meta.tick_ms,
        age_ms=meta.age_ms,
        numeric_names=meta.numeric,
        generation=meta.generation,
    )
    for name, column in zip(names, batch.columns, strict=True):
        prefix, named, rest = name.partition(":")
        if name in _ARRAYS:
            setattr(out, name, _array(name, column, _ARRAYS[name]))
        elif name == "numeric":
            out.numeric = _matrix(column, len(meta.numeric))
        elif named and prefix == "vector":
            out.vectors[rest] = _vector(name, column)
        elif name in _TEXT:
            setattr(out, name, _coded(_text(name, column)))
        elif named and prefix in ("categorical", "segment"):
            texts = out.categorical if prefix == "categorical" else out.segments
            texts[rest] = _coded(_text(name, column))
        else:
            raise ObservationError(f'an observation batch has a column "{name[:40]}" that it should not have')
    if meta.invalid is not None:
        out.invalid = np.array(meta.invalid, np.int32).reshape(-1, 2)
    _check(out, names)
    return out


class _Version(msgspec.Struct):
    v: int


class _Meta(msgspec.Struct):
    kind: Kind
    model: str
    task: str
    seq: Count
    sources: list[tuple[str, Count]]
    tick_ms: Signed64 | None
    age_ms: Signed64 | None
    numeric: list[str]
    generation: Count = 0
    invalid: list[tuple[Index, Index]] | None = None


_version_decoder = msgspec.json.Decoder(_Version)
_meta_decoder = msgspec.json.Decoder(_Meta)


def _read(value: bytes) -> tuple[_Meta, list[str], pa.RecordBatch]:
    try:
        check_uncompressed(value)
        with pa.ipc.open_stream(value) as reader:
            text = (reader.schema.metadata or {})[_META_KEY]
            version = _version_decoder.decode(text).v
            if version != WIRE_VERSION:
                raise ObservationError(f"observation wire version {version}: this worker reads version {WIRE_VERSION}", hint=UPGRADE_HINT)
            meta = _meta_decoder.decode(text)
            batch = reader.read_next_batch()
        # Lengths, offsets and codes as they are claimed; numpy would read beyond the buffers.
        batch.validate(full=True)
        names: list[str] = batch.schema.names
    except StopIteration:
        raise ObservationError("an observation batch without its columns") from None
    except (pa.ArrowException, FrameError, KeyError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise ObservationError(f"not an observation batch: {error}") from error
    return meta, names, batch


def _check(batch: Observations, names: Sequence[str]) -> None:
    """What no column can say of itself."""
    missing = [name for name, _ in _REQUIRED if name not in names]
    if missing or len(set(names)) != len(names):
        raise ObservationError(f"an observation batch with {len(names)} columns lacks {', '.join(missing) or 'nothing, but has one twice'}")
    if (len(batch) or batch.kind == "tick") and not batch.sources:
        raise ObservationError("an observation batch names no source")
    if len(batch) and int(batch.source.max()) >= len(batch.sources):
        raise ObservationError("an observation batch has rows of a source that it does not name")
    features = len(batch.numeric_names) + len(batch.categorical) + len(batch.vectors)
    if batch.numeric_names and batch.numeric is None and len(batch):
        raise ObservationError("an observation batch names numeric features and has none")
    if batch.invalid is not None and len(batch.invalid) and (batch.invalid.max(axis=0) >= (len(batch), features)).any():
        raise ObservationError("an observation batch has invalid values outside its rows and features")


def _array(name: str, column: pa.Array, kind: pa.DataType) -> npt.NDArray[Any]:
    if column.type != kind or column.null_count:
        raise ObservationError(f'column "{name}" of an observation batch: expected {kind} without nulls, got {column.type}')
    array: npt.NDArray[Any] = column.to_numpy()
    return array


def _matrix(column: pa.Array, features: int) -> Float64:
    if column.type != pa.list_(pa.float64(), features) or column.null_count or column.values.null_count:
        raise ObservationError(f"numeric features of an observation batch: expected {features} doubles a row, got {column.type}")
    # `flatten` copies; rows of a stream are never a slice, so `values` are exactly theirs.
    values: Float64 = column.values.to_numpy()
    return values.reshape(len(column), features)


def _vector(name: str, column: pa.Array) -> Float32:
    kind = column.type
    fixed = pa.types.is_fixed_size_list(kind) and kind.value_type == pa.float32() and kind.list_size > 0
    if not fixed or column.null_count or column.values.null_count:
        raise ObservationError(f'column "{name[:40]}" of an observation batch: expected lists of single floats, got {kind}')
    values: Float32 = column.values.to_numpy()
    return values.reshape(len(column), kind.list_size)


def _text(name: str, column: pa.Array) -> pa.DictionaryArray:
    if column.type != _TEXT_TYPE or column.dictionary.null_count:
        raise ObservationError(f'column "{name[:40]}" of an observation batch: expected texts, got {column.type}')
    return column


def code(texts: Sequence[str | None]) -> Coded:
    """The text column of a list; values in order of first appearance, so equal lists give equal columns."""
    array = pa.array(texts, pa.string()).dictionary_encode()
    return _coded(array)


def several(columns: Sequence[Coded]) -> Coded:
    """Text columns one after the other, over one dictionary; values keep the order of the first column that has them."""
    values = columns[0].values
    if all(column.values == values for column in columns):
        return Coded(np.concatenate([column.codes for column in columns]), values)
    place: dict[str, int] = {}
    parts = []
    for column in columns:
        # The entry that -1 (missing) picks comes last, as -1 does.
        moved = [place.setdefault(value, len(place)) for value in column.values]
        parts.append(np.array([*moved, -1], np.int32)[column.codes])
    return Coded(np.concatenate(parts), list(place))


def _dictionary(text: Coded) -> pa.DictionaryArray:
    missing = text.codes < 0
    codes = pa.array(text.codes, pa.int32(), mask=missing if missing.any() else None)
    return pa.DictionaryArray.from_arrays(codes, pa.array(text.values, pa.string()))


def _coded(array: pa.DictionaryArray) -> Coded:
    indices = array.indices if not array.indices.null_count else array.indices.fill_null(-1)
    codes: npt.NDArray[np.int32] = indices.to_numpy()
    return Coded(codes, array.dictionary.to_pylist())
