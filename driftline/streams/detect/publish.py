"""From a panel's signal to the drift event, and from its levels to the snapshot, as records to publish."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import msgspec

from driftline.detectors.compare import Difference
from driftline.detectors.spec import Anchor, Ended, Level, Signal
from driftline.detectors.stale import DETECTOR as STALE
from driftline.detectors.stale import stale_reason
from driftline.schemas.config import Config
from driftline.schemas.contracts import cloud_event_headers, encode_event, near_words
from driftline.schemas.events import (
    BinShare,
    DriftEvent,
    Effect,
    Position,
    Severity,
    Since,
    Snapshot,
    VersionSeen,
)
from driftline.schemas.stream_series import FRESHNESS, JOIN_RATE
from driftline.schemas.topics import DRIFT, SNAPSHOTS
from driftline.streams.cluster import Cluster
from driftline.streams.counters import Counters
from driftline.streams.detect.compared_words import mismatch_reason, shift_reason
from driftline.streams.detect.contract_values import again_of, difference_of, finite, level_of, statistics_of, suspended_of, traffic_of
from driftline.streams.detect.health import HealthSignal
from driftline.streams.detect.join_rate import CAUSES, JoinRateSignal
from driftline.streams.detect.plan import ModelPlan, PanelKind
from driftline.streams.detect.sources import SourceTable
from driftline.streams.identity import event_id
from driftline.streams.partitioner import partition_for
from driftline.streams.task import Output

if TYPE_CHECKING:
    from driftline.streams.detect.versions import Arrival

REMOVED: Final = "removed"
"""What stands as the detector of an event that ends an episode because the configuration no longer has its series."""
RELEARNED: Final = "relearned"
"""And of one that ends an episode because what has stayed since the change is taken as what is normal (`relearning.py`)."""
SHIFTS_LOUD: Final = frozenset({"decision", "outcome:log_loss", "outcome:absolute_error", "outcome:wrong"})
"""Series in which a new version that is far from the one before is an incident, and no news."""
STREAM_WINDOW: Final = 0
"""Stream series have no window of rows."""


@dataclass(frozen=True, slots=True)
class PanelName:
    """Which panel of a model: version and age are None where the kind has none.

    Attributes
    ----------
    part : 0, or of what was added to the configuration later; see `parts.py`.
    """

    kind: PanelKind
    version: str | None = None
    age_ms: int | None = None
    part: int = 0

    @property
    def whole(self) -> PanelName:
        """The name of all its parts together."""
        return self if not self.part else replace(self, part=0)

    def of_version(self, version: str) -> PanelName:
        """The panel of a version, all of its parts."""
        return PanelName(self.kind, version, self.age_ms)


@dataclass(frozen=True, slots=True)
class RowContext:
    """The source row a signal speaks of."""

    position: Position
    time_ms: int
    record_ms: int

_GAUGES: Final = ("score", "threshold", "effect_size")


class EventWriter:
    """Makes the records of one task; holds only what ids and headers need.

    Attributes
    ----------
    rebuilt : whether what is written comes of state that an operator had rebuilt.
    """

    def __init__(self, config: Config, cluster: Cluster, counters: Counters) -> None:
        self._config = config
        self._cluster = cluster
        self._counters = counters
        self.rebuilt = False
        self._told: dict[tuple[str, ...], dict[str, str]] = {}
        self._drift = DRIFT.full_name(config.topics.prefix)
        self._snapshots = SNAPSHOTS.full_name(config.topics.prefix)

    @property
    def live_since_ms(self) -> int:
        """Records before this are history; 0 = none is."""
        return self._cluster.live_since_ms

    def went_live(self, before_ms: int) -> None:
        """What a checkpoint says of it: Redis keeps the time too, and a Redis that was lost begins with a later one."""
        if 0 < before_ms < self._cluster.live_since_ms:
            self._cluster = replace(self._cluster, live_since_ms=before_ms)

    def close(self) -> None:
        """What the gauges say of these series is another worker's to say from now on."""
        for series in self._told.values():
            for name in _GAUGES:
                self._counters.forget(name, series)
        self._told.clear()

    def signal(
        self, plan: ModelPlan, panel: PanelName, signal: Signal, row: RowContext, *, segment: dict[str, str] | None, opened: Position,
        since: Position | None, baseline: str | None, provisional: bool, arrived: Arrival | None = None,
    ) -> Output:  # fmt: skip
        """The drift event of a panel's signal; a provisional baseline holds its severity at info."""
        monitor = plan.monitor_of(signal.series)
        about = about_series(plan.name, panel, signal.series, segment)
        severity: Severity = "info" if provisional else signal.severity
        event = DriftEvent(
            id=event_id(self._config.environment, self._cluster, row.position, *about, signal.detector, signal.kind),
            kind="drift" if signal.kind == "open" else signal.kind,
            environment=self._config.environment,
            model=plan.name,
            version=panel.version,
            age_ms=panel.age_ms,
            monitor=monitor.id if monitor else "baseline",
            series=signal.series,
            segment=segment,
            episode=event_id(self._config.environment, self._cluster, opened, *about, "episode"),
            detector=signal.detector,
            statistic=finite(signal.statistic),
            threshold=finite(signal.threshold),
            value=finite(signal.value),
            baseline_value=finite(signal.baseline_value),
            effect=None if finite(signal.effect_size) is None else Effect(signal.effect_kind, signal.effect_size),  # type: ignore[arg-type]
            direction=signal.direction,
            severity=severity,
            n=signal.n,
            window=signal.window,
            baseline=baseline,
            position=row.position,
            since=None if since is None or signal.since is None else Since(since, signal.since.time_ms, *(signal.between or (None, None))),
            time_ms=row.time_ms,
            record_time_ms=row.record_ms,
            bins=[BinShare(b.bin, b.expected, b.observed, b.contribution) for b in signal.bins],
            statistics=statistics_of(signal.statistics),
            reason=signal.reason if arrived is None else f"{signal.reason}; {near_words(arrived.version, arrived.time_ms)}",
            historical=row.record_ms < self._cluster.live_since_ms,
            provisional=provisional,
            suspended=suspended_of(signal.suspended),
            median=finite(signal.median),
            baseline_median=finite(signal.baseline_median),
            pair_correlation=finite(signal.correlation),
            baseline_correlation=finite(signal.baseline_correlation),
            cause="traffic_mix" if signal.traffic is not None and signal.traffic.alone else None,
            traffic=traffic_of(signal.traffic),
            near=None if arrived is None else VersionSeen(arrived.version, arrived.time_ms),
            again=again_of(signal),
        )
        return self._drift_output(event)

    def note(self, plan: ModelPlan, panel: PanelName, row: RowContext, *, kind: str, baseline: str | None, n: int, reason: str) -> Output:
        """An info event about a panel, not about a series: a version was seen, a baseline was learned."""
        about = (plan.name, panel.kind, panel.version, panel.age_ms, kind, *([panel.part] if panel.part else []))
        identity = event_id(self._config.environment, self._cluster, row.position, *about)
        event = DriftEvent(
            id=identity, kind=kind, environment=self._config.environment, model=plan.name, version=panel.version,  # type: ignore[arg-type]
            age_ms=panel.age_ms, monitor="baseline" if kind == "baseline" else "version", series=f"panel:{panel.kind}", segment=None,
            episode=identity,
            detector="", statistic=None, threshold=None, value=None, baseline_value=None, effect=None, direction=None, severity="info",
            n=n, window=0, baseline=baseline, position=row.position, since=None, time_ms=row.time_ms, record_time_ms=row.record_ms,
            bins=[], reason=reason, historical=row.record_ms < self._cluster.live_since_ms,
        )  # fmt: skip
        return self._drift_output(event)

    def mismatch(
        self, plan: ModelPlan, panel: PanelName, row: RowContext, found: Sequence[Difference], *, n: int, baseline: str
    ) -> Output:
        """The one event of a baseline file that the first live rows do not agree with."""
        return self._compared("baseline_mismatch", plan, panel, row, found, series=f"baseline:{_rows_of(panel)}", monitor="baseline", n=n,
            severity="info", baseline=baseline, reason=mismatch_reason(plan, found, n))  # fmt: skip

    def version_shift(
        self, plan: ModelPlan, panel: PanelName, row: RowContext, found: Sequence[Difference], *, n: int, old: str, old_n: int
    ) -> Output:
        """The one event of a version's comparison with the one before it: loud where decisions or losses are far off."""
        loud = any(one.critical and one.series in SHIFTS_LOUD for one in found)
        return self._compared("version_shift", plan, panel, row, found, series=f"version:{_rows_of(panel)}", monitor="version", n=n,
            severity="critical" if loud else "info", baseline=None,
            reason=shift_reason(panel.version or "", old, found, n, old_n))  # fmt: skip

    def _compared(
        self, kind: str, plan: ModelPlan, panel: PanelName, row: RowContext, found: Sequence[Difference], *, series: str, monitor: str,
        n: int, severity: Severity, baseline: str | None, reason: str,
    ) -> Output:  # fmt: skip
        """An event about many series at once; its own id is its episode."""
        identity = event_id(self._config.environment, self._cluster, row.position, plan.name, kind, series, panel.version, panel.age_ms)
        event = DriftEvent(
            id=identity, kind=kind, environment=self._config.environment, model=plan.name, version=panel.version,  # type: ignore[arg-type]
            age_ms=panel.age_ms, monitor=monitor, series=series, segment=None, episode=identity, detector="", statistic=None,
            threshold=None, value=None, baseline_value=None, effect=None, direction=None, severity=severity, n=n, window=n,
            baseline=baseline, position=row.position, since=None, time_ms=row.time_ms, record_time_ms=row.record_ms, bins=[],
            reason=reason, historical=row.record_ms < self._cluster.live_since_ms, differences=[difference_of(one) for one in found],
        )  # fmt: skip
        return self._drift_output(event)

    def health(self, plan: ModelPlan, signal: HealthSignal, row: RowContext, opened: Position) -> Output | None:
        """The drift event of a stream series; None when no monitor owns the series."""
        monitor = plan.monitor_of(signal.series)
        if monitor is None:
            return None
        about = (plan.name, signal.series)
        event = DriftEvent(
            id=event_id(self._config.environment, self._cluster, row.position, *about, signal.opened, signal.time_ms),
            kind="drift" if signal.opened else "recovery", environment=self._config.environment, model=plan.name, version=None,
            monitor=monitor.id, series=signal.series, segment=None,
            episode=event_id(self._config.environment, self._cluster, opened, *about, "episode"), detector=signal.series.split(":")[1],
            statistic=finite(signal.value), threshold=finite(signal.threshold), value=finite(signal.value),
            baseline_value=finite(signal.reference),
            effect=Effect("silence" if signal.series == FRESHNESS else "rate", signal.value),
            direction=signal.direction, severity="critical" if signal.opened else "info", n=signal.n, window=STREAM_WINDOW,  # type: ignore[arg-type]
            baseline=None, position=row.position, since=Since(row.position, row.time_ms) if signal.opened else None,
            time_ms=signal.time_ms, record_time_ms=signal.time_ms, bins=[],
            reason=None if signal.opened else "the stream is back within its limits",
            historical=signal.time_ms < self._cluster.live_since_ms,
        )  # fmt: skip
        return self._drift_output(event)

    def join_rate(self, plan: ModelPlan, panel: PanelName, signal: JoinRateSignal, row: RowContext, opened: Position) -> Output:
        """The drift event of the join rate; the limit is the user's own, so falling below it is a warning at least."""
        monitor = plan.monitor_of(JOIN_RATE)
        assert monitor is not None, "rows are counted only where a monitor owns the series"
        about = (plan.name, panel.version, panel.age_ms, JOIN_RATE)
        recovered = signal.kind == "recovery"
        severity: Severity = "info" if recovered else "critical" if signal.lost >= monitor.severity.critical else "warning"
        found = f"{signal.share:.1%} of {signal.rows} predictions had a label {_age(panel.age_ms)}"
        reason = f"{found}, labels.min_join is {signal.limit:.1%}"
        if signal.stale:
            reason = stale_reason(plan.model.stale or 0)
        event = DriftEvent(
            id=event_id(self._config.environment, self._cluster, row.position, *about, signal.kind, *([STALE] if signal.stale else [])),
            kind=signal.kind,
            environment=self._config.environment, model=plan.name, version=panel.version, age_ms=panel.age_ms,
            monitor=monitor.id, series=JOIN_RATE,
            segment=None, episode=event_id(self._config.environment, self._cluster, opened, *about, "episode"),
            detector=STALE if signal.stale else "join_rate",
            statistic=finite(signal.share), threshold=finite(signal.limit), value=finite(signal.share), baseline_value=None,
            effect=Effect("rate", signal.lost), direction="down", severity=severity, n=signal.rows, window=signal.rows, baseline=None,
            position=row.position, since=None, time_ms=row.time_ms, record_time_ms=row.record_ms, bins=[],
            reason=reason if recovered else f"{reason}: {CAUSES}", historical=row.record_ms < self._cluster.live_since_ms,
        )  # fmt: skip
        return self._drift_output(event)

    def removed(
        self, model: str, panel: PanelName | None, ended: Ended, row: RowContext, *, about: tuple[str | int | None, ...], opened: Position,
        detector: str = REMOVED,
    ) -> Output:  # fmt: skip
        """The drift event of an episode that ends because its series, monitor or model is gone, or its level has become what is normal.

        Parameters
        ----------
        about : what the episode's id is of, beside its first position.
        detector : what stands as the detector that ended it.
        """
        named = (*about, detector, opened.topic, opened.partition, opened.offset)
        event = DriftEvent(
            id=event_id(self._config.environment, self._cluster, row.position, *named), kind="recovery",
            environment=self._config.environment, model=model, version=None if panel is None else panel.version,
            age_ms=None if panel is None else panel.age_ms, monitor=ended.owner, series=ended.series,
            segment=None if ended.segment is None else {ended.segment[0]: ended.segment[1]},
            episode=event_id(self._config.environment, self._cluster, opened, *about, "episode"), detector=detector,
            statistic=None, threshold=None, value=None, baseline_value=None, effect=None, direction=None, severity=ended.severity,
            n=0, window=ended.window, baseline=None, position=row.position, since=None, time_ms=row.time_ms,
            record_time_ms=row.record_ms, bins=[], reason=ended.reason, historical=row.record_ms < self._cluster.live_since_ms,
        )  # fmt: skip
        return self._drift_output(event)

    def snapshot(
        self, plan: ModelPlan, panel: PanelName, row: RowContext, levels: list[Level], *, segment: dict[str, str] | None, state: str,
        rows: int, baseline: str | None, learns: int | None = None, mismatched: Sequence[str] = (),
    ) -> Output:  # fmt: skip
        """The snapshot of one scope of a panel.

        Parameters
        ----------
        learns : rows that are waited for; None = those that a baseline is learned from.
        mismatched : its columns that learned here because the file's baseline did not fit.
        """
        snapshot = Snapshot(
            environment=self._config.environment, model=plan.name, version=panel.version, age_ms=panel.age_ms,
            panel=panel.kind, segment=segment, state=state, rows=rows, learn_rows=learns or plan.model.baseline.learn,  # type: ignore[arg-type]
            baseline=baseline, position=row.position, time_ms=row.time_ms,
            series=[level_of(level) for level in levels], mismatched=list(mismatched),
        )  # fmt: skip
        age = "" if panel.age_ms is None else str(panel.age_ms)
        key = "/".join([plan.name, panel.kind, panel.version or "", age, _segment_key(segment)])
        partition = self._partition(plan.name, self._snapshots)
        return Output(topic=self._snapshots, key=key.encode(), value=encode_event(snapshot), partition=partition)

    def _drift_output(self, event: DriftEvent) -> Output:
        self._measure(event)
        subject = "/".join([event.model, event.series, _segment_key(event.segment)])
        source = f"driftline/{event.environment}/detect"
        extensions: tuple[tuple[str, bytes], ...] = ()
        if self.rebuilt:
            event = msgspec.structs.replace(event, state="rebuilt")
            extensions = (("ce_state", b"rebuilt"),)
        return Output(
            topic=self._drift,
            key=event.model.encode(),
            value=encode_event(event),
            headers=cloud_event_headers(event, id=event.id, source=source, subject=subject, time_ms=event.time_ms) + extensions,
            partition=self._partition(event.model, self._drift),
        )

    def _measure(self, event: DriftEvent) -> None:
        about = {"monitor": event.monitor, "model": event.model}
        self._counters.increment("drift_events", {**about, "kind": event.kind, "severity": event.severity})
        if event.kind not in ("drift", "evidence", "recovery"):
            return
        series = {**about, "subject": event.series, "segment": _segment_key(event.segment)}
        self._told[tuple(series.values())] = series
        size = 0.0 if event.kind == "recovery" or event.effect is None else event.effect.size
        for name, value in zip(_GAUGES, (event.statistic, event.threshold, size), strict=True):
            if value is not None:
                self._counters.set(name, series, value)
        if not event.historical:
            self._counters.since("detection_delay", {"kind": event.kind}, event.record_time_ms)

    def _partition(self, model: str, topic: str) -> int:
        return partition_for(model, self._cluster.partitions.get(topic, 1))


def about_series(model: str, panel: PanelName, series: str, segment: dict[str, str] | None) -> tuple[str | int | None, ...]:
    """What the ids of a series' events are of."""
    return (model, panel.kind, panel.version, panel.age_ms, series, _segment_key(segment))


def anchor_position(anchor: Anchor, sources: SourceTable) -> Position:
    """The source record of an anchor; `sources` is its model's table."""
    topic, partition = sources[anchor.source]
    return Position(topic, partition, anchor.offset)


def _rows_of(panel: PanelName) -> str:
    """What a panel is about, in the name of a comparison's series."""
    return "outcomes" if panel.kind == "outcomes" else "predictions"


def _age(age_ms: int | None) -> str:
    return "at the measured age" if age_ms is None else f"at the age of {age_ms / 1000:g} s"


def _segment_key(segment: dict[str, str] | None) -> str:
    return "" if segment is None else ",".join(f"{key}={value}" for key, value in sorted(segment.items()))
