"""Which rows are of which version of a model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from driftline.streams.detect.publish import PanelName
from driftline.streams.observation import Observations

if TYPE_CHECKING:
    from driftline.streams.detect.ledger import Feed

NO_VERSION: Final = ""
"""Events without a version share the panels of this one."""
VERSIONS_MAX: Final = 50
OTHER_VERSIONS: Final = "(other versions)"

NEAR_MS: Final = 1_800_000
"""Event time after a version's first row in which what opens names it."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A further version of a model, at its first row in a ledger.

    Attributes
    ----------
    place : that row of the present batch; -1 = it came earlier.
    """

    version: str
    time_ms: int
    place: int = -1


def arrivals(feeds: Sequence[Feed], known: Collection[PanelName]) -> list[Arrival]:
    """The versions that arrive with a batch, in its order; the first of a kind and age is no further one.

    Parameters
    ----------
    known : panels that there were before the batch.
    """
    found = []
    for i, feed in enumerate(feeds):
        name = feed.name
        if not name.version or name in known:
            continue
        before = (*known, *(other.name for other in feeds[:i]))
        if any(one.kind == name.kind and one.age_ms == name.age_ms for one in before):
            found.append(Arrival(name.version, int(feed.rows.time_ms[0]), feed.place(0)))
    return found


def near(arrived: Sequence[Arrival], row: int, time_ms: int) -> Arrival | None:
    """The last version to have arrived by a row, if that is at most `NEAR_MS` from its time."""
    last = next((one for one in reversed(arrived) if one.place <= row), None)
    return last if last is not None and abs(time_ms - last.time_ms) <= NEAR_MS else None


def reason_of(version: str) -> str:
    """What a `version_seen` event says."""
    if version == OTHER_VERSIONS:
        return f"first event of a version beyond the first {VERSIONS_MAX}: from here on later versions share their panels"
    return f'first event of version "{version}"'


def by_version(
    kind: PanelName, batch: Observations, watched: np.ndarray[Any, Any] | None, known: Collection[PanelName]
) -> Iterator[tuple[PanelName, np.ndarray[Any, Any] | None]]:
    """(panel, rows) of the watched rows in order of first row; rows None = the whole batch.

    The first `VERSIONS_MAX` versions of a model have panels of their own, later ones share one: a producer that
    puts a build number into every event must not make state without end.

    Parameters
    ----------
    known : panels that there are.
    """
    text = batch.version
    if text is None:
        yield kind.of_version(NO_VERSION), watched
        return
    found = text.codes if watched is None else text.codes[watched]
    codes = found[:1]
    if not bool((found == codes).all()):
        codes, firsts = np.unique(found, return_index=True)
        codes = codes[np.argsort(firsts)]
    live = sum(name.kind == kind.kind and name.age_ms == kind.age_ms for name in known)
    members: dict[PanelName, list[int]] = {}
    for code in codes.tolist():
        name = kind.of_version(text.values[code] if code >= 0 else NO_VERSION)
        if name not in known and name not in members:
            name = name if live < VERSIONS_MAX else kind.of_version(OTHER_VERSIONS)
            live += 1
        members.setdefault(name, []).append(code)
    for name, own in members.items():
        rows = None if len(members) == 1 else np.flatnonzero(np.isin(found, own))
        yield name, rows if watched is None else watched if rows is None else watched[rows]
