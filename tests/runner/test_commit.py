"""The steps of a commit stop at the first one before which a rebalance came (PROTOCOL 9).

The client runs its callbacks inside `poll`, which no step calls, and the runner aborts there: no story on a broker needs the
count beside that. It is what holds when one of the two is changed, so it is tested by itself.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from driftline.schemas.config import Kafka
from driftline.streams.errors import AssignmentChanged
from driftline.streams.http import Health
from driftline.streams.metrics import Metrics
from driftline.streams.runner.commit import Committer
from driftline.streams.runner.pace import Pace
from driftline.streams.state.manifest import CommitReference
from driftline.streams.task import StateDelta


class Ports:
    """Kafka, Redis and one task that has moved, as a committer sees them; notes what is asked of them, in order."""

    def __init__(self, rebalance_at: str | None) -> None:
        self.asked: list[str] = []
        self._rebalance_at = rebalance_at
        self.membership: Any = SimpleNamespace(changes=7, arrived=0.0, metadata=lambda: b"group", waiting=lambda: 0)
        self.publisher: Any = SimpleNamespace(
            publish=lambda outputs: None,
            prepare=lambda: self.ask("produced"),
            send_offsets=lambda offsets, metadata: self.ask("offsets_sent"),
            commit=lambda: self.ask("committed"),
        )
        self.store: Any = SimpleNamespace(write=lambda writes: self.ask("checkpointed"))
        write, reference = SimpleNamespace(size=0), CommitReference(1, "t-1", "", 1)
        checkpoints = SimpleNamespace(prepare=lambda *a, **k: (write, reference), written=lambda: None, confirm=lambda: None)
        self.task: Any = SimpleNamespace(
            name="t", dirty=True, replay_to=None, rows=1, positions=dict, checkpoints=checkpoints, committed=None,
            task=SimpleNamespace(checkpoint=StateDelta, committed=lambda: None),
        )  # fmt: skip

    def ask(self, step: str) -> None:
        self.asked.append(step)
        if step == self._rebalance_at:
            self.membership.changes += 1

    def commit(self) -> None:
        committer = Committer(
            self.membership, self.publisher, self.store,
            kafka=Kafka(), base=None, stage="toy", metrics=Metrics(), health=Health(), pace=Pace(5_000),
        )  # fmt: skip
        committer.begin()
        committer.add(1, [])
        committer.commit([self.task])


STEPS = ["produced", "checkpointed", "offsets_sent", "committed"]


def test_without_a_rebalance_every_step_is_taken_in_order() -> None:
    ports = Ports(None)
    ports.commit()
    assert ports.asked == STEPS


@pytest.mark.parametrize("step", STEPS[:-1])
def test_a_rebalance_during_a_step_lets_no_other_step_follow(step: str) -> None:
    ports = Ports(step)
    with pytest.raises(AssignmentChanged):
        ports.commit()
    assert ports.asked == STEPS[: STEPS.index(step) + 1]
    assert ports.task.dirty
