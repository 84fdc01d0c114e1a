"""The shortest scenarios of what the machine has found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.protocol.world import World


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


def test_what_a_task_had_paused_is_read_again_after_an_abort(world: World) -> None:
    world.produce("a", 0, 1)
    world.start("a")
    world.quiesce()
    world.kafka_fault = "lost"
    world.produce("b", 0, *range(4))
    world.run("a", 20)
    assert not world.kafka_fault
    world.quiesce()


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
