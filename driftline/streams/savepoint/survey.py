"""Every task as an operator wants to see it: committed, kept, fitting or not, and what is in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson
from confluent_kafka.admin import AdminClient

from driftline.schemas.config import Config
from driftline.schemas.topics import DRIFT
from driftline.streams.alert.redis_store import RedisAlertStore
from driftline.streams.cluster import Cluster
from driftline.streams.errors import StateError
from driftline.streams.redis_client import connect
from driftline.streams.runner.restore import Committed
from driftline.streams.savepoint.groups import GroupOffsets, count_members
from driftline.streams.savepoint.tasks import CommittedTask, Kept, kept_of, read_task, reference_of
from driftline.streams.state.manifest import Activation, CommitReference
from driftline.streams.state.store import Store
from driftline.streams.task import PartitionId, RestoredState
from driftline.streams.wiring import TaskPlace, tasks_of

FITS: Final = "fits"
WITH_OFFSET: Final = "with the offset"
"""Redis does not have it; it is small and stands in Kafka beside the offset."""
NOTHING: Final = "nothing"
DOES_NOT: Final = "does not fit"

Row = dict[str, Any]


def survey(admin: AdminClient, config: Config, cluster: Cluster, store: Store, *, now_ms: int, task: str | None = None) -> Iterator[Row]:
    """A row for each task whose name is, or begins with, `task`; reads all of its state, so that `fit` is a promise."""
    places = [place for place in tasks_of(config, cluster) if task is None or _is(place.name, task)]
    alerts = [number for number in range(cluster.partitions[DRIFT.full_name(config.topics.prefix)]) if _is(f"alert/{number}", task)]
    alert_group = f"{config.kafka.group_prefix}.alert"
    members = count_members(admin, dict.fromkeys([*(place.group for place in places), alert_group]))
    for name in dict.fromkeys(place.group for place in places):
        own = [place for place in places if place.group == name]
        with GroupOffsets(config.kafka, name) as group:
            for place in own:
                yield _row(place, group, members[name], config, cluster, store, now_ms)
    if alerts:
        with GroupOffsets(config.kafka, alert_group) as group:
            yield from _alert_rows(alerts, group, members[alert_group], config, cluster)


def _is(name: str, wanted: str | None) -> bool:
    return wanted is None or name == wanted or name.startswith(f"{wanted}/")


def _row(place: TaskPlace, group: GroupOffsets, members: int, config: Config, cluster: Cluster, store: Store, now_ms: int) -> Row:
    kept = kept_of(place, config, cluster, store)
    committed: Committed = {}
    reference: CommitReference | None = None
    found: CommittedTask | None = None
    try:
        committed = group.committed(place.inputs)
        named = reference_of(place, committed)
        reference = None if named is None else named[0]
        found = read_task(place, config, cluster, store, lambda: group.committed(place.inputs))
        fit, reason = _fit(found, kept)
    except StateError as error:
        fit, reason = DOES_NOT, error.message
    state = found.loaded.state if found is not None else RestoredState()
    return {
        "task": place.name,
        "group": place.group,
        "members": members,
        "offsets": _named({key: offset for key, (offset, _) in committed.items()}),
        "committed": None if reference is None else {"id": reference.id, "epoch": reference.epoch, "base": reference.base or None},
        "redis": _redis_row(kept, config, now_ms),
        "fit": fit,
        "reason": reason,
        **_inside(place, state),
    }


def _fit(found: CommittedTask | None, kept: Kept) -> tuple[str, str | None]:
    if found is None:
        if kept.head and (kept.newest is None or kept.newest.sequence > 1):
            return DOES_NOT, f"no committed offset, but Redis holds checkpoint {kept.head}"
        return NOTHING, "it has not run yet"
    if found.inline:
        return WITH_OFFSET, "its checkpoint is not in Redis, but its whole state stands in Kafka beside the offset"
    if kept.head != found.reference.id:
        return FITS, f"Redis also has the attempt {kept.head}, not committed" if kept.head else None
    return FITS, None


def _redis_row(kept: Kept, config: Config, now_ms: int) -> Row | None:
    if not kept.head and not kept.owner:
        return None
    newest = kept.newest
    age_ms = now_ms - newest.written_ms if newest is not None and newest.written_ms else None
    return {
        "id": kept.head or None,
        "age_seconds": None if age_ms is None else max(0.0, age_ms / 1_000),
        "blobs": 0 if newest is None else len(newest.blobs),
        "blob_bytes": kept.blob_bytes,
        "rings": 0 if newest is None else len(newest.rings),
        "ring_bytes": kept.ring_bytes,
        "version": None if newest is None else newest.v,
        "state_version": None if newest is None else newest.state_version,
        "config": None if newest is None else newest.config or None,
        "config_is_current": None if newest is None else newest.config == config.digest,
        "history": [] if newest is None else [_activation_row(one) for one in newest.history],
        "owner": kept.owner or None,
        "epoch": kept.epoch,
        "damage": kept.damage or None,
    }


def _activation_row(one: Activation) -> Row:
    """From which offsets on a configuration was active; none of them where an older release kept no history."""
    return {"config": one.config, "from": {f"{topic}/{partition}": offset for topic, partition, offset in one.offsets}, "at_ms": one.at_ms}


def _inside(place: TaskPlace, state: RestoredState) -> Row:
    """Rows, and for detect the models with their panels; what cannot be read is left out, as `fit` is about the bytes."""
    if place.processor == "detect" and (blob := state.blobs.get("task")) is not None:
        try:
            models = _models(blob, state)
        except (KeyError, TypeError, ValueError):
            models = []
        return {"rows": sum(model["rows"] for model in models), "models": models}
    if (ring := state.rings.get("decided")) is not None:
        return {"rows": ring.head, "models": []}
    return {"rows": None, "models": []}


def _models(blob: bytes, state: RestoredState) -> list[Row]:
    from driftline.streams.detect.watched import model_path

    models: list[Row] = []
    for name, meta in orjson.loads(blob)["models"].items():
        panels: list[Row] = []
        for path, kind, version, age_ms, seen, *_ in meta["panels"]:
            start = f"{model_path(name)}/{path}/"
            scopes = sum(key.startswith(f"{start}scope/") for key in state.blobs)
            learning = f"{start}baseline" not in state.blobs
            panel = {"panel": kind, "version": version, "age_ms": age_ms, "rows": seen, "scopes": scopes, "learning": learning}
            panels.append(panel)
        rows = max((panel["rows"] for panel in panels if panel["panel"] == "features"), default=0)
        models.append({"model": name, "rows": rows, "scopes": sum(panel["scopes"] for panel in panels), "panels": panels})
    return models


def _alert_rows(partitions: list[int], group: GroupOffsets, members: int, config: Config, cluster: Cluster) -> Iterator[Row]:
    """Alert keeps no checkpoints: its state says itself which offset it is of, and it goes back there."""
    topic = DRIFT.full_name(config.topics.prefix)
    client = connect(config.redis, timeout_seconds=5)
    try:
        store = RedisAlertStore(client, f"{config.redis.key_prefix}:{config.environment}:{cluster.cluster_id}")
        committed = group.committed([(topic, number) for number in partitions])
        for number in partitions:
            applied = store.next_offset(f"{cluster.topic_ids.get(topic) or topic}/{number}")
            offset = committed[topic, number][0] if (topic, number) in committed else None
            behind = offset is not None and (applied is None or applied < offset)
            reason = "Redis is behind the offset: alert goes back to where Redis is, or fills it from the alerts topic" if behind else None
            yield {
                "task": f"alert/{number}",
                "group": group.group,
                "members": members,
                "offsets": {} if offset is None else {f"{topic}/{number}": offset},
                "committed": None,
                "redis": None if applied is None else {"next_offset": applied},
                "fit": NOTHING if offset is None and applied is None else "goes back" if behind else FITS,
                "reason": reason,
                "rows": applied,
                "models": [],
            }
    finally:
        client.close()


def _named(offsets: Mapping[PartitionId, int]) -> dict[str, int]:
    return {f"{topic}/{partition}": offset for (topic, partition), offset in sorted(offsets.items())}
