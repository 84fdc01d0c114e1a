"""Functions whose last bit is the same on every machine: the exponential, sine and cosine, the normal quantile and a hash.

As `jit.portable_log`: exact and correctly rounded operations only. The C library's and numpy's differ between systems
and CPUs, and a score's last bit would decide where an alarm stands.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftline.detectors.kernels.jit import inlined, kernel, portable_log

_LOG2_E = 1.4426950408889634
_LN2_HIGH = 0.693147180369123816490
_LN2_LOW = 1.90821492927058770002e-10
_EXP_MOST = 709.0
_EXP_LEAST = -708.0
"""Beyond these the result is infinite or not a normal number; it is then infinity or 0."""
_C = tuple(1.0 / math.factorial(k) for k in range(14))
"""Taylor's coefficients: on |r| <= ln 2 / 2 the first one left out is below 5e-18."""
_POWERS_KEPT: Final = 64
_POWERS = np.array([2.0**k for k in range(-_POWERS_KEPT, _POWERS_KEPT + 1)])


@inlined
def portable_exp(x: float) -> float:
    """Exponential of a finite number within 2 ulp: exp x = 2^k exp r, |r| <= ln 2 / 2.

    The polynomial is summed in pairs (Estrin 1960): 12 dependent steps would take three times as long.
    """
    if x > _EXP_MOST:
        return math.inf
    if x < _EXP_LEAST:
        return 0.0
    k = math.floor(x * _LOG2_E + 0.5)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    r2 = r * r
    r4 = r2 * r2
    low = (_C[2] + _C[3] * r) + (_C[4] + _C[5] * r) * r2
    middle = (_C[6] + _C[7] * r) + (_C[8] + _C[9] * r) * r2
    high = (_C[10] + _C[11] * r) + (_C[12] + _C[13] * r) * r2
    near = 1.0 + (r + r2 * (low + r4 * (middle + r4 * high)))
    whole = int(k)
    if -_POWERS_KEPT <= whole <= _POWERS_KEPT:
        power: float = _POWERS[whole + _POWERS_KEPT]
        return near * power
    return math.ldexp(near, whole)


_TWO_OVER_PI = 0.6366197723675814
_HALF_PI_HIGH = 1.5707963267341256
"""The leading 33 bits of pi / 2, so that its products with whole numbers below 2^20 are exact."""
_HALF_PI_MIDDLE = 6.077100506303966e-11
_HALF_PI_LOW = 2.0222662487959506e-21
_SINE = tuple((-1.0) ** k / math.factorial(2 * k + 1) for k in range(9))
_COSINE = tuple((-1.0) ** k / math.factorial(2 * k) for k in range(9))
"""Taylor's coefficients: on |r| <= pi / 4 the first one left out is below 3e-18."""


@inlined
def portable_cos_sin(x: float) -> tuple[float, float]:
    """Cosine and sine of a number below 10^5 in size, within 1e-15: x = k pi / 2 + r, |r| <= pi / 4 (Cody and Waite 1980)."""
    k = math.floor(x * _TWO_OVER_PI + 0.5)
    r = ((x - k * _HALF_PI_HIGH) - k * _HALF_PI_MIDDLE) - k * _HALF_PI_LOW
    z = r * r
    sine = _SINE[8]
    cosine = _COSINE[8]
    for i in range(7, -1, -1):
        sine = sine * z + _SINE[i]
        cosine = cosine * z + _COSINE[i]
    sine *= r
    quarter = int(k) & 3
    if quarter == 0:
        return cosine, sine
    if quarter == 1:
        return -sine, cosine
    if quarter == 2:
        return -cosine, -sine
    return sine, -cosine


@inlined
def _ratio(x: float, above: tuple[float, ...], below: tuple[float, ...]) -> float:
    """A quotient of two polynomials, coefficients from the highest."""
    upper, lower = 0.0, 0.0
    for k in range(8):
        upper = upper * x + above[k]
        lower = lower * x + below[k]
    return upper / lower


# fmt: off
_MIDDLE_ABOVE = (
    2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
    1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080,
)
_MIDDLE_BELOW = (
    5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
    5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0,
)
_TAIL_ABOVE = (
    7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258,
    3.64784832476320460504, 5.76949722146069140550, 4.63033784615654529590, 1.42343711074968357734,
)
_TAIL_BELOW = (
    1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
    6.89767334985100004550e-1, 1.67638483018380384940, 2.05319162663775882187, 1.0,
)
_FAR_ABOVE = (
    2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
    2.96560571828504891230e-1, 1.78482653991729133580, 5.46378491116411436990, 6.65790464350110377720,
)
_FAR_BELOW = (
    2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
    1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0,
)
# fmt: on


@inlined
def normal_quantile(p: float) -> float:
    """The number below which a share `p` of the standard normal law lies; -inf at 0, inf at 1.

    Wichura (1988), Applied Statistics 37, algorithm AS 241, PPND16: within 1e-15 relative.
    """
    if not p > 0.0:
        return -math.inf
    if not p < 1.0:
        return math.inf
    q = p - 0.5
    if abs(q) <= 0.425:
        return q * _ratio(0.180625 - q * q, _MIDDLE_ABOVE, _MIDDLE_BELOW)
    r = math.sqrt(-portable_log(p if q < 0.0 else 1.0 - p))
    x = _ratio(r - 1.6, _TAIL_ABOVE, _TAIL_BELOW) if r <= 5.0 else _ratio(r - 5.0, _FAR_ABOVE, _FAR_BELOW)
    return -x if q < 0.0 else x


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_30, _SHIFT_27, _SHIFT_31, _SHIFT_12 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(12)
_TWO_TO_MINUS_52 = 2.0**-52


@inlined
def mixed(h: np.uint64) -> np.uint64:
    """A permutation of the 64-bit numbers in which every bit depends on every bit (Steele, Lea and Flood 2014, SplitMix64)."""
    h = (h ^ (h >> _SHIFT_30)) * _MULTIPLIER_1
    h = (h ^ (h >> _SHIFT_27)) * _MULTIPLIER_2
    return h ^ (h >> _SHIFT_31)


@inlined
def uniform(h: np.uint64) -> float:
    """The number in (0, 1) of a hash, never an end."""
    return (float(mixed(h) >> _SHIFT_12) + 0.5) * _TWO_TO_MINUS_52


@kernel
def fill_keys(seed: np.uint64, source: NDArray[np.uint64], offset: NDArray[np.int64], out: NDArray[np.uint64]) -> None:
    """The key of each source position; equal positions have equal keys, whatever the batch they come in."""
    for i in range(offset.shape[0]):
        out[i] = mixed(mixed(source[i] + mixed(seed + _GOLDEN)) + np.uint64(offset[i]) * _GOLDEN)


def position_keys(source: NDArray[np.uint64], offset: NDArray[np.int64], seed: int = 0) -> NDArray[np.uint64]:
    """Keys of source positions, for numbers that must be random yet the same in every replay.

    Parameters
    ----------
    source : a number of the topic and partition that does not depend on the run, shape (n,)
    offset : shape (n,)
    """
    out = np.empty(len(offset), np.uint64)
    fill_keys(np.uint64(seed), np.ascontiguousarray(source, np.uint64), np.ascontiguousarray(offset, np.int64), out)
    return out
