"""Redis late, slow, frozen or gone under a worker."""

from __future__ import annotations

import time
from typing import Final

import pytest
import redis

from driftline.streams.local.redis import LocalRedis
from tests.chaos.process import frozen
from tests.outages.conftest import PARTITIONS, TRANSACTION_SECONDS, Bench
from tests.outages.proxy import Proxy, Way

_MEGABYTE: Final = 1 << 20
FETCH_BYTES: Final = 16 * _MEGABYTE
"""What a consumer reads ahead (`queued.max.messages.kbytes`)."""


def heads(url: str, prefix: str) -> dict[str, str]:
    """The newest checkpoint of every task."""
    client = redis.Redis.from_url(url)
    found = {key.decode(): (client.get(key) or b"").decode() for key in client.scan_iter(f"*{prefix}*:head")}   # type: ignore[union-attr]
    client.close()
    return found


@pytest.mark.parametrize("way", ["request", "reply"])
def test_write_that_is_answered_or_arrives_after_the_deadline_changes_nothing(
    bench: Bench, proxy: Proxy, own_redis: LocalRedis, way: Way
) -> None:
    """Rule 10: past a third of the transaction's timeout the commit is aborted, the worker waits and goes on from Kafka."""
    worker = bench.start()
    bench.flow()
    bench.moves(worker)
    since = len(worker.log)
    # The script's argument, as the protocol writes it: a checkpoint, not a claim.
    proxy.hold(b"$5\r\nwrite\r\n", way)
    worker.until(lambda: proxy.held == 1, "write a checkpoint")
    began = time.monotonic()
    worker.until_logged("commit_aborted reason=AwayError", after=since)
    assert time.monotonic() - began < TRANSACTION_SECONDS / 3 + 2, "the deadline is a third of the transaction's timeout"
    bench.moves(worker)
    bench.moves(worker)
    bench.stop_flow()
    bench.all_there()
    newest = heads(own_redis.url, bench.prefix)
    assert len(newest) == PARTITIONS
    proxy.release()
    time.sleep(1.0)   # whatever the late write could do, it has done by then
    assert heads(own_redis.url, bench.prefix) == newest
    bench.send(400)
    bench.all_there()
    assert worker.log.count("commit_aborted") == 1, worker.log
    assert "partitions_revoked" not in worker.log and "partitions_lost" not in worker.log, "it kept its place in the group"   # noqa: PT018
    worker.stop()
    again = bench.start()   # what stands in Redis is what belongs to the committed offsets
    bench.send(400)
    bench.all_there()
    assert "checkpoint_replaced" not in again.log


def test_frozen_redis_shows_in_readyz_partition_by_partition_and_in_the_log(bench: Bench, proxy: Proxy, own_redis: LocalRedis) -> None:
    bench.configure(proxy.url, stalled_after="4s")
    worker = bench.start()
    bench.flow()
    bench.moves(worker)
    with frozen(own_redis.pid):
        reasons = bench.says(worker, f"{bench.source}/")
        assert reasons[0].startswith("redis: "), reasons
        assert {reason.partition(" ")[0] for reason in reasons[1:] if "/" in reason} == {f"{bench.source}/0", f"{bench.source}/1"}
        worker.until_logged("partition_stalled where=")
        assert "hint='redis: " in worker.log or 'hint="redis: ' in worker.log, worker.log
    bench.is_ready(worker)
    worker.until_logged("partition_moves_again")
    bench.stop_flow()
    bench.all_there()


def test_slow_redis_makes_commits_slow_and_loses_nothing(bench: Bench, proxy: Proxy) -> None:
    worker = bench.start()
    bench.flow()
    bench.moves(worker)
    proxy.delay_seconds, proxy.bytes_per_second = 0.3, 20_000
    resident, since = worker.rss_bytes, len(worker.log)
    for _ in range(5):
        bench.moves(worker)
    assert worker.rss_bytes - resident < 2 * FETCH_BYTES
    assert "commit_aborted" not in worker.log[since:]
    assert bench.ready()[0]
    proxy.delay_seconds, proxy.bytes_per_second = 0.0, 0
    bench.stop_flow()
    bench.all_there()


def test_loop_that_hangs_is_told_from_outside(bench: Bench, proxy: Proxy) -> None:
    """A call that never returns: the worker's own thread can say nothing any more."""
    bench.configure(proxy.url, stalled_after="3s")
    worker = bench.start(failpoint="checkpointed:6:hang")
    bench.flow()
    worker.until_logged("failpoint_hangs")
    bench.says(worker, f"{bench.source}/")
    worker.until_logged("the worker's loop has not come round")
    worker.wake()
    bench.is_ready(worker)
    bench.stop_flow()
    bench.all_there()
