"""From the values of detectors to those of events and snapshots."""

from __future__ import annotations

import math

from driftline.detectors import spec
from driftline.detectors.compare import Difference
from driftline.detectors.explained import TrafficSplit, WindowStatistic
from driftline.detectors.spec import Level, Signal
from driftline.schemas.events import (
    ChangedAgain,
    Effect,
    MovedShare,
    SeriesDifference,
    SeriesLevel,
    Statistic,
    Suspended,
    TrafficParts,
)


def level_of(level: Level) -> SeriesLevel:
    """A series in a snapshot."""
    return SeriesLevel(
        series=level.series, n=level.n, mean=level.mean, baseline_mean=level.baseline_mean, psi=level.psi,
        psi_threshold=level.psi_threshold, rate=level.rate, baseline_rate=level.baseline_rate,
        statistic=level.statistic, threshold=level.threshold, open=level.open, psi_null=level.psi_null,
        statistics=statistics_of(level.statistics), suspended=suspended_of(level.suspended),
    )  # fmt: skip


def statistics_of(found: tuple[WindowStatistic, ...]) -> list[Statistic]:
    """The statistics of a window."""
    return [Statistic(*statistic) for statistic in found]


def difference_of(one: Difference) -> SeriesDifference:
    """A series in a comparison."""
    return SeriesDifference(
        series=one.series, effect=Effect(one.effect_kind, one.effect), value=finite(one.value), baseline_value=finite(one.baseline_value),
        median=one.median, baseline_median=one.baseline_median, n=one.n, p=min(one.p, 1.0),
    )  # fmt: skip


def traffic_of(found: TrafficSplit | None) -> TrafficParts | None:
    """The parts of an effect."""
    if found is None:
        return None
    moved = [MovedShare({found.segment: one.value}, one.expected, one.observed) for one in found.moved]
    return TrafficParts(found.segment, found.mix, found.within, moved)


def suspended_of(found: spec.Suspended | None) -> Suspended | None:
    """Why a series is suspended."""
    if found is None:
        return None
    return Suspended(lag=found.lag, correlation=found.correlation, one_in=found.one_in, cause=found.cause)


def again_of(signal: Signal) -> ChangedAgain | None:
    """A further change; None where a signal is of none."""
    if signal.again is None or signal.effect_kind is None:
        return None
    return ChangedAgain(
        number=signal.again.number,
        value_before=signal.again.value_before,
        effect=Effect(signal.effect_kind, signal.again.effect_size),
        median_before=finite(signal.again.median_before),
        correlation_before=finite(signal.again.correlation_before),
    )


def finite(value: float | None) -> float | None:
    """A number that JSON has; None for others."""
    return float(value) if value is not None and math.isfinite(value) else None
