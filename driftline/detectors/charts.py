"""Control charts for one series, with river's interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from driftline.detectors import calibration
from driftline.detectors.kernels.charts import ALLOWANCE, FIRED, MEAN, RISING, WEIGHT, CusumBank, EwmaBank
from driftline.detectors.one_series import OneSeries


class _Chart(OneSeries[CusumBank | EwmaBank]):
    """What both charts share."""

    def __init__(self, bank: CusumBank | EwmaBank) -> None:
        super().__init__(bank)
        self.threshold = float(bank.threshold[0, 0])

    @classmethod
    def fitted(cls, reference: ArrayLike, **options: Any) -> Self:
        """Around the mean and standard deviation of reference values, of which 1,000 are few.

        Raises
        ------
        ValueError : fewer than two values, or all of them equal
        """
        mean, sd, n = _moments(reference)
        return cls(mean, sd, reference_n=n, **options)  # type: ignore[arg-type, call-arg]  # as both charts take it

    @property
    def _fired(self) -> bool:
        return bool(self._bank.sums[0, FIRED])


class CUSUM(_Chart):
    """Cumulated deviations from a known mean, less an allowance: the quickest there is for the shift it is set to.

    Parameters
    ----------
    mean, sd : of the values without drift; `fitted` takes them from a reference
    allowance : half the shift looked for, in standard deviations
    threshold : sum that is an alarm, in standard deviations
    run_length : mean values between false alarms, from which the threshold follows; 1e6 if neither is given
    mode : "up", "down" or "both"
    reference_n : values that `mean` was estimated from; the run length then holds for one two standard errors off

    Examples
    --------
    >>> import numpy as np
    >>> generator = np.random.default_rng(7)
    >>> cusum = CUSUM.fitted(generator.normal(10.0, 2.0, size=5_000), run_length=1e5)
    >>> len(cusum.update_many(generator.normal(10.0, 2.0, size=5_000))), int(cusum.update_many(np.full(100, 12.0))[0])
    (0, 27)
    """

    def __init__(
        self, mean: float = 0.0, sd: float = 1.0, *, allowance: float = ALLOWANCE, threshold: float | None = None,
        run_length: float | None = None, mode: str = "both", reference_n: float = np.inf,
    ) -> None:  # fmt: skip
        threshold = _threshold(calibration.cusum_threshold, allowance, threshold, run_length, mode, reference_n)
        super().__init__(CusumBank(1, 1, setting=allowance, threshold=threshold, target=mean, scale=sd, mode=mode))

    @property
    def estimation(self) -> float:
        """Mean of the values since the last reset."""
        return float(self._bank.sums[0, MEAN])


class EWMA(_Chart):
    """The exponentially weighted mean against a known one.

    Parameters
    ----------
    mean, sd : of the values without drift; `fitted` takes them from a reference
    weight : of the newest value, above 0 and at most 1
    threshold : distance that is an alarm, in standard deviations of the weighted mean
    run_length : mean values between false alarms, from which the threshold follows; 1e6 if neither is given
    mode : "up", "down" or "both"
    reference_n : values that `mean` was estimated from; the run length then holds for one two standard errors off

    Examples
    --------
    >>> import numpy as np
    >>> generator = np.random.default_rng(7)
    >>> ewma = EWMA.fitted(generator.normal(10.0, 2.0, size=5_000), run_length=1e5)
    >>> len(ewma.update_many(generator.normal(10.0, 2.0, size=5_000))), int(ewma.update_many(np.full(100, 12.0))[0])
    (0, 39)
    """

    def __init__(
        self, mean: float = 0.0, sd: float = 1.0, *, weight: float = WEIGHT, threshold: float | None = None,
        run_length: float | None = None, mode: str = "both", reference_n: float = np.inf,
    ) -> None:  # fmt: skip
        threshold = _threshold(calibration.ewma_threshold, weight, threshold, run_length, mode, reference_n)
        super().__init__(EwmaBank(1, 1, setting=weight, threshold=threshold, target=mean, scale=sd, mode=mode))
        self._mean, self._unit = mean, sd * float(np.sqrt(weight / (2.0 - weight)))

    @property
    def estimation(self) -> float:
        """The weighted mean since the last reset."""
        return self._mean + self._unit * float(self._bank.sums[0, RISING])


def _threshold(
    calibrated: Callable[..., float], setting: float, given: float | None, run_length: float | None, mode: str, reference_n: float
) -> float:
    """The one that is given, or that of a run length."""
    if given is None:
        return calibrated(run_length or 1e6, setting, sides=2 if mode == "both" else 1, reference_n=reference_n)
    if run_length is not None:
        raise ValueError("expected a threshold or a run_length, got both")
    return given


def _moments(reference: ArrayLike) -> tuple[float, float, int]:
    """Mean, standard deviation and number of the finite values."""
    values = np.asarray(reference, np.float64).ravel()
    values = values[np.isfinite(values)]
    sd = float(values.std()) if len(values) > 1 else 0.0
    if not sd > 0.0:
        raise ValueError(f"expected a reference of different values, got {len(values)} with standard deviation {sd:g}")
    return float(values.mean()), sd, len(values)
