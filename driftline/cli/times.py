"""Times on the command line: ``now``, ``earliest``, ``-24h`` or an ISO time."""

from __future__ import annotations

from datetime import UTC, datetime

from driftline.cli.errors import Refusal

EARLIEST_MS = 0


def parse_time_ms(text: str, *, option: str, now_ms: int) -> int:
    """Milliseconds since 1970 of a point in time; `EARLIEST_MS` for "earliest".

    Raises
    ------
    Refusal : none of the forms.
    """
    from driftline.schemas.durations import parse_duration_ms

    if text == "now":
        return now_ms
    if text == "earliest":
        return EARLIEST_MS
    try:
        if text.startswith("-"):
            return now_ms - parse_duration_ms(text[1:])
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise Refusal(f'{option} "{text}": expected now, earliest, -24h (any duration) or a time such as 2026-01-31T12:00:00Z') from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)


def iso(time_ms: int | None) -> str | None:
    """A time as a person reads it, UTC, to the second."""
    if time_ms is None:
        return None
    return datetime.fromtimestamp(time_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S")
