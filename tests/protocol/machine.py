"""The model-based test: Hypothesis chooses what happens to the workers, Kafka and Redis, and when."""

from __future__ import annotations

from typing import ClassVar

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.protocol.toy import TOPICS
from tests.protocol.world import FAILPOINTS, PARTITIONS, PORTS, SOURCES, World

NAMES = ("a", "b", "c")
HOW = ("kill", "pause")


class ProtocolMachine(RuleBasedStateMachine):
    """What every step may do is survivable: a worker that stops has found a fault, unless two have one name."""

    incremental: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.world = World(incremental=self.incremental)
        self.values = 0

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            self.world.close()

    # -- work

    @initialize(count=st.integers(1, 4), two=st.booleans())
    def begin(self, count: int, two: bool) -> None:
        for topic, partition in SOURCES:
            self.produce(topic, partition, count)
        for name in NAMES[: 2 if two else 1]:
            self.world.start(name)
        self.run_all(8)

    @rule(topic=st.sampled_from(TOPICS), partition=st.integers(0, PARTITIONS - 1), count=st.integers(1, 9))
    def produce(self, topic: str, partition: int, count: int) -> None:
        self.world.produce(topic, partition, *range(self.values, self.values + count))
        self.values += count

    @rule(topic=st.sampled_from(TOPICS), partition=st.integers(0, PARTITIONS - 1))
    def produce_aborted(self, topic: str, partition: int) -> None:
        self.world.produce(topic, partition, 999, aborted=True)

    @rule(name=st.sampled_from(NAMES), rounds=st.integers(1, 12), count=st.integers(0, 3))
    def run(self, name: str, rounds: int, count: int) -> None:
        self.work(name, rounds, count)

    @rule(rounds=st.integers(1, 6))
    def run_all(self, rounds: int) -> None:
        for _ in range(rounds):
            for name in list(self.world.workers):
                self.world.run(name)

    def work(self, name: str, rounds: int = 6, count: int = 1) -> None:
        """Let a worker run with something to do, so that what was prepared for it happens."""
        if count:
            for topic, partition in SOURCES[:: 1 + self.values % 2]:
                self.produce(topic, partition, count)
        if name in self.world.workers:
            self.world.run(name, rounds)

    # -- workers

    @rule(name=st.sampled_from(NAMES))
    def start(self, name: str) -> None:
        worker = self.world.workers.get(name)
        if worker is None or not worker.live:
            self.world.start(name)

    @rule(name=st.sampled_from(NAMES))
    def kill(self, name: str) -> None:
        worker = self.world.workers.get(name)
        if worker is not None and not worker.ended:
            worker.kill()

    @rule(name=st.sampled_from(NAMES))
    def stop(self, name: str) -> None:
        worker = self.world.workers.get(name)
        if worker is not None and worker.runner is not None:
            worker.runner.stop()

    @rule(name=st.sampled_from(NAMES), point=st.sampled_from(FAILPOINTS + PORTS), passes=st.integers(1, 3), how=st.sampled_from(HOW))
    def trap(self, name: str, point: str, passes: int, how: str) -> None:
        worker = self.world.workers.get(name)
        if worker is not None and worker.live:
            worker.trap = (point, passes, how)
            self.work(name, 4 * passes)

    @rule(name=st.sampled_from(NAMES))
    def fall_asleep(self, name: str) -> None:
        worker = self.world.workers.get(name)
        if worker is not None:
            worker.paused = True

    @precondition(lambda self: any(worker.paused for worker in self.world.workers.values()))
    @rule(told=st.booleans())
    def wake(self, told: bool) -> None:
        for worker in self.world.workers.values():
            self.world.wake(worker, told=told)

    @rule(
        name=st.sampled_from(NAMES[:2]), point=st.sampled_from(FAILPOINTS + PORTS), told=st.booleans(), batches=st.integers(0, 8),
        count=st.integers(1, 2),
    )  # fmt: skip
    def be_overtaken(self, name: str, point: str, told: bool, batches: int, count: int) -> None:
        """Sleep for longer than a session in the middle of something, while another worker goes on; then wake."""
        worker = self.world.workers.get(name)
        if worker is None or not worker.live:
            return
        worker.trap = (point, 1, "pause")
        self.work(name, 6, 2)
        self.world.advance(11.0)
        self.start("c")
        for _ in range(batches):
            self.work("c", 5, count)
        self.world.wake(worker, told=told)
        self.world.run(name, 3)

    # -- the group and time

    @rule()
    def rebalance(self) -> None:
        self.world.broker.group.turn += 1
        self.world.broker.group.rebalance()

    @rule(topic=st.sampled_from(TOPICS), partition=st.integers(0, PARTITIONS - 1), name=st.sampled_from(NAMES))
    def assign_apart(self, topic: str, partition: int, name: str) -> None:
        """One topic of a number elsewhere than the other, as while the new protocol hands partitions over."""
        self.start(name)
        self.world.broker.group.pins = {(topic, partition): name}
        self.world.broker.group.rebalance()
        for _ in range(3):
            self.work(name, 1)
            self.run_all(4)

    @rule()
    def assign_together(self) -> None:
        self.world.broker.group.pins = {}
        self.world.broker.group.rebalance()

    @rule(seconds=st.sampled_from([1.0, 11.0, 16.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.advance(seconds)

    # -- Kafka and Redis

    @rule(fault=st.sampled_from(["lost", "done", "late", "hangs"]), name=st.sampled_from(NAMES))
    def uncertain_commit(self, fault: str, name: str) -> None:
        self.world.kafka_fault = fault
        self.work(name)

    @rule(fault=st.sampled_from(["lost", "done", "late", "twice"]), name=st.sampled_from(NAMES))
    def uncertain_write(self, fault: str, name: str) -> None:
        self.world.store.fault = fault
        self.work(name)

    @rule()
    def arrive_late(self) -> None:
        self.world.deliver_late()

    @rule(writes=st.integers(1, 8))
    def redis_loses_its_last_writes(self, writes: int) -> None:
        self.world.store.roll_back(writes)

    @rule(writes=st.integers(1, 3), name=st.sampled_from(NAMES[:2]), batches=st.integers(1, 8))
    def redis_loses_writes_of_a_worker_that_then_dies(self, writes: int, name: str, batches: int) -> None:
        for _ in range(batches):
            self.work(name, 5)
        self.world.store.roll_back(writes)
        self.work(name)
        self.kill(name)
        self.start(name)
        self.work(name, 12)

    @rule()
    def redis_is_wiped(self) -> None:
        self.world.store.wipe()

    @rule(partition=st.integers(0, PARTITIONS - 1), kind=st.sampled_from(["m", "b"]))
    def newest_checkpoint_is_damaged(self, partition: int, kind: str) -> None:
        self.world.store.damage(f"toy/{partition}", kind)

    @rule(partition=st.integers(0, PARTITIONS - 1), kind=st.sampled_from(["m", "b", "r"]))
    def newest_checkpoint_is_lost(self, partition: int, kind: str) -> None:
        self.world.store.lose(f"toy/{partition}", kind)

    @rule()
    def settle(self) -> None:
        self.world.broker.group.pins = {}
        self.world.broker.group.rebalance()
        self.world.quiesce()

    @invariant()
    def outputs_are_a_prefix_of_the_uninterrupted_ones(self) -> None:
        for name, worker in self.world.workers.items():
            if worker.killed or worker.error is not None:
                note(f"{name}: ended with {worker.error!r}")
        self.world.judge()


class IncrementalMachine(ProtocolMachine):
    """The same with the group protocol of KIP-848."""

    incremental = True
