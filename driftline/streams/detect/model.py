"""One model in a detect task: its panels, its stream health, and the order in which they see a batch.

Every output is placed by the row that caused it, so the topic's order does not depend on how ingest cut the
stream into batches.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from driftline.detectors.baseline import Baseline
from driftline.detectors.panel import Panel
from driftline.detectors.spec import Signal
from driftline.schemas.events import Position
from driftline.schemas.stream_series import FRESHNESS, JOIN_RATE, VOLUME
from driftline.streams.counters import Counters
from driftline.streams.detect.comparing import Mismatched, compare_versions, next_cut, open_panel, settle
from driftline.streams.detect.gather import Placed, in_order, placing
from driftline.streams.detect.health import HealthSignal, StreamHealth
from driftline.streams.detect.join_rate import JoinRate, judged
from driftline.streams.detect.ledger import Feed, Ledger, Times, pieces
from driftline.streams.detect.parts import begins
from driftline.streams.detect.plan import ModelPlan
from driftline.streams.detect.publish import EventWriter, PanelName, RowContext, anchor_position
from driftline.streams.detect.relearning import hear, look_every, relearn
from driftline.streams.detect.rows import feature_rows, outcome_rows, score_rows, take
from driftline.streams.detect.snapshots import snapshot_every, snapshots
from driftline.streams.detect.sources import SourceTable
from driftline.streams.detect.standstill import Standstill
from driftline.streams.detect.units import Units, watched_rows
from driftline.streams.detect.versions import OTHER_VERSIONS, Arrival, arrivals, by_version, near, reason_of
from driftline.streams.detect.watched import PREDICTIONS, WatchedPanel, ledger_name, panel_path, segment_of
from driftline.streams.observation import LABELLED, Observations
from driftline.streams.task import Output

_log = logging.getLogger(__name__)

STREAM_SERIES: Final = (FRESHNESS, VOLUME, JOIN_RATE)
"""Series that no panel has."""


@dataclass(slots=True)
class WatchedModel:
    """All panels of a model in one task.

    Parameters
    ----------
    sources : its source partitions; rows index them.
    baselines : from a file, by panel kind.
    rebuilt : an operator had the task's state rebuilt.

    Attributes
    ----------
    units : by ledger, where the model has a unit.
    taken : kinds of which a panel that is gone began with the file's baseline.
    mismatched : columns whose reference was learned here because the file's did not fit.
    dropped : names of blobs and rings that an edit left nothing of, to be removed with the next checkpoint.
    """

    plan: ModelPlan
    writer: EventWriter
    sources: SourceTable
    baselines: Mapping[str, Baseline]
    counters: Counters
    rebuilt: bool = False
    panels: dict[PanelName, WatchedPanel] = field(default_factory=dict)
    health: StreamHealth = field(init=False)
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    health_opened: dict[str, Position] = field(default_factory=dict)
    joins: dict[PanelName, JoinRate] = field(default_factory=dict)
    joins_opened: dict[PanelName, Position] = field(default_factory=dict)
    units: dict[str, Units] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    mismatched: Mismatched = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    _parts: dict[PanelName, list[WatchedPanel]] = field(default_factory=dict)
    _arrived: list[Arrival] = field(default_factory=list)
    _look_every: int = field(init=False)
    _configured: dict[str, Any] = field(init=False)
    _standstills: dict[str, Standstill] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._look_every = look_every(self.plan.model)
        self.health = StreamHealth(self.plan.model.freshness)
        self._configured = {
            "settings": {place: setting.value for place, setting in self.plan.settings.items()},
            "owners": {series: owner.id for series in STREAM_SERIES if (owner := self.plan.monitor_of(series)) is not None},
        }

    def predictions(self, batch: Observations) -> list[Placed]:
        """Update the feature and score panels with a batch of predictions."""
        self._mark(PREDICTIONS, batch.generation)
        segments = list(self.plan.model.segments)
        own = self._watched_rows(PREDICTIONS, batch)
        features = feature_rows(batch, segments, self.plan.lengths)
        feeds = [Feed(PanelName("features"), own, features if own is None else features.take(own))]
        for name, rows in by_version(PanelName("scores"), batch, own, self._parts):
            part = batch if rows is None else take(batch, rows)
            feeds.append(Feed(name, rows, score_rows(part, self.plan.model, segments)))
        # The stream's series compare with the row before the batch, which the feeds move on.
        return sorted([*self._stream(batch), *self._work(batch, feeds, PREDICTIONS)], key=placing)

    def outcomes(self, batch: Observations) -> list[Placed]:
        """Update the outcome panels with a batch of joined predictions; those of an age that is configured no more are passed over."""
        if self.plan.left_out("outcomes", batch.age_ms):
            return []
        kind = PanelName("outcomes", age_ms=batch.age_ms)
        self._mark(ledger_name(kind), batch.generation)
        segments = list(self.plan.model.segments)
        feeds = []
        for name, rows in by_version(kind, batch, self._watched_rows(ledger_name(kind), batch), self._parts):
            part = batch if rows is None else take(batch, rows)
            feeds.append(Feed(name, rows, outcome_rows(part, self.plan.model, segments)))
        return sorted(self._work(batch, feeds, ledger_name(kind)), key=placing)

    def tick(self, tick_ms: int, source: int, generation: int = 0) -> list[Output]:
        """Let time pass on a source partition without rows."""
        self._mark(PREDICTIONS, generation)
        ledger = self._ledger(PREDICTIONS)
        outputs = [] if ledger.last is None else [o for s in self.health.tick(tick_ms, source) for o in self._health_output(s, ledger.last)]
        return outputs + self._expire(PREDICTIONS, ledger.tick(tick_ms, source))

    def outcome_tick(self, tick_ms: int, age_ms: int | None, generation: int) -> list[Output]:
        """Let time pass where no outcomes come."""
        name = ledger_name(PanelName("outcomes", age_ms=age_ms))
        self._mark(name, generation)
        return self._expire(name, self._ledger(name).tick_all(tick_ms))

    def subjects(self) -> tuple[int, int, int]:
        """Series that are watched, those with an open episode, those whose guarantee is suspended; a series in a segment or of a
        version counts by itself.
        """
        found = [watched.panel.subjects() for watched in self.panels.values()]
        return sum(n for n, _, _ in found), sum(n for _, n, _ in found), sum(n for _, _, n in found)

    def export_meta(self) -> dict[str, Any]:
        """What a restart needs beside the panels' own blobs, as JSON; `reopen.py` reads it."""
        taken = self.taken | {w.name.kind for w in self.panels.values() if self.began_with_file(w)}
        return {
            "panels": [
                [panel_path(p.name), p.name.kind, p.name.version, p.name.age_ms, p.seen, p.first_ms, p.learned_here, p.shown, p.name.part]
                + ([p.compares] if p.compares or p.stirred else [])
                + ([sorted([scope, series, rows] for (scope, series), rows in p.stirred.items())] if p.stirred else [])
                for p in self.panels.values()
            ],
            "health": self.health.export(),
            "ledgers": {name: ledger.export() for name, ledger in self.ledgers.items()},
            "health_opened": {series: _position_list(position) for series, position in self.health_opened.items()},
            "joins": [[name.kind, name.version, name.age_ms, join.export()] for name, join in self.joins.items()],
            "joins_opened": [[n.kind, n.version, n.age_ms, _position_list(position)] for n, position in self.joins_opened.items()],
            "sources": self.sources.export(), "rebuilt": self.rebuilt, "taken": {kind: self.baselines[kind].id for kind in sorted(taken)},
            **self._configured,
            **({"mismatched": [[*about, columns] for about, columns in self.mismatched.items()]} if self.mismatched else {}),
            **({"units": {name: units.export() for name, units in self.units.items()}} if self.units else {}),
        }

    def warn_of_unused(self, name: PanelName, panel: Panel) -> None:
        """A panel keeps the baseline it began with: its windows and detectors are of that one."""
        wanted = self.baselines.get(name.kind) if not name.part and not self._seen_version(name) else None
        if wanted is not None and not panel.held and (panel.baseline is None or panel.baseline.id != wanted.id):
            held = "one that is being learned" if panel.baseline is None else panel.baseline.id
            _log.warning("baseline_unused model=%s panel=%s file=%s in_use=%s", self.plan.name, panel_path(name), wanted.id, held)

    def add(self, watched: WatchedPanel) -> None:
        """Let a panel take part; those of one name see rows in the order in which they were added."""
        self.panels[watched.name] = watched
        self._parts.setdefault(watched.name.whole, []).append(watched)

    def put(self, name: PanelName, parts: list[WatchedPanel]) -> None:
        """Let these be the parts of a panel; panels then stand in the order that a restart gives them."""
        self._parts[name.whole] = parts
        self.panels = {part.name: part for group in self._parts.values() for part in group}

    def parts_of(self, name: PanelName) -> list[WatchedPanel]:
        """The parts of a panel, in the order in which they see rows."""
        return self._parts.get(name.whole, [])

    def opens_held(self, name: PanelName) -> bool:
        """Whether a panel that is not there yet will hold its first rows."""
        compared = self.plan.model.baseline.compare and name.kind in self.baselines
        return compared and name not in self._parts and not self._seen_version(name)

    def began_with_file(self, watched: WatchedPanel) -> bool:
        """Whether a panel compares with what the configured file holds, or is about to."""
        file, own = self.baselines.get(watched.name.kind), watched.panel.baseline
        return file is not None and file.id in (watched.compares, None if own is None else own.id) and not watched.learned_here

    def rank(self, name: PanelName) -> int:
        """Which version of its kind and age a panel is of, open or about to be, counted from 1; the order is part of the state."""
        known = list(self._parts)
        before = known[: known.index(name)] if name in self._parts else known
        return 1 + sum(other.kind == name.kind and other.age_ms == name.age_ms for other in before)

    def _mark(self, name: str, generation: int) -> None:
        """Events say whether their state was rebuilt: this task's, or that of one which wrote to their ledger."""
        ledger = self._ledger(name)
        ledger.rebuilt |= generation > 0
        self.writer.rebuilt = self.rebuilt or ledger.rebuilt

    def _ledger(self, name: str) -> Ledger:
        if name not in self.ledgers:
            self.ledgers[name] = Ledger()
        return self.ledgers[name]

    def _standstill(self, ledger: str) -> Standstill:
        if ledger not in self._standstills:
            self._standstills[ledger] = Standstill(self.plan.name, ledger, self.sources, self.counters)
        return self._standstills[ledger]

    def _watched_rows(self, ledger: str, batch: Observations) -> np.ndarray[Any, Any] | None:
        """The rows that panels see; None = all."""
        if self.plan.model.unit is not None and ledger not in self.units:
            self.units[ledger] = Units(self.plan.model)
        rows = watched_rows(self.plan.model, self.units.get(ledger), batch)
        if rows is not None:
            self.counters.increment("rows_unwatched", {"model": self.plan.name}, len(batch) - len(rows))
        return rows

    def _work(self, batch: Observations, feeds: list[Feed], name: str) -> list[Placed]:
        """Hand the rows of a batch to their panels, stopping where an episode may be due for want of rows."""
        placed: list[Placed] = []
        ledger = self._ledger(name)
        clock = ledger.rows(batch.record_ms, batch.source)
        self._standstill(name).look(batch, clock)
        self._arrived = [*([] if ledger.arrived is None else [Arrival(*ledger.arrived)]), *arrivals(feeds, self._parts)]
        for start, stop in pieces(clock, self.plan.model.stale, lambda: self._due_ms(name)):
            if start == stop:
                placed += [(start, output) for output in self._expire(name, int(clock[start]))]
                continue
            while start < stop:
                cut = next_cut(self, feeds, start, stop)
                for feed in feeds:
                    placed += self._feed(feed, batch, clock, *feed.within(start, cut))
                ledger.last = self._row(batch, cut - 1)
                placed += [(cut - 1, output) for output in settle(self, name, feeds, start, cut, ledger.last)]
                placed += [(cut - 1, output) for output in compare_versions(self, feeds, start, cut, ledger.last)]
                start = cut
        ledger.arrived = (self._arrived[-1].version, self._arrived[-1].time_ms) if self._arrived else None
        return placed

    def _due_ms(self, ledger: str) -> int | None:
        """The first moment at which an episode of a ledger is due."""
        due = [w.panel.due_ms() for name, w in self.panels.items() if ledger_name(name) == ledger]
        due += [join.due_ms(self.plan.model.stale) for name, join in self.joins.items() if ledger_name(name) == ledger]
        return min((ms for ms in due if ms is not None), default=None)

    def _expire(self, ledger: str, now_ms: int) -> list[Output]:
        """End what nothing came for, at the last row there was, in the order in which it was due."""
        due_ms, last = self._due_ms(ledger), self._ledger(ledger).last
        if due_ms is None or due_ms >= now_ms or last is None:
            return []
        found: list[Placed] = []
        for name, watched in self.panels.items():
            for at_ms, signal in watched.panel.expire(now_ms) if ledger_name(name) == ledger else ():
                found.append((at_ms, self._signal_output(watched, signal, RowContext(last.position, at_ms, at_ms))))
        for name, join in self.joins.items():
            due = join.due_ms(self.plan.model.stale) if ledger_name(name) == ledger else None
            if due is not None and due < now_ms:
                row = RowContext(last.position, due, due)
                opened = self.joins_opened.get(name, last.position)
                found.append((due, self.writer.join_rate(self.plan, name, join.expire(), row, opened)))
        return in_order(found)

    def _feed(self, feed: Feed, batch: Observations, clock: Times, start: int, stop: int) -> list[Placed]:
        """Hand some rows to the parts of one panel, together, stopping at every snapshot boundary."""
        placed: list[Placed] = []
        if start == stop:
            return placed
        name, rows, own_clock, end = feed.name, feed.rows, clock if feed.index is None else clock[feed.index], stop
        if name not in self._parts:
            self._open(name)
            if name.kind == "scores" and name.version:
                placed.append(self._version_note(feed, batch, start))
        if name.kind == "scores" and name.version == OTHER_VERSIONS:
            self.counters.increment("versions_shared", {"model": self.plan.name}, end - start)
        if name.kind == "outcomes":
            placed += self._join_rate(feed, batch, own_clock, start, end)
        parts = [part for part in self._parts[name] if self._begun(part, batch, int(rows.time_ms[start]))]
        while start < end and parts:
            stop = min([end, *(start + every - p.seen % every for p in parts for every in [snapshot_every(self, p)])])
            looks = self._look_every
            stop = min(stop, start + looks - parts[0].seen % looks) if looks else stop
            for part in parts:
                signals = part.panel.update(rows.slice(start, stop), own_clock[start:stop])
                if looks:
                    hear(part, signals)
                for signal in signals:
                    row = feed.place(start + signal.row)
                    placed.append((row, self._signal_output(part, signal, self._row(batch, row), row)))
                part.seen += stop - start
            for part in parts:
                if part.seen % snapshot_every(self, part) == 0:
                    row = feed.place(stop - 1)
                    placed += [(row, output) for output in snapshots(self, part, parts, self._row(batch, row))]
            if looks and parts[0].seen % looks == 0:
                row = feed.place(stop - 1)
                placed += [(row, output) for output in relearn(self, name, self._row(batch, row))]
                parts = [part for part in self._parts[name] if part.seen]
            start = stop
        return placed

    def _version_note(self, feed: Feed, batch: Observations, start: int) -> Placed:
        row, reason = feed.place(start), reason_of(feed.name.version or "")
        note = self.writer.note(self.plan, feed.name, self._row(batch, row), kind="version_seen", baseline=None, n=1, reason=reason)
        return row, note

    def _open(self, name: PanelName) -> None:
        baseline = self.baselines.get(name.kind) if not self._seen_version(name) else None
        self.add(open_panel(self, name, self.plan.panel(name.kind, rank=self.rank(name)), baseline))

    def _begun(self, part: WatchedPanel, batch: Observations, time_ms: int) -> bool:
        """Whether a part takes rows: one that was added waits for rows that have what it is of."""
        if not part.seen:
            if part.name.part and not begins(part.panel.spec, part.name.kind, batch):
                return False
            part.first_ms = time_ms
        return True

    def _seen_version(self, name: PanelName) -> bool:
        """Whether an earlier version has this panel: the file's baseline belongs to the first version seen."""
        return any(other.kind == name.kind and other.age_ms == name.age_ms and other.version != name.version for other in self._parts)

    def _signal_output(self, watched: WatchedPanel, signal: Signal, row: RowContext, place: int = -1) -> Output:
        baseline = watched.panel.baseline
        baseline_id = baseline.id if baseline is not None else None
        if signal.kind == "baseline":
            reason = f"baseline of panel {watched.name.kind} {signal.reason}"
            return self.writer.note(self.plan, watched.name, row, kind="baseline", baseline=baseline_id, n=signal.n, reason=reason)
        settle = self.plan.model.baseline.settle
        return self.writer.signal(
            self.plan,
            watched.name,
            signal,
            row,
            segment=segment_of(watched.panel, signal.scope),
            opened=anchor_position(signal.episode, self.sources),
            since=None if signal.since is None else anchor_position(signal.since, self.sources),
            baseline=baseline_id,
            provisional=watched.learned_here and row.time_ms - watched.first_ms < settle,
            arrived=near(self._arrived, place, row.time_ms) if signal.kind == "open" else None,
        )

    def _stream(self, batch: Observations) -> Iterator[Placed]:
        before = self._ledger(PREDICTIONS).last
        for index, signal in self.health.rows(batch.record_ms, batch.source):
            row = self._row(batch, index)
            for output in self._health_output(signal, row if signal.series == VOLUME or before is None else before):
                yield index, output

    def _health_output(self, signal: HealthSignal, row: RowContext) -> Iterator[Output]:
        if signal.opened:
            self.health_opened[signal.series] = row.position
        opened = self.health_opened.get(signal.series, row.position)
        if (output := self.writer.health(self.plan, signal, row, opened)) is not None:
            yield output

    def _join_rate(self, feed: Feed, batch: Observations, clock: Times, start: int, stop: int) -> Iterator[Placed]:
        """Hold the share of labelled rows against `min_join`."""
        join = self.joins.get(feed.name)
        if join is None:
            limits = self.join_limits(feed.name.age_ms)
            if limits is None or batch.label_state is None:
                return
            join = self.joins[feed.name] = JoinRate(*limits)
        assert batch.label_state is not None
        labelled = (batch.label_state if feed.index is None else batch.label_state[feed.index])[start:stop] == LABELLED
        join.seen_ms = int(clock[stop - 1])
        for at, signal in join.update(labelled):
            place = feed.place(start + at)
            row = self._row(batch, place)
            if signal.kind == "drift":
                self.joins_opened[feed.name] = row.position
            yield place, self.writer.join_rate(self.plan, feed.name, signal, row, self.joins_opened.get(feed.name, row.position))

    def join_limits(self, age_ms: int | None) -> tuple[float, int, float] | None:
        """Limit, window and critical level of the join rate at an age; None when it is not watched there."""
        monitor = self.plan.monitor_of(JOIN_RATE)
        if monitor is None or not judged(self.plan.model.labels, age_ms):
            return None
        return self.plan.model.labels.min_join, monitor.window or self.plan.model.window, monitor.severity.critical

    def _row(self, batch: Observations, row: int) -> RowContext:
        place = Position(*self.sources[int(batch.source[row])], int(batch.offset[row]))
        return RowContext(place, int(batch.time_ms[row]), int(batch.record_ms[row]))


def _position_list(position: Position) -> list[Any]:
    return [position.topic, position.partition, position.offset]
