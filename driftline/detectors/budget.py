"""A budget of false alarms over several series, for notebooks; what `false_alarms` means, in one class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from driftline.detectors.conformal import ScoredColumns
from driftline.detectors.holes import Holes
from driftline.detectors.kernels.bank import Float64Array, Int64Array
from driftline.detectors.kernels.bets import BOUNDED, DIRECTIONS, SCORES, bet_name
from driftline.detectors.kernels.blame import Blames
from driftline.detectors.kernels.e_detector import EDetectorBank
from driftline.detectors.spec import REFERENCE_ERRORS

MIN_EFFECT = 0.1
"""Standard deviations; a rate has twice this, relative to it."""
RATE_SHARE = 2.0

CAP_SHARE = 1.0 / 168.0
"""A gap counts at most this part of the budget's period, an hour of a week, unless the series is that slow."""


@dataclass(frozen=True, slots=True)
class Blamed:
    """A series that an alarm is about.

    Attributes
    ----------
    evidence : its part of the alarm; 1 is an alarm by itself
    change : the alternative that gained most, for people: "shift +0.5 sd", "spread x2", "rate x3"
    direction : None for a spread
    since : position of the first changed value, `earliest` and `latest` the ends of its 95 % interval (None for spreads)
    shift : mean score since then, in standard deviations
    """

    name: str
    evidence: float
    change: str
    direction: Literal["up", "down"] | None
    since: int
    earliest: int | None
    latest: int | None
    shift: float


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm at a row, and what it is about, by falling evidence."""

    position: int
    evidence: float
    blamed: tuple[Blamed, ...]


class AlarmBudget:
    """Watches several series and raises at most so many false alarms over all of them.

    Every series' values become conformal scores against their own reference, e-detectors collect evidence on the scores,
    and the model alarms when the evidence of all series together, paid for out of one budget, reaches 1. So the mean
    number of false alarms up to any time is at most the budget up to then: whatever the laws of the series, their
    dependence on each other, how unevenly rows come, and how many series there are. What is assumed is that each series
    is exchangeable with its reference while nothing changes: no trend, no season, no memory.

    Parameters
    ----------
    reference : values of each series by name, or an array (m, C), in stream order; a thousand or more are recommended.
        A series of zeros and ones is watched as a rate
    false_alarms : how many at most in a period, over all series
    per : the period, in units of the clock; without a clock, in rows
    min_effect : smaller shifts are no alarm, in standard deviations; for rates twice this, relative to them
    direction : "up", "down" or "both", for all or by name
    weights : share of the budget by name; equal if not given
    frozen : compare with the reference alone. Needs `min_effect` of at least 2 / sqrt(m) for one series, twice its own error,
        and 4 / sqrt(m) for several: of many references some are three errors off
    seed : of the random numbers that break ties

    Raises
    ------
    ValueError : a frozen reference too small for its `min_effect`, or options that do not fit

    Examples
    --------
    >>> import numpy as np
    >>> generator = np.random.default_rng(7)
    >>> budget = AlarmBudget({"amount": generator.lognormal(size=5_000), "fraud": generator.random(5_000) < 0.1}, per=100_000)
    >>> rows = np.column_stack([generator.lognormal(size=4_000), generator.random(4_000) < np.repeat([0.1, 0.3], 2_000)])
    >>> alarm = budget.update_many(rows)[0]
    >>> alarm.blamed[0].name, alarm.blamed[0].direction, 2_000 < alarm.position < 2_100
    ('fraud', 'up', True)

    References
    ----------
    Shin, Ramdas and Rinaldo (2023), arXiv 2203.03532, theorem 2.4; scores as in `ConformalScores`.
    """

    def __init__(
        self,
        reference: Mapping[str, ArrayLike] | ArrayLike,
        *,
        false_alarms: float = 1.0,
        per: float = 100_000,
        min_effect: float = MIN_EFFECT,
        direction: str | Mapping[str, str] = "both",
        weights: Mapping[str, float] | None = None,
        frozen: bool = False,
        seed: int = 0,
    ) -> None:
        if not isinstance(reference, Mapping):
            columns = np.asarray(reference, np.float64).T
            reference = {str(c): column for c, column in enumerate(columns.reshape(1, -1) if columns.ndim == 1 else columns)}
        if not (reference and false_alarms > 0 and per > 0 and min_effect >= 0):
            raise ValueError("expected at least one series, false_alarms and per above 0, min_effect at least 0")
        self.names = tuple(reference)
        self._columns = ScoredColumns(list(reference.values()), self.names, frozen=frozen, seed=seed)
        least = min(self._columns.sizes)
        # Of many references some is three errors off by chance.
        needed = (2.0 if len(self.names) == 1 else REFERENCE_ERRORS) / math.sqrt(least)
        if frozen and min_effect < needed:
            raise ValueError(
                f"a frozen reference of {least} counted values needs min_effect >= {needed:.3g}, got {min_effect:g}: "
                "below that its own error is an alarm"
            )
        binary = np.array(self._columns.binary)
        self._bank = EDetectorBank(
            len(self.names),
            rate=false_alarms / per * self._shares(weights),
            form=np.where(binary, BOUNDED, SCORES),
            base=np.where(binary, self._columns.share, 0.5),
            tolerance=np.where(binary, RATE_SHARE, 1.0) * min_effect,
            direction=[self._side(direction, name) for name in self.names],
            cap=per * CAP_SHARE,
            first=1.0,
        )
        self._holes = [Holes() for _ in self.names]
        self._rows = 0

    def _shares(self, weights: Mapping[str, float] | None) -> Float64Array:
        if weights is not None and (set(weights) != set(self.names) or min(weights.values()) < 0 or sum(weights.values()) <= 0):
            raise ValueError(f"expected weights of at least 0 for {', '.join(self.names)}, got {dict(weights)}")
        given = np.array([1.0 if weights is None else weights[name] for name in self.names])
        shares: Float64Array = given / given.sum()
        return shares

    @staticmethod
    def _side(direction: str | Mapping[str, str], name: str) -> int:
        chosen = direction if isinstance(direction, str) else direction.get(name, "both")
        if chosen not in DIRECTIONS:
            raise ValueError(f'expected direction "both", "up" or "down", got "{chosen}"')
        return DIRECTIONS[chosen]

    @property
    def rows(self) -> int:
        """Rows taken so far."""
        return self._rows

    @property
    def evidence(self) -> float:
        """Evidence of all series together; an alarm at 1."""
        return self._bank.total

    @property
    def spent(self) -> float:
        """Budget that has come in: the mean number of false alarms so far is at most this."""
        return self._bank.spent

    def update(self, row: Mapping[str, float] | Sequence[float], clock: int | None = None) -> Alarm | None:
        """Take one row; a name that is missing has no value on it.

        Raises
        ------
        ValueError : a name that the reference does not have
        """
        if isinstance(row, Mapping) and (unknown := [name for name in row if name not in self.names]):
            raise ValueError(f"expected names of the reference ({', '.join(self.names)}), got {', '.join(map(str, unknown))}")
        values = [row.get(name, math.nan) for name in self.names] if isinstance(row, Mapping) else list(row)
        found = self.update_many([values], None if clock is None else [clock])
        return found[0] if found else None

    def update_many(self, rows: ArrayLike, clock: ArrayLike | None = None) -> list[Alarm]:
        """Take rows (n, C) in stream order; the alarms, with positions counted over all rows ever taken.

        Parameters
        ----------
        rows : NaN = the series has no value on this row
        clock : whole numbers, shape (n,), never going back; the rows' numbers if not given
        """
        values = np.asarray(rows, np.float64).reshape(-1, len(self.names))
        n = len(values)
        ticks: Int64Array = np.arange(self._rows, self._rows + n) if clock is None else np.asarray(clock, np.int64)
        scores = self._columns.scores(values, self._rows)
        monitors = np.broadcast_to(np.arange(len(self.names), dtype=np.int32), scores.shape)
        for c in np.flatnonzero(~np.isfinite(scores).all(axis=0)).tolist():
            self._holes[c].add(np.flatnonzero(~np.isfinite(scores[:, c])) + self._rows)
        alarms = []
        blames = self._bank.update(scores, monitors, ticks)
        rows_blamed: Int64Array = blames["row"]
        for row in np.unique(rows_blamed).tolist():
            own = blames[rows_blamed == row]
            blamed = tuple(self._blamed(b, self._rows + row + 1) for b in own)
            alarms.append(Alarm(self._rows + row, float(own["total"][0]), blamed))
        self._rows += n
        return alarms

    def _blamed(self, blame: Blames, after: int) -> Blamed:
        """One blamed series, by its values before position `after`."""
        c = int(blame["monitor"])
        holes = self._holes[c]
        earliest, latest = int(blame["earliest"]), int(blame["latest"])
        side = int(blame["direction"])
        return Blamed(
            name=self.names[c],
            evidence=float(blame["evidence"]),
            change=bet_name(BOUNDED if self._columns.binary[c] else SCORES, int(blame["bet"])),
            direction="up" if side > 0 else "down" if side < 0 else None,
            since=holes.place(after, int(blame["back"])),
            earliest=holes.place(after, earliest) if earliest else None,
            latest=holes.place(after, latest) if latest else None,
            shift=float(blame["shift"]),
        )
