"""A detector of one series whose run length is a theorem, with river's interface."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from driftline.detectors.budget import AlarmBudget, Blamed
from driftline.detectors.kernels.bank import Int64Array


class EDetector:
    """Conformal scores and a mixture of Shiryaev-Roberts e-detectors: any law, no calibration, a promised run length.

    The mean number of values between false alarms is at least `run_length`, and the mean number of false alarms up to
    value T at most T / run_length, while the values are exchangeable with the reference; for a reference of any size and
    values of any law, zeros and ones included. Shifts from an eighth of a standard deviation and changes of spread are
    looked for at once, a few per cent slower than by a detector that knows the size of the shift. NaN and infinities are
    skipped.

    Parameters
    ----------
    reference : values in stream order, a thousand or more recommended
    run_length : mean values between false alarms, at least
    min_effect : smaller shifts are no alarm; in standard deviations, for zeros and ones relative to their rate
    direction : "up", "down" or "both"
    frozen : compare with the reference alone, not with the values since. Needs `min_effect` >= 2 / sqrt(m), m the
        second half of the reference
    seed : of the random numbers that break ties

    Examples
    --------
    >>> import numpy as np
    >>> generator = np.random.default_rng(7)
    >>> detector = EDetector(generator.lognormal(size=5_000), run_length=1e6)
    >>> values = generator.lognormal(np.repeat([0.0, 0.5], 10_000))
    >>> alarms = detector.update_many(values)
    >>> bool(10_000 < alarms[0] < 10_200)
    True

    References
    ----------
    Shin, Ramdas and Rinaldo (2023), arXiv 2203.03532: R_t = (R_{t-1} + 1) L_t, theorem 2.4. Vovk (2021), arXiv 2102.10439.
    The date of a change: Romano and others (2023), arXiv 2110.08205.
    """

    def __init__(
        self,
        reference: ArrayLike,
        run_length: float = 1e6,
        *,
        min_effect: float = 0.0,
        direction: str = "both",
        frozen: bool = False,
        seed: int = 0,
    ) -> None:
        if not run_length >= 1:
            raise ValueError(f"expected a run length of at least 1, got {run_length}")
        values = np.asarray(reference, np.float64).ravel()
        self._budget = AlarmBudget(
            {"value": values}, per=float(run_length), min_effect=min_effect, direction=direction, frozen=frozen, seed=seed
        )
        self._last: Blamed | None = None
        self._fired = False

    def update(self, x: float) -> None:
        """Add one value."""
        self.update_many([x])

    def update_many(self, values: ArrayLike) -> Int64Array:
        """Add values in stream order; positions in `values` of those that raised an alarm."""
        flat = np.asarray(values, np.float64).reshape(-1, 1)
        first = self._budget.rows
        alarms = self._budget.update_many(flat)
        if alarms:
            self._last = alarms[-1].blamed[0]
        self._fired = bool(alarms) and alarms[-1].position == first + len(flat) - 1
        return np.array([alarm.position - first for alarm in alarms], np.int64)

    @property
    def drift_detected(self) -> bool:
        """Whether the last value raised an alarm."""
        return self._fired

    @property
    def change(self) -> Blamed | None:
        """What the last alarm was about and since when, in values counted from 0; None before the first."""
        return self._last

    @property
    def evidence(self) -> float:
        """An alarm at 1."""
        return self._budget.evidence
