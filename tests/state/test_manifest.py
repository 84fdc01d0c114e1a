"""What stands in Redis and in commit metadata is hostile until it is proven to be ours."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.streams.errors import StateError
from driftline.streams.state.manifest import (
    MANIFEST_VERSION,
    CommitReference,
    Manifest,
    RingEntry,
    decode_manifest,
    decode_reference,
    encode_manifest,
    encode_reference,
    pack,
    unpack,
)
from driftline.streams.state.rings import read_ring


def manifest(**change: object) -> Manifest:
    fields: dict[str, object] = {
        "v": MANIFEST_VERSION,
        "task": "t",
        "id": "1-1-a",
        "sequence": 1,
        "epoch": 1,
        "kept": [],
        "cluster_id": "c",
        "topic_ids": {},
        "partitions": {},
        "state_version": "1",
        "offsets": [("in", 0, 5)],
        "blobs": {},
        "rings": {},
    }
    return Manifest(**fields | change)  # type: ignore[arg-type]


def test_manifest_survives_the_round_trip() -> None:
    original = manifest(rings={"r": RingEntry("r:r:1", 3, 10, 20, 5, 17)})
    assert decode_manifest(encode_manifest(original), "t") == original


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused_with_a_state_error(data: bytes) -> None:
    for read in (lambda: decode_manifest(data, "t"), lambda: decode_reference(data.decode("latin-1"), "t")):
        with pytest.raises(StateError):
            read()
    with pytest.raises(StateError):
        read_ring("r", RingEntry("r", 1, 4, 8, 0, 4), data)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_changed_byte_is_refused_or_still_a_sound_manifest(data: st.DataObject) -> None:
    good = bytearray(encode_manifest(manifest(rings={"r": RingEntry("r:r:1", 3, 10, 20, 5, 17)})))
    good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = decode_manifest(bytes(good), "t")
    except StateError:
        return
    for ring in read.rings.values():
        assert 0 < ring.window <= ring.capacity
        assert 0 <= ring.base <= ring.head


@pytest.mark.parametrize(
    "ring",
    [
        RingEntry("k", 0, 10, 20, 0, 5),
        RingEntry("k", 1, 30, 20, 0, 5),
        RingEntry("k", 1, 10, 1 << 40, 0, 5),
        RingEntry("k", 1, 10, 20, 6, 5),
        RingEntry("k", 1, 10, 20, 4, 8),
        RingEntry("k", 1, 10, 20, 0, 1 << 62),
    ],
)
def test_impossible_ring_is_refused_before_it_is_read(ring: RingEntry) -> None:
    with pytest.raises(StateError, match='ring "r"'):
        decode_manifest(encode_manifest(manifest(rings={"r": ring})), "t")


def test_newer_version_asks_for_an_upgrade() -> None:
    with pytest.raises(StateError, match="upgrade this worker"):
        decode_manifest(encode_manifest(manifest(v=MANIFEST_VERSION + 1)), "t")
    with pytest.raises(StateError, match="upgrade this worker"):
        decode_reference(encode_reference(CommitReference(MANIFEST_VERSION + 1, "1-1-a", "0", 1)), "t")


def test_a_newer_version_is_named_whatever_its_shape() -> None:
    newer = b'{"v": 99, "task": {"name": "t"}, "shape": [1]}'
    with pytest.raises(StateError, match="checkpoint version 99: this worker reads versions 1 to 2") as refused:
        decode_manifest(newer, "t")
    assert "upgrade this worker" in str(refused.value)
    with pytest.raises(StateError, match="checkpoint of version 99: this worker reads versions 1 to 2"):
        decode_reference('[99, {"id": "x"}, 5, 6, 7, 8, 9]', "t")


def test_the_version_before_is_read() -> None:
    fields = json.loads(encode_manifest(manifest(v=1)))
    del fields["environment"], fields["history"]
    older = decode_manifest(json.dumps(fields).encode(), "t")
    assert (older.v, older.environment, older.history) == (1, "", [])
    assert decode_reference('[1, "1-1-a", "0", 1]', "t").id == "1-1-a"


def test_offsets_set_by_a_tool_are_noticed() -> None:
    with pytest.raises(StateError, match="names no checkpoint"):
        decode_reference("", "t")


def test_reference_with_state_fits_the_metadata() -> None:
    # Incompressible state at the limit, and the longest id and epoch there can be.
    import secrets

    size = 16_000
    while not (packed := pack({"state": secrets.token_bytes(size)}, "0" * 16)):
        size -= 50
    assert unpack(packed, "t")[0] == "0" * 16
    long = CommitReference(MANIFEST_VERSION, "9" * 19 + "-" + "9" * 19 + "-" + "f" * 16, "f" * 16, 1 << 62, "9" * 56, packed)
    assert len(encode_reference(long)) <= 4_000


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_hostile_inline_state_is_refused(text: str) -> None:
    with pytest.raises(StateError):
        unpack(text, "t")


def test_compression_bomb_is_not_unpacked() -> None:
    import base64
    import zlib

    with pytest.raises(StateError):
        unpack(base64.b64encode(zlib.compress(b"\0" * 50_000_000)).decode(), "t")
