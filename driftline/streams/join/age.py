"""The age of a label join, and how ``auto`` finds it.

Labels that come fast are no sample of the labels that come, so the first thousand labels would give far too short an
age. The measure follows cohorts instead: at T = t0 + 2 s x 1.25^k (t0: the first prediction) it takes the predictions
of the first half of [t0, T] and, for each, the labels that came within half of that time: every one of them was watched
equally long. When the 95th percentile of their delays is at most half of what was watched, labels have
in the main stopped coming, and it is the age. All of it is a function of the two logs, whatever way they interleave.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from driftline.schemas.config import Config

Int64 = npt.NDArray[np.int64]
Age = int | Literal["auto"]

FALLBACK_MS: Final = 3_600_000
COHORT_ROWS: Final = 20_000
_ENOUGH: Final = 1_000
# Where a thousand cannot be had (few predictions, or few labels among them) a percentile of twenty must do.
_ENOUGH_SLOW: Final = 20
_SLOW_MS: Final = 86_400_000
_GIVE_UP_MS: Final = 14 * 86_400_000
_FIRST_MS: Final = 2_000
_GROWTH: Final = 1.25
_NEVER: Final = np.iinfo(np.int64).max


def join_ages(config: Config) -> list[Age]:
    """The ages of all models, each once, ascending, ``"auto"`` last: one join processor (and consumer group) each."""
    ages: set[Age] = {age for model in config.models.values() for age in model.labels.ages}
    fixed: list[Age] = sorted(age for age in ages if age != "auto")
    return [*fixed, "auto"] if "auto" in ages else fixed


def join_name(age: Age) -> str:
    """The processor of an age, in its group, its tasks and its keys: of the age alone, so that another age beside it moves nothing."""
    return "join-auto" if age == "auto" else f"join-{age}ms"


class AgeMeasure:
    """Finds the age of one join task from its first predictions."""

    def __init__(self) -> None:
        self._step = 0

    def measure(self, seen_ms: Int64, first_ms: Int64, *, waiting_tick: int, label_tick: int) -> int | None:
        """The age, or None while it cannot be told yet.

        Parameters
        ----------
        seen_ms : shape (n,), record times of the predictions in log order, from the log's start; n grows from call to call.
        first_ms : shape (n,), time of the first label of each as known now, `NO_LABEL` for none.
        waiting_tick, label_tick : what all prediction and all label source partitions have reached.
        """
        seen_ms, first_ms = seen_ms[:COHORT_ROWS], first_ms[:COHORT_ROWS]
        if not len(seen_ms):
            return None
        start = int(seen_ms[0])
        while True:
            watched = round(_FIRST_MS * _GROWTH**self._step) // 2
            middle = start + watched
            if label_tick <= middle + watched or (waiting_tick <= middle and len(seen_ms) < COHORT_ROWS):
                return None
            age = _age(seen_ms, first_ms, middle, watched)
            if age is not None:
                return age
            self._step += 1


NO_LABEL: Final = _NEVER


def _age(seen_ms: Int64, first_ms: Int64, middle: int, watched: int) -> int | None:
    cohort = seen_ms <= middle
    delays = np.sort(np.maximum(first_ms[cohort] - seen_ms[cohort], 0)[first_ms[cohort] <= seen_ms[cohort] + watched])
    given_up = watched >= _GIVE_UP_MS
    slow = watched >= _SLOW_MS or int(np.count_nonzero(cohort)) >= COHORT_ROWS
    if len(delays) < (_ENOUGH_SLOW if slow else _ENOUGH):
        return (percentile_95(delays) if len(delays) else FALLBACK_MS) if given_up else None
    found = percentile_95(delays)
    return found if found <= watched // 2 or given_up else None


def percentile_95(delays: Sequence[int] | Int64) -> int:
    """The smallest delay that 95 % are within, in whole seconds upwards, at least one."""
    ordered = np.sort(np.asarray(delays, np.int64))
    at = max(0, math.ceil(0.95 * len(ordered)) - 1)
    return max(1_000, -(-int(ordered[at]) // 1_000) * 1_000)
