"""The services on this machine, as the demo, the tests and `make services` use them."""

from __future__ import annotations

import redis

from driftline.streams.local.redis import LocalRedis, redis_answers


def test_redis_keeps_its_port_and_loses_its_data_when_killed() -> None:
    with LocalRedis() as server:
        client = redis.Redis.from_url(server.url)
        client.set("k", "v")
        port = server.port

        server.kill()
        assert not redis_answers(server.url)
        server.start()

        assert server.port == port
        assert client.get("k") is None
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        client.close()
