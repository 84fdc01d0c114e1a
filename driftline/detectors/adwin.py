"""ADWIN for one series, with river's interface."""

from __future__ import annotations

from typing import Self

from driftline.detectors import calibration
from driftline.detectors.kernels.adwin import TOTAL, VARIANCE, WIDTH, AdwinBank
from driftline.detectors.one_series import OneSeries


class ADWIN(OneSeries[AdwinBank]):
    """Adaptive windowing: a mean that changed, found by comparing all older with all newer parts of a window.

    Defaults and alarms are river 0.26's. On the value after an alarm everything is forgotten, as there;
    `width` and the others still show the kept part until then. NaN and infinities are skipped, where river
    is left useless by the first one.

    Parameters
    ----------
    delta : confidence of a cut; no false-alarm rate, see `calibrated`
    clock : values between checks
    max_buckets : buckets of one size
    min_window_length : values that both sides of a cut must have
    grace_period : no check up to this width

    Examples
    --------
    >>> import numpy as np
    >>> values = np.repeat([0.0, 1.0], 1000)
    >>> ADWIN().update_many(values)
    array([1023])
    """

    def __init__(
        self, delta: float = 0.002, clock: int = 32, max_buckets: int = 5, min_window_length: int = 5, grace_period: int = 10
    ) -> None:
        self.delta = delta
        super().__init__(
            AdwinBank(
                1, 1, delta=delta, clock=clock, max_buckets=max_buckets, min_window_length=min_window_length, grace_period=grace_period
            )
        )

    @classmethod
    def calibrated(cls, run_length: float = 1e6) -> Self:
        """Driftline's own settings: one false alarm in `run_length` standardised values on average."""
        return cls(delta=calibration.adwin_delta(run_length))

    @property
    def _fired(self) -> bool:
        return bool(self._bank.fired[0])

    @property
    def width(self) -> float:
        """Values in the window."""
        return float(self._bank.moments[0, WIDTH])

    @property
    def total(self) -> float:
        """Their sum."""
        return float(self._bank.moments[0, TOTAL])

    @property
    def variance(self) -> float:
        """Sum of squared deviations from the mean, as river names it."""
        return float(self._bank.moments[0, VARIANCE])

    @property
    def estimation(self) -> float:
        """Mean of the window; 0 while it is empty."""
        return self.total / self.width if self.width else 0.0

    @property
    def n_detections(self) -> int:
        """Alarms since the last reset: 1 until the value after an alarm, as in river."""
        return int(self._bank.fired[0])
