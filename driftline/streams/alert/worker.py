"""One drift event at a time: decode, decide, store, publish; without Faust, so that tests drive the same object."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from driftline.streams.alert.pipeline import RANK, AlertPipeline, Decision, PoisonEventError, decode, fingerprint_of
from driftline.streams.alert.state import AlertState, Source
from driftline.streams.alert.store import AlertStore, Applied, OutboxRow
from driftline.streams.alert.wire import outbox_rows, state_row
from driftline.streams.errors import RecoverableError, StateError
from driftline.streams.metrics import ALERT_TRANSITIONS, ALERTS, DEAD_LETTERS, RECORDS, Metrics
from driftline.streams.task import Record

log = logging.getLogger(__name__)

STAGE = "alert"
OUTBOX_BATCH = 500
RECENT_REPUBLISHED = 200
CAS_ATTEMPTS = 8
"""A refused write means another worker took the partition's event just now; more than a few is not a race."""


class AlertContentionError(RecoverableError):
    """Two workers fight for one partition; stop and let the group settle."""


class Publisher(Protocol):
    """Kafka, as the worker needs it: both calls return when every record is acknowledged, or raise."""

    def publish(self, rows: Sequence[OutboxRow]) -> None: ...

    def dead_letter(self, record: Record, *, error: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Names:
    """The names the worker needs.

    Attributes
    ----------
    environment : of the configuration.
    prefix : of our topics.
    topic_id : of the drift topic; a recreated topic starts its offsets anew and must not meet old ones.
    """

    environment: str
    prefix: str
    topic_id: str


class AlertWorker:
    """Applies drift events to the store and publishes what follows from them.

    `handle` of a record that was handled before changes and publishes nothing.
    """

    def __init__(
        self, pipeline: AlertPipeline, store: AlertStore, publisher: Publisher, names: Names, *, metrics: Metrics | None = None
    ) -> None:
        self._pipeline = pipeline
        self._store = store
        self._publisher = publisher
        self._names = names
        self._metrics = metrics or Metrics()
        self._known: dict[str, int] = {}

    def partition_key(self, partition: int) -> str:
        return f"{self._names.topic_id}/{partition}"

    def next_offset(self, partition: int) -> int | None:
        """The offset after the last one applied to the store."""
        return self._store.next_offset(self.partition_key(partition))

    def handle(self, records: Sequence[Record]) -> None:
        """Take records in order; when it returns all their effects are stored, delivered and gone from the outbox."""
        for record in records:
            self.apply(record)
        for partition in sorted({record.partition() for record in records}):
            self.flush(partition)

    def apply(self, record: Record) -> None:
        """Store the effect of one record; a poison record reaches the dead-letter topic before its offset is applied."""
        source = Source(self._names.topic_id, record.partition(), record.offset())
        try:
            event = decode(record.value(), record.headers())
        except PoisonEventError as error:
            self._poison(record, source, str(error))
            return
        decision = self._store_decision(source, fingerprint_of(event), lambda before: self._pipeline.process(event, source, before))
        self._metrics.add(RECORDS, 1, "drift", decision.dropped or "ok")
        if (transition := decision.transition) is not None:
            self._metrics.add(ALERT_TRANSITIONS, 1, event.monitor, transition.condition or "note", transition.change)

    def flush(self, partition: int) -> int:
        """Publish the partition's outbox, await delivery, forget the rows; returns how many were published."""
        key = self.partition_key(partition)
        count = 0
        while rows := self._store.outbox(key, OUTBOX_BATCH):
            self._publisher.publish(rows)
            self._store.published(key, rows)
            count += len(rows)
        return count

    def republish(self, partitions: Iterable[int]) -> int:
        """Publish open and recent alerts of these partitions again; readers know them by their `seq`."""
        keys = {self.partition_key(partition) for partition in partitions}
        opened = self._store.open_alerts()
        states = [state for state in (*opened, *self._store.recent_alerts(RECENT_REPUBLISHED)) if state.source in keys]
        for partition in sorted(partitions):
            self.flush(partition)
        self._publisher.publish([state_row(state, prefix=self._names.prefix) for state in states])
        counts = Counter(state.alert.severity for state in opened)
        for severity in RANK:
            self._metrics.set(ALERTS, counts[severity], severity, "firing")
        return len(states)

    def _poison(self, record: Record, source: Source, reason: str) -> None:
        if (self._store.next_offset(source.key) or 0) > source.offset:
            return
        log.warning("drift_event_dead_lettered partition=%d offset=%d reason=%s", source.partition, source.offset, reason)
        self._publisher.dead_letter(record, error=reason)
        self._metrics.add(DEAD_LETTERS, 1, STAGE, "invalid")
        self._store_decision(source, "", lambda _before: Decision(""))

    def _store_decision(self, source: Source, fingerprint: str, decide: Callable[[AlertState | None], Decision]) -> Decision:
        for _ in range(CAS_ATTEMPTS):
            loaded = self._store.load(source.key, fingerprint)
            self._check_progress(source.key, loaded.next_offset)
            if loaded.next_offset is not None and loaded.next_offset > source.offset:
                return Decision(fingerprint, dropped="applied")
            decision = decide(loaded.state)
            change = Applied(
                partition=source.key,
                expected=loaded.next_offset,
                next_offset=source.offset + 1,
                states={fingerprint: decision.state} if decision.state is not None else {},
                outbox=outbox_rows(decision, source, prefix=self._names.prefix, environment=self._names.environment),
            )
            if self._store.apply(change):
                self._known[source.key] = change.next_offset
                return decision
        raise AlertContentionError(
            f"offset {source.offset} of drift partition {source.partition} was refused {CAS_ATTEMPTS} times:"
            " another worker applies the same partition"
        )

    def _check_progress(self, key: str, next_offset: int | None) -> None:
        """A store that knows less than it was told has lost writes: going on would leave a hole in the alerts."""
        known = self._known.get(key)
        if known is not None and (next_offset is None or next_offset < known):
            raise StateError(
                f"the alert store was at offset {known} of drift partition {key} and is now at {next_offset}: Redis lost writes",
                hint="start the alert processor again; it goes back to where Redis stands and takes the events again",
            )
