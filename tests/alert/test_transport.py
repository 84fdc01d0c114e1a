"""What is committed of what was acknowledged; without a broker."""

from __future__ import annotations

from collections import defaultdict

import pytest
from faust.types import TP

from driftline.streams.alert.transport import CommittedConsumer

PARTITION, ANOTHER = TP("drift", 0), TP("drift", 1)


@pytest.fixture
def consumer() -> CommittedConsumer:
    """One that was never started: its ledger of acknowledgements alone."""
    consumer = CommittedConsumer.__new__(CommittedConsumer)
    consumer._acked, consumer._acked_index = defaultdict(list), defaultdict(set)
    return consumer


def acknowledge(consumer: CommittedConsumer, *offsets: int) -> None:
    consumer._acked[PARTITION] += offsets
    consumer._acked_index[PARTITION] |= set(offsets)


@pytest.mark.parametrize("offsets", [(0,), (0, 4), (0, 1, 2, 5, 6, 9), (7, 8, 20)])
def test_everything_up_to_the_last_acknowledged_event_is_committed_at_once(consumer: CommittedConsumer, offsets: tuple[int, ...]) -> None:
    acknowledge(consumer, *offsets)
    assert consumer._new_offset(PARTITION) == offsets[-1] + 1
    assert consumer._new_offset(PARTITION) is None
    assert consumer._acked_index[PARTITION] == set()


def test_acknowledgements_that_come_later_are_committed_later(consumer: CommittedConsumer) -> None:
    acknowledge(consumer, 3)
    assert consumer._new_offset(PARTITION) == 4
    acknowledge(consumer, 9, 10)
    assert consumer._new_offset(PARTITION) == 11
    assert consumer._new_offset(ANOTHER) is None
