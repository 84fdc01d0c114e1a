"""What an import brings back, and what it refuses before it has written anything."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions

from driftline.cli.main import cli
from driftline.schemas.loading import load_config
from driftline.streams.errors import StateError
from driftline.streams.savepoint.groups import GroupOffsets
from tests.conftest import Kafka
from tests.savepoint.installation import RECORDS, Installation, config_text, fill, forget_groups, state_of


@pytest.fixture
def topics_made(kafka: Kafka, redis_url: str, topic_prefix: str, tmp_path: Path) -> Installation:
    config = tmp_path / "m.yml"
    config.write_text(config_text(kafka.bootstrap, redis_url, topic_prefix))
    installation = Installation(config, kafka.bootstrap, redis_url, topic_prefix)
    create(installation)
    return installation


@pytest.fixture
def installation(topics_made: Installation) -> Installation:
    """Six tasks, all with committed state; partition 1 of every topic is empty."""
    fill(topics_made.bootstrap, topics_made.config)
    for place in topics_made.places():
        number = min(partition for _, partition in place.inputs)
        topics_made.commit(place, state_of(place.name), 0 if number else RECORDS - 1)
    return topics_made


@pytest.fixture
def savepoint(installation: Installation, tmp_path: Path) -> Path:
    path = tmp_path / "s.savepoint"
    installation.done("export", "-o", path)
    return path


def create(installation: Installation) -> None:
    done = CliRunner().invoke(cli, ["topics", "create", str(installation.config), "--sources"])
    assert done.exit_code == 0, done.stderr


def moved(installation: Installation, **change: str) -> Installation:
    """The same services, another configuration; its topics exist and are as full."""
    config = installation.config.with_name("moved.yml")
    config.write_text(config_text(installation.bootstrap, installation.redis_url, installation.prefix, **change))
    other = Installation(config, installation.bootstrap, installation.redis_url, installation.prefix)
    create(other)
    return other


def test_after_a_loss_of_redis_and_offsets_the_import_brings_back_exactly_what_was_committed(
    installation: Installation, savepoint: Path
) -> None:
    before = installation.state()
    installation.wipe()
    assert installation.redis_keys() == []
    done = installation.done("import", savepoint)
    assert done[0]["changes"] == []
    after = installation.state()
    assert len(before) == 6
    for name, task in before.items():
        restored = after[name]
        assert task is not None
        assert restored is not None
        assert (restored.offsets, restored.loaded.state) == (task.offsets, task.loaded.state)
        assert restored.reference.epoch > task.reference.epoch
    assert {row["fit"] for row in installation.done("inspect", "-o", "json")} == {"fits", "nothing"}  # alert never ran


def test_the_moment_of_going_live_comes_back_too(installation: Installation, tmp_path: Path) -> None:
    client: redis.Redis = redis.Redis.from_url(installation.redis_url)
    with closing(client):
        installation.done("export", "-o", tmp_path / "before")
        cluster = AdminClient({"bootstrap.servers": installation.bootstrap}).list_topics(timeout=30).cluster_id
        key = f"{installation.prefix}:test:{cluster}:live_since_ms"
        client.set(key, 1_650_000_000_000)
        installation.done("export", "-o", tmp_path / "s")
        installation.wipe()
        installation.done("import", tmp_path / "s")
        assert client.get(key) == b"1650000000000"


def test_what_is_there_is_given_up_only_when_told_to_and_then_wholly(installation: Installation, savepoint: Path) -> None:
    installation.wipe()
    for place in installation.places():
        installation.commit(place, state_of(place.name + "-other"), 0, times=5)
    keys = installation.redis_keys()
    assert "there is state of ingest/" in (refusal := installation.refused("import", savepoint))
    assert "--replace" in refusal
    assert installation.redis_keys() == keys
    installation.done("import", savepoint, "--replace")
    left = set(installation.redis_keys()) & set(keys)
    assert [key for key in left if not key.endswith((b":owner", b":head", b":kept"))] == []
    assert all(task is not None for task in installation.state().values())


def test_a_group_with_a_live_member_is_refused(installation: Installation, savepoint: Path) -> None:
    installation.wipe()
    with installation.member(f"{installation.prefix}.detect"):
        assert f'workers are in group "{installation.prefix}.detect" (1)' in installation.refused("import", savepoint)
    assert installation.redis_keys() == []


def test_a_worker_that_joins_between_the_check_and_the_offsets_keeps_them_from_being_set(topics_made: Installation) -> None:
    """The broker is the judge: it takes no stranger's offsets for a group that has members."""
    topic, group = f"{topics_made.prefix}-ours.observations", f"{topics_made.prefix}.detect"
    with topics_made.member(group), GroupOffsets(load_config(str(topics_made.config)).kafka, group) as offsets:
        with pytest.raises(StateError, match=f'group "{group}": a worker joined it: its offsets were not set'):
            offsets.commit({(topic, 0): (0, "x"), (topic, 1): (0, "x")})
        assert offsets.committed([(topic, 0), (topic, 1)]) == {}


def test_records_written_after_the_savepoint_are_refused(installation: Installation, savepoint: Path) -> None:
    producer = Producer({"bootstrap.servers": installation.bootstrap})
    producer.produce(f"{installation.prefix}-ours.observations", b"later", partition=1)
    assert producer.flush(30) == 0
    installation.wipe()
    refusal = installation.refused("import", savepoint)
    assert f"{installation.prefix}-ours.observations/1 has records that were written after the savepoint" in refusal
    assert installation.redis_keys() == []


def test_markers_of_transactions_are_no_records(installation: Installation, savepoint: Path) -> None:
    producer = Producer({"bootstrap.servers": installation.bootstrap, "transactional.id": installation.prefix})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(f"{installation.prefix}-ours.observations", b"never committed", partition=0)
    producer.flush(30)
    producer.abort_transaction(30)
    installation.wipe()
    installation.done("import", savepoint)


def test_another_environment_or_prefix_needs_rebase_which_says_what_changes(installation: Installation, savepoint: Path) -> None:
    there = moved(installation, environment="staging", ours="copy")
    assert (refusal := there.refused("import", savepoint, code=2)).startswith("error: the savepoint is of another installation")
    assert 'environment "test" -> "staging": every event and episode gets another id' in refusal
    assert f'topics "{installation.prefix}-ours.*" -> "{installation.prefix}-copy.*"' in refusal
    assert "--rebase" in refusal
    # Its topics are empty, and the same groups have state.
    installation.wipe()
    assert "the topic holds 0 to 0" in there.refused("import", savepoint, "--rebase")
    assert installation.redis_keys() == []
    fill(there.bootstrap, there.config)
    result = there.run("import", savepoint, "--rebase")
    assert result.exit_code == 0, result.stderr
    assert "alerts are not in a savepoint" in result.stderr
    state = there.state()
    assert all(task is not None for task in state.values())
    assert {topic for task in state.values() if task for topic, _ in task.offsets} == {
        *(f"{installation.prefix}-copy.{name}" for name in ("waiting", "labels", "observations")),
        *(f"{installation.prefix}.{name}" for name in ("in", "labels")),
    }
    assert {task.reference.base for task in state.values() if task} == {""}


def test_another_number_of_partitions_is_refused_even_with_rebase(installation: Installation, savepoint: Path) -> None:
    topic = f"{installation.prefix}-ours.observations"
    admin = AdminClient({"bootstrap.servers": installation.bootstrap})
    for future in admin.create_partitions([NewPartitions(topic, 3)]).values():
        future.result(30)
    while len(admin.list_topics(timeout=30).topics[topic].partitions) < 3:
        time.sleep(0.1)
    installation.wipe()
    assert f'topic "{topic}" has 3 partitions, the savepoint was taken with 2' in installation.refused(
        "import", savepoint, "--rebase", code=2
    )
    assert installation.redis_keys() == []


def test_a_task_that_the_configuration_does_not_have_is_refused_by_name(installation: Installation, savepoint: Path) -> None:
    there = moved(installation, ages="1h")
    installation.wipe()
    assert 'task "join-300000ms/0" of the savepoint is none of this configuration\'s' in there.refused("import", savepoint, code=2)


def test_a_bad_file_is_told_before_anything_is_written(installation: Installation, savepoint: Path, tmp_path: Path) -> None:
    installation.wipe()
    whole = savepoint.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    for name, data in {"cut": whole[:-700], "flipped": bytes(flipped), "other": b"offsets: 3\n"}.items():
        (tmp_path / name).write_bytes(data)
        assert "savepoint" in installation.refused("import", tmp_path / name, code=2)
    assert "no such file" in installation.refused("import", tmp_path / "none", code=2)
    assert installation.redis_keys() == []


def test_export_refuses_a_task_whose_committed_checkpoint_is_missing(installation: Installation, tmp_path: Path) -> None:
    client: redis.Redis = redis.Redis.from_url(installation.redis_url)
    lost = [key for key in installation.redis_keys() if b":detect/1}:b:task" in key]
    client.delete(*lost)
    client.close()
    assert 'task "detect/1": blob "task" of the checkpoint is missing' in installation.refused("export", "-o", tmp_path / "s")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("s")] == []
    rows = {row["task"]: row for row in installation.done("inspect", "-o", "json", "--task", "detect")}
    assert {name: row["fit"] for name, row in rows.items()} == {"detect/0": "fits", "detect/1": "does not fit"}
    assert "is missing" in rows["detect/1"]["reason"]


def test_export_takes_small_state_from_beside_the_offset_when_redis_has_lost_it(installation: Installation, tmp_path: Path) -> None:
    before = installation.state()
    client: redis.Redis = redis.Redis.from_url(installation.redis_url)
    client.delete(*(key for key in installation.redis_keys() if b":ingest/" in key))
    client.close()
    rows = installation.done("inspect", "--task", "ingest", "-o", "json")
    assert {row["fit"] for row in rows} == {"with the offset"}
    installation.done("export", "-o", tmp_path / "s")
    installation.wipe()
    installation.done("import", tmp_path / "s")
    assert {name: task.loaded.state for name, task in installation.state().items() if task} == {
        name: task.loaded.state for name, task in before.items() if task
    }


def test_export_is_for_its_owner_alone_and_keeps_a_file_that_is_there(installation: Installation, savepoint: Path) -> None:
    assert os.stat(savepoint).st_mode & 0o777 == 0o600
    assert "exists" in installation.refused("export", "-o", savepoint, code=2)
    first = savepoint.read_bytes()
    installation.done("export", "-o", savepoint, "--force")
    assert len(savepoint.read_bytes()) == len(first)


def test_nothing_committed_is_nothing_to_export(topics_made: Installation, tmp_path: Path) -> None:
    assert "no task has committed anything" in topics_made.refused("export", "-o", tmp_path / "s")
    assert {row["fit"] for row in topics_made.done("inspect", "-o", "json")} == {"nothing"}


def test_state_without_offsets_is_told_and_not_exported(installation: Installation, tmp_path: Path) -> None:
    forget_groups(installation.bootstrap, f"{installation.prefix}.detect")
    assert 'task "detect/0": no committed offset, but Redis holds its checkpoint' in installation.refused("export", "-o", tmp_path / "s")
    rows = installation.done("inspect", "--task", "detect/0", "-o", "json")
    assert [(row["fit"], row["offsets"]) for row in rows] == [("does not fit", {})]


def test_inspect_shows_what_a_task_holds(installation: Installation) -> None:
    (row,) = installation.done("inspect", "--task", "detect/0", "-o", "json")
    assert row["offsets"] == {f"{installation.prefix}-ours.observations/0": RECORDS - 1}
    assert row["committed"]["id"] == row["redis"]["id"]
    assert (row["redis"]["version"], row["redis"]["state_version"], row["redis"]["epoch"]) == (2, "1", 1)
    assert (row["redis"]["ring_bytes"], row["redis"]["blobs"]) == (50, 3)
    assert row["redis"]["age_seconds"] > 1e6
    assert row["rows"] == 70
    assert row["models"][0]["panels"] == [
        {"panel": "features", "version": "", "age_ms": None, "rows": 70, "scopes": 1, "learning": False}
    ]
    table = installation.run("inspect")
    assert table.exit_code == 0
    assert "m (1 panels, 1 scopes)" in table.stdout
    assert 'no task "detect/9"' in installation.refused("inspect", "--task", "detect/9", code=2)
