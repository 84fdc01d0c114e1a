"""The share of predictions that had a label when they were of age, held against the limit the configuration sets.

A join that finds nothing looks like a model without labels: no outcome series ever opens, because none has rows. So
this one is held against a fixed limit instead of a baseline, which would be learned from the broken join.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from driftline.schemas.config import Labels
from driftline.streams.bounded import Count, Signed64

BLOCKS: Final = 10
"""The window moves by a tenth of itself: state is ten counts, and a label more or less decides nothing."""

CAUSES: Final = (
    "is the label's id the prediction's id (same field, same type and spelling); are labels sent for every prediction, "
    "or only for one class (then set labels.absent); do they come within the age"
)


@dataclass(frozen=True, slots=True)
class JoinRateSignal:
    """The share fell below the limit, far below it, or came back.

    Attributes
    ----------
    share : labelled rows of the last `rows`.
    lost : what is missing, relative to the limit; 0 after recovery.
    stale : it came to its end for want of rows, not because it came back.
    """

    kind: Literal["drift", "evidence", "recovery"]
    share: float
    limit: float
    rows: int
    lost: float
    stale: bool = False


def judged(labels: Labels, age_ms: int | None) -> bool:
    """Whether rows of this age are held against `min_join`; None is the measured age.

    Of several fixed ages only the greatest: at a shorter one a low share is what the user asked to see.
    """
    fixed = [age for age in labels.ages if age != "auto"]
    return labels.join_watched and (age_ms is None or age_ms == max(fixed, default=None))


class _Held(msgspec.Struct, forbid_unknown_fields=True):
    window: Count
    counts: Annotated[list[Count], msgspec.Meta(max_length=BLOCKS)]
    rows: Count
    labelled: Count
    calm: Count
    open: bool
    told: bool
    seen_ms: Signed64


@dataclass(slots=True)
class JoinRate:
    """The rows of one version and age, in their order.

    Parameters
    ----------
    window : rows; rounded up to a multiple of ten.
    loud : loss relative to the limit from which an open episode gets evidence, once.
    seen_ms : the time of the last rows; the caller's.
    """

    limit: float
    window: int
    loud: float
    counts: list[int] = field(default_factory=list)
    rows: int = 0
    labelled: int = 0
    calm: int = 0
    open: bool = False
    told: bool = False
    seen_ms: int = -1

    def update(self, labelled: npt.NDArray[np.bool_]) -> Iterator[tuple[int, JoinRateSignal]]:
        """Take whether each row had a label; yields (row, signal). However the rows are cut, the signals are the same."""
        block = self._block
        start = 0
        while start < len(labelled):
            stop = min(len(labelled), start + block - self.rows)
            self.rows += stop - start
            self.labelled += int(np.count_nonzero(labelled[start:stop]))
            if self.rows == block:
                self.counts = [*self.counts, self.labelled][-BLOCKS:]
                self.rows = self.labelled = 0
                for signal in self._judge():
                    yield stop - 1, signal
            start = stop

    def due_ms(self, limit_ms: int | None) -> int | None:
        """The time after which an open episode is due for want of rows; None = none is."""
        return self.seen_ms + limit_ms if limit_ms is not None and self.open and self.seen_ms >= 0 else None

    def expire(self) -> JoinRateSignal:
        """End the open episode; what is counted begins anew, so that one that lasts opens again after a window of rows."""
        share = sum(self.counts) / (BLOCKS * self._block)
        self.counts, self.rows, self.labelled, self.calm, self.open, self.told = [], 0, 0, 0, False, False
        return replace(self._signal("recovery", share, 0.0), stale=True)

    def export(self) -> dict[str, Any]:
        names = ("window", "counts", "rows", "labelled", "calm", "open", "told", "seen_ms")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def restore(cls, limit: float, window: int, loud: float, state: dict[str, Any]) -> JoinRate:
        """Go on from `export`; counts of another window say nothing and are begun anew, an open episode stays open."""
        held = msgspec.convert(state, _Held)
        if held.window != window or held.rows >= -(-window // BLOCKS):
            held = msgspec.structs.replace(held, counts=[], rows=0, labelled=0, calm=0)
        return cls(limit, window, loud, **{name: value for name, value in msgspec.structs.asdict(held).items() if name != "window"})

    @property
    def _block(self) -> int:
        return -(-self.window // BLOCKS)

    def _judge(self) -> Iterator[JoinRateSignal]:
        if len(self.counts) < BLOCKS:
            return
        share = sum(self.counts) / (BLOCKS * self._block)
        below = share < self.limit
        # A share near the limit crosses it by chance; it is back when a whole window of rows has seen it above.
        self.calm = 0 if below else self.calm + 1
        lost = max(0.0, 1 - share / self.limit)
        if below and not self.open:
            self.open, self.told = True, lost >= self.loud
            yield self._signal("drift", share, lost)
        elif below and lost >= self.loud and not self.told:
            self.told = True
            yield self._signal("evidence", share, lost)
        elif self.open and self.calm >= BLOCKS:
            self.open = self.told = False
            yield self._signal("recovery", share, 0.0)

    def _signal(self, kind: Literal["drift", "evidence", "recovery"], share: float, lost: float) -> JoinRateSignal:
        return JoinRateSignal(kind, share, self.limit, BLOCKS * self._block, lost)
