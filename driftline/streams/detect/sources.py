"""The source partitions a model's rows came from, as numbers: what its state names them by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


class SourceTable:
    """(topic, partition) pairs in order of appearance.

    A model has its own, so that its state means the same in whichever task it stands.
    """

    def __init__(self, known: Iterable[tuple[str, int]] = ()) -> None:
        self._sources = [(topic, partition) for topic, partition in known]
        self._numbers = {source: number for number, source in enumerate(self._sources)}

    def __getitem__(self, number: int) -> tuple[str, int]:
        return self._sources[number]

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self._sources)

    def numbers(self, sources: Sequence[tuple[str, int]]) -> npt.NDArray[np.uint16]:
        """The numbers of a batch's sources; new ones are appended."""
        for source in sources:
            if source not in self._numbers:
                self._numbers[source] = len(self._sources)
                self._sources.append(source)
        return np.array([self._numbers[source] for source in sources], np.uint16)

    def export(self) -> list[Any]:
        return list(self._sources)


def present(source: npt.NDArray[np.uint16]) -> list[int]:
    """The sources of a batch's rows, ascending; mostly it is one."""
    own = source[:1] if bool((source == source[:1]).all()) else np.unique(source)
    found: list[int] = own.tolist()
    return found
