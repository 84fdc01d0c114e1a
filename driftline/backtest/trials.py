"""Which changes are tried, and what a run with each of them says: found or not, how late, and who else was accused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

import numpy as np

from driftline.backtest.alarms import Alarm, alarms_of
from driftline.backtest.changes import KINDS, NUMERIC, Change, Kind, inject, span
from driftline.backtest.recording import ModelRows, Recording
from driftline.backtest.run import Detect, Found, Json, Whole
from driftline.schemas.config import Model
from driftline.schemas.series import block_series
from driftline.streams.detect.model import WatchedModel
from driftline.streams.errors import SetupError
from driftline.streams.observation import UNLABELLED

ROWS_LEAST: Final = 400
"""Rows after learning without which no change is tried: a detector that needs 200 must have a chance."""
SIZES: Final[Mapping[Kind, float]] = {"shift": 1.0, "scale": 2.0, "nulls": 0.1, "unseen": 0.05, "correlation": 0.0, "labels": 0.1}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be tried.

    Attributes
    ----------
    kinds : None = all that the rows allow.
    starts : at how many rows each kind begins, one run each.
    within_rows, within_ms : a change counts as found up to so long after its start; both None = a quarter of the second part.
    into : features to change, each at every start; empty = a drawn one at each start.
    """

    kinds: tuple[Kind, ...] | None = None
    sizes: Mapping[Kind, float] = field(default_factory=lambda: dict(SIZES))
    starts: int = 3
    within_rows: int | None = None
    within_ms: int | None = None
    into: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Interval:
    """Rows that one change lasts, by the numbers of their predictions."""

    start: int
    stop: int


def intervals(model: str, rows: ModelRows, asked: Asked, *, first: int) -> list[Interval]:
    """Where changes begin and end: evenly over the second part of the rows.

    Parameters
    ----------
    first : the first row that is watched.

    Raises
    ------
    SetupError : too few rows are left.
    """
    begin = max(rows.count // 2, first)
    left = rows.count - begin
    if left < ROWS_LEAST:
        raise SetupError(
            f'model "{model}": {rows.count:,} rows, of which {first:,} are learned from: {max(left, 0):,} are left for changes, '
            f"expected at least {ROWS_LEAST}",
            hint="a longer file, a smaller baseline.learn or a baseline.file; --changes none gives the alarms alone",
        )
    reached = np.maximum.accumulate(rows.times)

    def end(start: int) -> int:
        if asked.within_ms is not None:
            return int(np.searchsorted(reached, reached[start] + asked.within_ms))
        return start + (asked.within_rows or left // 4)

    last = rows.count - (end(begin) - begin)
    starts = np.linspace(begin, max(last, begin), asked.starts).astype(int).tolist() if asked.starts > 1 else [begin]
    return [Interval(start, min(max(end(start), start + 1), rows.count)) for start in dict.fromkeys(starts)]


def first_watched(model: Model, rows: ModelRows) -> tuple[int, int | None]:
    """The first watched row of features, and of outcomes (None = they never are): the configuration says how many are learned from."""
    learn = 0 if model.baseline.file is not None else model.baseline.learn
    return learn, _outcome_at(rows, learn)


def _outcome_at(rows: ModelRows, count: int) -> int | None:
    """The number of the prediction whose outcome is the one after the first `count`."""
    for piece in rows.outcomes:
        if count < len(piece.rows):
            return max(int(piece.rows[count]), 0)
        count -= len(piece.rows)
    return None


@dataclass(frozen=True, slots=True)
class Places:
    """Where one model's changes stand: those of features, and those of labels; empty where there can be none."""

    features: tuple[Interval, ...]
    labels: tuple[Interval, ...]

    def stops(self, model: str, rows: ModelRows) -> set[int]:
        """The records before which a run with a change begins."""
        ends = [span(Change("shift", model, "", 0, one.start, one.stop, 0), rows) for one in self.features]
        ends += [span(Change("labels", model, "", 0, one.start, one.stop, 0), rows) for one in self.labels]
        return {end[0] for end in ends if end is not None}


def places(name: str, model: Model, recording: Recording, asked: Asked) -> Places:
    """Where changes are put.

    Raises
    ------
    SetupError : too few rows, or label changes were asked for and no row has a label.
    """
    rows = recording.models[name]
    first, outcomes = first_watched(model, rows)
    kinds = asked.kinds if asked.kinds is not None else KINDS
    features = intervals(name, rows, asked, first=first) if set(kinds) - {"labels"} else []
    labels: list[Interval] = []
    if "labels" in kinds:
        labelled = outcomes is not None and _has_labels(recording, rows)
        if labelled and (asked.kinds is not None or rows.count - max(rows.count // 2, outcomes or 0) >= ROWS_LEAST):
            labels = intervals(name, rows, asked, first=outcomes or 0)
        elif asked.kinds is not None:
            why = "no row has a label" if not _has_labels(recording, rows) else "no outcomes come after those that are learned from"
            raise SetupError(
                f'--changes labels: model "{name}": {why}',
                hint="name the label's column with --label, and `labels:` in the configuration; or leave labels out of --changes",
            )
    return Places(tuple(features), tuple(labels))


def _has_labels(recording: Recording, rows: ModelRows) -> bool:
    for piece in rows.outcomes:
        state = recording.batch(piece.record).label_state
        if state is not None and (state != UNLABELLED).any():
            return True
    return False


def changes_of(watched: WatchedModel, recording: Recording, where: Places, asked: Asked) -> list[Change]:
    """The changes to try, one run each.

    Raises
    ------
    SetupError : a feature was named that is not watched, or a kind has no feature it applies to.
    """
    name = watched.plan.name
    keys = {key for key, segment in watched.plan.model.segments.items() if segment.path is None}
    features = _features(watched)
    unknown = [feature for feature in asked.into if feature not in features]
    if unknown:
        raise SetupError(f'--into "{unknown[0]}": not a watched feature of model "{name}", which has {", ".join(features) or "none"}')
    out: list[Change] = []
    for kind in asked.kinds if asked.kinds is not None else KINDS:
        size = asked.sizes[kind]
        if kind == "labels":
            spread = _error_spread(recording, name) if watched.plan.model.task == "regression" else 0.0
            out += [Change(kind, name, "", size, one.start, one.stop, asked.seed, spread) for one in where.labels]
            continue
        able = [feature for feature, spread in features.items() if _applies(kind, spread, feature in keys)]
        chosen = [feature for feature in able if feature in asked.into] if asked.into else able
        if not chosen:
            if asked.kinds is not None:
                raise SetupError(f'--changes {kind}: model "{name}" has no feature it applies to{" among --into" if asked.into else ""}')
            continue
        order = np.random.Generator(np.random.PCG64([asked.seed, KINDS.index(kind)])).permutation(len(chosen))
        for number, one in enumerate(where.features):
            drawn = chosen if asked.into else [chosen[order[number % len(chosen)]]]
            for feature in drawn:
                spread, key = features[feature] or 1.0, feature if feature in keys else None
                blocks = frozenset(block_series(block) for block, of in watched.plan.model.blocks.items() if feature in of.features)
                out.append(Change(kind, name, feature, size, one.start, one.stop, asked.seed, spread, key, blocks))
    return out


def _features(watched: WatchedModel) -> dict[str, float | None]:
    """Watched features and their reference sd, None for categories."""
    found: dict[str, float | None] = {}
    for part in watched.panels.values():
        if part.name.kind == "features" and part.panel.baseline is not None:
            for column in part.panel.baseline.columns:
                if column.kind != "binary" and not column.factor_names and watched.plan.monitor_of(f"feature:{column.name}") is not None:
                    found[column.name] = None if column.kind == "categorical" else column.sd or 0.0
    return found


def _applies(kind: Kind, spread: float | None, segment: bool) -> bool:
    if kind == "unseen":
        return spread is None
    if spread is not None and segment:
        return False  # its segment values would have to be spelled anew as text
    return spread is not None and spread > 0 if kind in NUMERIC else True


def _error_spread(recording: Recording, name: str) -> float:
    """The sd of a regression's errors over all outcomes."""
    errors: list[Any] = []
    for piece in recording.models[name].outcomes:
        batch = recording.batch(piece.record)
        if batch.label is not None and batch.score is not None:
            errors.append(batch.label - batch.score)
    values = np.concatenate(errors) if errors else np.empty(0)
    values = values[np.isfinite(values)]
    return float(values.std()) if len(values) else 0.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What a run with one change said.

    Attributes
    ----------
    outcome : ``found``; ``missed``; ``open``: the series was off its baseline before, so nothing could open.
    alarm : the first that the change caused.
    delay_rows : changed events up to and with the one at which it was raised.
    delay_ms : event time from the change to it, and for an outcome the age of its label, where it is a stated one.
    accused : series that did not change and had alarms, with none on the rows as they are.
    """

    change: Change
    outcome: str
    alarm: Alarm | None
    delay_rows: int | None
    delay_ms: int | None
    accused: tuple[str, ...]
    found: Found


def try_changes(
    detect: Detect, whole: Whole, recording: Recording, changes: Sequence[Change], tell: Callable[[int], None] = lambda _: None
) -> list[Trial]:
    """Run each change from the state before it; `whole` is the run over the rows as they are, under the same configuration."""
    out = []
    base = {name: alarms_of(whole.found.events, name, rows) for name, rows in recording.models.items()}
    for change in changes:
        rows = recording.models[change.model]
        records = span(change, rows)
        if records is not None:
            start, end = records
            found = detect.part(whole.states.get(start, {}), start, end, inject(change, recording))
            out.append(judge(change, base[change.model], found, rows))
            tell(1)
    return out


def judge(change: Change, base: Sequence[Alarm], found: Found, rows: ModelRows) -> Trial:
    """What a run with a change found beyond what the rows as they are raise.

    Under a budget one alarm moves others: all share one sum, which begins anew with each. So a series that has an alarm
    of its own between the same rows is accused of nothing, and counts as found only in less than half of that one's delay.
    """
    own: dict[tuple[str, str], int] = {}
    for alarm in base:
        if change.start <= alarm.row < change.stop:
            own.setdefault((alarm.series, alarm.segment), alarm.row - change.start)
    new = [alarm for alarm in alarms_of(found.events, change.model, rows) if change.start <= alarm.row < change.stop]
    hits, accused = [], []
    for alarm in new:
        place = (alarm.series, alarm.segment)
        if change.touched(*place):
            if place not in own or 2 * (alarm.row - change.start) < own[place]:
                hits.append(alarm)
        elif place not in own:
            accused.append(alarm.series + (f" in {alarm.segment}" if alarm.segment else ""))
    named = tuple(dict.fromkeys(accused))
    if not hits:
        return Trial(change, "open" if _open(change, base) else "missed", None, None, None, named, found)
    first = min(hits, key=lambda alarm: alarm.row)
    delay_ms = max(int(rows.times[first.row] - rows.times[change.start]), 0) + (first.age_ms or 0)
    return Trial(change, "found", first, first.row - change.start + 1, delay_ms, named, found)


def _open(change: Change, base: Sequence[Alarm]) -> bool:
    """Whether a series that the change touches was off its baseline, for all rows, when the change began."""
    return any(
        not alarm.segment
        and change.touched(alarm.series, "")
        and alarm.row < change.start
        and (alarm.ended_row is None or alarm.ended_row >= change.start)
        for alarm in base
    )


def by_kind(trials: Sequence[Trial]) -> list[Json]:
    """A row for each kind of change."""
    out = []
    for kind in dict.fromkeys(trial.change.kind for trial in trials):
        group = [trial for trial in trials if trial.change.kind == kind]
        judged = [trial for trial in group if trial.outcome != "open"]
        found = [trial for trial in judged if trial.outcome == "found"]
        rows, times = [t.delay_rows or 0 for t in found], [t.delay_ms or 0 for t in found]
        out.append(
            {
                "change": kind,
                "size": group[0].change.size if kind != "correlation" else None,
                "runs": len(judged),
                "found": len(found),
                "open_before": len(group) - len(judged),
                "delay_rows_median": median(rows) if rows else None,
                "delay_rows_worst": max(rows, default=None),
                "delay_ms_median": median(times) if times else None,
                "delay_ms_worst": max(times, default=None),
                "accused": sum(bool(trial.accused) for trial in group),
            }
        )
    return out


