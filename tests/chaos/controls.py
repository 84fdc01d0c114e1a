"""Negative controls: a rule is taken out of the workers' code, and the run that needs it must be found lossy."""

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
    Control(8, "no_offset_is_a_beginning", "offsets_deleted"),
    Control(9, "metadata_is_fetched_fresh", "hung", short=True),
)
