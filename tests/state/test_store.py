"""What both stores promise: a checkpoint is written whole by its owner, or not at all."""

from __future__ import annotations

import dataclasses

import pytest

from driftline.streams.errors import StateError, WriteRefused
from driftline.streams.state.checkpoints import Checkpoints, Scope
from driftline.streams.state.manifest import CommitReference, Manifest
from driftline.streams.state.redis_store import RedisStore
from driftline.streams.state.store import Store
from driftline.streams.task import RingWrite, StateDelta
from tests.state.conftest import INPUTS


def again(store: Store, scope: Scope) -> Checkpoints:
    return Checkpoints(store, scope, "detect/0", INPUTS)


def commit(checkpoints: Checkpoints, delta: StateDelta, offset: int) -> CommitReference:
    write, reference = checkpoints.prepare(delta, {("in", 0): offset})
    checkpoints._store.write([write])
    checkpoints.written()
    checkpoints.confirm()
    return reference


def ring(head: int, count: int, *, window: int = 6, full: bool = False) -> RingWrite:
    return RingWrite("r", 1, window, head, bytes(i % 251 for i in range(head - count, head)), full)


def rows_at(head: int, window: int = 6) -> bytes:
    return bytes(i % 251 for i in range(max(0, head - window), head))


def all_keys(store: Store, checkpoints: Checkpoints) -> set[str]:
    if isinstance(store, RedisStore):
        pattern = checkpoints._keys.root.replace("[", "\\[") + "*"
        return {key.decode() for key in store._client.scan_iter(pattern, count=1000)}
    return set(store.data)  # type: ignore[attr-defined]


def test_committed_checkpoint_is_loaded_by_the_next_owner(store: Store, scope: Scope, checkpoints: Checkpoints) -> None:
    checkpoints.claim()
    checkpoints.begin()
    commit(checkpoints, StateDelta({"a": b"1", "b": b"2"}, [ring(4, 4)]), 10)
    reference = commit(checkpoints, StateDelta({"a": b"3"}, [ring(5, 1)]), 20)
    successor = again(store, scope)
    assert successor.claim(reference.epoch) == reference.id
    loaded = successor.load(reference)
    assert loaded.state.blobs == {"a": b"3", "b": b"2"}
    assert loaded.state.rings["r"].rows == rows_at(5)
    assert loaded.offsets == {("in", 0): 20}


def test_dropped_blob_is_not_loaded(store: Store, scope: Scope, checkpoints: Checkpoints) -> None:
    checkpoints.claim()
    commit(checkpoints, StateDelta({"a": b"1", "b": b"2"}), 1)
    reference = commit(checkpoints, StateDelta({"a": None}), 2)
    successor = again(store, scope)
    successor.claim()
    assert successor.load(reference).state.blobs == {"b": b"2"}


def test_epoch_grows_even_where_the_store_lost_it(store: Store, checkpoints: Checkpoints) -> None:
    checkpoints.claim(epoch_floor=41)
    assert checkpoints.epoch == 42


def test_loser_of_the_token_writes_nothing(store: Store, scope: Scope, checkpoints: Checkpoints) -> None:
    checkpoints.claim()
    reference = commit(checkpoints, StateDelta({"a": b"1"}, [ring(3, 3)]), 1)
    winner = again(store, scope)
    winner.claim()
    before = {key: store.read([key]) for key in all_keys(store, checkpoints)}
    with pytest.raises(WriteRefused) as refused:
        commit(checkpoints, StateDelta({"a": b"2"}, [ring(4, 1)]), 2)
    assert refused.value.reason == "owner"
    assert {key: store.read([key]) for key in all_keys(store, checkpoints)} == before
    assert winner.load(reference).state.blobs == {"a": b"1"}


def test_a_lost_claim_is_told_from_a_takeover(store: Store, scope: Scope, checkpoints: Checkpoints) -> None:
    checkpoints.claim()
    former = store.read([checkpoints._keys.owner])[0]
    current = again(store, scope)
    current.claim()
    for owner in (former, None):
        _set(store, current._keys.owner, owner)
        with pytest.raises(WriteRefused) as refused:
            commit(current, StateDelta({"a": b"1"}), 1)
        assert refused.value.reason == "lost"


def test_unexpected_head_refuses(store: Store, scope: Scope, checkpoints: Checkpoints) -> None:
    checkpoints.claim()
    commit(checkpoints, StateDelta({"a": b"1"}), 1)
    _set(store, checkpoints._keys.head, b"rolled-back")
    with pytest.raises(WriteRefused) as refused:
        commit(checkpoints, StateDelta({"a": b"2"}), 2)
    assert refused.value.reason == "head"


def test_lost_ring_is_never_filled_with_zeros(store: Store, scope: Scope, checkpoints: Checkpoints) -> None:
    checkpoints.claim()
    commit(checkpoints, StateDelta({}, [ring(5, 5)]), 1)
    key = checkpoints._keys.of(_current(checkpoints).rings["r"].key)
    _set(store, key, None)
    with pytest.raises(WriteRefused) as refused:
        commit(checkpoints, StateDelta({}, [ring(6, 1)]), 2)
    assert refused.value.reason == "length"
    assert store.read([key]) == [None]


def test_ring_survives_wraps_and_any_batch_size(store: Store, scope: Scope, checkpoints: Checkpoints) -> None:
    checkpoints.claim()
    head, sizes = 0, [1, 2, 2, 1, 5, 7, 20, 1, 2, 2, 2, 6, 2, 1, 4, 3, 2]
    for offset, size in enumerate(sizes, 1):
        head += size
        reference = commit(checkpoints, StateDelta({}, [ring(head, size)]), offset)
        reader = again(store, scope)
        reader.token = checkpoints.token
        assert reader.load(reference).state.rings["r"].rows == rows_at(head)


def test_full_ring_write_replaces_the_window(store: Store, scope: Scope, checkpoints: Checkpoints) -> None:
    checkpoints.claim()
    commit(checkpoints, StateDelta({}, [ring(9, 9)]), 1)
    reference = commit(checkpoints, StateDelta({}, [ring(30, 6, full=True)]), 2)
    successor = again(store, scope)
    successor.claim()
    assert successor.load(reference).state.rings["r"].rows == rows_at(30)


def test_every_kept_checkpoint_stays_loadable(store: Store, scope: Scope, checkpoints: Checkpoints) -> None:
    checkpoints.claim()
    references, head = [], 0
    for offset, size in enumerate([2, 1, 2, 2, 6, 1, 2, 2, 3, 2, 2, 2], 1):
        head += size
        references.append((commit(checkpoints, StateDelta({"a": b"%d" % head}, [ring(head, size)]), offset), head))
        for reference, at in references[-3:]:
            reader = again(store, scope)
            loaded = reader.load(reference)
            assert loaded.state.rings["r"].rows == rows_at(at)
            assert loaded.state.blobs == {"a": b"%d" % at}


def test_aborted_attempt_changes_nothing_for_the_next_one(store: Store, scope: Scope, checkpoints: Checkpoints) -> None:
    checkpoints.claim()
    reference = commit(checkpoints, StateDelta({"a": b"1"}, [ring(8, 8)]), 1)
    reference = commit(checkpoints, StateDelta({}, [ring(9, 1)]), 2)
    write, _ = checkpoints.prepare(StateDelta({"a": b"aborted"}, [RingWrite("r", 1, 6, 11, b"\xff\xff")]), {("in", 0): 3})
    store.write([write])
    successor = again(store, scope)
    successor.claim()
    assert successor.load(reference).state.rings["r"].rows == rows_at(9)
    reference = commit(successor, StateDelta({}, [ring(10, 1)]), 3)
    third = again(store, scope)
    third.claim()
    loaded = third.load(reference)
    assert loaded.state.rings["r"].rows == rows_at(10)
    assert loaded.state.blobs == {"a": b"1"}


def test_blob_of_a_quiet_scope_lives_and_superseded_ones_go(store: Store, scope: Scope, checkpoints: Checkpoints) -> None:
    checkpoints.claim()
    commit(checkpoints, StateDelta({"quiet": b"q", "busy": b"0"}), 1)
    for offset in range(2, 40):
        reference = commit(checkpoints, StateDelta({"busy": b"%d" % offset}), offset)
    keys = {key.removeprefix(checkpoints._keys.root) for key in all_keys(store, checkpoints)}
    assert sum(key.startswith(":b:quiet") for key in keys) == 1
    # Three kept, and one whose removal waits for the next write.
    assert sum(key.startswith(":b:busy") for key in keys) == 4
    assert sum(key.startswith(":m:") for key in keys) == 4
    successor = again(store, scope)
    successor.claim()
    assert successor.load(reference).state.blobs == {"quiet": b"q", "busy": b"39"}


def test_restarts_and_aborts_leak_no_keys(store: Store, scope: Scope, checkpoints: Checkpoints) -> None:
    owner = checkpoints
    owner.claim()
    reference = commit(owner, StateDelta({"a": b"0", "b": b"0"}, [ring(6, 6)]), 1)
    head = 6
    for attempt in range(2, 30):
        if attempt % 3 == 0:
            write, _ = owner.prepare(StateDelta({"a": b"x"}, [ring(head + 5, 5)]), {("in", 0): attempt})
            store.write([write])
        if attempt % 2:
            owner = again(store, scope)
            owner.claim(reference.epoch)
            assert owner.load(reference).state.rings["r"].rows == rows_at(head)
        elif attempt % 3 == 0:
            continue
        head += 4
        if attempt % 3 or attempt % 2:
            try:
                reference = commit(owner, StateDelta({"a": b"%d" % attempt}, [ring(head, 4)]), attempt)
            except WriteRefused:
                head -= 4
    final = again(store, scope)
    final.claim()
    final.load(reference)
    for offset in range(100, 105):
        head += 1
        commit(final, StateDelta({"a": b"%d" % offset}, [ring(head, 1)]), offset)
    keys = [key.removeprefix(checkpoints._keys.root) for key in all_keys(store, checkpoints)]
    assert sorted(key.split(":")[1] for key in keys) == ["b"] * 5 + ["head", "kept"] + ["m"] * 4 + ["owner", "r"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"cluster_id": "cluster-b"}, "cluster_id"),
        ({"topic_ids": {"in": "topic-b"}}, "topic_ids"),
        ({"partitions": {"in": 2}}, "partitions"),
    ],
)
def test_checkpoint_of_another_world_is_refused_by_name(
    store: Store, scope: Scope, checkpoints: Checkpoints, change: dict[str, object], word: str
) -> None:
    checkpoints.claim()
    reference = commit(checkpoints, StateDelta({"a": b"1"}), 1)
    other = again(store, dataclasses.replace(scope, cluster=dataclasses.replace(scope.cluster, **change)))  # type: ignore[arg-type]
    other._keys = checkpoints._keys
    with pytest.raises(StateError, match=word):
        other.load(reference)


def test_damage_is_found(store: Store, scope: Scope, checkpoints: Checkpoints) -> None:
    checkpoints.claim()
    reference = commit(checkpoints, StateDelta({"a": b"1"}), 1)
    _set(store, checkpoints._keys.of(_current(checkpoints).blobs["a"].key), b"2")
    with pytest.raises(StateError, match=r'blob "a".*damaged'):
        again(store, scope).load(reference)
    _set(store, checkpoints._keys.manifest(reference.id), b"{}")
    with pytest.raises(StateError, match="manifest"):
        again(store, scope).load(reference)


def test_older_checkpoints_are_found_when_the_newest_is_gone(store: Store, scope: Scope, checkpoints: Checkpoints) -> None:
    checkpoints.claim()
    for offset in (1, 2, 3):
        reference = commit(checkpoints, StateDelta({"a": b"%d" % offset}), offset)
    _set(store, checkpoints._keys.manifest(reference.id), None)
    successor = again(store, scope)
    successor.claim()
    older = successor.load_older()
    assert [manifest.offsets[0][2] for manifest in older] == [2, 1]
    assert successor.load_manifest(older[0]).state.blobs == {"a": b"2"}


def _current(checkpoints: Checkpoints) -> Manifest:
    assert checkpoints._current is not None
    return checkpoints._current


def _set(store: Store, key: str, value: bytes | None) -> None:
    if isinstance(store, RedisStore):
        if value is None:
            store._client.delete(key)
        else:
            store._client.set(key, value)
    elif value is None:
        store.data.pop(key, None)  # type: ignore[attr-defined]
    else:
        store.data[key] = value  # type: ignore[attr-defined]
