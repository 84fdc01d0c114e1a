"""What the alert campaign is made of: faults and controls that fit each other, and events that repeat."""

from __future__ import annotations

import itertools
from collections import Counter

from tests.chaos.alerts.controls import CONTROLS
from tests.chaos.alerts.events import DriftStream
from tests.chaos.alerts.faults import FAULTS
from tests.chaos.alerts.switches import SWITCHES


def test_names_are_unique_and_every_fault_says_what_it_does() -> None:
    assert [name for name, n in Counter(fault.name for fault in FAULTS).items() if n > 1] == []
    assert [fault.name for fault in FAULTS if not fault.about] == []


def test_every_control_has_its_fault_and_every_switch_its_control() -> None:
    names = {fault.name for fault in FAULTS}
    assert [control for control in CONTROLS if control.fault not in names] == []
    assert {rule for control in CONTROLS for rule in control.without.split(",")} == set(SWITCHES)


def test_a_seed_gives_the_same_events_with_every_trouble_among_them() -> None:
    first, again = (list(itertools.islice(DriftStream(3), 200)) for _ in range(2))
    assert first == again
    standing = [record for batch in first if not batch.aborted for record in batch.records]
    assert sum(batch.aborted for batch in first) >= 10
    assert len(standing) - len(set(standing)) >= 10
    assert sum(record.value.startswith(b"{poison") for record in standing) >= 10
