"""What a worker wires together."""

from __future__ import annotations

import pytest

from driftline.cli.worker import RedisCaches
from driftline.streams.cluster import Cluster
from driftline.streams.join import CacheLost
from driftline.streams.state.checkpoints import Checkpoints, Scope
from driftline.streams.state.redis_store import RedisStore

TASK = "join-1000ms/0"


def test_a_label_cache_writes_as_its_worker_and_never_as_a_rival_that_came_between(redis_url: str, redis_prefix: str) -> None:
    scope = Scope(redis_prefix, "test", "driftline.join-1000ms", Cluster("c", {}, {}))
    stores = [RedisStore(redis_url), RedisStore(redis_url)]
    caches = [RedisCaches(redis_url, f"{redis_prefix}:test:c:{scope.group}", 5.0, store.token_of) for store in stores]
    ours, rival = (Checkpoints(store, scope, TASK, frozenset()) for store in stores)
    ours.claim()
    caches[0](TASK).reset(0)
    rival.claim()
    with pytest.raises(CacheLost, match="another worker owns this task"):
        caches[0](TASK).reset(0)
    caches[1](TASK).reset(0)
    for store in stores:
        store.close()
