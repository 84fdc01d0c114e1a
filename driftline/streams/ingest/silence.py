"""Ticks of models that send nothing while others on their source partition do: else nobody tells detect that time passes.

They stand at multiples of an interval, a tenth of the shortest silence that means something for the model: a tick says
that the partition has passed the multiple, and that the model has sent nothing for an interval. However the stream is
cut, the last tick before a row, and the last one of all, is the same. A model whose rows come steadily has none: a tick
would cut its batch in two, which with many models costs more than their rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from driftline.schemas.config import Config
from driftline.streams.ingest.times import RecordTimes

Int64 = npt.NDArray[np.int64]

_SHARE: Final = 10
_LEAST_MS: Final = 1_000


class SilentModels:
    """How far time has been told to each model of one source partition."""

    def __init__(self, config: Config, models: Iterable[str]) -> None:
        self._every: dict[str, int] = {}
        for name in sorted(models):
            limits = [limit for limit in (config.models[name].freshness, config.models[name].stale) if limit is not None]
            if limits:
                self._every[name] = max(min(limits) // _SHARE, min(_LEAST_MS, *limits))
        self._told: dict[str, int] = {}
        self._before_ms = -1

    def before_rows(self, model: str, offset: Int64, seen_ms: Int64, times: RecordTimes) -> dict[int, int]:
        """Rows of a batch before which a tick belongs, with its time.

        Parameters
        ----------
        offset, seen_ms : of the model's rows; `times` is of all records of the batch.
        """
        every = self._every.get(model)
        if every is None or not len(offset):
            return {}
        told = self._told.get(model, -1)
        self._told[model] = int(seen_ms[-1])
        reached = np.concatenate(([self._before_ms], times.seen_ms[:-1]))
        if len(offset) < len(times):
            reached = reached[np.searchsorted(times.offset, offset)]
        passed = reached // every * every
        rows = np.flatnonzero(passed >= np.concatenate(([told], seen_ms[:-1])) + every)
        return dict(zip(rows.tolist(), passed[rows].tolist(), strict=True))

    def at_end(self, now_ms: int) -> Iterator[tuple[str, int]]:
        """The models that are due a tick after a batch, and its time."""
        self._before_ms = now_ms
        for model, every in self._every.items():
            passed = now_ms // every * every
            # A time that was taken at its word only because the input ended moves nobody's.
            told = min(self._told.get(model, -1), now_ms)
            if passed >= told + every:
                told = passed
                yield model, passed
            self._told[model] = told

    def told_all(self, now_ms: int) -> None:
        """Every model was ticked, as the partition is idle."""
        self._before_ms = now_ms
        # A multiple, as `at_end` has it: the next one is due as it would be had the partition not been idle.
        self._told = {model: max(self._told.get(model, -1), now_ms // every * every) for model, every in self._every.items()}
