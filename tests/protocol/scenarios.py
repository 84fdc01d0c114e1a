"""The shortest stories in which each rule decides; every one ends well with the rules in force."""

from __future__ import annotations

from driftline.streams.state.manifest import decode_reference
from driftline.streams.task import PartitionId
from tests.protocol.broker import Entry
from tests.protocol.world import SOURCES, Violation, World

A0: PartitionId = ("a", 0)
B0: PartitionId = ("b", 0)
_ROUNDS_MAX = 300
_SOON_SECONDS = 5.0


def feed(world: World, name: str, *counts: int, key: PartitionId = A0) -> None:
    """Batches of so many records to one worker, each committed before the next."""
    log = world.broker.logs[key]
    for count in counts:
        world.produce(*key, *(21 * i + 3 for i in range(len(log), len(log) + count)))
        for _ in range(_ROUNDS_MAX):
            if world.broker.committed.get(key, (0, ""))[0] == len(log):
                break
            world.run(name)
        else:
            raise Violation(f"worker {name} does not commit {key}")


def restart(world: World, name: str) -> None:
    if not world.workers[name].ended:
        world.workers[name].kill()
    world.start(name)


def settle_on(world: World, key: PartitionId = A0) -> None:
    """Whoever goes on has to show its state in outputs."""
    world.produce(*key, 1, 2, 3)
    world.quiesce()


def must_stop(world: World, name: str) -> None:
    world.start(name)
    world.run(name, 60)
    if not world.stops:
        raise Violation("the worker went on")


def overtaken(world: World, point: str) -> None:
    """`a` falls asleep at a point of its commit for longer than a session; `b` is there."""
    world.start("a")
    feed(world, "a", 2, 2, 2, 2, 2, 2, 2, 2)
    world.produce(*A0, 50, 51)
    world.run_until("a", point, "pause")
    world.advance(11)
    world.start("b")


# -- 1 task, 2 manifest


def quiet_input(world: World) -> None:
    world.start("a")
    feed(world, "a", 2)
    feed(world, "a", 2, key=B0)
    restart(world, "a")
    feed(world, "a", 2, 2, 2, 2)
    restart(world, "a")
    settle_on(world, B0)


def inputs_apart(world: World) -> None:
    for name in ("a", "b"):
        world.start(name)
    settle_on(world)
    group = world.broker.group
    group.pins = {B0: "b", A0: "a"}
    group.rebalance()
    for _ in range(10):
        for key in (A0, B0):
            world.produce(*key, 5, 6)
        for _ in range(4):
            world.run("a")
            world.run("b")
    group.pins = {}
    group.rebalance()
    settle_on(world)


def quiet_segment(world: World) -> None:
    world.start("a")
    world.produce(*A0, 0)
    world.quiesce()
    for _ in range(8):
        world.produce(*A0, 1, 4)
        world.quiesce()
    restart(world, "a")
    settle_on(world)


def damaged_blob(world: World) -> None:
    world.start("a")
    feed(world, "a", 2, 2, 2)
    world.workers["a"].kill()
    world.store.damage("toy/0", "b")
    settle_on(world)


def recreated_topic(world: World) -> None:
    world.start("a")
    feed(world, "a", 2, 2)
    world.workers["a"].kill()
    world.broker.logs[A0][:] = [Entry("committed", None, b"%d" % i) for i in range(9)]
    world.recreate("a")
    world.start("a")
    world.run("a", 60)
    if not world.stops:
        raise Violation("the worker went on")


# -- 3 one-write, 4 token


def rolled_back_under_a_worker(world: World) -> None:
    world.start("a")
    feed(world, "a", *[2] * 10)
    world.store.roll_back(2)
    feed(world, "a", 2)
    restart(world, "a")
    settle_on(world)


def window_lost_under_a_worker(world: World) -> None:
    world.start("a")
    feed(world, "a", 2, 2, 2)
    world.store.lose("toy/0", "r")
    feed(world, "a", 2)
    restart(world, "a")
    settle_on(world)


def zombie_writes_after_a_lap(world: World) -> None:
    overtaken(world, "store_write")
    world.run("b", 12)
    feed(world, "b", *[2] * 7)
    world.wake(world.workers["a"], told=True)
    world.run("a", 3)
    restart(world, "b")
    settle_on(world)


def zombie_writes_before_its_successor(world: World) -> None:
    overtaken(world, "store_write")
    world.run_until("b", "restored", "pause")
    world.wake(world.workers["a"], told=True)
    world.run("a", 3)
    settle_on(world)


def wiped(world: World) -> None:
    world.start("a")
    feed(world, "a", 2, 2, 2, 2)
    world.workers["a"].kill()
    world.store.wipe()
    settle_on(world)


def wiped_after_restarts(world: World) -> None:
    world.start("a")
    for _ in range(3):
        feed(world, "a", 2)
        restart(world, "a")
    feed(world, "a", 2)
    world.workers["a"].kill()
    world.store.wipe()
    settle_on(world)


# -- 5 assign-order


def successor_of_a_worker_killed_with_offsets_sent(world: World) -> None:
    world.start("a")
    feed(world, "a", 2, 2)
    world.produce(*A0, 50, 51)
    world.run_until("a", "offsets_sent", "kill")
    world.advance(11)
    world.start("b")
    settle_on(world)


def restart_of_a_worker_killed_with_offsets_sent(world: World) -> None:
    world.start("a")
    feed(world, "a", 2, 2)
    world.produce(*A0, 50, 51)
    world.run_until("a", "offsets_sent", "kill")
    world.start("a")
    before = world.clock.now
    settle_on(world)
    if world.clock.now > before + _SOON_SECONDS:
        raise Violation(f"the restart took {world.clock.now - before:.0f} s")


# -- 6 slack, 7 base


def older_checkpoint_after_large_batches(world: World) -> None:
    world.start("a")
    feed(world, "a", *[2] * 8, 4)
    world.produce(*A0, 50, 51, 52, 53)
    world.run_until("a", "checkpointed", "kill")
    newest = decode_reference(world.broker.committed[A0][1], "toy/0").id
    del world.store.inner.data[next(key for key in world.store.inner.data if key.endswith(f":m:{newest}"))]
    settle_on(world)


def base_of_an_aborted_commit(world: World) -> None:
    world.start("a")
    feed(world, "a", 2, 2)
    world.advance(1)
    world.produce(*A0, 50, 51)
    world.run_until("a", "offsets_sent", "kill")
    world.store.wipe()
    settle_on(world)


# -- 8 never-empty


def group_deleted(world: World) -> None:
    world.start("a")
    feed(world, "a", 2, 2)
    world.workers["a"].kill()
    world.broker.committed.clear()
    must_stop(world, "a")


def group_and_redis_deleted(world: World) -> None:
    world.start("a")
    feed(world, "a", 2, 2)
    world.workers["a"].kill()
    world.broker.committed.clear()
    world.store.wipe()
    must_stop(world, "a")


def one_offset_deleted(world: World) -> None:
    world.start("a")
    feed(world, "a", 2, 2)
    feed(world, "a", 2, 2, key=B0)
    world.workers["a"].kill()
    del world.broker.committed[B0]
    must_stop(world, "a")


def offsets_reset_by_a_tool(world: World) -> None:
    world.start("a")
    feed(world, "a", 2, 2)
    world.workers["a"].kill()
    world.broker.committed.update(dict.fromkeys(SOURCES, (0, "")))
    must_stop(world, "a")


# -- 9 metadata-before


def zombie_sends_its_offsets(world: World) -> None:
    overtaken(world, "checkpointed")
    feed(world, "b", 2, 2)
    world.wake(world.workers["a"], told=True)
    world.run("a", 3)
    settle_on(world)


def thrown_out_with_records_fetched(world: World) -> None:
    """The zombie wakes between two commits with a full batch; its successor has read the committed offsets and is about to claim."""
    world.start("a")
    for key in SOURCES:
        world.produce(*key, *range(20))
    world.run_until("a", "committed", "pause", passes=2)
    world.advance(11)
    world.start("b")
    world.run_until("b", "claim", "pause")
    world.wake(world.workers["a"], told=True)
    world.run("a")
    settle_on(world)


# -- 10 abort-reloads


def commit_lost(world: World) -> None:
    world.start("a")
    feed(world, "a", 2, 2)
    world.kafka_fault = "lost"
    world.produce(*A0, 50, 51)
    world.run("a", 30)
    settle_on(world)


def commit_done(world: World) -> None:
    world.start("a")
    feed(world, "a", 2, 2)
    world.kafka_fault = "done"
    world.produce(*A0, 50, 51)
    world.run("a", 30)
    settle_on(world)


def commit_arrives_in_the_next_transaction(world: World) -> None:
    world.start("a")
    feed(world, "a", 2, 2)
    world.kafka_fault = "late"
    world.produce(*A0, 50, 51)
    while world.kafka_fault:
        world.run("a")
    world.run_until("a", "produced", "pause")
    world.deliver_late()
    restart(world, "a")
    settle_on(world)
