"""What the alerts must be: the worker itself, uninterrupted, in memory, over the drift events that stand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from driftline.streams.alert.pipeline import AlertPipeline
from driftline.streams.alert.state import AlertState, IncidentState
from driftline.streams.alert.store import AlertStore, MemoryAlertStore, OutboxRow
from driftline.streams.alert.worker import AlertWorker, Names
from driftline.streams.task import MemoryRecord, Record


@dataclass(slots=True)
class Expected:
    """The uninterrupted run.

    Attributes
    ----------
    incidents : by id.
    rows : what was published, in order; no record twice.
    poison : place of every dead letter.
    applied : next offset by partition.
    """

    states: dict[str, AlertState] = field(default_factory=dict)
    incidents: dict[str, IncidentState] = field(default_factory=dict)
    rows: list[OutboxRow] = field(default_factory=list)
    poison: set[tuple[int, int]] = field(default_factory=set)
    applied: dict[int, int] = field(default_factory=dict)


class _Kept:
    """Keeps what Kafka would."""

    def __init__(self, expected: Expected) -> None:
        self._expected = expected

    def publish(self, rows: Sequence[OutboxRow]) -> None:
        self._expected.rows += rows

    def dead_letter(self, record: Record, *, error: str) -> None:
        self._expected.poison.add((record.partition(), record.offset()))


def uninterrupted(drift: Iterable[MemoryRecord], names: Names) -> Expected:
    """The run over the committed records of the drift topic, partition by partition."""
    expected, store = Expected(), MemoryAlertStore()
    worker = AlertWorker(AlertPipeline(), store, _Kept(expected), names)
    for record in drift:
        worker.handle([record])
        expected.applied[record.partition()] = record.offset() + 1
    expected.states = {state.alert.fingerprint: state for state in (*store.open_alerts(), *store.recent_alerts(1_000_000))}
    expected.incidents = {state.incident.id: state for state in incidents_of(store)}
    return expected


def incidents_of(store: AlertStore) -> list[IncidentState]:
    """Every incident of a store: those that fire, and those that ended."""
    return [*(state for book in store.books().values() for state in book.incidents), *store.recent_incidents(1_000_000)]
