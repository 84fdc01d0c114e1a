"""By KIP-848 a worker that was killed stays a member, under its name, until its session ends: its restart waits for that."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from driftline.streams.errors import OwnershipError
from driftline.streams.http import Health
from driftline.streams.local.kafka import LocalKafka
from driftline.streams.local.process import LocalServiceError
from driftline.streams.runner import membership
from tests.runner.conftest import Bench
from tests.runner.test_exactly_once import expected
from tests.runner.test_recovery import Background
from tests.runner.worker import make_runner

_SESSION_MS = 30_000   # with this protocol the broker says it, and for all groups; above what a busy machine needs for a start
_SECONDS = 120.0


@pytest.fixture(scope="module")
def kafka() -> Iterator[LocalKafka]:
    """A broker of these tests' own: the session is 45 s on any other."""
    session = {"group.consumer.min.session.timeout.ms": "1000", "group.consumer.session.timeout.ms": str(_SESSION_MS)}
    heartbeat = {"group.consumer.min.heartbeat.interval.ms": "500", "group.consumer.heartbeat.interval.ms": "1000"}
    try:
        with LocalKafka(properties=session | heartbeat) as broker:
            yield broker
    except LocalServiceError as error:
        pytest.skip(f"no real Kafka: {error}")


@pytest.fixture
def bench(bench: Bench) -> Bench:
    bench.settings["kafka"] = {"group_protocol": "consumer"}
    return bench


def until_not_ready(health: Health, words: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while words not in str(health.ready()[1]["reasons"]):
        assert time.monotonic() < deadline, health.ready()
        time.sleep(0.05)


def test_a_worker_that_waits_for_its_name_can_be_stopped(bench: Bench) -> None:
    bench.publish(100)
    bench.run(failpoint="offsets_sent", expect=-9)
    health = Health()
    worker = Background(make_runner(bench.settings, instance="a", time="data", health=health))
    until_not_ready(health, "until its session ends")
    worker.stop()
    assert worker.error is None


def test_two_living_workers_of_one_name_are_told_apart_from_a_restart(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "NAME_SECONDS", 3.0)
    bench.publish(100)
    first = Background(make_runner(bench.settings, instance="a", time="data"))
    assert len(bench.outputs(count=100)) == 100
    second = Background(make_runner(bench.settings, instance="a", time="data"))
    second.join()
    assert isinstance(second.error, OwnershipError)
    assert "same instance name" in (second.error.hint or "")
    bench.publish(50, first=100)
    assert bench.outputs(count=150) == expected(list(range(150)), "toy/0")
    first.stop()
    assert first.error is None
