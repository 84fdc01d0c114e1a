"""The producer's side: a model service sends its predictions and labels, and inference never waits for it.

    from driftline.publish import Publisher

    with Publisher("localhost:9092", "predictions", "labels") as publisher:
        publisher.prediction(id="txn-1", model="fraud", features={"amount": 12.5, "country": "BR"}, score=0.83)
        publisher.label(id="txn-1", label=True)

Whatever happens on the way to Kafka (broker away, queue full, a value that is no JSON) is counted, never raised.
Importing this module imports nothing else of Driftline.
"""

from __future__ import annotations

import logging
import os
import threading
import time as clock
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, SupportsFloat, SupportsInt

import orjson
from confluent_kafka import KafkaError, KafkaException, Message, Producer

__all__ = ["Publisher"]

log = logging.getLogger(__name__)

QUEUE_MAX = 100_000
QUEUE_BYTES_MAX = 128 << 20
"""Predictions wait here while Kafka is away; beyond it they are dropped: the service needs its memory."""
POLL_SECONDS = 0.1
CLOSE_SECONDS = 10.0
_REFUSED = (KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.TOPIC_AUTHORIZATION_FAILED)
_HINT = "check the security.*, sasl.* and ssl.* properties, and the right to write to the topics; records wait meanwhile"
_ORJSON = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


class Publisher:
    """Sends predictions and labels to Kafka; every method may be called from any thread, and none of them blocks or raises.

    `flush` and `close` wait, as their names say. After a fork the child gets a producer of its own at its first record.

    Parameters
    ----------
    bootstrap : ``host:port`` of one or more brokers, separated by commas.
    predictions_topic, labels_topic : existing topics; None for what this service does not send.
    properties : any librdkafka property (security, compression, linger); they come before the defaults.
    queue_max : records that may wait to be sent.

    Attributes
    ----------
    delivered : records Kafka has acknowledged.
    dropped : records not taken because the queue was full or the publisher closed.
    failed : records that could not be encoded, or that Kafka refused or did not acknowledge in time, which ends with `close`.

    Raises
    ------
    ValueError : a parameter or property is wrong; only the construction raises.
    """

    def __init__(
        self,
        bootstrap: str,
        predictions_topic: str | None,
        labels_topic: str | None = None,
        *,
        properties: Mapping[str, Any] | None = None,
        queue_max: int = QUEUE_MAX,
    ) -> None:
        if not bootstrap:
            raise ValueError('bootstrap: expected "host:port", got nothing')
        if not predictions_topic and not labels_topic:
            raise ValueError("expected a topic for predictions, for labels or for both, got neither")
        if queue_max < 1:
            raise ValueError(f"queue_max: expected an integer >= 1, got {queue_max}")
        self._predictions_topic = predictions_topic
        self._labels_topic = labels_topic
        self._settings = {
            "queue.buffering.max.messages": queue_max,
            "queue.buffering.max.kbytes": QUEUE_BYTES_MAX >> 10,
            "linger.ms": 20,
            "compression.type": "lz4",
            "partitioner": "murmur2_random",   # as Java's default: a key means the same partition in every client
            **(properties or {}),
            "bootstrap.servers": bootstrap,
        }
        self._lock = threading.Lock()
        self._taken = self._delivered = self._dropped = self._failed = self._expired = 0
        self._closed = False
        self._abandoned: list[Producer] = []
        self._told: set[int] = set()
        self._start()

    @property
    def delivered(self) -> int:
        return self._delivered

    @property
    def dropped(self) -> int:
        return self._dropped

    @property
    def failed(self) -> int:
        return self._failed

    @property
    def pending(self) -> int:
        """Records taken and not yet acknowledged."""
        return max(0, self._taken - self._delivered - self._expired)   # the queue's own length counts log lines, too

    def prediction(
        self,
        *,
        id: str | SupportsInt,   # noqa: A002 - the contract's word
        model: str,
        features: Mapping[str, Any],
        score: SupportsFloat | Sequence[float] | None = None,
        class_: str | int | None = None,
        version: str | None = None,
        time: str | int | float | None = None,
        latency_ms: SupportsFloat | None = None,
        error: str | bool | None = None,
        sample_weight: SupportsFloat | None = None,
        segments: Mapping[str, str] | None = None,
    ) -> bool:
        """Send one prediction; numpy scalars and arrays are fine, NaN becomes null.

        Parameters
        ----------
        id : what the label will come with; text and whole numbers join alike ("1" and 1).
        time : ISO text or Unix time; now when None.

        Returns
        -------
        Whether the record was taken; False is counted in `dropped` or `failed`.
        """
        record = {
            "id": id, "time": _now_ms() if time is None else time, "model": model, "version": version, "features": features, "score": score,
            "class": class_, "latency_ms": latency_ms, "error": error, "sample_weight": sample_weight, "segments": segments,
        }
        return self._send(self._predictions_topic, record)

    def label(
        self,
        *,
        id: str | SupportsInt,   # noqa: A002 - the contract's word
        label: SupportsFloat | str | bool,
        time: str | int | float | None = None,
        model: str | None = None,
    ) -> bool:
        """Send the truth about an earlier prediction; parameters and result as for `prediction`."""
        return self._send(self._labels_topic, {"id": id, "time": _now_ms() if time is None else time, "label": label, "model": model})

    def flush(self, timeout: float = CLOSE_SECONDS) -> int:
        """Wait until every record is acknowledged or has failed; returns how many are still pending after `timeout` seconds."""
        self._producer.flush(timeout)
        return self.pending

    def close(self, timeout: float = CLOSE_SECONDS) -> int:
        """Flush and end the background thread; later records are dropped. Returns how many were still pending."""
        with self._lock:
            self._closed = True
        pending = self.flush(timeout)
        self._polling.set()
        if self._thread.is_alive():
            self._thread.join(10 * POLL_SECONDS)
        if pending:
            log.warning("publisher_closed pending=%d: not acknowledged within %g s", pending, timeout)
            # Nobody waits for them any more: their reports come now, and are counted.
            self._producer.purge()
            self._producer.flush(10 * POLL_SECONDS)
        return pending

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _start(self) -> None:
        try:
            # The client's own log would repeat what `_on_error` says once, every second.
            self._producer = Producer({**self._settings, "error_cb": self._on_error, "log_level": 2}, logger=log)
        except KafkaException as error:
            raise ValueError(f"properties: {error.args[0].str()}") from error
        self._pid = os.getpid()
        self._polling = threading.Event()
        self._thread = threading.Thread(target=_poll, args=(self._producer, self._polling), name="driftline-publish", daemon=True)
        self._thread.start()

    def _send(self, topic: str | None, record: dict[str, Any]) -> bool:
        if os.getpid() != self._pid:
            self._after_fork()
        if self._closed:
            return self._count_dropped()
        try:
            if topic is None:
                raise ValueError("this publisher was made without that topic")
            record["id"] = key = _text(record["id"])
            value = orjson.dumps({name: content for name, content in record.items() if content is not None}, _plain, _ORJSON)
            self._producer.produce(topic, value, key.encode(), on_delivery=self._on_delivery)
        except BufferError:
            return self._count_dropped()
        except Exception as error:   # noqa: BLE001 - a model service must not fail because of its monitoring
            return self._count_failed(error)
        with self._lock:
            self._taken += 1
        return True

    def _after_fork(self) -> None:
        """The parent's producer has no threads here: it can neither send nor be destroyed (it would wait for them)."""
        self._lock = threading.Lock()
        with self._lock:
            self._abandoned.append(self._producer)
            self._taken = self._delivered = self._dropped = self._failed = self._expired = 0
            self._start()

    def _on_error(self, error: KafkaError) -> None:
        """Errors of the connection: what a person must mend, once for each reason; what passes is counted when it does not."""
        if error.code() in _REFUSED and error.code() not in self._told:
            self._told.add(error.code())
            log.warning("publisher_refused code=%s error=%r hint=%r", error.name(), error.str(), _HINT)

    def _on_delivery(self, error: KafkaError | None, _message: Message) -> None:
        with self._lock:
            if error is None:
                self._delivered += 1
                return
            self._expired += 1
        self._count_failed(error)

    def _count_dropped(self) -> bool:
        with self._lock:
            self._dropped += 1
        return False

    def _count_failed(self, error: object) -> bool:
        with self._lock:
            self._failed += 1
            first = self._failed == 1
        if first:   # once: a million equal lines help nobody, the counter tells the rest
            log.warning("publish_failed error=%s (further failures are counted, not logged)", error)
        return False


def _poll(producer: Producer, ended: threading.Event) -> None:
    """Serve delivery reports; without it the queue would fill with finished records."""
    while not ended.is_set():
        producer.poll(POLL_SECONDS)


def _now_ms() -> int:
    return clock.time_ns() // 1_000_000


def _text(value: object) -> str:
    """An id as text: 7, "7" and numpy's 7 are one id, and keys of one partition."""
    return value if isinstance(value, str) else str(_plain(value) if hasattr(value, "tolist") else value)


def _plain(value: object) -> object:
    """What orjson does not know: numpy scalars of odd types, tensors, decimals; else text."""
    for name in ("tolist", "item"):
        convert = getattr(value, name, None)
        if convert is not None:
            return convert()
    try:
        return float(value)   # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value)
