"""Levels as a person reads them: a number in milliseconds helps nobody at night."""

from __future__ import annotations

import re
from typing import Final

from driftline.schemas.stream_series import LABEL_DELAY

_UNITS: Final = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))
_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def level_words(series: str, level: float) -> str:
    """A median of what a series holds, in its own unit; a delay says its unit too."""
    if series != LABEL_DELAY:
        return f"{level:.6g}"
    return f"{'-' if level < 0 else ''}{span(abs(level))}"


def bin_words(series: str, name: str) -> str:
    """A bin of a series by the name that events have it by, for example ``> 1.3571e+06``: of a delay, ``> 23 min``."""
    return _NUMBER.sub(lambda found: level_words(series, float(found[0])), name) if series == LABEL_DELAY else name


def percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def span(ms: float) -> str:
    """A duration in its largest unit."""
    for unit, size in _UNITS:
        if ms >= size:
            return f"{ms / size:.2g} {unit}" if ms < 10 * size else f"{ms / size:.0f} {unit}"
    return f"{ms:.0f} ms"
