"""Page-Hinkley for one series, with river's interface."""

from __future__ import annotations

from typing import Self

from driftline.detectors import calibration
from driftline.detectors.kernels.page_hinkley import DRIFTLINE_DELTA, FIRED, MEAN, PageHinkleyBank
from driftline.detectors.one_series import OneSeries


class PageHinkley(OneSeries[PageHinkleyBank]):
    """Cumulated deviations from the running mean against their extreme so far.

    Defaults and alarms are river 0.26's. `threshold` and `delta` are in the unit of the values, and `alpha` < 1
    cancels the drift term: use `calibrated` with standardised values unless you need parity. NaN and infinities
    are skipped.

    Parameters
    ----------
    min_instances : no alarm before this many values
    delta : deviation that is allowed for
    threshold : height of the cumulated deviation that is an alarm
    alpha : fading factor
    mode : "up", "down" or "both"

    Examples
    --------
    >>> import numpy as np
    >>> values = np.repeat([0.0, 1.0], 1000)
    >>> PageHinkley().update_many(values)[:1]
    array([1051])
    """

    def __init__(
        self, min_instances: int = 30, delta: float = 0.005, threshold: float = 50.0, alpha: float = 1 - 0.0001, mode: str = "both"
    ) -> None:
        self.threshold = threshold
        super().__init__(PageHinkleyBank(1, 1, threshold=threshold, delta=delta, alpha=alpha, mode=mode, min_instances=min_instances))

    @classmethod
    def calibrated(cls, run_length: float = 1e6, *, mode: str = "both") -> Self:
        """Driftline's own settings for standardised values: alpha 1, and one false alarm in `run_length` on average."""
        sides = 2 if mode == "both" else 1
        threshold = calibration.page_hinkley_threshold(run_length, DRIFTLINE_DELTA, sides=sides)
        return cls(delta=DRIFTLINE_DELTA, threshold=threshold, alpha=1.0, mode=mode)

    @property
    def _fired(self) -> bool:
        return bool(self._bank.sums[0, FIRED])

    @property
    def estimation(self) -> float:
        """Mean of the values since the last reset."""
        return float(self._bank.sums[0, MEAN])
