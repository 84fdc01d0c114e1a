"""The states of detect's tasks for another number of partitions: each model's goes, as it is, where its rows will come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from driftline.streams.detect.held import HeldTask
from driftline.streams.detect.task import OLDEST_READ, STATE_VERSION, TASK_BLOB
from driftline.streams.detect.watched import model_path
from driftline.streams.errors import StateError
from driftline.streams.partitioner import partition_for
from driftline.streams.state.blob import read_state
from driftline.streams.task import RestoredRing, RestoredState


def rescaled(former: Sequence[RestoredState], partitions: int, upstream: Mapping[str, int]) -> list[RestoredState]:
    """A state for each of the partitions, in their order.

    Parameters
    ----------
    former : of every task there was.
    upstream : every task that will write observations, with its generation; all of them count from 1.

    Raises
    ------
    StateError : damaged, of a newer release, or with parts that belong to no model of it.
    """
    blobs: list[dict[str, bytes]] = [{} for _ in range(partitions)]
    rings: list[dict[str, RestoredRing]] = [{} for _ in range(partitions)]
    models: list[dict[str, Any]] = [{} for _ in range(partitions)]
    live_since_ms = 0
    for number, state in enumerate(former):
        if not state.blobs:
            continue
        held = read_state(state.blobs[TASK_BLOB], STATE_VERSION, HeldTask, oldest=OLDEST_READ)
        live_since_ms = max(live_since_ms, held.live_since_ms)
        places = {model_path(name): partition_for(name, partitions) for name in held.models}
        for name, meta in held.models.items():
            rebuilt = held.rebuilt or bool(meta.get("rebuilt"))
            models[partition_for(name, partitions)][name] = {"sources": held.sources, **meta, "rebuilt": rebuilt}
        for name, blob in state.blobs.items():
            if name != TASK_BLOB:
                blobs[_place(name, places, number)][name] = blob
        for name, ring in state.rings.items():
            rings[_place(name, places, number)][name] = ring
    about = {
        "v": STATE_VERSION,
        # Not left out: a first batch that is not number 1 is a loss.
        "sequence": dict.fromkeys(sorted(upstream), 0),
        "generations": {task: generation for task, generation in sorted(upstream.items()) if generation},
        "rebuilt": False,
        "live_since_ms": live_since_ms,
    }
    return [
        RestoredState({**own, TASK_BLOB: orjson.dumps({**about, "models": held})}, windows)
        for own, windows, held in zip(blobs, rings, models, strict=True)
    ]


def _place(name: str, places: Mapping[str, int], number: int) -> int:
    model = name.split("/", 1)[0]
    if model not in places:
        raise StateError(f'task "detect/{number}": "{name[:80]}" in its state belongs to no model of it')
    return places[model]
