"""Run the demo: embedded broker and Redis, the real workers, a simulated stream, and a witness of the topics."""

from __future__ import annotations

import contextlib
import importlib.resources
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

from driftline.demo.simulator import FraudStream, Message
from driftline.demo.verdict import Found, Verdict, truth_records
from driftline.schemas.topics import DRIFT, INCIDENTS, SNAPSHOTS, TOPICS, TRANSITIONS
from driftline.streams.canvas import Band
from driftline.streams.local.embedded import EmbeddedBroker
from driftline.streams.local.redis import LocalRedis
from driftline.streams.picture import render_html

PREDICTIONS: Final = "demo.predictions"
LABELS: Final = "demo.labels"
TRUTH: Final = "demo.truth"
PREFIX: Final = "driftline"
ROWS_AHEAD_MAX: Final = 4_000
"""The embedded broker keeps 5 MiB a partition and drops the oldest silently: 4,000 rows are 1.6 MB."""
QUIET_SECONDS: Final = 2.0
KERNELS_SECONDS: Final = 30.0
"""Until then a worker has loaded its kernels or has begun to compile them."""
COMPILING: Final = re.compile(r"kernels_compiling note='([^']*)'")
"""In the workers' log."""
STALL_SECONDS: Final = 180.0
"""A first start compiles for half a minute on a quiet machine and for two on a busy one."""


class DemoError(RuntimeError):
    """The demo could not be run to its end; the message says what a person should look at."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """`rate` None = as fast as the workers follow."""

    seed: int = 1
    rows: int = 52_000
    rate: float = 1_300.0
    paced: bool = True
    changed: bool = True
    directory: Path = Path("driftline-demo")


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What was found; `picture` and `config` are files a person can open."""

    verdict: Verdict
    options: DemoOptions
    picture: Path
    config: Path
    seconds: float

    def as_json(self) -> dict[str, Any]:
        head = {"seed": self.options.seed, "predictions": self.options.rows, "seconds": round(self.seconds, 1)}
        return {**head, **self.verdict.as_json(), "picture": str(self.picture), "config": str(self.config)}


def run_demo(options: DemoOptions, say: Callable[[str], None]) -> DemoResult:
    """Run it and return what the topics said.

    Parameters
    ----------
    say : told one line at a time, live.

    Raises
    ------
    DemoError : a worker ended or nothing moved for a minute.
    """
    began = time.monotonic()
    options.directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker())
        redis = stack.enter_context(LocalRedis())
        for topic in [PREDICTIONS, LABELS, TRUTH, *(t.full_name(PREFIX) for t in TOPICS)]:
            broker.create_topic(topic, 1)
        config = options.directory / "demo.yml"
        template = importlib.resources.files("driftline.demo").joinpath("demo.yml").read_text()
        config.write_text(template.replace("BOOTSTRAP", broker.bootstrap).replace("REDIS", redis.url))
        workers = stack.enter_context(_workers(config, options.directory / "workers.log"))
        say(f"broker {broker.bootstrap} and Redis are up; workers are starting (log: {options.directory / 'workers.log'})")
        _tell_compiling(options.directory / "workers.log", workers, say)
        witness = _Witness(broker.bootstrap, say)
        stack.callback(witness.close)
        _publish(options, broker.bootstrap, witness, workers)
        _settle(options, witness, workers)
    picture = options.directory / "demo.html"
    picture.write_text(_picture(witness.verdict, options))
    return DemoResult(witness.verdict, options, picture, config, time.monotonic() - began)


@contextlib.contextmanager
def _workers(config: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "driftline", "run", str(config), "--time", "data", "--start", "earliest"]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _tell_compiling(log: Path, workers: subprocess.Popen[bytes], say: Callable[[str], None]) -> None:
    """Say so where the first worker that needs kernels has none to load: nothing else would move for as long."""
    deadline = time.monotonic() + KERNELS_SECONDS
    while time.monotonic() < deadline and workers.poll() is None:
        written = log.read_text(errors="replace")
        if (found := COMPILING.search(written)) is not None:
            say(found[1])
        if found is not None or "processor_ready processor=detect" in written:
            return
        time.sleep(0.1)


class _Witness:
    """Reads the output topics as any subscriber would, and keeps the verdict."""

    def __init__(self, bootstrap: str, say: Callable[[str], None]) -> None:
        self.verdict = Verdict()
        self.last_record = time.monotonic()
        self._say = say
        self._began = time.monotonic()
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "demo-witness", "enable.auto.commit": False})
        topics = [topic.full_name(PREFIX) for topic in (DRIFT, TRANSITIONS, INCIDENTS, SNAPSHOTS)]
        self._consumer.assign([TopicPartition(topic, 0, 0) for topic in (*topics, TRUTH)])
        self._incidents: dict[str, str] = {}

    def read(self, timeout: float) -> None:
        """Take what has come within `timeout` seconds."""
        message = self._consumer.poll(timeout)
        messages = [] if message is None else [message, *self._consumer.consume(500, 0)]
        for message in messages:
            if message.error() is None:
                self.last_record = time.monotonic()
                self._take(message.topic() or "", orjson.loads(message.value() or b""))

    def close(self) -> None:
        self._consumer.close()

    def _take(self, topic: str, record: dict[str, Any]) -> None:
        verdict = self.verdict
        if topic == TRUTH:
            verdict.truth(record)
        elif topic == SNAPSHOTS.full_name(PREFIX):
            verdict.snapshot(record)
        elif topic == DRIFT.full_name(PREFIX):
            found = verdict.drift(record)
            if found is not None:
                self.line(_detected(found))
            elif record["kind"] == "baseline":
                self.line(record["reason"])
        elif topic == INCIDENTS.full_name(PREFIX):
            # Joined by many alerts in a second, and published again now and then: told when it opens and when it is over.
            if self._incidents.get(record["id"]) != record["condition"]:
                self._incidents[record["id"]] = record["condition"]
                self.line(f"incident, {record['alerts']} alerts, {record['severity']}: {record['summary']}")
        else:
            found = verdict.transition(record)
            words = alert_words(record)
            if found is not None and words:
                reason = f": {record['reason']}" if record["reason"] else ""
                self.line(f"{words}, {found.change.name}{reason}; false alarms so far: {len(verdict.accused)}")

    def line(self, text: str) -> None:
        """Say a line with the time and the rows seen."""
        self._say(f"[{time.monotonic() - self._began:5.1f} s, {self.verdict.rows_seen:6,} predictions] {text}")


def _publish(options: DemoOptions, bootstrap: str, witness: _Witness, workers: subprocess.Popen[bytes]) -> None:
    """Send the stream at its rate, never further ahead of the workers than the embedded broker keeps."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "partitioner": "murmur2_random"})
    start_ms = int(time.time() * 1000)
    stream = FraudStream(seed=options.seed, rows=options.rows, rate=options.rate, start_ms=start_ms, changed=options.changed)
    truth = truth_records(stream.changes, start_ms, options.rate)
    # The whole truth first: a drift event read before the record that explains it would pass for a false alarm.
    for _, record in truth:
        producer.produce(TRUTH, orjson.dumps(record))
    producer.flush(30)
    while len(witness.verdict.found) < len(truth):
        _watch(witness, workers)
    sent = 0
    began: float | None = None
    for chunk in stream.messages():
        while sent - witness.verdict.rows_seen > ROWS_AHEAD_MAX:
            _watch(witness, workers)
        began = began if began is not None or witness.verdict.rows_seen == 0 else time.monotonic() - sent / options.rate
        while options.paced and began is not None and time.monotonic() - began < sent / options.rate:
            _watch(witness, workers, timeout=0.02)
        predictions = sum(not message.label for message in chunk)
        while truth and truth[0][0] < sent + predictions:
            witness.line(f"injecting: {truth.pop(0)[1]['text']}")
        _send(producer, chunk)
        sent += predictions
        witness.read(0)
    producer.flush(30)


def _send(producer: Producer, chunk: list[Message]) -> None:
    for message in chunk:
        topic = LABELS if message.label else PREDICTIONS
        producer.produce(topic, message.value, key=message.key, timestamp=message.time_ms)
    producer.poll(0)


def _settle(options: DemoOptions, witness: _Witness, workers: subprocess.Popen[bytes]) -> None:
    """Wait until the workers have seen the whole stream and the topics are quiet."""
    while witness.verdict.rows_seen < options.rows // 200 * 200 or time.monotonic() - witness.last_record < QUIET_SECONDS:
        _watch(witness, workers)


def _watch(witness: _Witness, workers: subprocess.Popen[bytes], timeout: float = 0.2) -> None:
    witness.read(timeout)
    if workers.poll() is not None:
        raise DemoError(f"a worker ended with exit code {workers.returncode}; see workers.log in the demo's directory")
    if time.monotonic() - witness.last_record > STALL_SECONDS:
        raise DemoError(f"nothing moved for {STALL_SECONDS:.0f} s, is the machine that busy; see workers.log in the demo's directory")


def alert_words(transition: dict[str, Any]) -> str:
    """A step of an alert, with the severity it leads from and to, so that no line contradicts the one before; empty for evidence."""
    match transition["change"]:
        case "opened":
            return f"alert opened as {transition['severity']}"
        case "severity":
            return f"alert goes from {transition['from_severity']} to {transition['severity']}"
        case "resolved":
            return f"alert resolved, was {transition['severity']}"
    return ""


def _detected(found: Found) -> str:
    event = found.event or {}
    where = "" if not event["segment"] else " in " + ", ".join(event["segment"].values())
    effect = "" if event["effect"] is None else f", effect {event['effect']['size']:.2f} ({event['effect']['kind']})"
    return (
        f"DETECTED {found.change.name}: {event['series']}{where} by {event['detector']} "
        f"after {found.delay_events()} events ({found.delay_seconds():.2f} s of the stream){effect}"
    )


def _picture(verdict: Verdict, options: DemoOptions) -> str:
    bands = [
        Band(found.time_ms, found.time_ms + int((found.change.stop - found.change.start) * 1000 / options.rate), found.change.text)
        for found in verdict.found
    ]
    accused = f"Series wrongly accused: {len(verdict.accused)}."
    notes = [f"Seed {options.seed}, {options.rows:,} predictions. Grey: an injected change. {accused}"]
    return render_html("Driftline demo: a simulated fraud stream", verdict.snapshots, verdict.events, bands, notes)
