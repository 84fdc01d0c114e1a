"""State lost, damaged or taken over: recover exactly, or stop and say so; never go on from nothing."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import redis

from driftline.streams.errors import FatalError, OwnershipError, StateError
from driftline.streams.runner import Runner, waiting
from driftline.streams.state.redis_store import RedisStore
from driftline.streams.state.store import Claim
from tests.runner.conftest import Bench
from tests.runner.test_exactly_once import expected
from tests.runner.worker import make_config, make_runner


class Background:
    """A runner in a thread, with what it raised."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.runner.run()
        except Exception as error:   # noqa: BLE001 - handed to the test
            self.error = error

    def join(self, seconds: float = 120) -> None:
        self._thread.join(seconds)
        assert not self._thread.is_alive()

    def stop(self) -> None:
        self.runner.stop()
        self.join()


def run_once(bench: Bench, **options: Any) -> None:
    make_runner(bench.settings, **{"instance": "a", "time": "data", "until_idle_s": 0.4} | options).run()


def keys(bench: Bench, pattern: str) -> list[bytes]:
    return list(redis.Redis.from_url(bench.settings["redis"]).scan_iter(f"*{bench.settings['prefix']}*{pattern}*", count=10_000))


def delete(bench: Bench, pattern: str) -> None:
    found = keys(bench, pattern)
    assert found
    redis.Redis.from_url(bench.settings["redis"]).delete(*found)


def test_newest_checkpoint_gone_falls_back_and_repeats_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.publish(450)
    run_once(bench)
    newest = max(keys(bench, "toy/0}:m:"), key=lambda key: int(key.rpartition(b":m:")[2].partition(b"-")[0]))
    redis.Redis.from_url(bench.settings["redis"]).delete(newest)
    bench.publish(60, first=450)
    run_once(bench)
    assert "checkpoint_replaced" in caplog.text
    assert "by=base" not in caplog.text
    assert bench.outputs() == expected(list(range(510)), "toy/0")


def test_redis_lost_is_rebuilt_from_the_base_checkpoint(bench: Bench, create_topics: Any, caplog: pytest.LogCaptureFixture) -> None:
    bench.settings["checkpoints"] = create_topics("checkpoints", config={"cleanup.policy": "compact"})[0]
    bench.publish(450)
    run_once(bench)
    delete(bench, "toy")
    bench.publish(60, first=450)
    run_once(bench)
    assert "by=base" in caplog.text
    assert bench.outputs() == expected(list(range(510)), "toy/0")


def test_redis_lost_without_a_base_checkpoint_stops_and_names_the_choice(bench: Bench) -> None:
    bench.publish(100)
    run_once(bench)
    delete(bench, "toy")
    with pytest.raises(StateError, match="rebuild-from-earliest"):
        run_once(bench)
    run_once(bench, on_lost_state="rebuild-from-earliest")
    assert bench.outputs() == expected(list(range(100)), "toy/0") * 2


def test_state_without_offsets_stops_and_names_the_choice(bench: Bench) -> None:
    bench.publish(100)
    run_once(bench)
    from driftline.streams.kafka import make_admin

    config = make_config(bench.settings["bootstrap"], bench.settings["redis"], bench.settings["prefix"])
    admin = make_admin(config.kafka)
    group = f"{bench.settings['prefix']}.toy"
    _delete_group(admin, group)
    with pytest.raises(StateError, match=r"no committed offset, but Redis holds its state"):
        run_once(bench)


def _delete_group(admin: Any, group: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            admin.delete_consumer_groups([group], request_timeout=30)[group].result()
            return
        except Exception:   # noqa: BLE001 - a static member is remembered until its session ends
            assert time.monotonic() < deadline
            time.sleep(0.5)


def test_loser_of_the_token_writes_nothing_and_stops_when_it_is_taken_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "SESSION_SECONDS", 1.0)
    bench.publish(100)
    worker = Background(make_runner(bench.settings, instance="a", time="data"))
    assert len(bench.outputs(count=100)) == 100
    client = redis.Redis.from_url(bench.settings["redis"])
    claim = RedisStore.claim

    def claim_in_vain(self: RedisStore, owner_key: str, head_key: str, token: str, epoch_floor: int) -> Claim:
        found = claim(self, owner_key, head_key, token, epoch_floor)
        client.set(owner_key, b"another %d" % (found.epoch + 1))
        return found

    monkeypatch.setattr(RedisStore, "claim", claim_in_vain)
    (owner,) = keys(bench, "toy/0}:owner")
    client.set(owner, b"another 99")
    before = sorted(keys(bench, "toy/0}"))
    bench.publish(50, first=100)
    worker.join()
    assert isinstance(worker.error, OwnershipError)
    assert sorted(keys(bench, "toy/0}")) == before
    assert bench.outputs() == expected(list(range(100)), "toy/0")


def test_a_task_taken_once_without_a_rebalance_is_taken_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "SESSION_SECONDS", 1.0)
    bench.publish(100)
    worker = Background(make_runner(bench.settings, instance="a", time="data"))
    assert len(bench.outputs(count=100)) == 100
    (owner,) = keys(bench, "toy/0}:owner")
    redis.Redis.from_url(bench.settings["redis"]).set(owner, b"another 99")
    bench.publish(50, first=100)
    assert bench.outputs(count=150) == expected(list(range(150)), "toy/0")
    worker.stop()
    assert worker.error is None


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_two_workers_share_and_hand_over(bench: Bench, protocol: str) -> None:
    bench.settings["kafka"] = {"group_protocol": protocol}
    bench.publish(200, partitions=2)
    first = Background(make_runner(bench.settings, instance="a", time="data"))
    assert len(bench.outputs(count=200)) == 200
    second = Background(make_runner(bench.settings, instance="b", time="data"))
    for start in range(200, 600, 50):
        bench.publish(50, first=start, partitions=2)
        time.sleep(0.1)
    assert len(bench.outputs(count=600)) == 600
    count = 600
    if protocol == "classic":
        # A static member's partitions move when its session ends; the new protocol's session is the broker's 45 s.
        first.stop()
        bench.publish(200, first=600, partitions=2)
        count = 800
    outputs = bench.outputs(count=count)
    second.stop()
    first.stop()
    assert first.error is None
    assert second.error is None
    for task in (0, 1):
        assert [o for o in outputs if o["task"] == f"toy/{task}"] == expected(list(range(task, count, 2)), f"toy/{task}")


def test_redis_away_while_running_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from driftline.streams.errors import AwayError

    worker = make_runner(bench.settings, instance="a", time="data")
    away = threading.Event()

    def check(store: RedisStore) -> None:
        if away.is_set():
            raise AwayError("redis: connection refused")

    write = RedisStore.write

    def refuse(store: RedisStore, writes: Any) -> None:
        check(store)
        write(store, writes)

    monkeypatch.setattr(RedisStore, "check", check)
    monkeypatch.setattr(RedisStore, "write", refuse)
    running = Background(worker)
    bench.publish(100)
    assert len(bench.outputs(count=100)) == 100
    away.set()
    bench.publish(100, first=100)
    time.sleep(1)
    assert len(bench.outputs()) == 100
    away.clear()
    assert bench.outputs(count=200) == expected(list(range(200)), "toy/0")
    away.set()
    bench.publish(1, first=200)
    time.sleep(0.5)
    running.stop()
    assert running.error is None


def test_worker_drains_on_request_and_ticks_while_live(bench: Bench) -> None:
    bench.publish(100)
    worker = Background(make_runner(bench.settings, instance="a", time="wall"))
    deadline = time.monotonic() + 120
    while not any("tick" in output for output in bench.outputs()) and time.monotonic() < deadline:
        time.sleep(0.2)
    worker.runner.drain()
    worker.join()
    outputs = bench.outputs()
    assert worker.error is None
    assert [o for o in outputs if "tick" not in o] == expected(list(range(100)), "toy/0")
    assert any("tick" in o for o in outputs)


def test_processor_that_raises_stops_the_worker_and_publishes_nothing(bench: Bench) -> None:
    bench.publish(10)
    bench.settings["poison"] = 7
    worker = make_runner(bench.settings, instance="a", time="data")
    with pytest.raises(ValueError, match="poison"):
        worker.run()
    assert bench.outputs() == []


def test_topic_that_is_missing_is_named(bench: Bench) -> None:
    bench.settings["source"] = "no-such-topic"
    with pytest.raises(FatalError, match='"no-such-topic"'):
        make_runner(bench.settings)

