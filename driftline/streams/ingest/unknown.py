"""Rows of models that the configuration does not name: counted by name, so that somebody hears of them.

They are skipped as configured, and a stream of nothing else looks like a quiet one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

_log = logging.getLogger(__name__)

NAMES_MOST: Final = 1_000
"""Names that are told apart: a wrong mapping takes every id for one."""
NAME_SHOWN: Final = 80
"""Characters of a name that are told."""


def fate_words(fate: str) -> str:
    """What became of such rows, for the value of `unknown_models`."""
    return "skipped" if fate == "skip" else "dead-lettered"


class UnknownModels:
    """Counts such rows, and warns of the first. Shared by the tasks of a worker: a name is on many partitions.

    Parameters
    ----------
    fate : what becomes of the rows, as configured: ``skip`` or ``dead_letter``.

    Attributes
    ----------
    rows : so many came.
    """

    def __init__(self, fate: str) -> None:
        self._fate = fate_words(fate)
        self._names: dict[str, int] = {}
        self.rows = 0

    def add(self, topic: str, names: Sequence[str]) -> None:
        """Take the names of such rows of a batch."""
        if names and not self.rows:
            note = f"not in the configuration: such rows are {self._fate} and counted, here only the first is told"
            _log.warning("unknown_model name=%r topic=%s note=%r", names[0][:NAME_SHOWN], topic, note)
        self.rows += len(names)
        for name in names:
            if name in self._names or len(self._names) < NAMES_MOST:
                self._names[name] = self._names.get(name, 0) + 1

    def words(self) -> str | None:
        """What to say of them at the end, with the commonest name; None where there were none."""
        if not self.rows:
            return None
        count = len(self._names)
        models = "1 model" if count == 1 else f"{count:,}{' or more' if count == NAMES_MOST else ''} models"
        example = max(self._names, key=lambda name: (self._names[name], name))
        return f"{self.rows:,} rows of {models} that the configuration does not name were {self._fate}, such as {example[:NAME_SHOWN]!r}"
