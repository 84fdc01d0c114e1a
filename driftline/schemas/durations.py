"""Durations and times as they are written in a configuration."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_DURATION = re.compile(r"^\s*(\d{1,12}(?:\.\d{1,9})?)\s*(ms|s|m|h|d|w)\s*$", re.ASCII)
_DURATION_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION_MAX_MS = 100 * 365 * 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_duration_ms(value: object) -> int:
    """Milliseconds of ``"250ms"``, ``"10s"``, ``"5m"``, ``"24h"``, ``"45d"``, ``"2w"``; an integer is milliseconds.

    Raises
    ------
    ValueError : anything else; the message names the accepted forms.
    """
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is not None:
        value = round(float(match[1]) * _DURATION_MS[match[2]])
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _DURATION_MAX_MS:
        raise ValueError('expected a duration such as "10s", "5m", "24h" or "45d"')
    return value


def parse_time_ms(value: object) -> int:
    """Unix milliseconds of an ISO time with a zone; an integer is such milliseconds.

    Raises
    ------
    ValueError : anything else; the message names the accepted form.
    """
    if isinstance(value, str):
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            time = None
        if time is not None and time.tzinfo is not None:
            return round((time - _EPOCH).total_seconds() * 1_000)
    elif isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError('expected an ISO time with a zone such as "2026-11-27T00:00:00Z"')


def duration_text(milliseconds: int) -> str:
    """A duration in the greatest unit that has it whole, as it may be written in a file: ``6h``, ``90m``."""
    unit = max((unit for unit in _DURATION_MS if milliseconds % _DURATION_MS[unit] == 0 and unit != "w"), key=_DURATION_MS.__getitem__)
    return f"{milliseconds // _DURATION_MS[unit]}{unit}"
