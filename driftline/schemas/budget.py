"""A budget of false alarms: how it is written, and how it is split over a model's series.

A model has two ledgers, the series of its predictions and those of its outcomes; each age of a label is one more. They get
equal parts, because the rows of one say nothing of how the rows of the other come. Features and scores share the
predictions' ledger in halves. Scores and outcomes are watched per version: the k-th version that is seen gets 1 / (k (k + 1)) of
its part, which sums to 1 however many come, and costs a late version little, for delay grows with the logarithm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from driftline.schemas.durations import parse_duration_ms

PanelName = Literal["features", "scores", "outcomes"]

_FORM: Final = re.compile(r"^\s*(\d{1,9}(?:\.\d{1,9})?)\s+per\s+(?:(hour|day|week)|(\d{1,15})\s+events|(\S+))\s*$", re.ASCII)
_PERIODS_MS: Final = {"hour": 3_600_000, "day": 86_400_000, "week": 604_800_000}
HOUR_MS: Final = 3_600_000
REFERENCE_ERRORS: Final = 4.0
"""Standard errors of a frozen reference that are no change: among thousands of series some reference is three off."""
CAP_SHARE: Final = 1.0 / 168.0
"""By events, a gap counts at most this part of the period: as an hour is of a week."""


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """At most `count` false alarms in a period of events, or of milliseconds."""

    count: float
    period: int
    by_events: bool

    @property
    def per_unit(self) -> float:
        """False alarms in a millisecond, or an event."""
        return self.count / self.period

    @property
    def cap(self) -> float:
        """Milliseconds, or events, that a gap counts at most."""
        return self.period * CAP_SHARE if self.by_events else float(HOUR_MS)


@dataclass(frozen=True, slots=True)
class Part:
    """One panel's part of a model's budget; of `scores` and `outcomes`, that of all versions together."""

    panel: PanelName
    age: int | str | None
    share: float


def parse_false_alarms(text: str) -> FalseAlarms:
    """``1 per week``, ``0.5 per day``, ``1 per 4w`` (any duration), ``1 per 100000 events``.

    Raises
    ------
    ValueError : anything else; the message names the accepted forms.
    """
    match = _FORM.match(text)
    try:
        if match is None:
            raise ValueError(text)
        count, named, events, duration = match.groups()
        period = int(events) if events else _PERIODS_MS[named] if named else parse_duration_ms(duration)
        if not float(count) > 0 or period < 1:
            raise ValueError(text)
    except ValueError as error:
        raise ValueError('expected "1 per week", "0.5 per day", "1 per 4w" or "1 per 100000 events"') from error
    return FalseAlarms(float(count), period, by_events=events is not None)


def parts(ages: Sequence[int | str]) -> list[Part]:
    """How a model's budget is split over its panels, by the ages of its labels (none = no labels); the shares sum to 1."""
    ledger = 1.0 / (1 + len(ages))
    return [Part("features", None, ledger / 2), Part("scores", None, ledger / 2), *(Part("outcomes", age, ledger) for age in ages)]


def version_share(rank: int) -> float:
    """The part of the k-th version, counted from 1; over all versions they sum to 1."""
    return 1.0 / (rank * (rank + 1))


def reference_least(warning: float) -> int:
    """Reference events from which `REFERENCE_ERRORS` of a frozen reference are within a warning level."""
    return math.ceil((REFERENCE_ERRORS / warning) ** 2)
