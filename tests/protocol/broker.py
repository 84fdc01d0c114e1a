"""A Kafka in memory, as far as the runner sees one: logs, transactions, offsets with metadata, and a group.

What matters for exactly once is as on a real broker (4.x with a client that lacks KIP-890): records of an open transaction
hold up read-committed readers, markers take an offset, a new `init_transactions` and a timeout raise the epoch and fence,
offsets of an open transaction make the committed ones unreadable, and a delayed end hits whatever is open when it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from confluent_kafka import KafkaError

from driftline.streams.task import PartitionId
from tests.protocol.group import Group, failed

SESSION_SECONDS = 10.0
TRANSACTION_SECONDS = 15.0


@dataclass(slots=True, eq=False)
class Entry:
    """A place in a log."""

    state: Literal["open", "committed", "aborted", "marker"]
    key: bytes | None = None
    value: bytes | None = None


@dataclass(slots=True)
class Transaction:
    """What a transactional id has open."""

    epoch: int = 0
    began: float | None = None
    entries: list[Entry] = field(default_factory=list)
    touched: set[PartitionId] = field(default_factory=set)
    offsets: dict[PartitionId, tuple[int, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Identity:
    """Group metadata as a producer sends it."""

    member: str
    generation: int
    instance: str


class Broker:
    """Attributes.

    ----------
    aborts : transactions that were aborted, by their producer, by its successor or by a timeout.
    """

    def __init__(self, topics: Mapping[str, int], sources: list[PartitionId], now: Callable[[], float], *, incremental: bool) -> None:
        self._now = now
        self.logs: dict[PartitionId, list[Entry]] = {(topic, n): [] for topic, count in topics.items() for n in range(count)}
        self.committed: dict[PartitionId, tuple[int, str]] = {}
        self.transactions: dict[str, Transaction] = {}
        self.group = Group(sources, now, incremental=incremental, session_seconds=SESSION_SECONDS)
        self.aborts = 0

    # -- logs

    def append(self, key: PartitionId, values: list[bytes], *, aborted: bool = False) -> None:
        """Records of a source; an aborted transaction of its producer leaves them and a marker."""
        self.logs[key] += [Entry("aborted" if aborted else "committed", None, value) for value in values]
        if aborted:
            self.logs[key].append(Entry("marker"))

    def end(self, key: PartitionId, *, committed: bool = True) -> int:
        """The last stable offset, or the log's end."""
        self.expire()
        log = self.logs[key]
        return next((i for i, entry in enumerate(log) if entry.state == "open"), len(log)) if committed else len(log)

    def records(self, key: PartitionId, start: int = 0, *, committed: bool = True) -> list[tuple[int, Entry]]:
        """What a reader sees from an offset on."""
        end = self.end(key, committed=committed)
        hidden = ("marker", "aborted") if committed else ("marker",)
        return [(i, entry) for i, entry in enumerate(self.logs[key][start:end], start) if entry.state not in hidden]

    # -- transactions

    def init(self, id_: str) -> int:
        """A new epoch; what the last one left open is aborted."""
        self.expire()
        transaction = self.transactions.setdefault(id_, Transaction())
        transaction.epoch += 1
        self._end(transaction, commit=False)
        return transaction.epoch

    def produce(self, id_: str, epoch: int, key: PartitionId, entry: Entry) -> None:
        transaction = self._open(id_, epoch)
        transaction.entries.append(entry)
        transaction.touched.add(key)
        self.logs[key].append(entry)

    def add_offsets(self, id_: str, epoch: int, identity: Identity, offsets: Mapping[PartitionId, tuple[int, str]]) -> None:
        transaction = self._open(id_, epoch)
        self.group.check(identity.member, identity.generation, identity.instance)
        transaction.offsets.update(offsets)

    def finish(self, id_: str, epoch: int, *, commit: bool) -> None:
        """EndTxn: whatever the id has open, which without KIP-890 need not be what the sender meant."""
        self._end(self._current(id_, epoch), commit=commit)

    def read_committed_offsets(self, keys: list[PartitionId], *, stable: bool) -> dict[PartitionId, tuple[int, str]]:
        """Raises when a transaction that is still open has offsets for one of them, if they are to be stable."""
        self.expire()
        if stable and any(key in transaction.offsets for transaction in self.transactions.values() for key in keys):
            raise failed(KafkaError._TIMED_OUT, retriable=True)
        return {key: self.committed[key] for key in keys if key in self.committed}

    def expire(self) -> None:
        """Sessions and transactions that were silent for too long."""
        self.group.expire()
        for transaction in self.transactions.values():
            if transaction.began is not None and transaction.began + TRANSACTION_SECONDS < self._now():
                transaction.epoch += 1
                self._end(transaction, commit=False)

    def _current(self, id_: str, epoch: int) -> Transaction:
        self.expire()
        transaction = self.transactions[id_]
        if transaction.epoch != epoch:
            raise failed(KafkaError._FENCED, fatal=True)
        return transaction

    def _open(self, id_: str, epoch: int) -> Transaction:
        transaction = self._current(id_, epoch)
        if transaction.began is None:
            transaction.began = self._now()
        return transaction

    def _end(self, transaction: Transaction, *, commit: bool) -> None:
        if transaction.began is None:
            return
        self.aborts += not commit
        for entry in transaction.entries:
            entry.state = "committed" if commit else "aborted"
        for key in sorted(transaction.touched):
            self.logs[key].append(Entry("marker"))
        if commit:
            self.committed.update(transaction.offsets)
        transaction.began = None
        transaction.entries, transaction.touched, transaction.offsets = [], set(), {}
