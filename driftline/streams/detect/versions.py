"""Which rows are of which version of a model."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np

from driftline.streams.detect.publish import PanelName
from driftline.streams.observation import Observations

NO_VERSION: Final = ""
"""Events without a version share the panels of this one."""
VERSIONS_MAX: Final = 50
OTHER_VERSIONS: Final = "(other versions)"


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
        yield replace(kind, version=NO_VERSION), watched
        return
    found = text.codes if watched is None else text.codes[watched]
    codes, firsts = np.unique(found, return_index=True)
    live = sum(name.kind == kind.kind and name.age_ms == kind.age_ms for name in known)
    members: dict[PanelName, list[int]] = {}
    for code in codes[np.argsort(firsts)].tolist():
        name = replace(kind, version=text.values[code] if code >= 0 else NO_VERSION)
        if name not in known and name not in members:
            name = name if live < VERSIONS_MAX else replace(kind, version=OTHER_VERSIONS)
            live += 1
        members.setdefault(name, []).append(code)
    for name, own in members.items():
        rows = None if len(members) == 1 else np.flatnonzero(np.isin(found, own))
        yield name, rows if watched is None else watched if rows is None else watched[rows]
