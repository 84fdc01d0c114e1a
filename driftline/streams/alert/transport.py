"""Faust's Kafka transport, reading committed records only.

Faust reads uncommitted unless it runs its own exactly_once, and has no setting for it: an alert app on top would
alert on drift events whose transaction was aborted. `isolation_level` is a private attribute of aiokafka, hence the
pinned versions in pyproject.toml and the check at every start.
"""

from __future__ import annotations

from typing import Any

from aiokafka.consumer.fetcher import READ_COMMITTED
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver

from driftline.streams.errors import FatalError

SCHEME = "driftline-committed"
"""Of the broker URL: ``driftline-committed://host:9092``."""


class IsolationError(FatalError):
    """The consumer would read aborted drift events; the pinned faust-streaming or aiokafka was replaced."""


class CommittedConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that owns aiokafka's consumer."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"   # read once, by the consumer's start()
        return consumer

    async def on_start(self) -> None:
        """Start the consumer and see what it really does.

        Raises
        ------
        IsolationError : the fetcher does not read committed records only.
        """
        await super().on_start()
        effective = getattr(getattr(self._consumer, "_fetcher", None), "_isolation_level", None)
        if effective != READ_COMMITTED:
            raise IsolationError(f"expected the alert app to read committed records, got isolation level {effective!r}")


class CommittedConsumer(driver.Consumer):
    """A consumer that starts where the alert store stands, and knows what it has handed over."""

    fetched: dict[Any, int]

    def __init__(self, *args: Any, **options: Any) -> None:
        self.fetched = {}
        super().__init__(*args, **options)

    def _new_consumer_thread(self) -> CommittedConsumerThread:
        return CommittedConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:
        records = await super()._getmany(active_partitions, timeout)
        for partition, batch in records.items():
            if batch:
                self.fetched[partition] = batch[-1].offset + 1
        return records

    def _new_offset(self, tp: Any) -> int | None:
        """What may be committed: the agent takes and acknowledges events in their order, so the last one tells.

        Faust looks for a run of numbers without gaps, and transactions leave gaps everywhere: markers and what was aborted. It
        fills them, with the record behind a gap counted twice, which ends the run: one transaction a second was committed,
        however many came. A gap behind offset 0 it never fills: nothing was committed any more.
        """
        acked = self._acked[tp]
        if not acked:
            return None
        last: int = max(acked)
        acked.clear()
        self._acked_index[tp].clear()
        return last + 1

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        """Nobody asks for gaps."""

    async def perform_seek(self) -> None:
        """Seek to the committed offsets, then back to where the store stands (PROTOCOL 18)."""
        await super().perform_seek()
        app: Any = self.app
        await app.seek_to_applied(self)

    async def on_partitions_assigned(self, assigned: Any, generation_id: int = 0) -> None:
        """With nothing assigned there is nothing to seek, and nobody would tell the app."""
        await super().on_partitions_assigned(assigned, generation_id)
        if not assigned:
            app: Any = self.app
            app.stand_by()

    def committed_offset(self, partition: Any) -> int | None:
        """The group's offset as read at the last seek or commit; None when there is none."""
        offset: int | None = self._committed_offset.get(partition)
        return offset


class CommittedTransport(driver.Transport):
    """What `SCHEME` names."""

    Consumer = CommittedConsumer


def register() -> None:
    """Make `SCHEME` known to Faust."""
    TRANSPORTS.aliases[SCHEME] = "driftline.streams.alert.transport:CommittedTransport"
