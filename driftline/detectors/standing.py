"""Open episodes as they stand: for how long nothing further has changed, and which of them cannot be what is normal from now on.

An episode of a series that is watched to both sides may become the new normal: a return from it shows as a change does. What is
watched to one side (losses, latencies, errors, missing and invalid values) would not show its return, and what came again after that
would hide behind the worse level. Neither can a run of equal values: there is no level to learn. Such an episode is a *fault*, at any
age. Values beyond the baseline's range and categories that it has not seen are no fault, although they are watched to one side: they
are *of the values*, whose distribution is watched to both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from driftline.detectors.episodes import E_BAND_SINCE
from driftline.detectors.panel_watch import Watch
from driftline.detectors.spec import Column, Series

_OF_THE_VALUES: Final = frozenset({"unseen", "out_of_range"})


@dataclass(frozen=True, slots=True)
class Standing:
    """An open episode.

    Attributes
    ----------
    scope : 0 = all rows.
    fault : it is not to become what is normal.
    of_values : it is of a piece with the distribution of its column, and often found later.
    back : its level is in its band now, so that it may be about to end.
    judged : values that were judged against the level since its last change without a further one; None = it is not followed
        (`post_change.py`): there is no budget, or it goes by the hour, or is of a block.
    rows : of its scope, since the baseline stands.
    """

    column: str
    series: str
    scope: int
    fault: bool
    of_values: bool
    back: bool
    judged: int | None
    rows: int


def standing_of(watch: Watch) -> list[Standing]:
    """Every open episode, in order of scope and series."""
    judged: dict[tuple[int, int], int] = {}
    if watch.budget is not None:
        scopes, series = watch.budget.followed()
        counts = watch.budget.post_change.judged
        judged = {(s, q): n for s, q, n in zip(scopes.tolist(), series.tolist(), counts.tolist(), strict=True)}
    found = []
    for scope, q in watch.opened():
        own, column = watch.layout.series[q], watch.layout.columns[watch.layout.column_of[q]]
        rows = int(watch.windows.heads[scope])
        of_values = own.flag in _OF_THE_VALUES
        back = int(watch.windows.episodes[scope, q, E_BAND_SINCE]) >= 0
        found.append(Standing(column.name, own.name, scope, is_fault(own, column), of_values, back, judged.get((scope, q)), rows))
    return found


def is_fault(series: Series, column: Column) -> bool:
    """Whether an open episode of a series is a fault at any age."""
    if series.flag == "constant":
        return True
    # A distance from the reference has one side, and a return is a distance from the new one.
    return series.direction != "both" and series.flag not in _OF_THE_VALUES and not column.joint
