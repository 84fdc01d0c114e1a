"""Whoever publishes predictions and labels: a thread that sends the stream at its pace, and remembers what it sent."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from confluent_kafka import Producer

from driftline.streams.task import PartitionId
from tests.chaos.inputs import PARTITIONS, Input, InputStream, Stream

_FLUSH_SECONDS: Final = 180.0
_POLL_SECONDS: Final = 0.01


class Feeder:
    """Sends inputs until it is told to stop; keeps sending, later, when the broker was away.

    Attributes
    ----------
    sent : what was sent, by source partition, in order.
    skew_ms : added to the record times of all that follows: a producer with a wrong clock.
    idle : source partitions that get nothing; what was meant for them goes to the next one.
    slower : by how much the stream's own time is stretched: 1 is its rate.
    held : nothing is sent meanwhile.
    """

    def __init__(self, bootstrap: str, sources: Mapping[Stream, str], stream: InputStream) -> None:
        # Idempotent, so that what stands in the sources is this list, whatever happens to the broker.
        settings: dict[str, Any] = {"enable.idempotence": True, "linger.ms": 2, "message.timeout.ms": 0, "log_level": 0}
        settings |= {"compression.type": "lz4", "message.max.bytes": 8 << 20}
        self._producer = Producer({"bootstrap.servers": bootstrap, **settings})
        self._sources = sources
        self._stream = stream
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)
        self._start = time.time()
        self.sent: dict[PartitionId, list[Input]] = defaultdict(list)
        self.skew_ms = 0
        self.slower = 1.0
        self.held = False
        self.idle: frozenset[PartitionId] = frozenset()

    @property
    def count(self) -> int:
        return sum(map(len, self.sent.values()))

    def start(self) -> None:
        self._start = time.time()
        self._thread.start()

    def burst(self, count: int) -> None:
        """Bad records of every kind, as fast as they go out."""
        self._send(self._stream.burst(count, self._now_ms()))

    def send_large(self) -> None:
        """Bad records far above the limit of a dead letter, and good ones with a text as long."""
        self._send(self._stream.large(self._now_ms()))

    def send(self, items: Iterable[Input]) -> None:
        """Inputs beside the stream's own."""
        self._send(items)

    def stop(self) -> None:
        """Stop sending; returns when the broker has everything."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure
        left = self._producer.flush(_FLUSH_SECONDS)
        assert left == 0, f"the broker did not take {left} inputs in {_FLUSH_SECONDS:.0f} s"

    def _placed(self, item: Input) -> Input:
        while (self._sources[item.stream], item.partition) in self.idle:
            item = replace(item, partition=(item.partition + 1) % PARTITIONS)
        return item

    def _now_ms(self) -> int:
        return round((time.time() - self._start) * 1000)

    def _run(self) -> None:
        try:
            last_ms = 0
            for item in self._stream:
                # Record times go by the wall; what is stretched begins later.
                self._start += (item.at_ms - last_ms) / 1000 * (self.slower - 1)
                last_ms = item.at_ms
                while self.held and not self._stopping.wait(_POLL_SECONDS):
                    self._start = time.time() - item.at_ms / 1000
                while self._now_ms() < item.at_ms:
                    if self._stopping.wait(_POLL_SECONDS):
                        break
                if self._stopping.is_set():
                    return
                self._send([item])
        except BaseException as error:  # noqa: BLE001 - raised again by whoever stops it
            self._failure = error

    def _send(self, items: Iterable[Input]) -> None:
        with self._lock:
            for item in map(self._placed, items):
                topic = self._sources[item.stream]
                time_ms = round(self._start * 1000) + item.at_ms + self.skew_ms
                while True:
                    try:
                        self._producer.produce(topic, item.value, partition=item.partition, timestamp=time_ms)
                        break
                    except BufferError:
                        self._producer.poll(0.1)
                self.sent[topic, item.partition].append(item)
                self._producer.poll(0)
