"""Event by event through store and outbox: crashes between any two steps lose and double nothing in the state."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import deepcopy

import pytest

from driftline.schemas.contracts import decode
from driftline.schemas.events import Alert, Incident
from driftline.streams.alert.pipeline import AlertPipeline
from driftline.streams.alert.recovery import contents, state_of
from driftline.streams.alert.state import AlertState, IncidentState
from driftline.streams.alert.store import Applied, MemoryAlertStore, OutboxRow, Published
from driftline.streams.alert.wire import SOURCE_HEADER, source_offset
from driftline.streams.alert.worker import AlertContentionError, AlertWorker, BeginAgainError, Names
from driftline.streams.errors import AwayError
from driftline.streams.metrics import ALERTS as ALERT_GAUGE
from driftline.streams.metrics import Metrics
from driftline.streams.task import MemoryRecord, Record
from tests.alert.conftest import MakeEvent, MakeRecord


class Recording:
    """A publisher that keeps what it was given, and fails on demand."""

    def __init__(self) -> None:
        self.rows: list[OutboxRow] = []
        self.dead: list[tuple[int, str]] = []
        self.away = False

    def publish(self, rows: Sequence[OutboxRow]) -> None:
        if self.away:
            raise AwayError("no broker")
        self.rows += rows

    def dead_letter(self, record: Record, *, error: str) -> None:
        if self.away:
            raise AwayError("no broker")
        self.dead.append((record.offset(), error))


def worker_of(store: MemoryAlertStore, publisher: Recording) -> AlertWorker:
    return AlertWorker(AlertPipeline(), store, publisher, Names("test", "driftline", "topic-id"))


@pytest.fixture
def store() -> MemoryAlertStore:
    return MemoryAlertStore()


@pytest.fixture
def publisher() -> Recording:
    return Recording()


@pytest.fixture
def worker(store: MemoryAlertStore, publisher: Recording) -> AlertWorker:
    return worker_of(store, publisher)


@pytest.fixture
def records(drift_event: MakeEvent, drift_record: MakeRecord) -> list[MemoryRecord]:
    events = [drift_event(1), drift_event(2, kind="evidence", severity="critical"), drift_event(3, kind="recovery")]
    return [drift_record(event, offset) for event, offset in zip(events, (0, 4, 6), strict=True)]


def published_by(rows: Sequence[OutboxRow]) -> Published:
    """What the topics say after these rows."""
    alerts, incidents = dict[str, AlertState](), dict[str, IncidentState]()
    for row in rows:
        if row.topic == "driftline.transitions":
            continue
        record = decode(row.topic, row.value.encode(), [(name, value.encode()) for name, value in row.headers])
        key, offset = source_offset(dict(row.headers)[SOURCE_HEADER].encode())
        if isinstance(record, Alert):
            alerts[row.key] = state_of(record, key, offset)
        elif isinstance(record, Incident):
            incidents[row.key] = IncidentState(incident=record, source=key, offset=offset)
    return contents(alerts, incidents)


def ids(rows: Sequence[OutboxRow]) -> list[tuple[str, str]]:
    return [(row.topic, dict(row.headers)["ce_id"]) for row in rows]


TRANSITIONS = [("driftline.transitions", f"ep1/{seq}") for seq in (1, 2, 3)]
ALERTS = [("driftline.alerts", f"ep1/{seq}") for seq in (1, 2, 3)]
ABOUT = '{"environment":"test","model":"fraud","monitor":"feature_drift","segment":null,"series":"feature:amount"}'
FINGERPRINT = hashlib.sha256(ABOUT.encode()).hexdigest()[:32]
INCIDENT = hashlib.sha256(f'["test","fraud","incident","{FINGERPRINT}","ep1"]'.encode()).hexdigest()[:32]
INCIDENTS = [("driftline.incidents", f"{INCIDENT}/{seq}") for seq in (1, 2, 3)]
LIFE = [*TRANSITIONS, *INCIDENTS, *ALERTS]


def test_transitions_come_before_incidents_and_those_before_alerts_and_the_outbox_is_empty(
    worker: AlertWorker, store: MemoryAlertStore, publisher: Recording, records: list[MemoryRecord]
) -> None:
    worker.handle(records)
    assert ids(publisher.rows) == LIFE
    assert store.outbox("topic-id/0", 10) == []
    assert worker.next_offset(0) == 7


def test_published_records_keep_their_contracts(worker: AlertWorker, publisher: Recording, records: list[MemoryRecord]) -> None:
    worker.handle(records)
    for row in publisher.rows:
        decode(row.topic, row.value.encode(), [(name, value.encode()) for name, value in row.headers])


def test_records_handled_again_change_and_publish_nothing(
    worker: AlertWorker, store: MemoryAlertStore, publisher: Recording, records: list[MemoryRecord]
) -> None:
    worker.handle(records)
    before = len(publisher.rows)
    worker.handle(records)
    worker_of(store, publisher).handle(records)
    assert len(publisher.rows) == before


def test_crash_between_state_and_publishing_is_made_good_from_the_outbox(
    worker: AlertWorker, store: MemoryAlertStore, publisher: Recording, records: list[MemoryRecord]
) -> None:
    publisher.away = True
    with pytest.raises(AwayError):
        worker.handle(records)
    publisher.away = False
    worker_of(store, publisher).handle(records)   # the offsets were never committed: the records come again
    assert ids(publisher.rows) == LIFE


def test_two_workers_on_one_partition_apply_each_event_once(
    worker: AlertWorker, store: MemoryAlertStore, publisher: Recording, records: list[MemoryRecord]
) -> None:
    zombie = worker_of(store, publisher)
    worker.handle(records[:2])
    zombie.handle(records)
    worker.handle(records)
    assert ids(publisher.rows) == [*TRANSITIONS[:2], *INCIDENTS[:2], *ALERTS[:2], TRANSITIONS[2], INCIDENTS[2], ALERTS[2]]


def test_zombie_that_lost_the_race_reads_the_new_state_first(
    store: MemoryAlertStore, publisher: Recording, records: list[MemoryRecord]
) -> None:
    class Late(MemoryAlertStore):
        """Another worker applies the same event between load and apply."""

        raced = False

        def apply(self, change: Applied) -> bool:
            if not self.raced:
                self.raced = True
                worker_of(self, publisher).apply(records[0])
            return super().apply(change)

    late = Late()
    worker_of(late, publisher).handle(records[:1])
    assert ids(late.outbox("topic-id/0", 10) + publisher.rows) == [TRANSITIONS[0], INCIDENTS[0], ALERTS[0]]


def test_endless_contention_is_an_error(publisher: Recording, records: list[MemoryRecord]) -> None:
    class Refusing(MemoryAlertStore):
        def apply(self, change: Applied) -> bool:
            return False

    with pytest.raises(AlertContentionError):
        worker_of(Refusing(), publisher).handle(records)


def test_store_that_lost_writes_under_a_running_worker_stops_it(
    worker: AlertWorker, store: MemoryAlertStore, records: list[MemoryRecord]
) -> None:
    worker.handle(records[:2])
    store._next.clear()
    with pytest.raises(BeginAgainError, match="Redis lost writes"):
        worker.handle(records[2:])
    with pytest.raises(BeginAgainError, match="Redis lost writes"):
        worker.check([0])


def test_store_that_lost_writes_before_a_started_workers_first_event_stops_it(
    worker: AlertWorker, store: MemoryAlertStore, publisher: Recording, records: list[MemoryRecord]
) -> None:
    """A partition may be quiet for hours after a start: what was read then is what the store was told."""
    worker.handle(records[:1])
    old = deepcopy(store.__dict__)
    worker.handle(records[1:2])
    started = worker_of(store, publisher)
    assert started.next_offset(0) == 5
    store.__dict__.update(old)
    with pytest.raises(BeginAgainError, match="Redis lost writes"):
        started.check([0])
    with pytest.raises(BeginAgainError, match="Redis lost writes"):
        started.handle(records[2:])
    started.begin_again()
    assert started.next_offset(0) == 1
    publisher.rows.clear()
    started.handle(records)
    assert ids(publisher.rows) == [*TRANSITIONS[1:], *INCIDENTS[1:], *ALERTS[1:]]


def test_store_that_lost_writes_publishes_nothing_older_again(
    worker: AlertWorker, store: MemoryAlertStore, publisher: Recording, records: list[MemoryRecord]
) -> None:
    worker.handle(records[:1])
    old = deepcopy(store.__dict__)
    worker.handle(records[1:])
    store.__dict__.update(old)   # Redis came back with what it had a moment ago
    publisher.rows.clear()
    with pytest.raises(BeginAgainError):
        worker.republish([0])
    assert publisher.rows == []
    worker.begin_again()
    worker.handle(records)
    assert ids(publisher.rows) == [*TRANSITIONS[1:], *INCIDENTS[1:], *ALERTS[1:]]


class DiesWithAlerts(Recording):
    """Kafka is gone by the time alerts come."""

    def publish(self, rows: Sequence[OutboxRow]) -> None:
        if any(row.topic == "driftline.alerts" for row in rows):
            raise AwayError("no broker")
        super().publish(rows)


def test_no_alert_is_on_its_topic_whose_transition_or_incident_is_not(store: MemoryAlertStore, records: list[MemoryRecord]) -> None:
    """A store that is filled from the alerts topic takes those events as done: the rest would never come."""
    publisher = DiesWithAlerts()
    with pytest.raises(AwayError):
        worker_of(store, publisher).handle(records)
    assert ids(publisher.rows) == [*TRANSITIONS, *INCIDENTS]


def test_poison_record_is_dead_lettered_once_and_the_next_event_still_counts(
    worker: AlertWorker, store: MemoryAlertStore, publisher: Recording, records: list[MemoryRecord]
) -> None:
    poison = MemoryRecord("driftline.drift", 0, 3, None, b"{nonsense", 0)
    worker.handle([records[0], poison, records[1]])
    worker.handle([poison])
    assert [offset for offset, _ in publisher.dead] == [3]
    assert worker.next_offset(0) == 5


def test_poison_record_is_not_applied_while_the_dead_letter_cannot_be_written(worker: AlertWorker, publisher: Recording) -> None:
    publisher.away = True
    with pytest.raises(AwayError):
        worker.handle([MemoryRecord("driftline.drift", 0, 3, None, b"{nonsense", 0)])
    assert worker.next_offset(0) is None


def test_open_and_recent_alerts_are_published_again_with_the_same_bytes(
    worker: AlertWorker, publisher: Recording, records: list[MemoryRecord], drift_event: MakeEvent, drift_record: MakeRecord
) -> None:
    worker.handle([*records, drift_record(drift_event(9, series="score", episode="s"), 9)])
    last = {row.key: row for row in publisher.rows if row.topic != "driftline.transitions"}
    assert len(last) == 4
    publisher.rows.clear()
    assert worker.republish([0]) == 2
    assert {row.key: row for row in publisher.rows} == last


def test_alerts_of_partitions_of_others_are_not_published_again(
    worker: AlertWorker, publisher: Recording, records: list[MemoryRecord]
) -> None:
    worker.handle(records)
    publisher.rows.clear()
    assert worker.republish([1]) == 0


def test_recreated_topic_starts_from_its_first_offset(store: MemoryAlertStore, publisher: Recording, records: list[MemoryRecord]) -> None:
    worker_of(store, publisher).handle(records)
    recreated = AlertWorker(AlertPipeline(), store, publisher, Names("test", "driftline", "another-id"))
    assert recreated.next_offset(0) is None


def test_store_seeded_from_the_alerts_topic_takes_old_events_without_effect(
    worker: AlertWorker, publisher: Recording, records: list[MemoryRecord], drift_event: MakeEvent, drift_record: MakeRecord
) -> None:
    worker.handle(records[:2])
    empty, silent = MemoryAlertStore(), Recording()
    empty.seed(published_by(publisher.rows))
    rebuilt = worker_of(empty, silent)
    rebuilt.handle(records)   # from the start of the log
    assert ids(silent.rows) == [TRANSITIONS[2], INCIDENTS[2], ALERTS[2]]


def test_refilled_store_knows_duplicates_and_closed_episodes_again(
    publisher: Recording, drift_event: MakeEvent, drift_record: MakeRecord
) -> None:
    """An alert of the compacted topic names neither; the drift topic, read again, does."""
    first, end, other = drift_event(1), drift_event(2, kind="recovery"), drift_event(3, episode="ep2")
    records = [drift_record(event, offset) for offset, event in enumerate((first, end, other))]
    worker_of(MemoryAlertStore(), publisher).handle(records)
    empty, silent = MemoryAlertStore(), Recording()
    empty.seed(published_by(publisher.rows))
    late = drift_event(9, kind="evidence", episode="ep1", severity="critical")
    again = [drift_record(event, offset) for offset, event in enumerate((other, late), start=3)]
    worker_of(empty, silent).handle([*records, *again])
    assert silent.rows == []


def test_open_alerts_are_counted_by_the_worker_that_owns_their_partition(
    store: MemoryAlertStore, publisher: Recording, drift_event: MakeEvent, drift_record: MakeRecord
) -> None:
    mine, theirs = Metrics(), Metrics()
    names = Names("test", "driftline", "topic-id")
    one = AlertWorker(AlertPipeline(), store, publisher, names, metrics=mine)
    two = AlertWorker(AlertPipeline(), store, publisher, names, metrics=theirs)
    one.handle([drift_record(drift_event(1), 0)])
    two.handle([drift_record(drift_event(2, series="score", episode="s"), 0, 1)])
    one.republish([0])
    two.republish([1])
    assert (mine.value(ALERT_GAUGE, "warning", "firing"), theirs.value(ALERT_GAUGE, "warning", "firing")) == (1, 1)


@pytest.mark.parametrize("header", [
    b"", b"x/5", b"topic-id/0/-5", b"topic-id/0/1_0", "topic-id/0/\u0661".encode(), b"topic-id//5", b"\xff/0/5",
])  # fmt: skip
def test_header_that_names_no_place_is_refused_before_it_is_in_the_store(header: bytes) -> None:
    """The store would refuse it at every start, however often its keys are deleted: it is filled from the same record again."""
    assert source_offset(b"a/b/0/5") == ("a/b/0", 5)
    with pytest.raises(ValueError, match=r"expected a topic|can't decode"):
        source_offset(header)
