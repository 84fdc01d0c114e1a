"""The stores that must behave alike."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from driftline.streams.cluster import Cluster
from driftline.streams.state.checkpoints import Checkpoints, Scope
from driftline.streams.state.redis_store import RedisStore
from driftline.streams.state.store import MemoryStore, Store

INPUTS = frozenset({("in", 0)})


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    redis_store = RedisStore(request.getfixturevalue("redis_url"))
    yield redis_store
    redis_store.close()


@pytest.fixture
def scope(redis_prefix: str) -> Scope:
    return Scope(redis_prefix, "test", "driftline.detect", Cluster("cluster-a", {"in": "topic-a"}, {"in": 1}))


@pytest.fixture
def checkpoints(store: Store, scope: Scope) -> Checkpoints:
    return Checkpoints(store, scope, "detect/0", INPUTS)
