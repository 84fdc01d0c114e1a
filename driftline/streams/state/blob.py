"""The small state of a task: one JSON object with a version, read by its type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from driftline.streams.errors import UPGRADE_HINT, NewerStateError, StateError

_Held = TypeVar("_Held")


class _Versioned(msgspec.Struct):
    v: Any


def read_state(blob: bytes, version: int, kind: type[_Held], *, oldest: int | None = None) -> _Held:
    """The state in a blob.

    Parameters
    ----------
    kind : what it must be, every field with type and bounds: a wrong one would end the worker rows later, without a reason.
    oldest : the first version that `kind` reads too; None = only this one.

    Raises
    ------
    StateError : damaged, or of another version: an older worker must not go on from a newer one's state (PROTOCOL 21).
    """
    try:
        found = msgspec.json.decode(blob, type=_Versioned).v
        if found in range(version if oldest is None else oldest, version + 1):
            return msgspec.json.decode(blob, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StateError(f"its state is damaged: {error}") from error
    newer = not isinstance(found, int) or found > version
    raise (NewerStateError if newer else StateError)(
        f"its state is of version {found!r:.40}, this worker reads version {version}",
        hint=UPGRADE_HINT if newer else None,
    )


def check_width(before: Sequence[int], now: Mapping[str, int]) -> None:
    """See that the topics a task writes to have as many partitions as when its state was made.

    Parameters
    ----------
    before : partitions of each topic, in the order of `now`; empty in the state of an older worker.

    Raises
    ------
    StateError : one was widened: models and ids would go to other partitions, away from their state there (PROTOCOL 8).
    """
    for (topic, found), expected in zip(now.items(), before, strict=False):
        if found != expected:
            raise StateError(f'topic "{topic}" had {expected} partitions when its state was made and has {found} now', hint=WIDENED)


WIDENED = (
    "adding partitions moves models and ids away from their state, and Kafka cannot take it back: "
    "begin under another topics.prefix, or `--on-lost-state=rebuild-from-earliest` on all processors"
)
