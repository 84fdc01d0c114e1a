"""Keys of ours in a real Redis that another program wrote to: the worker names the key, or reads Kafka instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from driftline.schemas.events import DriftEvent, Position
from driftline.streams.alert.pipeline import AlertPipeline
from driftline.streams.alert.redis_store import RedisAlertStore
from driftline.streams.alert.state import Source, encode_state
from driftline.streams.alert.store import Applied, OutboxRow
from driftline.streams.alert.wire import incident_row, outbox_rows, state_row
from driftline.streams.cluster import Cluster
from driftline.streams.errors import StateError
from driftline.streams.join.facts import FACT_BYTES
from driftline.streams.join.journal import ADDED, GONE, HELD, pack
from driftline.streams.join.redis_cache import RedisLabelCache
from driftline.streams.state.checkpoints import Checkpoints, Scope
from driftline.streams.state.redis_store import RedisStore
from driftline.streams.task import StateDelta
from tests.alert.conftest import DEFAULTS as EVENT
from tests.hostile.mutations import bytes_like, json_like, named_or_harmless

TASK, INPUT = "detect/0", ("in", 0)
_shared = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture
def client(redis_url: str, redis_prefix: str) -> Iterator[Any]:
    made = redis.Redis.from_url(redis_url)
    yield made
    for key in made.scan_iter(f"*{redis_prefix}*", count=10_000):
        made.delete(key)
    made.close()


def strange(client: Any, key: str, kind: str) -> None:
    """Another type of value than ours."""
    client.delete(key)
    if kind == "list":
        client.rpush(key, "x")
    elif kind == "hash":
        client.hset(key, "x", "y")
    else:
        client.set(key, "x")


OWNERS = [b"\xff\xfe 3", b"a b c", b"", b"token 99999999999999999999999", b"token -4", b"x" * 100_000, b"token 9007199254740993"]


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("head", [b"\xff\xfe", b"", b"9" * 5_000, b"\n"])
def test_whatever_stands_for_the_owner_and_the_head(client: Any, redis_url: str, redis_prefix: str, owner: bytes, head: bytes) -> None:
    store = RedisStore(redis_url)
    scope = Scope(redis_prefix, "e", "g", Cluster("c", {"in": "id"}, {"in": 1}))
    keys = scope.keys(TASK)
    client.set(keys.owner, owner)
    client.set(keys.head, head)

    def start_and_commit() -> None:
        checkpoints = Checkpoints(store, scope, TASK, frozenset({INPUT}))
        checkpoints.claim()
        checkpoints.never_committed()
        checkpoints.begin()
        write, _ = checkpoints.prepare(StateDelta({"s": b"1"}), {INPUT: 1})
        store.write([write])

    named_or_harmless(start_and_commit)
    store.close()


@pytest.mark.parametrize("kind", ["list", "hash"])
@pytest.mark.parametrize("which", ["owner", "head"])
def test_a_key_of_another_type_is_named_as_not_ours(client: Any, redis_url: str, redis_prefix: str, which: str, kind: str) -> None:
    store = RedisStore(redis_url)
    keys = Scope(redis_prefix, "e", "g", Cluster("c", {}, {})).keys(TASK)
    strange(client, getattr(keys, which), kind)
    with pytest.raises(StateError, match="WRONGTYPE") as caught:
        store.claim(keys.owner, keys.head, "token", 0)
    assert "redis.key_prefix" in (caught.value.hint or "")
    store.close()


_ids, _facts = [b"%016d" % n for n in range(3)], [bytes(FACT_BYTES)] * 3
_entries = [pack(ADDED, _ids, _facts), pack(HELD, _ids[:1], [_facts[0] * 2]), pack(GONE, _ids[:1])]


@_shared
@given(data=st.data())
def test_a_journal_of_labels_is_read_or_the_labels_topic_is_instead(data: st.DataObject, client: Any, redis_prefix: str) -> None:
    key = f"{{{redis_prefix}}}"
    client.delete(f"{key}:labels", f"{key}:labels:bounds")
    client.rpush(f"{key}:labels", *(data.draw(st.one_of(st.just(entry), bytes_like(entry))) for entry in _entries))
    bound = st.one_of(st.just(b"5"), st.binary(max_size=30))
    client.hset(f"{key}:labels:bounds", mapping={"from": "0", "next": data.draw(bound), "version": data.draw(bound)})

    def use() -> None:
        cache = RedisLabelCache(client, key)
        if cache.covered() is None:
            cache.reset(0)
        cache.lookup(_ids)
        cache.sweep(10**15, 10)
        cache.count_rest()

    named_or_harmless(use)


@pytest.mark.parametrize("kind", ["text", "hash"])
def test_a_journal_of_another_type_is_begun_anew(client: Any, redis_prefix: str, kind: str) -> None:
    key = f"{{{redis_prefix}}}"
    strange(client, f"{key}:labels", kind)
    client.hset(f"{key}:labels:bounds", mapping={"from": 0, "next": 5, "version": 1})
    cache = RedisLabelCache(client, key)
    assert cache.covered() is None
    cache.reset(0)
    assert cache.covered() == (0, 0)


_row = OutboxRow((3, 0), "alerts", "key", "{}", (("a", "b"),))


@pytest.fixture
def alerts(client: Any, redis_prefix: str) -> RedisAlertStore:
    return RedisAlertStore(client, redis_prefix)


@_shared
@given(data=st.data())
def test_alert_state(data: st.DataObject, client: Any, redis_prefix: str, alerts: RedisAlertStore) -> None:
    event = DriftEvent(**EVENT, id="e1", position=Position("p", 0, 1), time_ms=1, record_time_ms=2)
    source = Source("topic", 0, 3)
    decision = AlertPipeline().process(event, source, None)
    fresh = decision.state
    assert fresh is not None
    tag = f"{{{redis_prefix}:alert}}"
    kept = ("applied", "states", "open", "recent", "books", "book_names", "incidents", "incidents_recent")
    client.delete(*(f"{tag}:{part}" for part in kept), f"{tag}:outbox:{source.key}")
    assert decision.book is not None
    alerts.apply(Applied(source.key, None, 4, {"f": fresh}, [_row], {"b": decision.book}, decision.book.incidents))
    for part, field, raw in (("states", "f", fresh), ("books", "b", decision.book), ("incidents", "i", decision.book.incidents[0])):
        encoded = encode_state(raw)
        client.hset(f"{tag}:{part}", field, data.draw(st.one_of(st.just(encoded), json_like(encoded), bytes_like(encoded))))
    client.zadd(f"{tag}:incidents_recent", {"i": 1})
    client.hset(f"{tag}:applied", source.key, data.draw(st.one_of(st.just(b"4"), st.binary(max_size=30))))
    member = client.zrange(f"{tag}:outbox:{source.key}", 0, -1)[0]
    client.zadd(f"{tag}:outbox:{source.key}", {data.draw(bytes_like(member)): 4})

    def go_on() -> None:
        loaded = alerts.load(source.key, "f", "b")
        if loaded.state is not None:
            state_row(loaded.state, prefix="p")
        later, there = replace(event, id="e2", time_ms=2, severity="critical"), Source("topic", 0, 9)
        outbox_rows(AlertPipeline().process(later, there, loaded.state, loaded.book), there, prefix="p", environment="e")

    def tell_again() -> None:
        incidents = [state for book in alerts.books().values() for state in book.incidents]
        for state in (*incidents, *alerts.recent_incidents(5)):
            if state.source:
                incident_row(state, prefix="p")

    reads = [
        go_on,
        tell_again,
        lambda: alerts.next_offset(source.key),
        lambda: alerts.outbox(source.key, 10),
        lambda: alerts.open_alerts(),
        lambda: alerts.recent_alerts(10),
    ]
    for read in reads:
        error = named_or_harmless(read)
        assert error is None or ":alert}" in (error.hint or "")


@pytest.mark.parametrize("part", ["applied", "states", "open", "recent", "books", "book_names", "incidents_recent"])
def test_alert_keys_of_another_type_are_named_as_not_ours(client: Any, redis_prefix: str, alerts: RedisAlertStore, part: str) -> None:
    strange(client, f"{{{redis_prefix}:alert}}:{part}", "text")
    reads = (
        lambda: alerts.load("t/0", "f", "b"), lambda: alerts.next_offset("t/0"), alerts.open_alerts, lambda: alerts.recent_alerts(5),
        alerts.books, lambda: alerts.recent_incidents(5),
    )  # fmt: skip
    errors = [named_or_harmless(read) for read in reads]
    assert [error for error in errors if isinstance(error, StateError) and "WRONGTYPE" in error.message]
