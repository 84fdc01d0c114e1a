"""How every kernel is compiled, in one place.

Options and their reasons:

- no `fastmath` and no `parallel`: the same operations in the same order give the same bits on every machine,
  interpreted (`NUMBA_DISABLE_JIT=1`) or compiled, and however a stream is cut into batches;
- `error_model="numpy"`: a division by zero gives infinity as in IEEE 754, and costs no branch;
- `nogil`: partitions of one worker run side by side;
- `cache`: a worker restarts in a second. The cache is keyed by the file of the compiled function, not by the
  files of functions it calls: after a change of an inlined kernel, delete `__pycache__`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": False, "error_model": "numpy"}

_LN2_HIGH = 0.693147180369123816490
"""The leading 33 bits of ln 2, so that `exponent * _LN2_HIGH` is exact (the split of Tang 1990, ACM TOMS 16)."""
_LN2_LOW = 1.90821492927058770002e-10
_SQRT_HALF = 0.7071067811865476


def compiled(function: Function) -> Function:
    """Compile a function that may allocate arrays; without a writable cache it is compiled on each start."""
    return _compile(function, **_OPTIONS)


def kernel(function: Function) -> Function:
    """Compile a function that allocates nothing: numba then counts no references to the arrays it is given.

    Two to eight times faster in a loop over series that calls other kernels (PSI 180 -> 19 ns, ADWIN 125 -> 45 ns
    an update); an allocation inside is an error at compile time.
    """
    return _compile(function, **_OPTIONS, _nrt=False)


def part(function: Function) -> Function:
    """Compile a kernel that only other kernels call, without the entry from Python.

    The code that unpacks fifty arrays from Python objects costs more to compile than most of these functions.
    """
    return _compile(function, **_OPTIONS, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def inlined(function: Function) -> Function:
    """As `part`, and always put where it is called: for what runs at every value, whose call would cost as much.

    An array travels as seven arguments, a tuple of forty as three hundred. ADWIN takes half of the time inlined (48 -> 24
    ns an update), the pass over a panel's windows 0.6 of it, a scanner of bytes 0.7.
    """
    return _compile(function, **_OPTIONS, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)


def _compile(function: Function, **options: Any) -> Function:
    try:
        dispatcher: Function = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba has no cache location: a read-only installation
        dispatcher = numba.njit(**options)(function)
    return dispatcher


@kernel
def portable_log(x: float) -> float:
    """Natural logarithm of a positive finite number from exact and correctly rounded operations only.

    The C library's `log` differs in the last bit between systems (glibc, musl, macOS) and numpy's between
    CPUs; this one does not. Within 2 ulp: ln x = e ln 2 + 2 atanh(s), s = (m - 1)/(m + 1), |s| < .172.
    """
    mantissa, exponent = math.frexp(x)
    if mantissa < _SQRT_HALF:
        mantissa *= 2.0
        exponent -= 1
    s = (mantissa - 1.0) / (mantissa + 1.0)
    z = s * s
    series = 0.0
    for k in range(23, 1, -2):
        series = z * (series + 1.0 / k)
    return exponent * _LN2_HIGH + (2.0 * s + (2.0 * s * series + exponent * _LN2_LOW))
