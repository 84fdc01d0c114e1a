"""How long after its prediction a label comes: a distribution in one word, drawn reproducibly.

The forms, with durations as in the configuration: ``fixed:1d``; ``exp:2h`` (mean); ``uniform:1h,3h``;
``lognormal:2h,1.0`` (median, standard deviation of the logarithm).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from driftline.schemas.durations import parse_duration_ms

_FORMS = "fixed:1d, exp:2h (mean), uniform:1h,3h or lognormal:2h,1.0 (median, sigma)"


@dataclass(frozen=True, slots=True)
class Delay:
    """A label's delay; `low` and `high` are milliseconds except `high` of lognormal, which is sigma."""

    form: str
    low: float
    high: float

    def draw(self, rng: np.random.Generator, n: int) -> npt.NDArray[np.int64]:
        """`n` delays in milliseconds; n draws in one call equal n calls of one draw."""
        match self.form:
            case "fixed":
                values = np.full(n, self.low)
            case "exp":
                values = rng.standard_exponential(n) * self.low
            case "uniform":
                values = self.low + rng.random(n) * (self.high - self.low)
            case _:
                values = self.low * np.exp(rng.standard_normal(n) * self.high)
        delays: npt.NDArray[np.int64] = np.rint(values).astype(np.int64)
        return delays


def parse_delay(text: str) -> Delay:
    """The distribution `text` names.

    Raises
    ------
    ValueError : not one of the forms; the message lists them.
    """
    form, _, rest = text.partition(":")
    values = [part.strip() for part in rest.split(",")]
    try:
        match form, len(values):
            case ("fixed" | "exp"), 1:
                return Delay(form, _duration(values[0]), 0.0)
            case "uniform", 2:
                low, high = _duration(values[0]), _duration(values[1])
                if high < low:
                    raise ValueError
                return Delay(form, low, high)
            case "lognormal", 2:
                sigma = float(values[1])
                if not 0 <= sigma <= 10:
                    raise ValueError
                return Delay(form, _duration(values[0]), sigma)
            case _:
                raise ValueError
    except ValueError:
        raise ValueError(f'"{text}": expected {_FORMS}') from None


def _duration(text: str) -> float:
    return float(parse_duration_ms(text))
