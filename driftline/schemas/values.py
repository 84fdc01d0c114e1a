"""Values of a configuration with a form of their own: durations, times, names of topics, budgets."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from driftline.schemas.budget import parse_false_alarms
from driftline.schemas.durations import parse_duration_ms, parse_time_ms

TOPIC_PATTERN = r"^[A-Za-z0-9._-]{1,249}$"
"""Kafka's own rule for topic names."""


def check_start(value: str) -> str:
    """`value` itself when it says where to start reading.

    Raises
    ------
    ValueError : neither ``now``, ``earliest``, a negative duration nor an ISO time with a zone.
    """
    if value in ("now", "earliest"):
        return value
    try:
        if value.startswith("-"):
            parse_duration_ms(value[1:])
            return value
        parse_time_ms(value)
        return value
    except ValueError:
        pass
    raise ValueError('expected "now", "earliest", "-24h" (any duration) or an ISO time with a zone such as "2026-01-31T00:00:00Z"')


def check_false_alarms(value: str) -> str:
    """`value` itself when it is a budget of false alarms."""
    parse_false_alarms(value)
    return value


_DURATION_SCHEMA = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(ms|s|m|h|d|w)\s*$"}]}

DurationMs = Annotated[int, BeforeValidator(parse_duration_ms), WithJsonSchema(_DURATION_SCHEMA)]
TimeMs = Annotated[int, BeforeValidator(parse_time_ms), WithJsonSchema({"type": ["string", "integer"]})]
TopicName = Annotated[str, Field(pattern=TOPIC_PATTERN)]
