"""A broker that is away for long, under an idle worker and under a busy one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from driftline.streams.http import Health
from driftline.streams.local.kafka import LocalKafka
from driftline.streams.local.redis import LocalRedis
from driftline.streams.runner import runner
from tests.chaos.process import frozen, until
from tests.chaos.watch import Watch
from tests.outages.conftest import PARTITIONS, Bench
from tests.runner.worker import make_runner


@pytest.fixture(scope="module")
def one_broker() -> Iterator[LocalKafka]:
    """A broker of this module's own, to kill."""
    with LocalKafka(heap="256m") as broker:
        yield broker


@pytest.fixture
def broker(one_broker: LocalKafka) -> LocalKafka:
    """It runs, whatever the test before did to it."""
    return one_broker.start()


@pytest.fixture
def own_bench(broker: LocalKafka, own_redis: LocalRedis, redis_prefix: str, tmp_path: Path) -> Iterator[Bench]:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    source = f"{redis_prefix}.in"
    # The rows are years old by their times; the broker would delete them at its next look.
    admin.create_topics([NewTopic(source, PARTITIONS, 1, config={"retention.ms": "-1"})])[source].result(60)
    bench = Bench(broker.bootstrap, redis_prefix, source, own_redis.url, tmp_path)
    yield bench
    bench.close()


def test_idle_worker_says_that_its_broker_is_away_and_goes_on_by_itself(own_bench: Bench, broker: LocalKafka) -> None:
    bench = own_bench
    worker = bench.start()
    bench.send(200)
    bench.all_there()
    bench.is_ready(worker)
    since = len(worker.log)
    broker.kill()
    bench.says(worker, "kafka: ")
    away = time.monotonic()
    while time.monotonic() - away < 20:
        assert worker.code is None, worker.tail()
        assert not bench.ready()[0]
        time.sleep(0.5)
    lines = worker.log[since:].count("\n")
    assert lines < 60, f"{lines} lines in 20 s:\n{worker.log[since:]}"
    broker.start()
    bench.is_ready(worker)
    bench.send(200)
    bench.all_there()


def test_worker_whose_broker_stood_still_for_longer_than_its_session_goes_on(own_bench: Bench, broker: LocalKafka) -> None:
    """By then its client has asked to join, given up and asked again: served in the other order, the first request throws it out."""
    bench = own_bench
    worker = bench.start()
    bench.send(200)
    bench.all_there()
    since = len(worker.log)
    with frozen(broker.pid):
        worker.until_logged("partitions_lost", after=since)
        worker.until_logged("HeartbeatRequest", after=since)
    bench.send(200)
    bench.all_there()
    bench.is_ready(worker)
    assert worker.code is None, worker.tail()


def test_broker_that_is_away_for_longer_than_committed_offsets_may_be_unknown_is_waited_for(
    broker: LocalKafka, own_redis: LocalRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is for a broker that answers and does not know; here it is a second."""
    monkeypatch.setattr(runner, "_COMMITTED_SECONDS_MAX", 1.0)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for created in admin.create_topics([NewTopic("source", 1, 1), NewTopic("output", 1, 1)]).values():
        created.result(60)
    settings: dict[str, object] = {"bootstrap": broker.bootstrap, "redis": own_redis.url, "prefix": "away"}
    settings |= {"source": "source", "output": "output"}
    health = Health()
    running = make_runner(settings, instance="a", time="data", health=health)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            running.run()
        except BaseException as error:  # noqa: BLE001 - looked at below
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    watch = Watch(broker.bootstrap)
    producer = Producer({"bootstrap.servers": broker.bootstrap, "log_level": 0, "message.timeout.ms": 0})

    def send(number: int) -> None:
        producer.produce("source", str(number).encode(), partition=0)
        assert producer.flush(60) == 0

    send(0)
    until(lambda: watch.count("output") == 1, lambda: f"no output: {failures}")
    broker.kill()
    producer.produce("source", b"1", partition=0)
    until(lambda: health.kafka_away, lambda: f"Kafka is not missed: {failures}")
    time.sleep(10)
    assert failures == []
    broker.start()
    assert producer.flush(60) == 0
    until(lambda: watch.count("output") == 2, lambda: f"no second output: {failures}")
    assert health.ready()[0]
    running.stop()
    thread.join(60)
    watch.close()
    assert failures == []
