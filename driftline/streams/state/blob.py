"""The small state of a task: one JSON object with a version."""

from __future__ import annotations

from typing import Any

import orjson

from driftline.streams.errors import StateError


def read_state(blob: bytes, version: int) -> dict[str, Any]:
    """The object in a blob.

    Raises
    ------
    StateError : damaged, or of another version: an older worker must not go on from a newer one's state (PROTOCOL 21).
    """
    try:
        held = orjson.loads(blob)
        found = held["v"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise StateError(f"its state is damaged: {error}") from error
    if found != version:
        raise StateError(
            f"its state is of version {found!r}, this worker reads version {version}",
            hint="upgrade this worker: a newer one has already run here",
        )
    return held  # type: ignore[no-any-return]
