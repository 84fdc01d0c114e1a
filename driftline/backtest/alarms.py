"""Alarms of a run over rows as they are: how many, where, and against how many were asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from driftline.backtest.recording import ModelRows
from driftline.backtest.run import Json, segment_text
from driftline.detectors.openers import E_DETECTOR
from driftline.schemas.budget import parse_false_alarms
from driftline.schemas.config import Model
from driftline.schemas.events import Position
from driftline.schemas.stream_series import LABEL_SERIES
from driftline.streams.detect.model import WatchedModel

WEEK_MS: Final = 604_800_000
RANK: Final = {"info": 0, "warning": 1, "critical": 2}


@dataclass(frozen=True, slots=True)
class Alarm:
    """One episode, from the drift event that opened it.

    Attributes
    ----------
    row : the number of the prediction at which it was raised, counted over the model.
    severity, effect_kind, effect : the highest reached; the effect keeps its sign.
    ended_row : None = open at the end.
    covered : the model's budget counts it.
    """

    model: str
    series: str
    segment: str
    version: str | None
    age_ms: int | None
    monitor: str
    detector: str
    row: int
    time_ms: int
    severity: str
    effect_kind: str | None
    effect: float | None
    ended_row: int | None
    covered: bool

    @property
    def moment(self) -> tuple[Any, ...]:
        """A budget's one alarm may name several series at once: they share it."""
        ledger = self.series.startswith("outcome:") or self.series in LABEL_SERIES
        return (self.version, self.age_ms, ledger, self.row)


def alarms_of(events: Iterable[Json], name: str, rows: ModelRows) -> list[Alarm]:
    """The episodes of one model in the order in which they opened."""
    groups: dict[str, list[Json]] = {}
    for event in events:
        if event["model"] == name and event["kind"] in ("drift", "evidence", "recovery"):
            groups.setdefault(event["episode"], []).append(event)
    return [_alarm(group, rows) for group in groups.values() if group[0]["kind"] == "drift"]


def _alarm(group: Sequence[Json], rows: ModelRows) -> Alarm:
    first, last = group[0], group[-1]
    active = [event for event in group if event["kind"] != "recovery"]
    effects = [(event["effect"]["kind"], event["effect"]["size"]) for event in active if event["effect"]]
    kind, size = max(effects, key=lambda effect: abs(effect[1])) if effects else (None, None)
    return Alarm(
        model=first["model"],
        series=first["series"],
        segment=segment_text(first["segment"]),
        version=first["version"],
        age_ms=first["age_ms"],
        monitor=first["monitor"],
        detector=first["detector"],
        row=rows.number(Position(**first["position"])),
        time_ms=first["time_ms"],
        severity=max((event["severity"] for event in active), key=lambda severity: RANK[severity]),
        effect_kind=kind,
        effect=size,
        ended_row=rows.number(Position(**last["position"])) if last["kind"] == "recovery" else None,
        covered=first["detector"] == E_DETECTOR,
    )


def learned_rows(events: Iterable[Json], name: str, rows: ModelRows) -> dict[str, int]:
    """Panel to the first row that it watched: where it learned its baseline here, the row after. Panels with a file's are not in it."""
    found: dict[str, int] = {}
    for event in events:
        if event["model"] == name and event["kind"] == "baseline":
            found.setdefault(event["series"].removeprefix("panel:"), rows.number(Position(**event["position"])) + 1)
    return found


@dataclass(frozen=True, slots=True)
class Allowed:
    """False alarms that were asked for at most.

    Attributes
    ----------
    most : over the watched rows, a mean.
    source : what says so, for people.
    budget : whether a budget says so, and not the detectors' run lengths.
    """

    most: float
    source: str
    budget: bool


def allowed(model: Model, watched: WatchedModel, rows: int, span_ms: int) -> Allowed:
    """What the configuration asks for over some rows of a time."""
    if model.false_alarms is None:
        return Allowed(_by_run_length(watched), "what run_length implies", budget=False)
    budget = parse_false_alarms(model.false_alarms)
    return Allowed(budget.per_unit * (rows if budget.by_events else span_ms), f"false_alarms: {model.false_alarms}", budget=True)


def _by_run_length(watched: WatchedModel) -> float:
    """The sum of what each detector of each series was promised: its values over its mean run."""
    total = 0.0
    for part in watched.panels.values():
        panel = part.panel
        each = sum(len(series.detectors) / series.run_length for column in panel.columns for series in column.series)
        total += each * sum(panel.scope_rows(scope) for scope in panel.shown_scopes().values())
    return total


@dataclass(frozen=True, slots=True)
class Account:
    """The alarms of one model on the rows as they are.

    Attributes
    ----------
    first_row : the first row that was watched; before it the baseline was learned.
    judged : rows from there on that a series saw: a `unit` and times that are `expected` leave out some.
    count : alarms to hold against `allowed`: one where a budget names several series at once.
    beside : alarms that no budget covers.
    quiet : those within what the user named as quiet.
    """

    model: str
    rows: int
    first_row: int
    judged: int
    first_ms: int
    last_ms: int
    allowed: Allowed
    alarms: tuple[Alarm, ...]
    count: int
    beside: int
    quiet: tuple[Alarm, ...]
    quiet_named: bool

    @property
    def span_ms(self) -> int:
        """Time from the first watched row to the last."""
        return max(self.last_ms - self.first_ms, 1)

    @property
    def per_week(self) -> float:
        """Alarms in a week at this rate."""
        return self.count * WEEK_MS / self.span_ms


Quiet = Sequence[tuple[int, int]]
"""Times in ms, from and to."""


def account(watched: WatchedModel, rows: ModelRows, events: Sequence[Json], quiet: Quiet) -> Account:
    """The alarms of one model against what was asked for."""
    name, times = watched.plan.name, rows.times
    alarms = tuple(alarms_of(events, name, rows))
    first = min(learned_rows(events, name, rows).get("features", 0), rows.count - 1)
    span = max(int(times[-1]) - int(times[first]), 1)
    judged = _judged(watched, rows.count - first)
    limit = allowed(watched.plan.model, watched, judged, span)
    covered = [alarm for alarm in alarms if alarm.covered or not limit.budget]
    count = len({alarm.moment for alarm in covered}) if limit.budget else len(covered)
    return Account(
        model=name, rows=rows.count, first_row=first, judged=judged, first_ms=int(times[first]), last_ms=int(times[-1]), allowed=limit,
        alarms=alarms, count=count, beside=len(alarms) - len(covered),
        quiet=tuple(alarm for alarm in covered if within(alarm.time_ms, quiet)),
        quiet_named=bool(quiet),
    )  # fmt: skip


def _judged(watched: WatchedModel, rows: int) -> int:
    model = watched.plan.model
    if model.unit is None and not model.expected:
        return rows
    return max((part.panel.scope_rows(0) for part in watched.panels.values() if part.name.kind == "features"), default=0)


def within(time_ms: int, quiet: Quiet) -> bool:
    """Whether a time lies in one of the ranges."""
    return any(start <= time_ms < stop for start, stop in quiet)


def by_series(alarms: Iterable[Alarm]) -> list[Json]:
    """A row for each series and segment, the loudest and most frequent first."""
    groups: dict[tuple[str, str], list[Alarm]] = {}
    for alarm in alarms:
        groups.setdefault((alarm.series, alarm.segment), []).append(alarm)
    out = []
    for (series, segment), group in groups.items():
        largest = max((alarm for alarm in group if alarm.effect is not None), key=lambda a: abs(a.effect or 0.0), default=None)
        out.append(
            {
                "series": series,
                "segment": segment or None,
                "alarms": len(group),
                "first_ms": group[0].time_ms,
                "last_ms": group[-1].time_ms,
                "severity": max((alarm.severity for alarm in group), key=lambda severity: RANK[severity]),
                "effect": largest.effect if largest else None,
                "effect_kind": largest.effect_kind if largest else None,
                "open": sum(alarm.ended_row is None for alarm in group),
            }
        )
    return sorted(out, key=lambda row: (-row["alarms"], -RANK[row["severity"]], row["series"], row["segment"] or ""))


def sentence(found: Account) -> str:
    """One model's account in plain words."""
    span = duration_words(found.span_ms)
    limit = f"{_figure(found.allowed.most)} ({found.allowed.source})"
    events = found.rows - found.first_row
    of = f", of which {found.judged:,} are watched" if found.judged < events else ""
    head = f"{found.model}: {_alarm_words(found.count)} in {span} and {events:,} events{of}; asked for at most {limit}"
    counted = [alarm for alarm in found.alarms if alarm.covered or not found.allowed.budget]
    tail = f": {_where(counted)}" if counted else ""
    beside = f" Besides, {_alarm_words(found.beside)} that no budget covers." if found.beside else ""
    named = f" In the part named quiet: {_alarm_words(len(found.quiet))}." if found.quiet_named else ""
    return f"{head}{tail}.{beside}{named}"


def _where(alarms: Sequence[Alarm]) -> str:
    """The series with most episodes, and how it is now."""
    groups: dict[str, list[Alarm]] = {}
    for alarm in alarms:
        groups.setdefault(alarm.series, []).append(alarm)
    series, group = max(groups.items(), key=lambda item: len(item[1]))
    values = len({alarm.segment for alarm in group} - {""})
    said = f"{len(group)} of {len(alarms)} episode{'s' if len(alarms) > 1 else ''} in {series}"
    if values:
        said += f" (in {values} segment value{'s' if values > 1 else ''})"
    row = by_series([replace(alarm, segment="") for alarm in group])[0]
    if row["effect"] is not None:
        said += f", which moved by up to {effect_words(row['effect_kind'], row['effect'])}"
    if row["open"]:
        said += " and is still off its baseline at the end"
    return said


def effect_words(kind: str, size: float) -> str:
    """An effect size with its unit."""
    match kind:
        case "mean":
            return f"{abs(size):.2g} baseline sd"
        case "psi":
            return f"PSI {size:.2g}"
        case "mmd":
            return f"joint distance {size:.2g}"
        case "rate":
            return f"{size:+.0%} of its rate"
    return f"{size:.3g} s of silence"


def duration_words(ms: float) -> str:
    """A time in the unit that suits its size."""
    for unit, name in ((WEEK_MS, "weeks"), (86_400_000, "days"), (3_600_000, "hours"), (60_000, "minutes")):
        if ms >= 2 * unit:
            return f"{ms / unit:.1f} {name}"
    return f"{ms / 1_000:.0f} s"


def _alarm_words(count: int) -> str:
    return f"{count:,} alarm" + ("" if count == 1 else "s")


def _figure(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:,.0f}"
