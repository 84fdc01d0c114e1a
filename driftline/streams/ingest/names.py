"""Names that producers choose, of undeclared features and of classes: which of them are columns."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any, Final

from driftline.streams.ingest.values import TEXT_CHARS_MAX

NAMES_MAX: Final = 500
"""Undeclared features of one model; a map keyed by user would otherwise be a column for each user."""


CLASSES_MAX: Final = 1_000
"""Undeclared classes of one model in maps of probabilities."""


class LearnedNames:
    """The undeclared names of one model that are columns: the first in stream order, for good.

    Parameters
    ----------
    declared : names of the configuration, columns beside these.
    """

    def __init__(self, names: Iterable[str] = (), *, most: int = NAMES_MAX, declared: Iterable[str] = ()) -> None:
        self._declared = dict.fromkeys(declared)
        self._known = {**self._declared, **dict.fromkeys(names)}
        self._most = most + len(self._declared)

    def export(self) -> list[str]:
        """The learned names, in the order in which they came."""
        return [name for name in self._known if name not in self._declared]

    def admit(self, maps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The maps of rows without the entries whose names came too late or are too long; new names are learned."""
        found = set(chain.from_iterable(maps))
        if found <= self._known.keys():
            return maps
        for name in dict.fromkeys(chain.from_iterable(maps)):
            if len(self._known) >= self._most:
                break
            if len(name) <= TEXT_CHARS_MAX:
                self._known[name] = None
        if found <= self._known.keys():
            return maps
        return [{name: value for name, value in features.items() if name in self._known} for features in maps]
