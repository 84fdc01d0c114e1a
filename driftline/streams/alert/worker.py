"""One drift event at a time: decode, decide, store, publish; without Faust, so that tests drive the same object."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec import structs

from driftline.schemas.topics import ALERTS as ALERTS_TOPIC
from driftline.schemas.topics import INCIDENTS as INCIDENTS_TOPIC
from driftline.streams.alert.blame import RANK
from driftline.streams.alert.incidents import book_key, listed
from driftline.streams.alert.pipeline import AlertPipeline, Decision, PoisonEventError, decode, fingerprint_of
from driftline.streams.alert.state import AlertState, Book, IncidentState, Source
from driftline.streams.alert.store import AlertStore, Applied, Loaded, OutboxRow
from driftline.streams.alert.wire import incident_row, outbox_rows, state_row
from driftline.streams.errors import RecoverableError
from driftline.streams.metrics import (
    ALERT_TRANSITIONS,
    ALERTS,
    DEAD_LETTERS,
    INCIDENT_ALERTS,
    INCIDENTS,
    INCIDENTS_OPENED,
    RECORDS,
    Metrics,
)
from driftline.streams.runner.failpoint import ALERT_STEPS, Failpoints
from driftline.streams.task import Record

log = logging.getLogger(__name__)

STAGE = "alert"
OUTBOX_BATCH = 500
RECENT_REPUBLISHED = 200
_NO_PARTITION = "none"
"""What a worker without partitions asks the store for, to see that it answers."""
CAS_ATTEMPTS = 8
"""A refused write means another worker took the partition's event just now; more than a few is not a race."""


class AlertContentionError(RecoverableError):
    """Two workers fight for one partition; stop and let the group settle."""


class BeginAgainError(RecoverableError):
    """The app cannot go on from where it is; a new one begins where the store stands."""


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
        self._topics = INCIDENTS_TOPIC.full_name(names.prefix), ALERTS_TOPIC.full_name(names.prefix)
        self._metrics = metrics or Metrics()
        self._failpoints = Failpoints(steps=ALERT_STEPS)
        self._known: dict[str, int] = {}

    def partition_key(self, partition: int) -> str:
        return f"{self._names.topic_id}/{partition}"

    def next_offset(self, partition: int) -> int | None:
        """The offset after the last one applied to the store; a store that says less later has lost writes."""
        key = self.partition_key(partition)
        found = self._store.next_offset(key)
        if found is not None:
            self._known[key] = max(found, self._known.get(key, 0))
        return found

    def knows_none(self) -> bool:
        """Whether the store has no alert, neither open nor resolved lately."""
        return not self._store.open_alerts() and not self._store.recent_alerts(1)

    def handle(self, records: Sequence[Record]) -> None:
        """Take records in order; when it returns all their effects are stored, delivered and gone from the outbox."""
        for record in records:
            self.apply(record)
        for partition in sorted({record.partition() for record in records}):
            self.flush(partition)

    def apply(self, record: Record) -> None:
        """Store the effect of one record; a poison record reaches the dead-letter topic before its offset is applied."""
        source = Source(self._names.topic_id, record.partition(), record.offset())
        self._failpoints.reach("alert_taken")
        try:
            event = decode(record.value(), record.headers())
        except PoisonEventError as error:
            self._poison(record, source, str(error))
            return
        key = book_key(event.environment, event.model)
        decision = self._store_decision(
            source, fingerprint_of(event), key, lambda before: self._pipeline.process(event, source, before.state, before.book)
        )
        self._metrics.add(RECORDS, 1, "drift", decision.dropped or "ok")
        if (transition := decision.transition) is not None:
            self._metrics.add(ALERT_TRANSITIONS, 1, event.monitor, transition.condition or "note", transition.change)
        for changed in decision.incidents:
            self._metrics.add(INCIDENTS_OPENED, int(changed.incident.seq == 1), event.model)
            if changed.incident.condition == "resolved":
                self._metrics.observe(INCIDENT_ALERTS, changed.incident.alerts, event.model)

    def flush(self, partition: int) -> int:
        """Publish the partition's outbox, await delivery, forget the rows; returns how many were published.

        Transitions are delivered before incidents, and those before alerts: a store that is filled again from the topics takes
        no event twice whose alert is there, so what was not there by then would never come.
        """
        key = self.partition_key(partition)
        count = 0
        while rows := self._store.outbox(key, OUTBOX_BATCH):
            self._failpoints.reach("alert_sending")
            by_topic: dict[str, list[OutboxRow]] = defaultdict(list)
            for row in rows:
                by_topic[row.topic].append(row)
            for topic in sorted(by_topic, key=lambda topic: self._topics.index(topic) if topic in self._topics else -1):
                self._publisher.publish(by_topic[topic])
            self._failpoints.reach("alert_delivered")
            self._store.published(key, rows)
            self._failpoints.reach("alert_deleted")
            count += len(rows)
        return count

    def republish(self, partitions: Iterable[int]) -> int:
        """Publish open and recent alerts and incidents of these partitions again; readers know them by their `seq`.

        Returns
        -------
        How many alerts.

        Raises
        ------
        BeginAgainError : the store has lost writes; what it still holds is older than what was published.
        """
        owned = sorted(partitions)
        self.check(owned)
        keys = {self.partition_key(partition) for partition in owned}
        self._adopt(keys)
        opened = [state for state in self._store.open_alerts() if state.source in keys]
        recent = [state for state in self._store.recent_alerts(RECENT_REPUBLISHED) if state.source in keys]
        for partition in owned:
            self.flush(partition)
        books = self._store.books()
        current = [state for book in books.values() for state in book.incidents if state.source in keys]
        ended = [state for state in self._store.recent_incidents(RECENT_REPUBLISHED) if state.source in keys]
        self._publisher.publish([incident_row(state, prefix=self._names.prefix) for state in (*current, *ended)])
        self._publisher.publish([state_row(state, prefix=self._names.prefix) for state in (*opened, *recent)])
        counts = Counter(state.alert.severity for state in opened)
        incidents = Counter(state.incident.severity for state in current if state.incident.condition == "firing")
        for severity in RANK:
            self._metrics.set(ALERTS, counts[severity], severity, "firing")
            self._metrics.set(INCIDENTS, incidents[severity], severity)
        return len(opened) + len(recent)

    def check(self, partitions: Iterable[int]) -> None:
        """See that the store still knows what it was told.

        Raises
        ------
        BeginAgainError : it does not: Redis was emptied or rolled back.
        AwayError : it does not answer.
        """
        for key in [self.partition_key(partition) for partition in partitions] or [_NO_PARTITION]:
            self._check_known(key, self._store.next_offset(key))

    def begin_again(self) -> None:
        """Forget what the store was told: from now on what it says holds."""
        self._known.clear()

    def _poison(self, record: Record, source: Source, reason: str) -> None:
        if (self._store.next_offset(source.key) or 0) > source.offset:
            return
        log.warning("drift_event_dead_lettered partition=%d offset=%d reason=%r", source.partition, source.offset, reason)
        self._publisher.dead_letter(record, error=reason)
        self._metrics.add(DEAD_LETTERS, 1, STAGE, "invalid")
        self._store_decision(source, "", "", lambda _before: Decision(""))

    def _adopt(self, partitions: Iterable[str]) -> None:
        """Give open alerts that are in no incident to one; a refused write means another worker has the partition now.

        Such alerts are of a store from before there were incidents. Their own records change with their next event: a record
        that comes again has the same bytes.
        """
        # Before what is read with them: where one moves on in between, its write is refused.
        offsets = {partition: self._store.next_offset(partition) for partition in sorted(partitions)}
        books = self._store.books()
        lines: defaultdict[str, list[tuple[str, IncidentState]]] = defaultdict(list)
        for state in (state for book in books.values() for state in book.incidents):
            for one in state.incident.blamed:
                lines[one.fingerprint].append((one.episode, state))
        waiting: defaultdict[str, list[AlertState]] = defaultdict(list)
        for alert in self._store.open_alerts():
            if not _is_placed(alert, lines[alert.alert.fingerprint]):
                waiting[alert.source].append(alert)
        for partition, next_offset in offsets.items():
            if waiting[partition]:
                self._place(waiting[partition], books, partition, next_offset)

    def _place(self, opened: Sequence[AlertState], books: dict[str, Book], partition: str, next_offset: int | None) -> None:
        changed = dict[str, IncidentState]()
        written = dict[str, Book]()
        # By their last events: what an incident has taken up to an offset is not counted in it again.
        for state in sorted(opened, key=lambda state: state.offset):
            key = book_key(state.alert.environment, state.alert.model)
            found = self._pipeline.adopt(state, books.get(key, Book()))
            books[key] = written[key] = found.book
            changed |= {one.incident.id: one for one in found.changed}
        rows = [incident_row(state, prefix=self._names.prefix) for state in changed.values()]
        # A store that was just filled has applied nothing yet: 0 says the same.
        change = Applied(partition=partition, expected=next_offset, next_offset=next_offset or 0, outbox=rows, books=written)
        if self._store.apply(change):
            log.info("alerts_adopted alerts=%d incidents=%d", len(opened), len(changed))

    def _store_decision(self, source: Source, fingerprint: str, book: str, decide: Callable[[Loaded], Decision]) -> Decision:
        for _ in range(CAS_ATTEMPTS):
            loaded = self._store.load(source.key, fingerprint, book)
            self._check_known(source.key, loaded.next_offset)
            if loaded.next_offset is not None and loaded.next_offset > source.offset:
                return Decision(fingerprint, dropped="applied")
            decision = decide(loaded)
            change = Applied(
                partition=source.key,
                expected=loaded.next_offset,
                next_offset=source.offset + 1,
                states={fingerprint: decision.state} if decision.state is not None else {},
                outbox=outbox_rows(decision, source, prefix=self._names.prefix, environment=self._names.environment),
                books={book: decision.book} if decision.book is not None else {},
                ended=_ended(decision),
            )
            self._failpoints.reach("alert_decided")
            if self._store.apply(change):
                self._known[source.key] = change.next_offset
                self._failpoints.reach("alert_stored")
                return decision
        raise AlertContentionError(
            f"offset {source.offset} of drift partition {source.partition} was refused {CAS_ATTEMPTS} times:"
            " another worker applies the same partition"
        )

    def _check_known(self, key: str, next_offset: int | None) -> None:
        """A store that knows less than it was told has lost writes: going on would leave a hole in the alerts."""
        known = self._known.get(key)
        if known is not None and (next_offset is None or next_offset < known):
            raise BeginAgainError(
                f"the alert store was at offset {known} of drift partition {key} and is now at {next_offset}: Redis lost writes",
                hint="the events since then are taken again",
            )


def _is_placed(alert: AlertState, lines: Sequence[tuple[str, IncidentState]]) -> bool:
    """Whether an incident has the alert, or a later episode of it whose events the refilled store has yet to take."""
    return any(
        episode == alert.alert.episode or (held.source == alert.source and alert.offset <= held.offset) for episode, held in lines
    )


def _ended(decision: Decision) -> list[IncidentState]:
    """The incidents that resolve with a decision: of them only what is published is kept."""
    ended = (state for state in decision.incidents if state.incident.condition != "firing")
    return [structs.replace(state, incident=listed(state.incident)) for state in ended]
