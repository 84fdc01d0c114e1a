"""The real worker as a process, on real Kafka and Redis."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from driftline.schemas.config import Config
from driftline.schemas.contracts import cloud_event_headers, decode, encode_event
from driftline.schemas.events import DriftEvent
from driftline.schemas.topics import DRIFT
from driftline.streams.alert.redis_store import RedisAlertStore
from driftline.streams.kafka import make_admin, read_cluster
from driftline.streams.wiring import groups_of
from tests.alert.conftest import MakeEvent

WORKER = Path(__file__).parent / "worker_process.py"
CreateTopics = Callable[..., list[str]]


class Kafka(Protocol):
    bootstrap: str


class Bench:
    """Drift events in, alerts and transitions out; starts and kills the worker."""

    def __init__(self, bootstrap: str, redis_url: str, prefix: str, directory: Path) -> None:
        self.bootstrap, self.prefix, self._directory = bootstrap, prefix, directory
        self.config = Config.model_validate({
            "environment": "test",
            "kafka": {"bootstrap": bootstrap, "group_prefix": prefix},
            "redis": {"url": redis_url, "key_prefix": prefix},
            "topics": {"prefix": prefix},
            "predictions": [{"topic": "predictions"}],
            "models": {"fraud": {"owner": "fraud-ml"}},
        })
        self.client = redis.Redis.from_url(redis_url)
        cluster = read_cluster(make_admin(self.config.kafka), [])
        self.store = RedisAlertStore(self.client, f"{prefix}:test:{cluster.cluster_id}")
        self._producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": prefix, "partitioner": "murmur2_random"})
        self._producer.init_transactions(30)
        self._workers: list[subprocess.Popen[bytes]] = []

    def send(self, events: Sequence[DriftEvent | bytes], *, abort: bool = False) -> None:
        self._producer.begin_transaction()
        for event in events:
            if isinstance(event, bytes):
                self._producer.produce(DRIFT.full_name(self.prefix), key="fraud", value=event)
                continue
            headers = cloud_event_headers(event, id=event.id, source="/driftline/test", subject=event.model, time_ms=event.time_ms)
            self._producer.produce(DRIFT.full_name(self.prefix), key=event.model, value=encode_event(event), headers=list(headers))
        self._producer.flush()
        if abort:
            self._producer.abort_transaction(30)
        else:
            self._producer.commit_transaction(30)

    def start(self, until_idle_s: float | None = None) -> subprocess.Popen[bytes]:
        idle = "-" if until_idle_s is None else str(until_idle_s)
        log = (self._directory / f"worker-{len(self._workers)}.log").open("wb")
        worker = subprocess.Popen([sys.executable, str(WORKER), self.config.model_dump_json(), idle], stderr=log, stdout=log)
        log.close()
        self._workers.append(worker)
        return worker

    def run(self, until_idle_s: float = 0.5) -> None:
        worker = self.start(until_idle_s)
        assert worker.wait(240) == 0, self.logs()

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self._directory.glob("worker-*.log")))

    def read(self, topic: str) -> list[Message]:
        """Every committed record of a topic, by offset."""
        consumer = Consumer({
            "bootstrap.servers": self.bootstrap, "group.id": f"{self.prefix}-reader", "isolation.level": "read_committed",
            "enable.partition.eof": True, "fetch.wait.max.ms": 50,
        })
        consumer.assign([TopicPartition(f"{self.prefix}.{topic}", 0, 0)])
        found: list[Message] = []
        while (message := consumer.poll(90)) is not None and message.error() is None:
            found.append(message)
        consumer.close()
        assert message is not None, f"the end of {topic} was not reached"
        return found

    def changes(self) -> list[tuple[int, str, str]]:
        """(seq, change, severity) of every transition, each id once."""
        seen: dict[str, Any] = {}
        for message in self.read("transitions"):
            event = decode("transitions", message.value(), headers_of(message))
            seen.setdefault(header(message, "ce_id"), event)
        return [(event.seq, event.change, event.severity) for event in seen.values()]

    def wait_for(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 150
        while not done():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)

    def close(self) -> None:
        for worker in self._workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
        self.client.close()


def headers_of(message: Message) -> list[tuple[str, bytes]]:
    return message.headers() or []   # type: ignore[return-value]  # it types what one may send, too


def header(message: Message, name: str) -> str:
    return dict(headers_of(message))[name].decode()


@pytest.fixture
def bench(kafka: Kafka, redis_url: str, create_topics: CreateTopics, topic_prefix: str, tmp_path: Path) -> Iterator[Bench]:
    create_topics("drift", "alerts", "incidents", "transitions", "dlq")
    bench = Bench(kafka.bootstrap, redis_url, topic_prefix, tmp_path)
    yield bench
    bench.close()


def test_alert_opens_changes_severity_resolves_and_ignores_duplicates_aborts_and_poison(bench: Bench, drift_event: MakeEvent) -> None:
    bench.send([drift_event(1)])
    bench.send([drift_event(2, kind="evidence", severity="critical", series="never:committed", episode="aborted")], abort=True)
    bench.send([drift_event(3, kind="evidence", severity="critical"), b"{poison", drift_event(3, kind="evidence", severity="critical")])
    bench.send([drift_event(4, kind="recovery", reason="back_in_band"), drift_event(5, series="score", episode="ep2")])
    bench.run()
    assert bench.changes() == [(1, "opened", "warning"), (2, "severity", "critical"), (3, "resolved", "critical"), (1, "opened", "warning")]
    alerts = [decode("alerts", message.value(), headers_of(message)) for message in bench.read("alerts")]
    assert [(alert.series, alert.condition, alert.owner) for alert in alerts] == [   # type: ignore[union-attr]
        ("feature:amount", "firing", "fraud-ml"), ("feature:amount", "firing", "fraud-ml"), ("feature:amount", "resolved", "fraud-ml"),
        ("score", "firing", "fraud-ml"),
    ]
    [letter] = bench.read("dlq")
    assert letter.value() == b"{poison"
    found = decode("dlq", letter.value(), headers_of(letter))
    assert (found.topic, found.stage) == (DRIFT.full_name(bench.prefix), "alert")   # type: ignore[union-attr]
    assert [state.alert.series for state in bench.store.open_alerts()] == ["score"]

    before = len(bench.read("transitions"))
    bench.run()   # nothing new: only open and recent alerts are published again
    assert len(bench.read("transitions")) == before
    assert len(bench.changes()) == 4


def test_killed_worker_loses_and_doubles_nothing(bench: Bench, drift_event: MakeEvent) -> None:
    events = [drift_event(number, series=f"feature:f{number % 20}", episode=f"e{number % 20}", severity="warning",
                          kind="drift" if number < 20 else "evidence") for number in range(300)]
    for start in range(0, 300, 100):
        done = len(bench.read("transitions"))
        worker = bench.start()
        bench.send(events[start : start + 100])
        bench.wait_for(lambda done=done: len(bench.read("transitions")) > done)   # type: ignore[misc]
        worker.kill()   # somewhere between its first and its last publication
        worker.wait()
    bench.run()
    states = bench.store.open_alerts()
    assert {state.alert.series: state.alert.seq for state in states} == {f"feature:f{number}": 15 for number in range(20)}
    ids = [header(message, "ce_id") for message in bench.read("transitions")]
    assert sorted(set(ids)) == sorted(f"e{number}/{seq}" for number in range(20) for seq in range(1, 16))
    last = {message.key(): message for message in bench.read("alerts")}
    assert {header(message, "ce_id") for message in last.values()} == {f"e{number}/15" for number in range(20)}


def test_lost_redis_is_filled_again_from_the_topics(bench: Bench, drift_event: MakeEvent) -> None:
    bench.send([drift_event(1), drift_event(2, kind="evidence", severity="critical"), drift_event(3, series="score", episode="s")])
    bench.run()
    before, transitions = bench.store.open_alerts(), len(bench.read("transitions"))
    bench.client.delete(*bench.client.keys(f"*{bench.prefix}*"))
    assert bench.store.open_alerts() == []
    bench.send([drift_event(4, kind="recovery")])
    bench.run()
    assert [state.alert.series for state in bench.store.open_alerts()] == ["score"]
    assert [state.alert for state in before if state.alert.series == "score"] == [state.alert for state in bench.store.open_alerts()]
    assert len(bench.read("transitions")) == transitions + 1
    assert bench.changes()[-1] == (3, "resolved", "critical")


def test_signals_end_the_worker_in_order(bench: Bench, drift_event: MakeEvent) -> None:
    bench.send([drift_event(1)])
    draining = bench.start()
    bench.wait_for(lambda: len(bench.read("transitions")) == 1)
    bench.send([drift_event(2, kind="recovery")])
    draining.send_signal(signal.SIGUSR1)
    assert draining.wait(120) == 0, bench.logs()
    assert [change for _, change, _ in bench.changes()] == ["opened", "resolved"]

    running = bench.start()
    bench.wait_for(lambda: "alert_assigned" in (bench._directory / "worker-1.log").read_text())
    running.terminate()
    assert running.wait(120) == 0, bench.logs()


def test_missing_topic_is_a_setup_error_that_says_what_to_do(kafka: Kafka, redis_url: str, topic_prefix: str) -> None:
    config = {"kafka": {"bootstrap": kafka.bootstrap}, "redis": {"url": redis_url}, "topics": {"prefix": topic_prefix},
              "predictions": [{"topic": "p"}], "models": {"m": {}}}
    done = subprocess.run([sys.executable, str(WORKER), json.dumps(config), "1"], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 2
    assert f'no such topic: "{topic_prefix}.alerts"' in done.stderr
    assert "driftline topics create" in done.stderr


def test_group_is_the_one_that_status_and_topics_know(bench: Bench, drift_event: MakeEvent) -> None:
    bench.send([drift_event(1)])
    bench.run()
    [group] = [group for group, processor in groups_of(bench.config).items() if processor == "alert"]
    consumer = Consumer({"bootstrap.servers": bench.bootstrap, "group.id": group})
    [place] = consumer.committed([TopicPartition(DRIFT.full_name(bench.prefix), 0)], timeout=60)
    consumer.close()
    assert place.offset == 1


def test_offsets_are_committed_over_the_markers_of_many_transactions(bench: Bench, drift_event: MakeEvent) -> None:
    for number in range(40):
        bench.send([drift_event(number, kind="evidence")])
        bench.send([drift_event(number + 1_000)], abort=number % 3 == 0)
    bench.run()
    consumer = Consumer({"bootstrap.servers": bench.bootstrap, "group.id": f"{bench.prefix}.alert"})
    partition = TopicPartition(DRIFT.full_name(bench.prefix), 0)
    [place] = consumer.committed([partition], timeout=60)
    last = bench.read("drift")[-1].offset()
    consumer.close()
    assert place.offset == (last or 0) + 1


def test_worker_that_would_read_aborted_events_refuses_to_start(bench: Bench) -> None:
    code = f"""
import sys
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from driftline.streams.alert.transport import CommittedConsumerThread
CommittedConsumerThread._create_worker_consumer = AIOKafkaConsumerThread._create_worker_consumer   # Faust's own: uncommitted
sys.argv = ["worker", {bench.config.model_dump_json()!r}, "1"]
exec(open({str(WORKER)!r}).read())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 1
    assert "alert_stopped error=IsolationError: expected the alert app to read committed records" in done.stderr
