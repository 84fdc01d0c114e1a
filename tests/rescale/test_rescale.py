"""Stopped, moved to other partitions, gone on, twice: what was published is what an installation that never stopped publishes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.conftest import CreateTopics, Kafka
from tests.e2e.programs import driftline
from tests.rescale.installation import FIRST, ROWS, SECOND, Sources, alerts, events, installation, publish, records, rows
from tests.savepoint.installation import Installation


def stopped(one: Installation, folder: Path) -> Path:
    """A savepoint of it, with all read that came and the rest waiting."""
    driftline("run", one.config, "--until-idle", "1", "--at-end", "wait")
    driftline("run", one.config, "--processors", "detect,alert", "--until-idle", "1")
    savepoint = folder / f"{one.prefix}.savepoint"
    one.done("export", "-o", savepoint)
    return savepoint


def killed_half_way(new: Installation, savepoint: Path) -> None:
    """A rescale that dies when the waiting rows stand in the new topics, and the labels do not."""
    command = [sys.executable, "-m", "driftline", "state", "rescale", savepoint, "-c", new.config, "-o", savepoint.with_suffix(".never")]
    environment = {**os.environ, "DRIFTLINE_FAILPOINT": "rescale_committed"}
    done = subprocess.run(list(map(str, command)), capture_output=True, timeout=300, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not savepoint.with_suffix(".never").exists()
    assert records(new.bootstrap, f"{new.prefix}.waiting")


def test_with_more_partitions_and_then_fewer_everything_goes_on_as_if_nothing_had_been_moved(
    kafka: Kafka, redis_url: str, topic_prefix: str, create_topics: CreateTopics, tmp_path: Path
) -> None:
    one = create_topics("one", config={"retention.ms": "-1"})[0]
    sources = Sources(one, *create_topics("two", "labels", partitions=2, config={"retention.ms": "-1"}))
    three, five, two, never = (
        installation(tmp_path, kafka.bootstrap, redis_url, f"{topic_prefix}-{name}", partitions, sources)
        for name, partitions in (("three", 3), ("five", 5), ("two", 2), ("never", 3))
    )
    for each in (three, five, two, never):
        driftline("topics", "create", each.config)

    publish(kafka.bootstrap, sources, 0, FIRST)
    savepoint = stopped(three, tmp_path)
    (moved,) = five.done("rescale", savepoint, "-o", tmp_path / "five")
    assert moved["partitions"] == [3, 5]
    assert moved["waiting"] > 300
    assert moved["labels"] > 100
    five.done("import", tmp_path / "five")

    publish(kafka.bootstrap, sources, FIRST, SECOND)
    savepoint = stopped(five, tmp_path)
    killed_half_way(two, savepoint)
    result = two.run("rescale", savepoint, "-o", tmp_path / "two")
    assert result.exit_code == 0, result.stderr
    assert "removed from the new topics: what an attempt that broke off had written" in result.stderr
    assert alerts(kafka.bootstrap, two.prefix) == alerts(kafka.bootstrap, five.prefix) != {}
    two.done("import", tmp_path / "two")

    publish(kafka.bootstrap, sources, SECOND, ROWS)
    log = driftline("run", two.config, "--until-idle", "1").stderr.decode()
    assert log.count("state=new") == 0
    driftline("run", never.config, "--until-idle", "1")

    parts = [each.prefix for each in (three, five, two)]
    whole = rows(kafka.bootstrap, never.prefix)
    assert rows(kafka.bootstrap, *parts) == whole
    assert all(0 < rows(kafka.bootstrap, part).total() < whole.total() for part in parts)
    expected = events(kafka.bootstrap, never.prefix)
    assert events(kafka.bootstrap, *parts) == expected
    assert all(0 < len(events(kafka.bootstrap, *parts[:2])[model]) < len(expected[model]) for model in expected)
    assert alerts(kafka.bootstrap, two.prefix) == alerts(kafka.bootstrap, never.prefix)
