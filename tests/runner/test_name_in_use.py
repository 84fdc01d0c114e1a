"""One name, two members: a worker's own former self is waited for or thrown out, a living rival is not fought for ever."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from confluent_kafka import Consumer

from driftline.schemas.config import Kafka
from driftline.streams.errors import OwnershipError
from driftline.streams.http import Health
from driftline.streams.kafka import consumer_properties
from driftline.streams.local.kafka import LocalKafka
from driftline.streams.local.process import LocalServiceError
from driftline.streams.runner import name
from tests.chaos.process import until
from tests.runner.conftest import Bench
from tests.runner.test_exactly_once import expected
from tests.runner.test_recovery import Background
from tests.runner.worker import make_runner

# With KIP-848 the broker says it, and for all groups. Whoever is alive here must not be silent for so long, however busy the machine.
_SESSION_MS = 15_000
_ROWS = 10


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
def consumer(bench: Bench) -> Bench:
    """Workers of the consumer protocol."""
    bench.settings["kafka"] = {"group_protocol": "consumer"}
    return bench


class Flow:
    """Input that goes on in small steps, and what must come of it."""

    def __init__(self, bench: Bench, broker: LocalKafka | None = None) -> None:
        self._bench, self._broker, self.sent = bench, broker, 0

    def more(self) -> bool:
        self._bench.publish(_ROWS, first=self.sent)
        self.sent += _ROWS
        return False

    def all_came(self, *workers: Background) -> None:
        """Everything is there once, of a worker that lives."""
        outputs = self._bench.outputs(count=self.sent)
        # One number says which rows there are; a difference of all of them hides what the group did.
        whole = outputs == expected(list(range(self.sent)), "toy/0")
        assert whole, f"{len(outputs)} of {self.sent} {[worker.error for worker in workers]}\n{self._said_of_the_group()}"

    def _said_of_the_group(self) -> str:
        """What the broker says of the group's members: why one is still there is known to it alone."""
        if self._broker is None:
            return ""
        prefix = self._bench.settings["prefix"]
        return "\n".join(line for line in self._broker.log.read_text().splitlines() if prefix in line)


def start(bench: Bench, health: Health | None = None) -> Background:
    return Background(make_runner(bench.settings, instance="a", time="data", health=health))


def until_not_ready(worker: Background, health: Health, words: str) -> None:
    until(lambda: words in str(health.ready()[1]["reasons"]), lambda: f"{health.ready()} {worker.error}")


def ended(workers: Sequence[Background]) -> list[Exception]:
    return [worker.error for worker in workers if worker.error is not None]


def test_a_worker_that_was_killed_and_started_at_once_waits_for_its_name_and_goes_on(consumer: Bench, kafka: LocalKafka) -> None:
    """Its restart is there before it dies, so that it is refused for certain, on the slowest machine; it dies within a commit."""
    flow = Flow(consumer, kafka)
    killed = consumer.start(failpoint="offsets_sent:20", time="data")
    until(lambda: flow.more() or len(consumer.outputs()) > 0, lambda: f"no output\n{consumer.log()}")
    health = Health()
    worker = start(consumer, health)
    until_not_ready(worker, health, "until its session ends")
    until(lambda: flow.more() or killed.poll() is not None, lambda: f"it was not killed\n{consumer.log()}")
    assert killed.returncode == -9, consumer.log()
    flow.all_came(worker)
    until(lambda: health.ready()[0], lambda: f"{health.ready()} {worker.error}")
    worker.stop()
    assert worker.error is None


def test_a_worker_that_waits_for_its_name_can_be_stopped(consumer: Bench) -> None:
    flow = Flow(consumer)
    flow.more()
    first = start(consumer)
    flow.all_came(first)
    health = Health()
    second = start(consumer, health)
    until_not_ready(second, health, "until its session ends")
    second.stop()
    first.stop()
    assert ended([first, second]) == []


def test_two_living_workers_of_one_name_are_told_apart_from_a_restart(consumer: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name, "NAME_SECONDS", 3.0)
    flow = Flow(consumer)
    flow.more()
    first = start(consumer)
    flow.all_came(first)
    second = start(consumer)
    second.join()
    assert isinstance(second.error, OwnershipError)
    assert "same instance name" in (second.error.hint or "")
    # Where to look for the other one.
    assert "the group has it as client driftline on 127.0.0.1" in str(second.error)
    flow.more()
    flow.all_came(first)
    first.stop()
    assert first.error is None


def test_a_worker_that_is_thrown_out_by_nobody_takes_its_name_back(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A member that joins under its name and does no more: what a client leaves behind whose broker stood still."""
    flow = Flow(bench)
    health = Health()
    worker = start(bench, health)
    until(lambda: flow.more() or len(bench.outputs()) > 0, lambda: f"no output: {worker.error}")
    group = f"{bench.settings['prefix']}.toy"
    # Its session is a minute: it will not make room of itself.
    properties = {"session.timeout.ms": 60_000}
    kafka = Kafka.model_validate({"bootstrap": bench.settings["bootstrap"], "properties": properties})
    ghost = Consumer(consumer_properties(kafka, group, instance=f"{group}.a"))
    assigned: list[object] = []
    ghost.subscribe([bench.settings["source"]], on_assign=lambda _, partitions: assigned.extend(partitions))
    until(lambda: ghost.poll(0.1) is None and len(assigned) == 2, lambda: f"{assigned} {worker.error}")
    # A member that says no goodbye, as it is a static one.
    ghost.close()
    # It may be back before anybody looks at its health.
    until(lambda: "gave this instance name to another member" in caplog.text, lambda: f"{health.ready()} {worker.error}")
    flow.more()
    flow.all_came(worker)
    until(lambda: health.ready()[0], lambda: f"{health.ready()} {worker.error}")
    worker.stop()
    assert worker.error is None


def test_of_two_living_workers_that_throw_each_other_out_one_ends_and_one_goes_on(bench: Bench) -> None:
    flow = Flow(bench)
    flow.more()
    workers = [start(bench)]
    flow.all_came(*workers)
    workers.append(start(bench))
    until(lambda: flow.more() or bool(ended(workers)), lambda: "both go on")
    flow.more()
    flow.all_came(*workers)
    (error,) = ended(workers)
    assert isinstance(error, OwnershipError)
    assert "same instance name" in (error.hint or "")
    for worker in workers:
        if worker.error is None:
            worker.stop()
    assert ended(workers) == [error]
