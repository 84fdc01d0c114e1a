"""Numbers as JSON spells them, read inside a compiled kernel as the double nearest to them.

A number of at most 19 digits is an integer w times a power of ten. Small ones are exact in one multiplication or
division (Clinger 1990, "How to read floating point numbers accurately"); the rest take the product of w with 128 bits
of the power of five, from which the nearest double follows but for rare cases that it tells apart (Lemire 2021,
"Number parsing at a gigabyte per second"). Those, and subnormal or infinite results, are left to the slow decoder.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from driftline.detectors.kernels.jit import inlined

LEAST_POWER: Final = -300
MOST_POWER: Final = 300

_FAIL: Final = -1
_EXPONENT_MAX: Final = 10_000
_MINUS, _PLUS, _POINT, _ZERO, _NINE, _SMALL_E, _LARGE_E = (ord(c) for c in "-+.09eE")

UInt8 = npt.NDArray[np.uint8]
_U = np.uint64
_MASK_32: Final = _U(0xFFFFFFFF)
_ALL: Final = _U(0xFFFFFFFFFFFFFFFF)
_THIRTY_TWO: Final = _U(32)
_ONE: Final = _U(1)
_LOW_9: Final = _U(0x1FF)
_MANTISSA: Final = _U((1 << 52) - 1)
_BIT_53: Final = _U(1 << 53)
_EXACT: Final = _U(1 << 53)
_SIGN: Final = _U(1 << 63)

_TENS = np.array([10.0**k for k in range(23)])


def _fives() -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    """Row q - LEAST_POWER: the leading 128 bits of 5^q as two words; rounded up where q < 0, as the method asks."""
    words = []
    for q in range(LEAST_POWER, MOST_POWER + 1):
        if q >= 0:
            power = 5**q
            shift = power.bit_length() - 128
            leading = power >> shift if shift >= 0 else power << -shift
        else:
            power = 5**-q
            leading = (1 << (power.bit_length() + 127)) // power + 1
        words.append((leading >> 64, leading & ((1 << 64) - 1)))
    return np.array(words, np.uint64)


_FIVES = _fives()


@inlined
def read_number(b: UInt8, at: int) -> tuple[int, bool, float]:
    """(place after it, whether the double is known, the double) of a number as JSON spells it; place `_FAIL` for none."""
    negative = b[at] == _MINUS
    if negative:
        at += 1
    if not is_digit(b[at]) or (b[at] == _ZERO and is_digit(b[at + 1])):
        return _FAIL, False, 0.0
    first, power, whole = at, 0, True
    at, w = _digits(b, at, np.uint64(0))
    digits = at - first
    if b[at] == _POINT:
        point, whole = at + 1, False
        at, w = _digits(b, point, w)
        power = point - at
        digits -= power
        if power == 0:
            return _FAIL, False, 0.0
    if digits > 19:  # zeros at the front are no digits of w
        while b[first] == _ZERO or b[first] == _POINT:
            digits -= b[first] == _ZERO
            first += 1
    if b[at] == _SMALL_E or b[at] == _LARGE_E:
        at, whole = at + 1, False
        down = b[at] == _MINUS
        if down or b[at] == _PLUS:
            at += 1
        if not is_digit(b[at]):
            return _FAIL, False, 0.0
        exponent = 0
        while is_digit(b[at]):
            exponent = min(exponent * 10 + int(b[at]) - _ZERO, _EXPONENT_MAX)
            at += 1
        if exponent == _EXPONENT_MAX:
            return at, False, 0.0
        power += -exponent if down else exponent
    if digits > 19:  # more do not fit in 64 bits
        return at, False, 0.0
    # A whole -0 is the integer 0 to the typed decoder.
    known, number = to_double(w, power, negative and not (whole and w == np.uint64(0)))
    return at, known, number


@inlined
def _digits(b: UInt8, at: int, w: np.uint64) -> tuple[int, np.uint64]:
    """Append the digits that begin at `at`; four at once, or each would wait for the one before it."""
    while True:
        d0, d1, d2, d3 = b[at] - _ZERO, b[at + 1] - _ZERO, b[at + 2] - _ZERO, b[at + 3] - _ZERO
        if not (0 <= d0 <= 9 and 0 <= d1 <= 9 and 0 <= d2 <= 9 and 0 <= d3 <= 9):
            break
        w = w * np.uint64(10_000) + np.uint64(d0 * 1_000 + d1 * 100 + d2 * 10 + d3)
        at += 4
    while is_digit(b[at]):
        w = w * np.uint64(10) + np.uint64(b[at] - _ZERO)
        at += 1
    return at, w


@inlined
def is_digit(c: int) -> bool:
    return _ZERO <= c <= _NINE


@inlined
def to_double(w: np.uint64, q: int, negative: bool) -> tuple[bool, float]:
    """(whether it is known, the double nearest to w 10^q); `w` is an unsigned 64-bit integer."""
    if w == _U(0):
        return True, -0.0 if negative else 0.0
    if w <= _EXACT and -22 <= q <= 22:
        exact = float(w) * _TENS[q] if q >= 0 else float(w) / _TENS[-q]
        return True, -exact if negative else exact
    if q < LEAST_POWER or q > MOST_POWER:
        return False, 0.0
    zeros = _leading_zeros(w)
    w = w << _U(zeros)
    high, low = _product(w, _FIVES[q - LEAST_POWER, 0])
    if high & _LOW_9 == _LOW_9:
        more, _ = _product(w, _FIVES[q - LEAST_POWER, 1])
        low += more
        if low < more:
            high += _ONE
        if low == _ALL and (q < -27 or q > 55):
            return False, 0.0
    top = high >> _U(63)
    kept = top + _U(9)
    mantissa = high >> kept
    exponent = ((217706 * q) >> 16) + 1087 - zeros - (1 - int(top))
    if exponent <= 0 or exponent >= 2046:
        return False, 0.0
    halfway = low <= _ONE and -4 <= q <= 23 and mantissa & _U(3) == _ONE
    if halfway and mantissa << kept == high:
        mantissa &= ~_ONE
    mantissa = (mantissa + (mantissa & _ONE)) >> _ONE
    if mantissa >= _BIT_53:
        mantissa >>= _ONE
        exponent += 1
    sign = _SIGN if negative else _U(0)
    bits = np.uint64(sign | (mantissa & _MANTISSA) | (_U(exponent) << _U(52)))
    return True, bits.view(np.float64)


@inlined
def _product(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """The high and the low word of a product."""
    a0, a1 = a & _MASK_32, a >> _THIRTY_TWO
    b0, b1 = b & _MASK_32, b >> _THIRTY_TWO
    low, cross, other = a0 * b0, a0 * b1, a1 * b0
    middle = (low >> _THIRTY_TWO) + (cross & _MASK_32) + (other & _MASK_32)
    high = a1 * b1 + (cross >> _THIRTY_TWO) + (other >> _THIRTY_TWO) + (middle >> _THIRTY_TWO)
    return high, (middle << _THIRTY_TWO) | (low & _MASK_32)


@inlined
def _leading_zeros(w: np.uint64) -> int:
    zeros = 0
    for step in (32, 16, 8, 4, 2, 1):
        if w >> _U(64 - step) == _U(0):
            zeros += step
            w = w << _U(step)
    return zeros
