"""The stores' own promises about time: a call has a deadline, nothing is sent twice, and a late write finds its conditions gone."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from driftline.schemas.config import Config
from driftline.streams.alert.redis_store import RedisAlertStore
from driftline.streams.alert.store import Applied
from driftline.streams.errors import AwayError, WriteRefused
from driftline.streams.local.redis import LocalRedis
from driftline.streams.redis_client import connect, section_of
from driftline.streams.state.redis_store import RedisStore, deadline_seconds
from driftline.streams.state.store import Write
from tests.outages.proxy import Proxy, Way

DEADLINE = 1.0   # what is not held is answered in time on a busy machine, too


@pytest.mark.parametrize(("transaction", "deadline"), [("3s", 1.0), ("15s", 5.0), ("60s", 5.0)])
def test_deadline_of_redis_is_at_most_a_third_of_the_transactions(transaction: str, deadline: float) -> None:
    config = Config.model_validate({"kafka": {"transaction_timeout": transaction}, "predictions": [{"topic": "p"}], "models": {"m": {}}})
    assert deadline_seconds(config) == deadline


def checkpoint(store: RedisStore, expected: str, new: str) -> Callable[[], object]:
    write = Write("task", "{t}:owner", "me", "{t}:head", expected, new, values=[(f"{{t}}:{new}", b"blob")])
    return lambda: store.write([write])


@pytest.mark.parametrize("way", ["request", "reply"])
def test_checkpoint_past_its_deadline_is_not_repeated_and_arrives_too_late(proxy: Proxy, own_redis: LocalRedis, way: Way) -> None:
    store, direct = RedisStore(proxy.url, timeout_seconds=DEADLINE), RedisStore(own_redis.url)
    store.claim("{t}:owner", "{t}:head", "me", 0)
    checkpoint(store, "", "1")()
    proxy.hold(b"$5\r\nwrite\r\n", way)
    began = time.monotonic()
    with pytest.raises(AwayError):
        checkpoint(store, "1", "2")()
    # It was given up while the proxy still held it; how soon is the machine's doing.
    assert time.monotonic() - began >= DEADLINE
    assert proxy.seen == 1, "the client repeats nothing by itself"
    # What the runner does then: a claim with a new token, what stands in Kafka is loaded, and the next commit is written.
    store.claim("{t}:owner", "{t}:head", "me-again", 0)
    head = direct.head("{t}:head")
    assert head == ("1" if way == "request" else "2")
    write = Write("task", "{t}:owner", "me-again", "{t}:head", head, "3", values=[("{t}:3", b"newest")])
    store.write([write])
    proxy.release()
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        assert direct.head("{t}:head") == "3"
        assert direct.read(["{t}:3"]) == [b"newest"]
    with pytest.raises(WriteRefused) as refused:
        checkpoint(direct, "3", "4")()
    assert refused.value.reason == "owner"
    store.close()
    direct.close()


def test_alert_that_is_stored_too_late_is_refused(proxy: Proxy, own_redis: LocalRedis) -> None:
    through = connect(section_of(proxy.url), timeout_seconds=DEADLINE)
    store, direct = RedisAlertStore(through, "n"), RedisAlertStore(connect(section_of(own_redis.url), timeout_seconds=5), "n")
    store.apply(Applied("p", None, 1))
    proxy.hold(b"{n:alert}:applied", "request")
    with pytest.raises(AwayError):
        store.apply(Applied("p", 1, 2))
    assert proxy.seen == 1
    assert store.apply(Applied("p", 1, 2))
    assert store.apply(Applied("p", 2, 3))
    proxy.release()
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        assert direct.next_offset("p") == 3
    through.close()
