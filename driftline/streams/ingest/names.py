"""Names of undeclared features: which of them are columns."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any, Final

from driftline.streams.ingest.values import TEXT_CHARS_MAX

NAMES_MAX: Final = 500
"""Undeclared features of one model; a map keyed by user would otherwise be a column for each user."""


class LearnedNames:
    """The undeclared features of one model that are columns: the first names in stream order, for good."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._known = dict.fromkeys(names)

    def export(self) -> list[str]:
        """The names, in the order in which they came."""
        return list(self._known)

    def admit(self, maps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The features of rows without those whose names came too late or are too long; new names are learned."""
        found = set(chain.from_iterable(maps))
        if found <= self._known.keys():
            return maps
        for name in dict.fromkeys(chain.from_iterable(maps)):
            if len(self._known) >= NAMES_MAX:
                break
            if len(name) <= TEXT_CHARS_MAX:
                self._known[name] = None
        if found <= self._known.keys():
            return maps
        return [{name: value for name, value in features.items() if name in self._known} for features in maps]
