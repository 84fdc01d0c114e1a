"""The label cache: labels that have come and whose predictions are not yet of age. Nothing in it is precious.

It is a cache of one partition of `driftline.labels` (PROTOCOL 14 to 17): filled from an offset the task's checkpoint
names, insert-only until the prediction is decided, and filled again whenever it says that it has lost entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from driftline.streams.errors import RecoverableError
from driftline.streams.join.facts import COUNTED_AT, FACT_BYTES, as_counted, latest_ms, read_facts
from driftline.streams.join.journal import ID_BYTES, add


class CacheLost(RecoverableError):
    """The cache holds less than the task put in, or belongs to another owner: open the task again."""


class LabelCache(Protocol):
    """Labels of one join task by id (16 bytes)."""

    def covered(self) -> tuple[int, int] | None:
        """The labels offsets [from, next) that went in since the last reset; None when it knows of none."""

    def reset(self, start: int) -> None:
        """Forget everything; what comes next begins at labels offset `start`."""

    def insert(self, ids: Sequence[bytes], facts: Sequence[bytes], *, start: int, next_offset: int) -> int:
        """Add the facts of the labels offsets [start, next_offset); adding a fact again changes nothing.

        Returns how many were passed over, as their id has too many already.

        Raises
        ------
        CacheLost : what was put in before `start` is not all there.
        """

    def __len__(self) -> int:
        """Ids that have labels."""

    def lookup(self, ids: Sequence[bytes]) -> list[bytes | None]:
        """The packed facts of each id."""

    def settle(self, ids: Sequence[bytes], remains: Sequence[bytes]) -> None:
        """Replace the facts of each id; an empty value removes it."""

    def sweep(self, before_ms: int, count: int) -> int:
        """Look at about `count` entries, remove those older than `before_ms`; the number of labels nobody had counted."""

    def count_rest(self) -> int:
        """The labels nobody had counted, counted from now on: the inputs have ended. They stay, for more may come."""


class MemoryLabelCache:
    """A label cache in a dictionary: a worker's, replay's, and of runs without Redis.

    A waiting label takes about 250 bytes of the process: id, facts and their place in the dictionary.
    """

    def __init__(self, entries: dict[bytes, bytes] | None = None, covered: tuple[int, int] | None = None) -> None:
        self.entries: dict[bytes, bytes] = {} if entries is None else entries
        self.held_bytes = sum(map(len, self.entries.values())) + len(self.entries) * ID_BYTES
        self._covered = covered
        self._scan: list[bytes] = []

    def covered(self) -> tuple[int, int] | None:
        return self._covered

    def reset(self, start: int) -> None:
        self.entries.clear()
        self.held_bytes = 0
        self._covered = (start, start)

    def insert(self, ids: Sequence[bytes], facts: Sequence[bytes], *, start: int, next_offset: int) -> int:
        if self._covered is None or self._covered[1] < start:
            raise CacheLost(f"label cache: expected labels up to offset {start}, holds {self._covered}")
        self._covered = (self._covered[0], max(self._covered[1], next_offset))
        more, over = add(self.entries, ids, facts)
        self.held_bytes += more
        return over

    def __len__(self) -> int:
        return len(self.entries)

    def lookup(self, ids: Sequence[bytes]) -> list[bytes | None]:
        return list(map(self.entries.get, ids))

    def settle(self, ids: Sequence[bytes], remains: Sequence[bytes]) -> None:
        entries = self.entries
        less = 0
        for key, value in zip(ids, remains, strict=True):
            held = entries.pop(key, None)
            if held is not None:
                less += ID_BYTES + len(held)
            if value:
                entries[key] = value
                less -= ID_BYTES + len(value)
        self.held_bytes -= less

    def sweep(self, before_ms: int, count: int) -> int:
        return self.sweep_keys(before_ms, count)[1]

    def count_rest(self) -> int:
        return self.count_keys()[1]

    def count_keys(self) -> tuple[list[bytes], int]:
        """As `count_rest`: the ids whose labels were not all counted, and how many those were."""
        changed: list[bytes] = []
        uncounted = 0
        for key, value in self.entries.items():
            n = 1 - value[COUNTED_AT] if len(value) == FACT_BYTES else sum(not fact.counted for fact in read_facts(value))
            if n:
                changed.append(key)
                uncounted += n
        self.entries.update((key, as_counted(self.entries[key])) for key in changed)
        return changed, uncounted

    def sweep_keys(self, before_ms: int, count: int) -> tuple[list[bytes], int]:
        """As `sweep`: the ids that were removed, and the labels among them nobody had counted."""
        if not self._scan:
            self._scan = list(self.entries)
        part = self._scan[-count:]
        del self._scan[len(self._scan) - len(part) :]
        gone: list[bytes] = []
        orphans = 0
        for key in part:
            value = self.entries.get(key)
            if value is not None and latest_ms(value) < before_ms:
                del self.entries[key]
                self.held_bytes -= ID_BYTES + len(value)
                gone.append(key)
                orphans += sum(not fact.counted for fact in read_facts(value))
        return gone, orphans
