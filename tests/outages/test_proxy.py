"""The proxy does what the tests of outages say it does; with a real Redis behind it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.outages.proxy import Proxy, Way


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    with Proxy(int(redis_url.rpartition(":")[2].partition("/")[0])) as proxy:
        yield proxy


def client_of(url: str, timeout: float = 1.0) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=timeout, retry=Retry(NoBackoff(), 0))


@pytest.mark.parametrize("way", ["request", "reply"])
def test_held_write_arrives_after_its_client_has_gone_and_nothing_else_is_held(
    proxy: Proxy, redis_url: str, redis_prefix: str, way: Way
) -> None:
    direct, through = client_of(redis_url), client_of(proxy.url, 0.2)
    proxy.hold(b"late", way)
    with pytest.raises(redis.TimeoutError):
        through.set(redis_prefix, "late")
    assert proxy.held == 1
    assert direct.get(redis_prefix) == (None if way == "request" else b"late")
    assert through.set(redis_prefix, "newer")
    proxy.release()
    deadline = time.monotonic() + 30
    while direct.get(redis_prefix) != (b"late" if way == "request" else b"newer"):
        assert time.monotonic() < deadline
    direct.close()
    through.close()


def test_slow_and_cut_connections(proxy: Proxy, redis_prefix: str) -> None:
    client = client_of(proxy.url, 5)
    began = time.monotonic()
    proxy.bytes_per_second = 100_000
    client.set(redis_prefix, b"x" * 50_000)
    assert time.monotonic() - began >= 0.4
    proxy.bytes_per_second = 0
    proxy.delay_seconds = 0.2
    began = time.monotonic()
    client.ping()
    assert time.monotonic() - began >= 0.2
    proxy.delay_seconds = 0.0
    proxy.cut()
    with pytest.raises(redis.ConnectionError):
        client.ping()
    proxy.mend()
    assert client.ping()
    client.close()
