"""Where alerts are kept: one write holds alert, incident, the applied offset and what is to be published.

PROTOCOL 18: dedup is by the applied offset of a partition, not by a set of ids; whoever applies must have seen the
offset he replaces (compare and set), so a zombie can neither apply twice nor overwrite with an older state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from driftline.streams.alert.state import AlertState, Book, IncidentState, decode_book, decode_incident, decode_state, encode_state

RECENT_MAX = 10_000
"""Resolved alerts, and incidents, kept for listing, newest first; the compacted topics keep all of them."""


class OutboxRow(msgspec.Struct, frozen=True, array_like=True):
    """A record to publish: deleted only after its delivery was confirmed.

    `order` sorts the rows of a partition: drift offset, then place within the event.
    """

    order: tuple[int, int]
    topic: str
    key: str
    value: str
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the store knows before an event is applied; `next_offset` None: nothing of this partition yet."""

    next_offset: int | None
    state: AlertState | None
    book: Book | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """One event taken: its effect on one partition.

    Attributes
    ----------
    partition : name of the drift partition, with the topic's id: a recreated topic starts its offsets anew.
    expected : `next_offset` as loaded; another value in the store refuses the write.
    next_offset : offset of the event plus one.
    books : the incidents of models that may still grow, by `book_key`.
    ended : an incident that has resolved with this event.
    """

    partition: str
    expected: int | None
    next_offset: int
    states: Mapping[str, AlertState] = field(default_factory=dict)
    outbox: Sequence[OutboxRow] = ()
    books: Mapping[str, Book] = field(default_factory=dict)
    ended: Sequence[IncidentState] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """What the topics of alerts and incidents say, to fill an empty store with."""

    states: Mapping[str, AlertState] = field(default_factory=dict)
    books: Mapping[str, Book] = field(default_factory=dict)
    ended: Sequence[IncidentState] = ()


class AlertStore(Protocol):
    """The port; `MemoryAlertStore` and `RedisAlertStore` pass the same suite."""

    def load(self, partition: str, fingerprint: str, book: str = "") -> Loaded:
        """Applied offset, the alert's state and its model's incidents, read as one.

        Parameters
        ----------
        book : of the model (`incidents.book_key`).
        """

    def apply(self, change: Applied) -> bool:
        """Write all of `change`, or nothing and False when `expected` is not what the store has."""

    def next_offset(self, partition: str) -> int | None:
        """The offset after the last applied one."""

    def outbox(self, partition: str, limit: int) -> list[OutboxRow]:
        """The oldest unpublished rows, in order."""

    def published(self, partition: str, rows: Iterable[OutboxRow]) -> None:
        """Forget rows whose delivery was confirmed; rows already forgotten are no error."""

    def seed(self, published: Published) -> None:
        """Put what was read from the topics, where the store has none."""

    def open_alerts(self) -> list[AlertState]:
        """Every firing alert, by fingerprint."""

    def recent_alerts(self, limit: int) -> list[AlertState]:
        """Resolved alerts, the last resolved first."""

    def books(self) -> dict[str, Book]:
        """The incidents of every model that are not resolved, by `incidents.book_key`."""

    def recent_incidents(self, limit: int) -> list[IncidentState]:
        """Resolved incidents, the last resolved first."""


class MemoryAlertStore:
    """For tests, `replay` and runs without Redis; states pass through their bytes, as in Redis."""

    def __init__(self, *, recent_max: int = RECENT_MAX) -> None:
        self._recent_max = recent_max
        self._states: dict[str, bytes] = {}
        self._next: dict[str, int] = {}
        self._outbox: dict[str, dict[tuple[int, int], OutboxRow]] = {}
        self._open: set[str] = set()
        self._recent: dict[str, int] = {}
        self._books: dict[str, bytes] = {}
        self._ended: dict[str, tuple[int, bytes]] = {}

    def load(self, partition: str, fingerprint: str, book: str = "") -> Loaded:
        raw, incidents = self._states.get(fingerprint), self._books.get(book)
        state = decode_state(raw) if raw is not None else None
        return Loaded(self._next.get(partition), state, decode_book(incidents) if incidents is not None else None)

    def apply(self, change: Applied) -> bool:
        if self._next.get(change.partition) != change.expected:
            return False
        self._next[change.partition] = change.next_offset
        for fingerprint, state in change.states.items():
            self._put(fingerprint, state)
        self._books.update({key: encode_state(book) for key, book in change.books.items()})
        for incident in change.ended:
            self._end(incident)
        rows = self._outbox.setdefault(change.partition, {})
        rows.update({row.order: row for row in change.outbox})
        return True

    def next_offset(self, partition: str) -> int | None:
        return self._next.get(partition)

    def outbox(self, partition: str, limit: int) -> list[OutboxRow]:
        rows = self._outbox.get(partition, {})
        return [rows[order] for order in sorted(rows)[:limit]]

    def published(self, partition: str, rows: Iterable[OutboxRow]) -> None:
        waiting = self._outbox.get(partition, {})
        for row in rows:
            waiting.pop(row.order, None)

    def seed(self, published: Published) -> None:
        for fingerprint, state in published.states.items():
            if fingerprint not in self._states:
                self._put(fingerprint, state)
        for key, book in published.books.items():
            self._books.setdefault(key, encode_state(book))
        for incident in published.ended:
            if incident.incident.id not in self._ended:
                self._end(incident)

    def open_alerts(self) -> list[AlertState]:
        return [decode_state(self._states[fingerprint]) for fingerprint in sorted(self._open)]

    def recent_alerts(self, limit: int) -> list[AlertState]:
        newest = sorted(self._recent, key=lambda fingerprint: (-self._recent[fingerprint], fingerprint))
        return [decode_state(self._states[fingerprint]) for fingerprint in newest[:limit]]

    def books(self) -> dict[str, Book]:
        return {key: decode_book(self._books[key]) for key in sorted(self._books)}

    def recent_incidents(self, limit: int) -> list[IncidentState]:
        newest = sorted(self._ended, key=lambda id_: (-self._ended[id_][0], id_))
        return [decode_incident(self._ended[id_][1]) for id_ in newest[:limit]]

    def _end(self, state: IncidentState) -> None:
        self._ended[state.incident.id] = (state.incident.ends_at_ms or 0, encode_state(state))
        while len(self._ended) > self._recent_max:
            del self._ended[min(self._ended, key=lambda id_: (self._ended[id_][0], id_))]

    def _put(self, fingerprint: str, state: AlertState) -> None:
        self._states[fingerprint] = encode_state(state)
        if state.alert.condition == "firing":
            self._open.add(fingerprint)
            self._recent.pop(fingerprint, None)
            return
        self._open.discard(fingerprint)
        self._recent[fingerprint] = state.alert.ends_at_ms or 0
        while len(self._recent) > self._recent_max:
            oldest = min(self._recent, key=lambda key: (self._recent[key], key))
            del self._recent[oldest], self._states[oldest]
