"""What stands in Redis and Kafka for recovery is read as hostile: a named error, or no harm; never another exception, a hang or a bomb."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import orjson
import pytest
from confluent_kafka import Consumer
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.streams.cluster import Cluster, read_live_since_ms
from driftline.streams.errors import StreamError
from driftline.streams.state.base import BaseLog
from driftline.streams.state.checkpoints import Checkpoints, Scope
from driftline.streams.state.manifest import (
    MANIFEST_VERSION,
    CommitReference,
    checksum,
    decode_manifest,
    decode_reference,
    encode_reference,
    pack,
    unpack,
)
from driftline.streams.state.retention import all_keys
from driftline.streams.state.rings import read_ring
from driftline.streams.state.store import MemoryStore
from driftline.streams.task import RingWrite, StateDelta
from tests.hostile.mutations import bytes_like, json_like, named_or_harmless

TASK, INPUT = "detect/0", ("in", 0)
SCOPE = Scope("p", "e", "g", Cluster("c", {"in": "id"}, {"in": 1}))


def written(store: MemoryStore, commits: int = 4) -> tuple[Checkpoints, CommitReference]:
    """A task with a few committed checkpoints, and the last one's reference."""
    checkpoints = Checkpoints(store, SCOPE, TASK, frozenset({INPUT}))
    checkpoints.claim()
    checkpoints.begin()
    for number in range(1, commits + 1):
        rows = bytes([number]) * 6
        ring = RingWrite("w", 3, 10, 2 * number, rows, full=number == 1)
        write, reference = checkpoints.prepare(StateDelta({"s": b"%d" % number}, [ring]), {INPUT: number})
        store.write([write])
        checkpoints.written()
        checkpoints.confirm()
    return checkpoints, reference


def recovered(store: MemoryStore, reference: CommitReference) -> None:
    """Everything that a worker's start reads of a task."""
    checkpoints = Checkpoints(store, SCOPE, TASK, frozenset({INPUT}))
    all_keys(store.read, SCOPE.keys(TASK), TASK)
    checkpoints.claim()
    checkpoints.never_committed()
    for manifest in checkpoints.load_older():
        named_or_harmless(lambda manifest=manifest: checkpoints.load_manifest(manifest))  # type: ignore[misc]
    checkpoints.load(reference)


_store = MemoryStore()
_reference = written(_store)[1]
_keys = SCOPE.keys(TASK)
_manifest = _store.data[_keys.manifest(_reference.id)]
_ring = next(value for key, value in _store.data.items() if ":r:w:" in key)


@settings(max_examples=300)
@given(st.one_of(bytes_like(_manifest), json_like(_manifest)))
def test_a_manifest(data: bytes) -> None:
    named_or_harmless(lambda: decode_manifest(data, TASK))


@settings(max_examples=300)
@given(st.one_of(json_like(_manifest), bytes_like(_manifest)))
def test_a_manifest_whose_checksum_is_right(data: bytes) -> None:
    """Forged by whoever may write to Kafka and to Redis: it may lead anywhere, but never out of the named errors."""
    store = MemoryStore()
    store.data = {**_store.data, _keys.manifest(_reference.id): data}
    forged = msgspec.structs.replace(_reference, checksum=checksum(data))
    named_or_harmless(lambda: recovered(store, forged))


@settings(max_examples=300)
@given(st.data())
def test_any_value_of_a_task(data: st.DataObject) -> None:
    store = MemoryStore()
    store.data = dict(_store.data)
    # The owner is read by the script in Redis; test_redis_values.py has it.
    for key in data.draw(st.lists(st.sampled_from(sorted(set(store.data) - {_keys.owner, _keys.head})), min_size=1, max_size=3)):
        store.data[key] = data.draw(bytes_like(store.data[key]))
    named_or_harmless(lambda: recovered(store, _reference))


@settings(max_examples=300)
@given(bytes_like(_ring))
def test_a_window(data: bytes) -> None:
    entry = decode_manifest(_manifest, TASK).rings["w"]
    named_or_harmless(lambda: read_ring("w", entry, data))


@settings(max_examples=300)
@given(st.one_of(json_like(encode_reference(_reference).encode()), bytes_like(encode_reference(_reference).encode())))
def test_the_metadata_of_a_committed_offset(data: bytes) -> None:
    def read() -> None:
        reference = decode_reference(data.decode("utf-8", "replace"), TASK)
        store = MemoryStore()
        store.data = dict(_store.data)
        checkpoints = Checkpoints(store, SCOPE, TASK, frozenset({INPUT}))
        checkpoints.claim(reference.epoch)
        checkpoints.load_inline(reference, {INPUT: 3})
        checkpoints.load(reference)
        write, following = checkpoints.prepare(StateDelta(), {INPUT: 5})
        store.write([write])
        encode_reference(following)

    named_or_harmless(read)


_packed = pack({"ingest": b'{"v": 1}'}, "0123456789abcdef")


@settings(max_examples=300)
@given(st.one_of(bytes_like(_packed.encode()), bytes_like(zlib.decompress(base64.b64decode(_packed)))))
def test_the_state_beside_an_offset(data: bytes) -> None:
    named_or_harmless(lambda: unpack(data.decode("latin-1"), TASK))
    named_or_harmless(lambda: unpack(base64.b64encode(zlib.compress(data)).decode(), TASK))


def test_a_small_text_that_unfolds_to_gigabytes_is_not_unfolded() -> None:
    folded = base64.b64encode(zlib.compress(b"\0" * (200 << 20))).decode()
    assert named_or_harmless(lambda: unpack(folded, TASK)) is not None


class _Topic(BaseLog):
    """The base checkpoints of a topic that holds these records; reading a partition is tested against a real Kafka."""

    def __init__(self, records: dict[bytes, bytes]) -> None:
        super().__init__("base", 1, "g", lambda: Consumer({}))
        self.held = records

    def _read(self, task: str) -> dict[bytes, bytes]:
        return dict(self.held)


def _base_records() -> dict[bytes, bytes]:
    store = MemoryStore()
    checkpoints, _ = written(store)
    write, _ = checkpoints.prepare(StateDelta(), {INPUT: 9}, base=True)
    store.write([write])
    log = BaseLog("base", 1, "g", lambda: Consumer({}))
    return {output.key or b"": output.value or b"" for output in log.records(checkpoints, 9)}


_base = _base_records()
_base_manifest = next(key for key in _base if key.endswith(b"|manifest"))


def test_a_base_checkpoint_that_nobody_touched_is_found() -> None:
    found = _Topic(_base).find(TASK)
    assert found is not None
    assert found.loaded.state.blobs == {"s": b"4"}


@settings(max_examples=400)
@given(st.data())
def test_a_base_checkpoint(data: st.DataObject) -> None:
    records = dict(_base)
    key = data.draw(st.sampled_from([_base_manifest, *records]))
    records[key] = data.draw(json_like(records[key]) if key == _base_manifest else bytes_like(records[key]))

    def read() -> None:
        found = _Topic(records).find(TASK)
        if found is not None:
            checkpoints = Checkpoints(MemoryStore(), SCOPE, TASK, frozenset({INPUT}))
            checkpoints.claim()
            checkpoints.adopt(found.loaded)
            checkpoints.prepare(StateDelta(), found.loaded.offsets)

    named_or_harmless(read)


def test_a_base_checkpoint_of_a_trillion_parts_is_refused_at_once() -> None:
    base = orjson.loads(_base[_base_manifest])
    base["parts"] = [[name, kind, 0, checksum(b""), 10**12] for name, kind, *_ in base["parts"]]
    assert named_or_harmless(lambda: _Topic({**_base, _base_manifest: orjson.dumps(base)}).find(TASK)) is not None


@given(st.binary(max_size=30))
def test_the_time_of_the_first_start(data: bytes) -> None:
    named_or_harmless(lambda: read_live_since_ms("key", data))


def test_every_error_says_what_to_do() -> None:
    """One of each: whoever reads the last line of the log knows the next step."""
    broken: list[Callable[[], Any]] = [
        lambda: decode_reference("", TASK),
        lambda: decode_reference(encode_reference(msgspec.structs.replace(_reference, v=9)), TASK),
        lambda: decode_manifest(_manifest.replace(b'"v":%d' % MANIFEST_VERSION, b'"v":9'), TASK),
        lambda: _Topic({**_base, _base_manifest: b"{"}).find(TASK),
        lambda: _Topic({_base_manifest: _base[_base_manifest]}).find(TASK),
        lambda: read_live_since_ms("key", b"yesterday"),
        lambda: replace_cluster().load(_reference),
    ]
    for read in broken:
        with pytest.raises(StreamError) as caught:
            read()
        assert caught.value.hint, caught.value


def replace_cluster() -> Checkpoints:
    checkpoints = Checkpoints(_store, replace(SCOPE, state_version="2"), TASK, frozenset({INPUT}))
    checkpoints.claim()
    return checkpoints
