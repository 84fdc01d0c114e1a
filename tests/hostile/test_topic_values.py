"""Records of our own topics that another program wrote, and states forged whole: the processor stops by name, or no harm is done."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.streams.columns import BlockError, decode_labels, decode_waiting
from driftline.streams.errors import StateError
from driftline.streams.observation import ObservationError, decode
from driftline.streams.task import Idle, MemoryRecord, Record, RestoredRing, RestoredState, Task
from tests.detect.test_task import TOPIC, open_task, stream
from tests.hostile.mutations import bytes_like, json_like, named_or_harmless
from tests.ingest.streams import Ingest, event, record
from tests.join.logs import LABELS, WAITING, Join, Logs

_logs = Logs().predict(("a", 1), ("b", 2), ("c", 3)).label(("a", 2, 1.0), ("b", 3, "yes"), ("c", 4, 0.0)).end()
_waiting, _labels = _logs.waiting[0].value() or b"", _logs.labels[0].value() or b""
_stream = stream([40, 60, 30], versions=2)
_batch = _stream[1].value() or b""


def restamped(records: list[MemoryRecord], at: int, value: bytes) -> list[Record]:
    """The records with one of them replaced."""
    return [MemoryRecord(r.topic(), 0, r.offset(), None, value if n == at else r.value(), r.timestamp()[1]) for n, r in enumerate(records)]


@settings(max_examples=150)
@given(bytes_like(_batch))
def test_an_observation_batch(value: bytes) -> None:
    named_or_harmless(lambda: open_task().process({(TOPIC, 0): restamped(_stream, 1, value)}))


def _meta(value: bytes) -> bytes:
    with pa.ipc.open_stream(value) as reader:
        return bytes((reader.schema.metadata or {})[b"driftline"])


def _with_meta(meta: bytes, value: bytes = _batch) -> bytes:
    """The columns of a batch under another head."""
    with pa.ipc.open_stream(value) as reader:
        batch = reader.read_next_batch()
    return _arrow(batch.replace_schema_metadata({b"driftline": meta}))


def _arrow(batch: pa.RecordBatch, **options: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_batch(batch)
    written: bytes = sink.getvalue().to_pybytes()
    return written


@settings(max_examples=150)
@given(json_like(_meta(_batch)))
def test_the_head_of_an_observation_batch(meta: bytes) -> None:
    value = _with_meta(meta)
    named_or_harmless(lambda: open_task().process({(TOPIC, 0): restamped(_stream, 1, value)}))


COLUMNS = [
    ("offset", pa.array([1.5])),
    ("offset", pa.array([None], pa.int64())),
    ("offset", pa.array(["x"])),
    ("source", pa.array([9], pa.uint16())),
    ("score", pa.array([None], pa.float64())),
    ("numeric", pa.FixedSizeListArray.from_arrays(pa.array([1.0, 2.0, 3.0]), 3)),
    ("numeric", pa.array([[1.0, 2.0]])),
    ("vector:v", pa.array([[1.0, 2.0]])),
    ("vector:v", pa.FixedSizeListArray.from_arrays(pa.array([1.0, 2.0]), 2)),
    ("vector:v", pa.FixedSizeListArray.from_arrays(pa.array([1.0, None], pa.float32()), 2)),
    ("vector:v", pa.array([1.0])),
    ("categorical:c", pa.array(["x"])),
    ("categorical:c", pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array([7]))),
    ("segment:s", pa.nulls(1)),
    ("__class__", pa.array([1])),
    ("model", pa.array([1])),
]


@pytest.mark.parametrize(("name", "column"), COLUMNS)
def test_a_column_of_another_type_is_named(name: str, column: pa.Array) -> None:
    with pa.ipc.open_stream(stream([1])[0].value() or b"") as reader:
        batch = reader.read_next_batch()
    names = [*batch.schema.names] + ([name] if name not in batch.schema.names else [])
    columns = [column if own == name else batch.column(own) for own in names]
    schema = pa.schema([pa.field(n, c.type) for n, c in zip(names, columns, strict=True)], metadata=batch.schema.metadata)
    with pytest.raises(ObservationError) as caught:
        decode(_arrow(pa.RecordBatch.from_arrays(columns, schema=schema)))
    assert "another program" in (caught.value.hint or "")


def test_a_column_whose_name_is_no_text_is_refused() -> None:
    with pytest.raises(ObservationError):
        decode(_batch.replace(b"offset", b"\x80ffset"))


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_compressed_batch_is_refused_before_it_is_unfolded(codec: str) -> None:
    column = pa.array(np.zeros(1 << 24))
    schema = pa.schema([pa.field("score", column.type)], metadata={b"driftline": _meta(_batch)})
    value = _arrow(pa.RecordBatch.from_arrays([column], schema=schema), compression=codec)
    assert len(value) < 1 << 20
    held = pa.total_allocated_bytes()
    with pytest.raises(ObservationError, match="compressed"):
        decode(value)
    assert pa.total_allocated_bytes() - held < 1 << 20


@settings(max_examples=150)
@given(st.data())
def test_a_block_of_waiting_rows_or_labels(data: st.DataObject) -> None:
    waiting, labels = list(_logs.waiting), list(_logs.labels)
    if data.draw(st.booleans()):
        waiting[0] = MemoryRecord(*WAITING, 0, None, data.draw(_block_like(_waiting)), 0)
    else:
        labels[0] = MemoryRecord(*LABELS, 0, None, data.draw(_block_like(_labels)), 0)
    named_or_harmless(lambda: Join().task.process({WAITING: waiting, LABELS: labels}))


def _block_like(block: bytes) -> st.SearchStrategy[bytes]:
    """Bytes changed anywhere, or a head whose JSON has other things in it."""
    length = int.from_bytes(block[4:8], "little")

    def with_head(head: bytes) -> bytes:
        return block[:4] + len(head).to_bytes(4, "little") + head + block[8 + length :]

    return st.one_of(bytes_like(block), st.builds(with_head, json_like(block[8 : 8 + length])))


@pytest.mark.parametrize("kind", ["constant", "same"])
def test_a_block_that_asks_for_more_cells_than_it_can_have_is_refused(kind: str) -> None:
    length = int.from_bytes(_labels[4:8], "little")
    head = orjson.loads(_labels[8 : 8 + length])
    if kind == "constant":
        head["rows"] = (1 << 31) - 1
    else:
        head["columns"] = [[n, "same", 0, {**e, "n": (1 << 31) - 1}] if n == "value" else [n, f, s, e] for n, f, s, e in head["columns"]]
    text = orjson.dumps(head)
    error = named_or_harmless(lambda: decode_labels(_labels[:4] + len(text).to_bytes(4, "little") + text + _labels[8 + length :]))
    assert isinstance(error, BlockError)


def test_a_block_of_a_newer_worker_asks_for_an_upgrade() -> None:
    with pytest.raises(BlockError, match="upgrade this worker"):
        decode_waiting(_waiting[:3] + b"\x03" + _waiting[4:])


def state_of(task: Task) -> RestoredState:
    """What a restart finds of a task."""
    delta = task.checkpoint()
    rings = {ring.name: RestoredRing(ring.name, ring.record_bytes, ring.window, ring.head, ring.rows) for ring in delta.rings}
    return RestoredState({name: blob for name, blob in delta.blobs.items() if blob is not None}, rings)


def _ingest_state() -> RestoredState:
    return state_of(Ingest().take(record(event()), record(event(id="b", features={"amount": 1.0, "new": 2}), 1)).task)


def _join_state() -> RestoredState:
    join = Join().read(Logs().predict(("a", 1), ("b", 2)).label(("a", 2, 1.0), tick=30))
    return state_of(join.task)


def _detect_state() -> RestoredState:
    task = open_task()
    task.process({(TOPIC, 0): stream([700, 300])})
    return state_of(task)


_ingest, _join, _detect = _ingest_state(), _join_state(), _detect_state()


def _go_on(task: Task, records: dict[tuple[str, int], list[Record]]) -> None:
    task.process(records)
    task.tick(Idle(10**12, frozenset(records)))
    task.checkpoint()
    task.committed()
    task.positions()


@settings(max_examples=150)
@given(json_like(_ingest.blobs["ingest"]))
def test_the_state_of_ingest(blob: bytes) -> None:
    def run() -> None:
        task = Ingest(state=RestoredState({"ingest": blob})).task
        _go_on(task, {("predictions", 0): [record(event(id="c"), 2)]})

    _named(run)


@settings(max_examples=150)
@given(json_like(_join.blobs["join"]))
def test_the_state_of_the_join(blob: bytes) -> None:
    def run() -> None:
        join = Join()
        join.blobs, join.rings = {"join": blob}, dict(_join.rings)
        join.open()
        _go_on(join.task, {WAITING: list(_logs.waiting), LABELS: list(_logs.labels)})

    _named(run)


@settings(max_examples=60)
@given(st.data())
def test_the_state_of_detect(data: st.DataObject) -> None:
    blobs = dict(_detect.blobs)
    name = data.draw(st.sampled_from(["task", "task", "task", *blobs]))
    blobs[name] = data.draw(json_like(blobs[name]) if name == "task" else bytes_like(blobs[name]))

    def run() -> None:
        _go_on(open_task(RestoredState(blobs, _detect.rings)), {(TOPIC, 0): list(stream([700, 300, 50])[2:])})

    _named(run)


def _named(run: Callable[[], object]) -> None:
    """As a worker opens a task and goes on: what does not fit is a matter of the state, or of batches that do not follow on it."""
    error = named_or_harmless(run)
    assert error is None or isinstance(error, StateError) or "batch" in error.message
