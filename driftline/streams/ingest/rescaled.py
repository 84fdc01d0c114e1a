"""The state of an ingest task for topics with another number of partitions."""

from __future__ import annotations

import orjson

from driftline.streams.ingest.task import STATE, STATE_VERSION, HeldIngest, Targets
from driftline.streams.state.blob import read_state
from driftline.streams.task import RestoredState


def rescaled(state: RestoredState, targets: Targets) -> tuple[RestoredState, int]:
    """The state that goes on with these topics, and its generation: the numbers of what it writes begin anew, its time and names go on.

    Raises
    ------
    StateError : damaged, or of a newer release.
    """
    blob = state.blobs.get(STATE)
    if blob is None:
        return state, 0
    held = read_state(blob, STATE_VERSION, HeldIngest)
    found = {**orjson.loads(blob), "seq": {}, "partitions": targets.widths()}
    return RestoredState({**state.blobs, STATE: orjson.dumps(found)}, state.rings), held.generation
