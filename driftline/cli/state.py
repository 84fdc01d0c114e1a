"""`driftline state inspect|export|import|rescale`: what is committed, a savepoint of it, the way back, and other partitions."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from driftline.cli.errors import Refusal
from driftline.cli.output import cell, config_option, note, output_option, write_json, write_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka.admin import AdminClient

    from driftline.schemas.config import Config
    from driftline.streams.cluster import Cluster
    from driftline.streams.state.redis_store import RedisStore

_Done = TypeVar("_Done")

_COLUMNS = ["task", "offset", "checkpoint", "age", "blobs", "windows", "version", "config", "owner", "rows", "watches", "fit"]
# A checkpoint of hundreds of megabytes is one call; no transaction waits for it here.
_STORE_SECONDS = 60.0


@click.group()
def command() -> None:
    """Checkpoints of tasks: look at them, save them to a file, bring them back."""


@command.command()
@config_option
@click.option("--task", metavar="NAME", help="One task, or all of a processor: detect/0, detect.")
@output_option
def inspect(config_path: str, task: str | None, output: str) -> None:
    """Show what every task has committed and keeps.

    What stands in Kafka and in Redis, whether the two fit, and what is in it; writes nothing.
    """
    from driftline.schemas.loading import load_config

    config = load_config(config_path)
    client, cluster, store = _connect(config)
    from driftline.streams.savepoint.survey import survey

    try:
        rows = list(survey(client, config, cluster, store, now_ms=round(time.time() * 1_000), task=task))
    finally:
        store.close()
    if not rows:
        raise Refusal(f'no task "{task}"', hint="without --task all are listed")
    if output == "json":
        for row in rows:
            write_json(row)
        return
    write_rows([_shown(row) for row in rows], _COLUMNS, output)
    for row in rows:
        if row["reason"]:
            note(f"{row['task']}: {row['reason']}")
        if len(history := (row["redis"] or {}).get("history", [])) > 1:
            note(f"{row['task']}: configurations {', '.join(map(_active, history))}")


@command.command()
@config_option
@click.option("--out", "-o", "target", required=True, type=click.Path(dir_okay=False), help="The file to write.")
@click.option("--force", is_flag=True, help="Overwrite the file.")
def export(config_path: str, target: str, force: bool) -> None:
    """Write a savepoint to a file.

    The committed state of every task. To go on from it over the same topics, stop the workers first.
    """
    from driftline.schemas.loading import load_config

    config = load_config(config_path)
    path = _free(target, force=force)
    client, cluster, store = _connect(config)
    from driftline.streams.savepoint.export import write_savepoint
    from driftline.streams.savepoint.groups import count_members
    from driftline.streams.wiring import tasks_of

    try:
        now_ms = round(time.time() * 1_000)
        done = _write_file(path, lambda sink: write_savepoint(sink, config, cluster, store, created_at_ms=now_ms))
        members = count_members(client, dict.fromkeys(place.group for place in tasks_of(config, cluster)))
    finally:
        store.close()
    if live := [name for name, count in members.items() if count]:
        note(f"workers are in {', '.join(live)}: once they write more, this savepoint can no longer be imported over these topics")
    if done.absent:
        note(f"not in it, having committed nothing yet: {', '.join(done.absent)}")
    write_json({"file": str(path), "bytes": path.stat().st_size, "tasks": [task.task for task in done.contents.tasks]})


@command.command(name="import")
@config_option
@click.argument("savepoint", metavar="FILE", type=click.Path(dir_okay=False))
@click.option("--replace", is_flag=True, help="Give up the state that is there.")
@click.option("--rebase", is_flag=True, help="Accept another cluster, environment or prefix; says what changes.")
def import_(config_path: str, savepoint: str, replace: bool, rebase: bool) -> None:
    """Bring a savepoint back.

    State goes to Redis, offsets to Kafka; `driftline run` then goes on as if it had never stopped.
    """
    from driftline.schemas.loading import load_config

    config = load_config(config_path)
    with open(savepoint, "rb") as file:
        from driftline.streams.savepoint.archive import ArchiveReader
        from driftline.streams.savepoint.contents import SavepointReader

        # Before any connection: a bad file is told at once.
        reader = SavepointReader(ArchiveReader(file))
        client, cluster, store = _connect(config)
        from driftline.streams.savepoint.restore import Import

        try:
            store.check()
            one = Import(reader, config, cluster, store, now_ms=lambda: round(time.time() * 1_000), say=note)
            _tell(one.changes, rebase=rebase)
            one.check(client, replace=replace)
            one.write()
        finally:
            store.close()
    if one.absent:
        note(f"not in the savepoint, left as they are: {', '.join(one.absent)}")
    write_json({"file": savepoint, "tasks": [task.task for task in one.contents.tasks], "changes": one.changes})


@command.command()
@config_option
@click.argument("savepoint", metavar="FILE", type=click.Path(dir_okay=False))
@click.option("--out", "-o", "target", required=True, type=click.Path(dir_okay=False), help="The file to write.")
@click.option("--force", is_flag=True, help="Overwrite the file.")
def rescale(config_path: str, savepoint: str, target: str, force: bool) -> None:
    """Make a savepoint for another number of partitions.

    FILE is of the old installation, stopped; --config is the new one, with a topics.prefix of its own. What waits for labels is
    written into the new topics; the old ones are only read. Then import what this writes.
    """
    from driftline.schemas.loading import load_config

    config = load_config(config_path)
    path = _free(target, force=force)
    with open(savepoint, "rb") as file:
        from driftline.streams.savepoint.archive import ArchiveReader
        from driftline.streams.savepoint.contents import SavepointReader

        # Before any connection: a bad file is told at once.
        reader = SavepointReader(ArchiveReader(file))
        from driftline.cli.kafka import admin
        from driftline.schemas.topics import TOPICS
        from driftline.streams.kafka import read_cluster
        from driftline.streams.rescale.rescale import Rescale
        from driftline.streams.wiring import task_topics

        client = admin(config.kafka)
        ours = [topic.full_name(config.topics.prefix) for topic in TOPICS]
        one = Rescale(reader, config, client, read_cluster(client, list(dict.fromkeys([*task_topics(config), *ours]))), note)
        one.check()
        moved = one.move()
        done = _write_file(path, lambda sink: one.write(sink, moved, created_at_ms=round(time.time() * 1_000)))
    note("the old installation is as it was; should it run again before the new one does, export and rescale again")
    note(f"next: driftline state import -c {config_path} {path}, then driftline run {config_path}")
    before, now = one.partitions
    counts = {"waiting": moved.waiting, "labels": moved.labels, "alerts": moved.alerts}
    tasks = [task.task for task in done.tasks]
    write_json({"file": str(path), "bytes": path.stat().st_size, "partitions": [before, now], **counts, "tasks": tasks})


def _tell(changes: list[str], *, rebase: bool) -> None:
    if not changes:
        return
    listed = "\n".join(f"  {line}" for line in changes)
    if not rebase:
        raise Refusal(f"the savepoint is of another installation:\n{listed}", hint="--rebase imports it all the same")
    note(f"changes:\n{listed}\n  alerts are not in a savepoint; an episode that is open goes on, and ends under its id here")


def _free(target: str, *, force: bool) -> Path:
    """The file to write, which is not there yet."""
    path = Path(target)
    if path.exists() and not force:
        raise Refusal(f'"{path}" exists', hint="--force overwrites it")
    return path


def _write_file(path: Path, write: Callable[[BinaryIO], _Done]) -> _Done:
    """Whole or not at all, and for its owner alone: segment values and feature names are in it."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with _private(part) as sink:
            done = write(sink)
            sink.flush()
            os.fsync(sink.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return done


def _private(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _connect(config: Config) -> tuple[AdminClient, Cluster, RedisStore]:
    from driftline.cli.kafka import admin
    from driftline.streams.kafka import read_cluster
    from driftline.streams.state.redis_store import RedisStore
    from driftline.streams.wiring import task_topics

    client = admin(config.kafka)
    cluster = read_cluster(client, task_topics(config))
    return client, cluster, RedisStore(config.redis, timeout_seconds=_STORE_SECONDS)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    kept = row["redis"] or {}
    age = kept.get("age_seconds")
    return {
        **row,
        "offset": ",".join(str(offset) for offset in row["offsets"].values()) or None,
        "checkpoint": (row["committed"] or {}).get("id"),
        "age": None if age is None else f"{cell(round(age))} s",
        "blobs": _bytes(kept.get("blob_bytes")),
        "windows": _bytes(kept.get("ring_bytes")),
        "version": f"{kept['version']}/{kept['state_version']}" if kept.get("version") else None,
        "config": kept.get("config") and kept["config"] + ("" if kept["config_is_current"] else " (changed)"),
        "owner": f"{kept['owner']} ({kept['epoch']})" if kept.get("owner") else None,
        "watches": ", ".join(_watched(model) for model in row["models"]) or None,
    }


def _active(one: dict[str, Any]) -> str:
    """A configuration and the offsets from which it was active."""
    offsets = ", ".join(f"{place}:{offset}" for place, offset in one["from"].items())
    return f"{one['config']} from {offsets or 'before this was kept'}"


def _watched(model: dict[str, Any]) -> str:
    return f"{model['model']} ({len(model['panels'])} panels, {model['scopes']} scopes)"


def _bytes(count: int | None) -> str | None:
    if count is None:
        return None
    return f"{count / 1e6:,.1f} MB" if count >= 1_000_000 else f"{count / 1e3:,.1f} kB" if count >= 1_000 else f"{count} B"
