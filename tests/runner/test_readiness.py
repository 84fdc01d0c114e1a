"""Who is ready while workers come: those with less to do, and the one that has nothing."""

from __future__ import annotations

import pytest

from tests.chaos.process import until
from tests.runner.conftest import Bench
from tests.runner.member import Member


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_idle_workers_are_ready_with_what_is_left_to_them_be_it_nothing(bench: Bench, protocol: str) -> None:
    """With the consumer protocol partitions go one by one, and nobody speaks of those that stay."""
    bench.settings["kafka"] = {"group_protocol": protocol}
    with Member(bench, "a") as first:
        first.owns(2)
        with Member(bench, "b") as second:
            second.owns(1)
            first.owns(1)
            with Member(bench, "c") as third:
                members = (first, second, third)
                until(lambda: sorted(map(tasks_of, members)) == [0, 1, 1], lambda: f"{[member.health.ready() for member in members]}")


def tasks_of(member: Member) -> int:
    """How many tasks a ready worker has; -1 for one that is not ready."""
    ready, state = member.health.ready()
    tasks = state["tasks"]
    return tasks if ready and isinstance(tasks, int) else -1
