"""An alert's line in its incident, and which lines come first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from driftline.schemas.events import Alert, Blamed, Effect, LevelSince, Severity, VersionSeen

RANK: Final[Mapping[Severity, int]] = {"info": 0, "warning": 1, "critical": 2}
_RATE_MIN: Final = 1e-4
"""A rate of the baseline below this is one that was never seen."""
_MMD_OF_SD: Final = 0.6
"""The joint distance of a block whose features all move by one standard deviation."""


class _Again(msgspec.Struct, frozen=True):
    """A further change of the series."""

    number: int
    since_ms: int


class _Figures(msgspec.Struct, frozen=True):
    """What a line takes from an alert's evidence."""

    effect: Effect | None = None
    value: float | None = None
    baseline_value: float | None = None
    direction: Literal["up", "down"] | None = None
    cause: Literal["traffic_mix"] | None = None
    near: VersionSeen | None = None
    again: _Again | None = None
    since_change: LevelSince | None = None


def blamed_of(alert: Alert) -> Blamed:
    """An alert's line in its incident."""
    figures = _figures_of(alert)
    return Blamed(
        fingerprint=alert.fingerprint,
        episode=alert.episode,
        monitor=alert.monitor,
        series=alert.series,
        segment=alert.segment,
        condition=alert.condition,
        severity=alert.severity,
        effect=figures.effect,
        value=figures.value,
        baseline_value=figures.baseline_value,
        direction=figures.direction,
        starts_at_ms=alert.starts_at_ms,
        detected_at_ms=alert.detected_at_ms,
        ends_at_ms=alert.ends_at_ms,
        cause=figures.cause,
        near=figures.near,
        changes=1 if figures.again is None else figures.again.number,
        changed_at_ms=None if figures.again is None else figures.again.since_ms,
        since_change=figures.since_change,
    )


def _figures_of(alert: Alert) -> _Figures:
    """The figures of the evidence; none where it has others, which a record of another writer may have."""
    try:
        return msgspec.convert(alert.evidence, _Figures)
    except msgspec.ValidationError:
        return _Figures()


def place_of(one: Blamed) -> tuple[Any, ...]:
    """What fires comes first, then what is loud, then what is large."""
    return (one.condition != "firing", -RANK[one.severity], -size_in_sd(one), one.series, one.fingerprint)


def size_in_sd(one: Blamed) -> float:
    """An effect in standard deviations, so that kinds compare: PSI of a shift by d is about d^2, a 0/1 value varies by its rate.

    Only square roots: they have the same bits on every machine.
    """
    if one.effect is None or one.effect.kind == "silence":
        return 0.0
    if one.effect.kind == "mean":
        return abs(one.effect.size)
    if one.effect.kind == "mmd":
        return abs(one.effect.size) / _MMD_OF_SD
    if one.effect.kind == "psi":
        return math.sqrt(max(one.effect.size, 0.0))
    if one.value is None or one.baseline_value is None:
        return 0.0
    rate = min(max(one.baseline_value, _RATE_MIN), 1.0 - _RATE_MIN)
    return abs(one.value - one.baseline_value) / math.sqrt(rate * (1.0 - rate))
