"""A worker with a backlog commits less often, and as often as it should once it has caught up."""

from __future__ import annotations

import pytest

from driftline.schemas.config import Config
from driftline.streams.runner import runner as runner_module
from tests.protocol.scenarios import feed
from tests.protocol.world import World, make_config


def commits(behind_ms: int, records: int) -> tuple[int, float]:
    """Commits of a worker that finds so many records, and the time between two when it is through with them."""
    world = World()
    config: Config = make_config("classic")
    kafka = config.kafka.model_copy(update={"commit_interval_behind": behind_ms, "commit_rows": 1_000})
    world.use(config.model_copy(update={"kafka": kafka}))
    world.start("a")
    feed(world, "a", records)
    runner = world.workers["a"].runner
    assert runner is not None
    found = runner._committer.commits
    world.advance(1)
    feed(world, "a", 1, 1, 1, 1, 1, 1)
    world.close()
    return found, runner._committer._cadence.seconds


def test_a_backlog_is_read_with_fewer_commits_and_the_interval_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    # Several calls' worth, without the many records that a real call takes.
    monkeypatch.setattr(runner_module, "_POLL_RECORDS_MAX", 20)
    often, seconds = commits(10, 600)
    seldom, seconds_after = commits(320, 600)
    assert seldom < 0.7 * often
    assert seconds_after == seconds == 0.01
