"""The real worker under faults, on a real Kafka and Redis: the short form of `python -m tests.chaos.alerts`, and its watchdog."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftline.streams.local.redis import LocalRedis
from tests.chaos.alerts.campaign import perform
from tests.chaos.alerts.faults import FAULTS
from tests.chaos.alerts.process import AlertProcess
from tests.chaos.alerts.scene import Scene, Services
from tests.chaos.process import away
from tests.conftest import Kafka

BY_NAME = {fault.name: fault for fault in FAULTS}


@pytest.fixture(scope="module")
def services(kafka: Kafka) -> Iterator[Services]:
    """The shared broker, and a Redis that faults may happen to."""
    with LocalRedis(append_only=True) as store:
        yield Services(kafka, store)


@pytest.fixture
def scene(services: Services, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(services, tmp_path, seed=1, short=True)
    yield scene
    scene.close()


SHORT = ("kills_at_steps", "zombies", "handler_raises", "redis_rolled_back")
"""What is quick; `make chaos` has all of them, and more of each."""


@pytest.mark.parametrize("name", SHORT)
def test_no_alert_is_lost_or_doubled_in_state_and_all_are_sent(services: Services, tmp_path: Path, name: str) -> None:
    row = perform(BY_NAME[name], services, tmp_path, seed=7, short=True)
    assert row.passed, "\n".join([*row.failures, *row.notes, *map(str, row.unwitnessed.items())])
    assert row.drift_events >= 100  # as many as the machine makes while the fault lasts


def test_without_the_outbox_alerts_are_lost(services: Services, tmp_path: Path) -> None:
    """What the comparison is worth: the same run, and one rule taken out of the worker's code."""
    row = perform(BY_NAME["kills_at_steps"], services, tmp_path, seed=7, short=True, without="there_is_no_outbox")
    assert row.lost > 0


def test_handler_that_never_returns_ends_the_process(scene: Scene) -> None:
    scene.feeder.start()
    worker = scene.start(failpoint="alert_taken:20:hang", stall_s=4)
    assert worker.until_dead() == 1
    assert "alert_stalled" in worker.log
    assert "reason=None" in worker.log


def test_redis_that_stays_away_ends_the_process_later_and_says_why(scene: Scene) -> None:
    scene.feeder.start()
    stall_s, away_s = 5, 12   # on a busy machine the worker may take nothing for seconds while nothing is wrong
    worker = scene.start(stall_s=stall_s, away_s=away_s)
    scene.flows(20)
    began = time.monotonic()
    with away(scene.services.redis):
        assert worker.until_dead() == 1
    # It counts from the look at which it last moved. That was before Redis went, but by less than what ends it when nothing is
    # away, and the look after.
    assert time.monotonic() - began >= away_s - stall_s - stall_s / 4
    assert "alert_stalled" in worker.log
    assert "reason='redis: " in worker.log, worker.tail()


def test_worker_with_nothing_to_do_lives_on(scene: Scene) -> None:
    """Also behind the markers of transactions, which are offsets that nobody ever takes."""
    worker = scene.start(stall_s=8)
    worker.until(lambda: worker.ready()[0], "be ready before the first drift event")
    lives(worker, seconds=12)
    scene.feeder.start()
    scene.flows(40)
    scene.feeder.stop()
    lives(worker, seconds=12)
    assert "alert_stalled" not in worker.log


def lives(worker: AlertProcess, seconds: float) -> None:
    """Give the watchdog time to be wrong."""
    until_s = time.monotonic() + seconds
    worker.until(lambda: time.monotonic() > until_s, "stay alive")
