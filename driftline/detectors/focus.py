"""FOCuS for one series: a change of the mean at any scale, and when it began."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from driftline.detectors import calibration
from driftline.detectors.holes import Holes
from driftline.detectors.kernels.bank import Float64Array, Int64Array
from driftline.detectors.kernels.focus import FocusBank


class Change(NamedTuple):
    """Where the mean most likely changed: position of the first changed value, and a 95 % interval of it."""

    since: int
    earliest: int
    latest: int
    shift: float


class FOCuS:
    """The likelihood ratio of a change of the mean over every start at once, exactly.

    For values of one standard deviation and near-normal tails: put others through `ConformalScores` first. NaN and
    infinities are skipped. After an alarm it forgets everything.

    Parameters
    ----------
    run_length : mean values between false alarms, by a closed form; simulated ones are 8 to 25 % longer
    mean : before a change; None = not known, estimated with the change
    sd : standard deviation of the values

    Examples
    --------
    >>> import numpy as np
    >>> values = np.random.default_rng(7).normal(size=2_000) + np.repeat([3.0, 4.0], 1_000)
    >>> focus = FOCuS(run_length=1e6)
    >>> first = focus.update_many(values)[0]
    >>> bool(1_000 < first < 1_050), focus.change.earliest <= 1_000 <= focus.change.latest
    (True, True)

    References
    ----------
    Romano, Eckley, Fearnhead and Rigaill (2023), Journal of Machine Learning Research 24, arXiv 2110.08205, algorithm 3.
    """

    def __init__(self, run_length: float = 1e6, *, mean: float | None = None, sd: float = 1.0) -> None:
        if not sd > 0:
            raise ValueError(f"expected sd > 0, got {sd}")
        self.threshold = calibration.focus_threshold(run_length)
        self._mean, self._sd = mean, sd
        self._bank = FocusBank(1, known=mean is not None)
        self._holes = Holes()
        self._rows = 0
        self._fired = False
        self._change: Change | None = None

    def update(self, x: float) -> None:
        """Add one value."""
        self.update_many([x])

    def update_many(self, values: ArrayLike) -> Int64Array:
        """Add values in stream order; positions in `values` of those that raised an alarm."""
        flat = (np.asarray(values, np.float64).ravel() - (self._mean or 0.0)) / self._sd
        alarms: list[int] = []
        start = 0
        while (at := self._bank.first_above(flat, self.threshold, start)) < len(flat):
            dating = self._bank.date(0)
            assert dating is not None, "its ratio is above the threshold"
            self._remember_holes(flat[start : at + 1], start)
            after = self._rows + at + 1
            ends = [self._holes.place(after, back) for back in (dating.back, dating.earliest, dating.latest)]
            self._change = Change(ends[0], ends[1], ends[2], dating.shift * self._sd)
            alarms.append(at)
            self._bank.reset(0)
            self._holes.clear()
            start = at + 1
        self._remember_holes(flat[start:], start)
        self._rows += len(flat)
        self._fired = bool(alarms) and alarms[-1] == len(flat) - 1
        return np.array(alarms, np.int64)

    def _remember_holes(self, values: Float64Array, start: int) -> None:
        self._holes.add(np.flatnonzero(~np.isfinite(values)) + self._rows + start)

    @property
    def drift_detected(self) -> bool:
        """Whether the last value raised an alarm."""
        return self._fired

    @property
    def change(self) -> Change | None:
        """Of the last alarm, in values counted from 0; None before the first."""
        return self._change

    @property
    def statistic(self) -> float:
        """The log likelihood ratio now."""
        found = self._bank.date(0)
        return 0.0 if found is None else found.ratio
