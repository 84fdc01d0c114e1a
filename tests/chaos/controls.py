"""Negative controls: a rule is taken out of the workers' code, and the run that needs it must be found lossy.

Not every rule has one here, because on a real Kafka others stand behind it. Metadata that is fetched fresh (9) changed nothing
for a worker that hung past its poll interval with its transaction open: its client cannot rejoin before the rebalance callback
has run, which aborts, so that what it says of the group meanwhile is refused by the broker as an unknown member.
`tests/protocol/test_rules.py` has the story in which that rule alone decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Control:
    """A rule of the protocol by number, the switch that takes it out, the fault that needs it.

    Attributes
    ----------
    short : whether the short form has it.
    """

    rule: int
    without: str
    fault: str
    short: bool = False


CONTROLS: Final[tuple[Control, ...]] = (
    Control(10, "memory_is_kept_after_an_abort", "transaction_times_out", short=True),
    Control(5, "an_error_is_no_offset", "kept_away"),
    Control(8, "no_offset_is_a_beginning", "offsets_deleted"),
)
