"""Negative controls: a rule is taken out of the workers' code, and the run that needs it must be found lossy.

Not every rule has one here, because on a real Kafka and Redis others stand behind it, or chance decides; each of these has a story
in `tests/protocol/test_rules.py` in which it alone decides, or the test that is named:

- 1 task: no input is quiet for long, since a partition at its end is ticked once a second.
- 3 one-write: a Redis that loses what it held also loses blobs or breaks its connections, and whoever loads what was written over
  it finds checksums and counts that do not fit, and takes the base checkpoint instead. Measured: `redis_rolled_back` without the
  comparisons of head, lengths and token loses nothing.
- 4 token: a zombie that writes before its commit is refused writes the rows that its successor writes there too.
- 6 slack: whether a window was overwritten depends on how many rows a commit had, and so on how busy the machine is. Measured:
  `two_newest_checkpoints_corrupt` with large batches written in place, and without bases, stayed green.
- 9 metadata-before: fetched fresh, it changed nothing for a worker that hung past its poll interval with its transaction open: its
  client cannot rejoin before the rebalance callback has run, which aborts, so that what it says of the group meanwhile is refused
  by the broker as an unknown member.
- 11 sequence: nothing breaks it while the others hold; `tests/detect`.
- 14 facts, 15 visibility: a label's time is no earlier than what its source had passed (16), so that one which is seen early is
  late anyway; `tests/join`, `tests/protocol/test_join_rules.py`.
- 18 outbox: the alert processor's campaign, `tests/chaos/alerts/controls.py`.
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
    Control(2, "blobs_die_by_age,there_are_no_bases", "idle_and_quiet"),
    Control(2, "checksums_are_not_compared", "newest_checkpoint_corrupt"),
    Control(5, "an_error_is_no_offset", "kept_away"),
    Control(7, "there_are_no_bases", "redis_wiped"),
    Control(7, "a_replay_publishes", "newest_checkpoint_lost"),
    Control(8, "no_offset_is_a_beginning", "offsets_deleted"),
    Control(8, "part_of_the_offsets_is_a_beginning", "offsets_reset"),
    Control(10, "memory_is_kept_after_an_abort", "transaction_times_out", short=True),
    Control(16, "a_silent_source_is_not_waited_for", "ingest_down"),
)
