"""A checkpoint as it is loaded, and where it comes from: the installation, the configurations that were active (PROTOCOL 20)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from driftline.streams.errors import ForeignStateError, StateError
from driftline.streams.state.manifest import Activation, Manifest
from driftline.streams.task import PartitionId, RestoredState

CONFIG_BLOB: Final = "~config"
"""Beside a task's own blobs: the configuration its state was made under. No task has one of this name."""

_HISTORY_MAX: Final = 64
_TOLD_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint that passed every check.

    Attributes
    ----------
    config_text : the configuration it was made under; empty = not kept.
    """

    manifest: Manifest
    state: RestoredState
    config_text: bytes = b""

    @classmethod
    def of(cls, manifest: Manifest, stored: RestoredState) -> Loaded:
        """From what is stored: the task's own state, and the configuration beside it."""
        blobs = dict(stored.blobs)
        text = blobs.pop(CONFIG_BLOB, b"")
        return cls(manifest, replace(stored, blobs=blobs), text)

    @property
    def offsets(self) -> dict[PartitionId, int]:
        return {(topic, partition): offset for topic, partition, offset in self.manifest.offsets}


def history_of(now: str, before: Manifest | None, offsets: Mapping[PartitionId, int], at_ms: int) -> list[Activation]:
    """The configurations that were active, with the one of now.

    Parameters
    ----------
    now : digest; empty = none is known, and none is kept.
    before : the checkpoint before; where it was made under another configuration, that one ends at its offsets.
    offsets : of the checkpoint itself, for the first of all.
    """
    if not now:
        return []
    if before is None:
        return [_activation(now, [(topic, partition, offset) for (topic, partition), offset in offsets.items()], at_ms)]
    # Of a release that kept none it is known what was active, not since when.
    history = before.history or ([Activation(before.config, [])] if before.config else [])
    if history and history[-1].config == now:
        return history
    return [*history, _activation(now, before.offsets, at_ms)][-_HISTORY_MAX:]


def check_world(found: Manifest, here: Manifest) -> None:
    """Refuse a checkpoint of another cluster, topic, partition count, state version or environment, each by name.

    Raises
    ------
    StateError : names what differs.
    """
    for what in ("cluster_id", "topic_ids", "partitions", "state_version"):
        then, now = getattr(found, what), getattr(here, what)
        if then != now:
            raise StateError(
                f'task "{here.task}": the checkpoint belongs to {what} {then!r}, the worker runs with {now!r}',
                hint="a topic was recreated or widened, or the version changed; start anew with --on-lost-state=rebuild-from-earliest",
            )
    if found.environment not in ("", here.environment):
        raise StateError(
            f'task "{here.task}": the checkpoint belongs to environment "{found.environment}", the worker runs with '
            f'"{here.environment}": every event and episode would get another id, and alerts that are open would stay so',
            hint="give the other environment a kafka.group_prefix of its own",
        )


def check_installation(task: str, then: bytes, now: bytes) -> None:
    """Refuse the state of another installation that has the same prefix by accident.

    A file may be edited between two starts: a topic moves, a model is renamed. Where neither a topic nor a model is left of what the
    state was made under, two files share a group, and each would skip the rows of the other.

    Parameters
    ----------
    then, now : `Config.decisive` of the state and of this worker; what is not known, or is of a release with other keys, passes.

    Raises
    ------
    ForeignStateError : nothing is common to both.
    """
    before, here = _sources(then), _sources(now)
    if before is None or here is None or any(set(before[what]) & set(here[what]) for what in ("topics", "models")):
        return
    raise ForeignStateError(
        f'task "{task}": its state was made by a configuration of other topics and models ({_told(before)}), this one has {_told(here)}: '
        "two installations share a group, and each would skip the rows of the other",
        hint="give this file a topics.prefix of its own (groups follow it) and a redis.key_prefix, then `driftline topics create` it; "
        "where it replaces the other one and shall keep its prefix, start it once with one of the old models still in it",
    )


def _sources(decisive: bytes) -> dict[str, list[str]] | None:
    """Topics of predictions and models of a configuration; None where they cannot be read."""
    try:
        config: Any = json.loads(decisive)
        topics = [str(source["topic"]) for source in config["predictions"]]
        models = [str(name) for name in config["models"]]
    except (ValueError, LookupError, TypeError):
        return None
    return {"topics": topics, "models": models} if topics and models else None


def _told(sources: Mapping[str, list[str]]) -> str:
    parts = []
    for what, names in sources.items():
        more = f" and {len(names) - _TOLD_MAX} more" if len(names) > _TOLD_MAX else ""
        parts.append(f"{what} " + ", ".join(f'"{name}"' for name in names[:_TOLD_MAX]) + more)
    return ", ".join(parts)


def _activation(config: str, offsets: list[tuple[str, int, int]], at_ms: int) -> Activation:
    return Activation(config, sorted(offsets), at_ms)
