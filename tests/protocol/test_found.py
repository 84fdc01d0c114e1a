"""The shortest scenarios of what the machine has found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from driftline.streams.errors import OwnershipError
from driftline.streams.runner.name import NAME_SECONDS
from driftline.streams.state.manifest import decode_reference
from tests.protocol.broker import SESSION_SECONDS
from tests.protocol.scenarios import A0, feed, restart, settle_on
from tests.protocol.world import FAILPOINTS, SOURCES, World


@pytest.fixture(params=["classic", "consumer"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(incremental=request.param == "consumer")
    yield world
    world.close()


def test_a_replay_that_has_fetched_too_far_reads_on_from_its_target(world: World) -> None:
    world.produce("a", 0, *range(20))
    world.start("a")
    world.quiesce()
    world.produce("a", 0, *range(20, 30))
    world.store.wipe()
    world.workers["a"].kill()
    world.quiesce()


@pytest.mark.parametrize("writes", [1, 3, 40])
def test_a_store_that_lost_the_claim_is_claimed_again(world: World, writes: int) -> None:
    world.produce("a", 0, 1, 2)
    world.start("a")
    world.quiesce()
    world.store.roll_back(writes)
    world.produce("a", 0, 3)
    world.quiesce()
    assert world.clock.now < 1_010


@pytest.mark.parametrize("incremental", [False, True])
def test_what_a_task_had_paused_is_read_again_after_an_abort(incremental: bool) -> None:
    world = World(incremental=incremental, pausing=True)
    world.produce("a", 0, 1)
    world.start("a")
    world.quiesce()
    world.kafka_fault = "lost"
    world.produce("b", 0, *range(4))
    world.run("a", 20)
    assert not world.kafka_fault
    try:
        world.quiesce()
    finally:
        world.close()


def test_an_input_that_stays_is_not_read_without_its_task(world: World) -> None:
    world.start("a")
    world.start("b")
    world.quiesce()
    group = world.broker.group
    group.pins = {("a", 0): "a", ("b", 0): "b"}
    group.rebalance()
    for _ in range(20):
        world.produce("a", 0, 1)
        world.run("a")
        world.run("b")
    group.pins = {}
    group.rebalance()
    world.quiesce()


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("point", ["checkpointed", "claim"])
def test_a_zombie_that_claims_stops_nobody_though_nothing_is_rebalanced(world: World, point: str, told: bool) -> None:
    world.broker.group.pins = dict.fromkeys(SOURCES, "b")
    world.start("a")
    feed(world, "a", 2)
    if point == "claim":
        restart(world, "a")
    world.produce(*A0, 1, 2)
    world.run_until("a", point, "pause")
    world.advance(11)
    world.start("b")
    world.run("b", 12)
    feed(world, "b", 2, 2)
    world.wake(world.workers["a"], told=told)
    for value in range(60):
        world.produce(*A0, value)
        world.run("a")
        world.run("b", 3)
    settle_on(world)


@pytest.mark.parametrize("world", ["classic"], indirect=True)
@pytest.mark.parametrize("point", [*FAILPOINTS, "poll"])
def test_a_worker_whose_name_went_to_a_request_it_had_given_up_takes_it_back(world: World, point: str) -> None:
    """The member that this makes is nobody; nothing tells it from a rival but that it does not come back."""
    world.start("a")
    if point != "restored":
        feed(world, "a", 2, 2)
    world.produce(*A0, 1, 2)
    world.run_until("a", point, "pause")
    world.broker.group.join("a")
    world.wake(world.workers["a"], told=False)
    world.strict, world.excused = True, []
    settle_on(world)
    assert world.stops == []


def test_of_two_living_workers_of_one_name_one_ends_and_one_goes_on(world: World) -> None:
    world.start("a")
    feed(world, "a", 2, 2)
    first = world.workers["a"]
    second = world.start("a")
    while not world.stops and world.clock.now < 1_000 + 2 * NAME_SECONDS:
        world.produce(*A0, 1)
        for worker in (first, second):
            if worker.live:
                worker.resume()
                world.judge(worker)
    assert isinstance(world.stops[0], OwnershipError)
    assert first.ended != second.ended
    settle_on(world)


@pytest.mark.parametrize("world", ["consumer"], indirect=True)
@pytest.mark.parametrize("point", FAILPOINTS)
def test_a_worker_that_was_killed_waits_for_its_name_until_its_session_has_ended(world: World, point: str) -> None:
    world.start("a")
    if point != "restored":
        feed(world, "a", 2, 2)
    world.produce(*A0, 1, 2)
    world.run_until("a", point, "kill")
    died = world.clock.now
    world.excused = []
    world.start("a")
    settle_on(world)
    assert world.clock.now >= died + SESSION_SECONDS
    assert world.stops == []


@pytest.fixture
def slow() -> Iterator[World]:
    """Base checkpoints as rare as in production."""
    world = World(base_seconds=60)
    yield world
    world.close()


def test_an_aborted_base_checkpoint_is_due_still(slow: World) -> None:
    slow.start("a")
    slow.run("a", 10)
    slow.kafka_fault = "lost"
    slow.produce(*A0, 1, 2)
    slow.run("a", 30)
    assert slow.broker.aborts == 1
    slow.workers["a"].kill()
    slow.store.wipe()
    settle_on(slow)


def test_a_worker_that_is_restarted_every_half_minute_writes_base_checkpoints(slow: World) -> None:
    slow.start("a")
    feed(slow, "a", 2)
    first = decode_reference(slow.broker.committed[A0][1], "toy/0").base
    for _ in range(3):
        slow.advance(30)
        feed(slow, "a", 2)
        restart(slow, "a")
        feed(slow, "a", 2)
    last = decode_reference(slow.broker.committed[A0][1], "toy/0").base
    assert first != last


def test_an_abort_brings_no_base_checkpoint_forward(slow: World) -> None:
    slow.start("a")
    feed(slow, "a", 2, 2)
    first = decode_reference(slow.broker.committed[A0][1], "toy/0").base
    slow.kafka_fault = "lost"
    feed(slow, "a", 2, 2)
    assert decode_reference(slow.broker.committed[A0][1], "toy/0").base == first
