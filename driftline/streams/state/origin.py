"""A checkpoint as it is loaded, and where it comes from: the installation, the configurations that were active (PROTOCOL 20)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from driftline.streams.errors import StateError
from driftline.streams.state.manifest import Activation, Manifest
from driftline.streams.task import PartitionId, RestoredState

CONFIG_BLOB: Final = "~config"
"""Beside a task's own blobs: the configuration its state was made under. No task has one of this name."""

_HISTORY_MAX: Final = 64


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


def _activation(config: str, offsets: list[tuple[str, int, int]], at_ms: int) -> Activation:
    return Activation(config, sorted(offsets), at_ms)
