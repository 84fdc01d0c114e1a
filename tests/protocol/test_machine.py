"""The runner under whatever Hypothesis finds; see `machine.py`."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.protocol.machine import IncrementalMachine, ProtocolMachine


@pytest.mark.parametrize("machine", [ProtocolMachine, IncrementalMachine])
def test_nothing_is_lost_doubled_or_changed_whatever_happens(machine: type[ProtocolMachine]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=50, stateful_step_count=30, deadline=None))
