"""Workers that run the real runner in one process, one at a time, on a Kafka and a Redis in memory, and what must hold.

A worker is a thread that runs `Runner.run` and gives way at every poll. At every call across a port, and at the runner's
failpoints, it can be killed or put to sleep with everything it knows; a sleeper that wakes is a zombie.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

from driftline.schemas.config import Config
from driftline.streams.cluster import Cluster
from driftline.streams.errors import StreamError
from driftline.streams.kafka import consumer_properties, producer_properties
from driftline.streams.runner.runner import Runner
from driftline.streams.state.manifest import decode_reference
from driftline.streams.task import PartitionId, RestoredState
from tests.protocol import toy
from tests.protocol.broker import Broker
from tests.protocol.clients import FakeConsumer, FakeProducer, FakeReader, NeverReturns
from tests.protocol.store import FaultyStore

PARTITIONS = 2
CHECKPOINTS = "driftline.checkpoints"
SOURCES: list[PartitionId] = [(topic, n) for topic in toy.TOPICS for n in range(PARTITIONS)]
FAILPOINTS = ("restored", "produced", "checkpointed", "offsets_sent", "committed")
PORTS = ("read_committed", "claim", "store_read", "store_write", "begin", "send_offsets", "commit", "abort", "init")

_TIMED = ("runner.commit", "runner.membership", "runner.name", "runner.publisher", "runner.waiting", "state.base")
_REPLACED = (
    "runner.runner.make_consumer", "runner.runner.make_admin", "runner.runner.member_named", "runner.runner.clocks",
    "runner.publisher.make_producer", "runner.publisher.threading", "runner.commit.Failpoints",
    "state.base.Consumer", "state.base.BASE_SECONDS", *(f"{module}.time" for module in _TIMED),
)  # fmt: skip


def _place(name: str) -> tuple[Any, str]:
    module, _, attribute = name.rpartition(".")
    return importlib.import_module(f"driftline.streams.{module}"), attribute


_REAL: Final = {name: getattr(*_place(name)) for name in _REPLACED}


def give_back() -> None:
    """Put the real ports and clocks where worlds have replaced them, in whatever order those were closed, if they were."""
    for name, value in _REAL.items():
        setattr(*_place(name), value)


_ROUNDS_MAX = 400
_PATIENCE_SECONDS = 60
# A task that waits for records of `a` gets some.
_RELEASE_ROUNDS = 40


class Violation(AssertionError):
    """Exactly once was broken, or a worker stopped although nothing was lost that it needs."""


class Killed(BaseException):
    """The process is gone: nothing of it may run any more."""


class InlineThread:
    """A call given to a thread of its own happens here and now; one that never returns is left."""

    def __init__(self, *, target: Callable[[], None], name: str, daemon: bool) -> None:
        self._target = target

    def start(self) -> None:
        with suppress(NeverReturns):
            self._target()

    def join(self, seconds: float) -> None:
        pass


class FakeTime:
    """The modules' `time`: it passes where the world says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_760_000_000.0 + self.now

    def sleep(self, seconds: float) -> None:
        # Whoever waits for a moment that is nearer than the clock can tell would wait for ever.
        self.now += max(seconds, 0.001)


class Worker:
    """One process. `trap` is (point, passes left, ``kill`` or ``pause``)."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.trap: tuple[str, int, str] | None = None
        self.paused = self.killed = self.ended = False
        self.error: BaseException | None = None
        self.runner: Runner | None = None
        self.consumer: FakeConsumer | None = None
        self._world = world
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def live(self) -> bool:
        return not (self.paused or self.ended)

    def resume(self) -> None:
        """Run to the next poll, or to where it is stopped."""
        if self.ended:
            return
        self._world.current = self
        self._go.release()
        assert self._back.acquire(timeout=_PATIENCE_SECONDS), f"worker {self.name} does not give way"

    def kill(self) -> None:
        self.killed = True
        self.resume()

    def give_way(self) -> None:
        self._back.release()
        self._go.acquire()
        self.check()

    def check(self) -> None:
        if self.killed:
            raise Killed

    def _run(self) -> None:
        self._go.acquire()
        try:
            self.check()
            self.runner = self._world.make_runner(self.name)
            self.runner.run()
        except Killed:
            pass
        except BaseException as error:   # noqa: BLE001 - handed to the test
            self.error = error
        finally:
            self.ended = True
            self._back.release()


class World:
    """Attributes.

    ----------
    strict : a stop is a violation, because nothing happens that a worker could not recover from.
    excused : words of messages with which a worker may stop all the same.
    stops : what workers stopped with.
    """

    def __init__(
        self, *, incremental: bool = False, base: bool = True, strict: bool = True, base_seconds: float = 0.5, pausing: bool = False
    ) -> None:
        self.clock = FakeTime()
        topics = {**dict.fromkeys((*toy.TOPICS, toy.OUT), PARTITIONS), **({CHECKPOINTS: 1} if base else {})}
        self.broker = Broker(topics, SOURCES, self.clock.monotonic, incremental=incremental)
        self.store = FaultyStore(self)
        self.strict = strict
        self.excused = ["same instance name", "fenced"]
        self.workers: dict[str, Worker] = {}
        self.current: Worker | None = None
        self.stops: list[StreamError] = []
        self.kafka_fault = ""
        self._late: list[Callable[[], None]] = []
        self._epochs: dict[PartitionId, int] = {}
        self._processor = toy.ToyProcessor(pausing=pausing)
        self._recreated = False
        self._config = make_config("consumer" if incremental else "classic")
        self._cluster = Cluster("c", dict.fromkeys(topics, "id"), topics)
        self._patches = self._patch(base_seconds)

    # -- what happens

    def use(self, config: Config) -> None:
        """The configuration of workers that start from now on."""
        self._config = config

    def produce(self, topic: str, partition: int, *values: int, aborted: bool = False) -> None:
        self.broker.append((topic, partition), [b"%d" % value for value in values], aborted=aborted)

    def start(self, name: str) -> Worker:
        """A worker of that instance; a former one keeps running if it is asleep."""
        former = self.workers.get(name)
        if former is not None and not former.ended:
            self.workers[f"{name}, former {len(self.workers)}"] = former
        self.workers[name] = worker = Worker(self, name)
        return worker

    def run(self, name: str, rounds: int = 1) -> None:
        for _ in range(rounds):
            worker = self.workers[name]
            if worker.live:
                worker.resume()
                self.judge(worker)

    def run_until(self, name: str, point: str, how: str, *, passes: int = 1) -> None:
        """Run a worker until it was killed or put to sleep at that point."""
        worker = self.workers[name]
        worker.trap = (point, passes, how)
        for _ in range(_ROUNDS_MAX):
            if worker.trap is None:
                return
            self.run(name)
        raise AssertionError(f"worker {name} never came to {point}")

    def wake(self, worker: Worker, *, told: bool) -> None:
        """`told`: its client hears that it was thrown out before the program goes on."""
        if worker.paused and not worker.ended:
            worker.paused = False
            if told and worker.consumer is not None:
                worker.consumer.heartbeat()

    def recreate(self, topic: str) -> None:
        """The topic was deleted and made anew: workers that start from now on find another id."""
        self._recreated = True
        self._cluster = replace(self._cluster, topic_ids={**self._cluster.topic_ids, topic: "another"})

    def deliver_late(self) -> None:
        """What was under way arrives."""
        late, self._late = self._late, []
        for arrive in late:
            try:
                arrive()
            except Exception:   # noqa: BLE001 - refused, and nobody waits for the answer
                continue

    def quiesce(self) -> None:
        """No more faults: everything must be published, once, unless a worker had a reason to stop."""
        self.store.fault = self.kafka_fault = ""
        self.deliver_late()
        for worker in self.workers.values():
            worker.trap = None
            self.wake(worker, told=True)
        for turn in range(_ROUNDS_MAX):
            if turn % _RELEASE_ROUNDS == _RELEASE_ROUNDS - 1:
                for partition in range(PARTITIONS):
                    self.produce("a", partition, turn)
            running = [worker for worker in self.workers.values() if worker.live]
            if not running:
                running = [self.start("a")]
            for worker in running:
                worker.resume()
                self.judge(worker)
            if self.stops and not self.strict:
                return
            if self._complete():
                return
        raise Violation(f"stuck: {self._missing()}")

    def close(self) -> None:
        for worker in self.workers.values():
            if not worker.ended:
                worker.kill()
        self._patches.close()

    # -- what must hold

    def expected(self, topic: str, partition: int) -> list[bytes]:
        """The outputs of a task that nothing ever interrupted."""
        one = toy._Input(topic, RestoredState())
        return [one.take(int(entry.value or b"0")) for _, entry in self.broker.records((topic, partition))]

    def outputs(self, topic: str, partition: int) -> list[bytes]:
        """What a read-committed reader sees of it."""
        return [e.value or b"" for _, e in self.broker.records((toy.OUT, partition)) if e.key == topic.encode()]

    def judge(self, worker: Worker | None = None) -> None:
        """Nothing lost before something published, nothing doubled, nothing changed; no fault that is not a `StreamError`."""
        for topic, partition in [] if self._recreated else SOURCES:
            expected, outputs = self.expected(topic, partition), self.outputs(topic, partition)
            if outputs != expected[: len(outputs)]:
                place = next((i for i, (x, y) in enumerate(zip(outputs, expected, strict=False)) if x != y), len(expected))
                raise Violation(f"{topic}/{partition}: output {place} is {outputs[place]!r}, expected {expected[place : place + 1]!r}")
        if self.store.trespass:
            raise Violation(self.store.trespass)
        for key, (_, metadata) in self.broker.committed.items():
            epoch = decode_reference(metadata, "toy").epoch if metadata else self._epochs.get(key, 0)
            if epoch < self._epochs.get(key, 0):
                raise Violation(f"{key}: epoch {epoch} was committed after {self._epochs[key]}")
            self._epochs[key] = epoch
        if worker is None or worker.error is None:
            return
        error, worker.error = worker.error, None
        if not isinstance(error, StreamError):
            raise Violation(f"worker {worker.name} failed: {error!r}") from error
        self.stops.append(error)
        if self.strict and not any(words in str(error) for words in self.excused):
            raise Violation(f"worker {worker.name} stopped: {error}") from error

    def _missing(self) -> dict[PartitionId, tuple[int, int]]:
        counts = {(t, p): (len(self.outputs(t, p)), len(self.expected(t, p))) for t, p in SOURCES}
        return {key: count for key, count in counts.items() if count[0] != count[1]}

    def _complete(self) -> bool:
        return not self._missing() and not any(t.began is not None for t in self.broker.transactions.values())

    # -- the host of clients and store

    def step(self, point: str) -> None:
        worker = self.current
        assert worker is not None
        worker.check()
        if worker.trap is not None and worker.trap[0] == point:
            _, left, how = worker.trap
            worker.trap = (point, left - 1, how) if left > 1 else None
            if worker.trap is None and how == "kill":
                worker.killed = True
                raise Killed
            if worker.trap is None:
                worker.paused = True
                worker.give_way()
        if point == "poll":
            worker.give_way()

    def commit_fault(self) -> str:
        fault, self.kafka_fault = self.kafka_fault, ""
        return fault

    def later(self, arrive: Callable[[], None]) -> None:
        self._late.append(arrive)

    def advance(self, seconds: float) -> None:
        self.clock.now += seconds

    # -- the real runner on it

    def make_runner(self, name: str) -> Runner:
        return Runner(self._processor, self._config, self._cluster, self.store, time="data", instance=name)

    def _consumer(self, kafka: Any, group: str, *, instance: str | None, error_cb: object) -> FakeConsumer:
        consumer = FakeConsumer(self, consumer_properties(kafka, group, instance=instance))
        assert self.current is not None
        self.current.consumer = consumer
        return consumer

    def _producer(self, kafka: Any, *, transactional_id: str) -> FakeProducer:
        return FakeProducer(self, producer_properties(kafka, transactional_id=transactional_id))

    def _patch(self, base_seconds: float) -> ExitStack:
        """The ports and the clock of the runner's modules; nothing of its logic."""
        new: dict[str, Any] = {
            "runner.runner.make_consumer": self._consumer,
            "runner.runner.make_admin": lambda _: None,
            "runner.runner.member_named": lambda *_: None,
            "runner.runner.clocks": self.clock,
            "runner.publisher.make_producer": self._producer,
            "runner.publisher.threading": SimpleNamespace(Thread=InlineThread),
            "runner.commit.Failpoints": mock.Mock(side_effect=lambda: mock.Mock(reach=self.step)),
            "state.base.Consumer": lambda _: FakeReader(self),
            "state.base.BASE_SECONDS": base_seconds,
        }
        new |= {f"{module}.time": self.clock for module in _TIMED}
        assert new.keys() == _REAL.keys(), "what is replaced must be given back"
        stack = ExitStack()
        for name, value in new.items():
            stack.enter_context(mock.patch.object(*_place(name), value))
        log = logging.getLogger("driftline")
        stack.callback(log.setLevel, log.level)
        log.setLevel(logging.CRITICAL)
        return stack


def make_config(protocol: str) -> Config:
    """Commits after 10 ms, which is three polls here, or six records."""
    kafka = {"commit_interval": 10, "commit_rows": 6, "transaction_timeout": 15_000, "group_protocol": protocol}
    return Config.model_validate({"kafka": kafka, "predictions": [{"topic": "unused"}], "models": {"m": {}}, "start": "earliest"})
