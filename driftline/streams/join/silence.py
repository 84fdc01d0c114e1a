"""Ticks of outcomes: what tells detect that an age goes on where a model has no more predictions to decide.

An outcome batch without rows whose `tick_ms` says that every prediction source has passed it in this partition. They
stand at multiples of a tenth of a model's `stale`, as nothing else waits for them: a few a day.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from driftline.schemas.config import Model
from driftline.streams.join.clock import NEVER_MS
from driftline.streams.task import FINAL_MS

_SHARE: Final = 10
_LEAST_MS: Final = 1_000


class OutcomeTicks:
    """The last tick of each model; a function of the waiting log, so that a task that reads it again counts them the same."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._every = {name: max(m.stale // _SHARE, _LEAST_MS) for name, m in sorted(models.items()) if m.stale is not None}
        self._told: dict[str, int] = {}
        self._next_ms = NEVER_MS

    def due(self, now_ms: int) -> Iterator[tuple[str, int]]:
        """The models that are due a tick now that every prediction source has reached this time."""
        if not NEVER_MS < now_ms < FINAL_MS or now_ms < self._next_ms:
            return
        self._next_ms = min(((now_ms // every + 1) * every for every in self._every.values()), default=FINAL_MS)
        for model, every in self._every.items():
            passed = now_ms // every * every
            if passed > self._told.setdefault(model, passed):
                self._told[model] = passed
                yield model, passed

    def export(self) -> dict[str, int]:
        return dict(self._told)

    def restore(self, told: Mapping[str, int]) -> None:
        self._told = dict(told)
        self._next_ms = NEVER_MS
