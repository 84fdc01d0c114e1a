"""Every rule of the commit protocol that the runner and the state keep, and proof that it is needed.

Rule, how it is switched off (`switches.py`), the story that turns red then (`scenarios.py`):

     1 only_what_moved_is_committed -> quiet_input
     1 a_part_of_the_inputs_is_enough -> inputs_apart
     2 blobs_die_by_age -> quiet_segment
     2 checksums_are_not_compared -> damaged_blob
     2 the_world_is_not_compared -> recreated_topic
     3 head_is_not_compared -> rolled_back_under_a_worker
     3 lengths_are_not_compared -> window_lost_under_a_worker
     3 windows_are_written_apart -> zombie_writes_after_a_lap
     4 token_is_not_compared -> zombie_writes_before_its_successor
     4 the_epoch_is_counted_by_redis_alone -> wiped_after_restarts
     5 an_error_is_no_offset -> successor_of_a_worker_killed_with_offsets_sent
     5 the_producer_is_opened_last -> restart_of_a_worker_killed_with_offsets_sent
     6 large_batches_are_written_in_place -> older_checkpoint_after_large_batches
     7 there_are_no_bases -> wiped
     7 bases_are_written_outside_of_the_transaction -> base_of_an_aborted_commit
     7 a_replay_publishes -> wiped
     8 no_offset_is_a_beginning -> group_deleted
     8 redis_alone_says_that_a_task_has_run -> group_and_redis_deleted
     8 part_of_the_offsets_is_a_beginning -> one_offset_deleted
     8 part_of_the_offsets_is_a_beginning -> offsets_reset_by_a_tool
     9 metadata_is_fetched_fresh -> zombie_sends_its_offsets
     9 a_generation_below_0_is_taken -> thrown_out_with_records_fetched
    10 memory_is_kept_after_an_abort -> commit_lost
    10 the_producer_is_kept_after_an_uncertain_call -> commit_arrives_in_the_next_transaction
    10 committed_offsets_are_not_read_again -> commit_done

A switch takes one rule out of the real code, a story is a few lines of what happens to workers, Kafka and Redis. With
every rule in force the story ends with the outputs of a task that was never interrupted (or, where the rule is to stop,
with a stop that says why); without the rule it does not.

Covered by another rule: to read a window whose rows were overwritten since (6) takes large batches written in place (6).
Not here: the count of assignments (9, held by `tests/runner/test_commit.py`) and the order of token and committed offsets (5)
have no story that needs them alone, since the broker checks the generation and the store token and head. Retries of the Redis
client (4) and its deadline (10) are settings; sequence numbers (11) are held by tests/detect, visibility (15) by
`test_join_rules.py`, the alert app's outbox (18) by tests/alert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.protocol import scenarios as story
from tests.protocol import switches as off
from tests.protocol.switches import Switch
from tests.protocol.world import Violation, World


@dataclass(frozen=True, slots=True)
class Control:
    """A rule's number in the protocol, what takes it out, and the story that needs it."""

    rule: int
    switch: Switch
    story: Callable[[World], None]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.rule}-{self.switch.__name__}-{self.story.__name__}"


APART: dict[str, Any] = {"incremental": True}
NO_BASE: dict[str, Any] = {"base": False}
MAY_STOP: dict[str, Any] = {"strict": False}

CONTROLS = [
    Control(1, off.only_what_moved_is_committed, story.quiet_input),
    Control(1, off.a_part_of_the_inputs_is_enough, story.inputs_apart, APART),
    Control(2, off.blobs_die_by_age, story.quiet_segment, NO_BASE),
    Control(2, off.checksums_are_not_compared, story.damaged_blob),
    Control(2, off.the_world_is_not_compared, story.recreated_topic, MAY_STOP),
    Control(3, off.head_is_not_compared, story.rolled_back_under_a_worker),
    Control(3, off.lengths_are_not_compared, story.window_lost_under_a_worker),
    Control(3, off.windows_are_written_apart, story.zombie_writes_after_a_lap, NO_BASE),
    Control(4, off.token_is_not_compared, story.zombie_writes_before_its_successor),
    Control(4, off.the_epoch_is_counted_by_redis_alone, story.wiped_after_restarts),
    Control(5, off.an_error_is_no_offset, story.successor_of_a_worker_killed_with_offsets_sent),
    Control(5, off.the_producer_is_opened_last, story.restart_of_a_worker_killed_with_offsets_sent),
    Control(6, off.large_batches_are_written_in_place, story.older_checkpoint_after_large_batches, NO_BASE),
    Control(7, off.there_are_no_bases, story.wiped),
    Control(7, off.bases_are_written_outside_of_the_transaction, story.base_of_an_aborted_commit),
    Control(7, off.a_replay_publishes, story.wiped),
    Control(8, off.no_offset_is_a_beginning, story.group_deleted, MAY_STOP),
    Control(8, off.redis_alone_says_that_a_task_has_run, story.group_and_redis_deleted, MAY_STOP),
    Control(8, off.part_of_the_offsets_is_a_beginning, story.one_offset_deleted, MAY_STOP),
    Control(8, off.part_of_the_offsets_is_a_beginning, story.offsets_reset_by_a_tool, MAY_STOP),
    Control(9, off.metadata_is_fetched_fresh, story.zombie_sends_its_offsets),
    Control(9, off.a_generation_below_0_is_taken, story.thrown_out_with_records_fetched),
    Control(10, off.memory_is_kept_after_an_abort, story.commit_lost),
    Control(10, off.the_producer_is_kept_after_an_uncertain_call, story.commit_arrives_in_the_next_transaction),
    Control(10, off.committed_offsets_are_not_read_again, story.commit_done),
]

# The first switch alone changes nothing, because the second rule catches it; both together break the story.
COVERED = [
    Control(6, off.overwritten_rows_are_read, story.older_checkpoint_after_large_batches),
]
COVERED_BY: dict[Switch, Switch] = {off.overwritten_rows_are_read: off.large_batches_are_written_in_place}


@pytest.fixture
def made() -> Iterator[Callable[[dict[str, Any]], World]]:
    worlds: list[World] = []

    def make(options: dict[str, Any]) -> World:
        worlds.append(World(**options))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


MakeWorld = Callable[[dict[str, Any]], World]


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_the_story_ends_well_with_every_rule_in_force(control: Control, made: MakeWorld) -> None:
    control.story(made(control.options))


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_without_the_rule_the_story_breaks_exactly_once(control: Control, made: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = made(control.options)
    control.switch(monkeypatch, world)
    with pytest.raises(Violation):
        control.story(world)


@pytest.mark.parametrize("control", COVERED, ids=lambda control: control.name)
def test_a_rule_that_another_one_covers_is_needed_when_that_one_is_gone(
    control: Control, made: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = made(control.options)
    control.switch(monkeypatch, world)
    control.story(world)
    other = COVERED_BY[control.switch]
    for switches in ((other,), (control.switch, other)):
        monkeypatch.undo()
        world = made(control.options)
        for switch in switches:
            switch(monkeypatch, world)
        if len(switches) == 1:
            control.story(world)
        else:
            with pytest.raises(Violation):
                control.story(world)


def test_the_list_above_is_this_list() -> None:
    listed = [" ".join(line.split()) for line in (__doc__ or "").splitlines()]
    for control in CONTROLS:
        assert f"{control.rule} {control.switch.__name__} -> {control.story.__name__}" in listed
