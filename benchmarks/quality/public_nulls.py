"""Streams in which nothing drifts, and one bad retrain, the public way: a file, a configuration, `driftline replay`.

The laws of the other tables, and what operations do to a stream: labels that come late by their value, in a nightly file sorted by
class, or all at once after an outage; a surge of traffic; a short reference; new versions that are no worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import stats

from benchmarks.quality.measure import Delay, FalseAlarms, generator, late_by
from benchmarks.quality.public import replayed_columns
from benchmarks.quality.report import Gate, Section, Size
from benchmarks.quality.streams import COVERED, NOT_COVERED, Law, Values, season
from driftline.schemas.stream_series import FRESHNESS, JOIN_RATE, VOLUME

EVENTS: Final = 5_000
"""The budget: one false alarm in so many events, over all series of the model."""
FEATURES: Final = 5
START_MS: Final = 1_759_708_800_000
"""A Monday, at midnight UTC."""
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
_ROWS_A_DAY: Final = 240
_WEEK: Final = 5_000
"""Rows of a week that has a surge."""
RETRAIN_AFTER: Final = 2_000
"""Rows in which a bad retrain is looked for."""

NOT_COVERED_SERIES: Final = frozenset({FRESHNESS, VOLUME, JOIN_RATE})
"""Of the stream itself: their alarms are limits, and no part of the budget."""

Columns = dict[str, Any]
Times = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Stream:
    """Rows as a file has them.

    Attributes
    ----------
    columns : features, `score`, and where labels come `y` and `label_at`; `version` where there are several.
    times_ms : of the predictions.
    """

    columns: Columns
    times_ms: Times


Draw = Callable[[np.random.Generator, int], Stream]
Delays = Callable[[np.random.Generator, Times, np.ndarray[Any, Any]], Times]


@dataclass(frozen=True, slots=True)
class Case:
    """A stream without drift.

    Attributes
    ----------
    draw : (generator, rows) to the stream.
    learn : rows of the reference.
    age : at which outcomes are formed; empty = no labels.
    week_rows : rows of a week, where the budget is a week's and not of events.
    """

    name: str
    draw: Draw
    learn: int = 4_000
    age: str = ""
    kind: str = "numeric"
    week_rows: int = 0

    @property
    def budget(self) -> str:
        return "1 per week" if self.week_rows else f"1 per {EVENTS} events"

    @property
    def period(self) -> int:
        """Rows of one alarm that is allowed."""
        return self.week_rows or EVENTS

    def configuration(self) -> str:
        """What a user writes; a short reference knows no better than the tolerance that `validate` asks for."""
        warning = max(0.1, math.ceil(400 / math.sqrt(self.learn)) / 100)
        features = ", ".join(f"f{k}: {self.kind}" for k in range(FEATURES))
        lines = [
            "version: 1", "predictions: p", *(["labels: l"] if self.age else []), "models:", "  m:", f"    features: {{{features}}}",
            f"    false_alarms: {self.budget}", "    window: 1000", "    snapshot_every: 1000000",
            f"    baseline: {{learn: {self.learn}, settle: 0s}}",
        ]  # fmt: skip
        if self.age:
            lines.append(f"    labels: {{ages: [{self.age}]}}")
        if warning > 0.1:
            lines.append(f'    monitors: [{{id: all, series: ["*"], severity: {{warning: {warning}, critical: {2 * warning:.2f}}}}}]')
        return "\n".join(lines) + "\n"

    def alarms(self, stream: Stream) -> list[int]:
        """The rows at which episodes open, each once a ledger, and versions that are told apart."""
        labelled = ("--label", "y", "--label-time", "label_at") if self.age else ()
        version = ("--version", "version") if "version" in stream.columns else ()
        names = ",".join(f"f{k}" for k in range(FEATURES))
        options = (*labelled, *version, "--features", names)
        events = replayed_columns(stream.columns, stream.times_ms, self.configuration(), *options)
        # Every version gets its event; one whose decisions or losses are far off is critical.
        told = [e for e in events if e["kind"] == "drift" or (e["kind"] == "version_shift" and e["severity"] == "critical")]
        opened = [e for e in told if e["series"] not in NOT_COVERED_SERIES]
        return sorted(row for _, row in {(e["age_ms"] is not None, e["position"]["offset"]) for e in opened})


def _every(rows: int, step_ms: int) -> Times:
    return np.asarray(START_MS + np.arange(rows, dtype=np.int64) * step_ms)


def _scores(g: np.random.Generator, rows: int) -> Values:
    return np.asarray(g.beta(2, 8, rows))


def of_law(law: Law, *, step_ms: int = 1_000) -> Draw:
    """Features of one law."""

    def draw(g: np.random.Generator, rows: int) -> Stream:
        columns: Columns = {f"f{k}": law.draw(g, rows) for k in range(FEATURES)}
        return Stream({**columns, "score": _scores(g, rows)}, _every(rows, step_ms))

    return draw


def missing(rate: float) -> Draw:
    """Normal features of which so many values are missing."""

    def draw(g: np.random.Generator, rows: int) -> Stream:
        columns: Columns = {f"f{k}": np.where(g.random(rows) < rate, np.nan, g.normal(size=rows)) for k in range(FEATURES)}
        return Stream({**columns, "score": _scores(g, rows)}, _every(rows, 1_000))

    return draw


def texts(g: np.random.Generator, rows: int) -> Stream:
    """Categories of Zipf's law."""
    law = COVERED["categories, Zipf"]
    columns: Columns = {f"f{k}": [f"v{v:.0f}" for v in law.draw(g, rows)] for k in range(FEATURES)}
    return Stream({**columns, "score": _scores(g, rows)}, _every(rows, 1_000))


def surge(g: np.random.Generator, rows: int) -> Stream:
    """Weeks of `_WEEK` rows, a quarter of them in each week's first hour."""
    within = np.arange(_WEEK)
    first = _WEEK // 4
    clock = np.where(within < first, within * HOUR_MS / first, HOUR_MS + (within - first) * (7 * DAY_MS - HOUR_MS) / (_WEEK - first))
    times = (np.arange(rows) // _WEEK) * 7 * DAY_MS + clock[np.arange(rows) % _WEEK].astype(np.int64)
    return Stream(of_law(COVERED["lognormal"])(g, rows).columns, np.asarray(START_MS + times))


def labelled(delay: Delays, *, step_ms: int) -> Draw:
    """A calibrated score, labels of its chances, and when they come: `delay` of the times and labels."""

    def draw(g: np.random.Generator, rows: int) -> Stream:
        stream = of_law(COVERED["normal"], step_ms=step_ms)(g, rows)
        score = g.beta(0.4, 1.6, rows)
        y = (g.random(rows) < score).astype(np.int64)
        at = delay(g, stream.times_ms, y)
        return Stream({**stream.columns, "score": score, "y": y, "label_at": at.astype("datetime64[ms]")}, stream.times_ms)

    return draw


def by_outcome(g: np.random.Generator, times: Times, y: np.ndarray[Any, Any]) -> Times:
    """Fraud is told after an hour in the mean, all else after two days: a fifth of it beyond the age of three."""
    return np.asarray(times + g.exponential(np.where(y == 1, HOUR_MS, 2 * DAY_MS)).astype(np.int64))


def sorted_by_class(_: np.random.Generator, times: Times, y: np.ndarray[Any, Any]) -> Times:
    """The labels of a day come in the night after it, in one file of a second, zeros first."""
    day = times // DAY_MS
    order = np.lexsort((y, day))
    place = np.empty(len(y), np.int64)
    place[order] = np.arange(len(y)) - np.searchsorted(day, day[order])
    return np.asarray((day + 1) * DAY_MS + 2 * HOUR_MS + place * 1_000 // _ROWS_A_DAY)


def outage(_: np.random.Generator, times: Times, y: np.ndarray[Any, Any]) -> Times:
    """Labels come after an hour; those of every tenth and eleventh day come together at the end of them."""
    del y
    day = (times - START_MS) // DAY_MS
    lost = day % 10 >= 8
    dump = START_MS + (day // 10 * 10 + 10) * DAY_MS + (times - START_MS) % (2 * DAY_MS) // 10_000
    return np.asarray(np.where(lost, dump, times + HOUR_MS))


def retrains(g: np.random.Generator, rows: int, *, versions: int = 10, bad: bool = False) -> Stream:
    """One version after the other, each of as many rows and no worse; `bad`: the last one's scores are those of other rows."""
    stream = labelled(lambda _, times, __: times + MINUTE_MS, step_ms=1_000)(g, rows)
    version = np.arange(rows) * (versions + 1) // rows
    columns = {**stream.columns, "version": [f"v{v}" for v in version.tolist()]}
    if bad:
        last = np.flatnonzero(version == versions)
        columns["score"] = columns["score"].copy()
        columns["score"][last] = g.permutation(columns["score"][last])
    return Stream(columns, stream.times_ms)


_DAILY: Final = season(_ROWS_A_DAY)
_WEEKLY: Final = season(7 * _ROWS_A_DAY)
_STEP_MS: Final = DAY_MS // _ROWS_A_DAY

CASES: Final = (
    *(Case(name, of_law(COVERED[name])) for name in ("normal", "t, 3 degrees", "lognormal", "uniform", "atom at 0 (70 %)")),
    *(Case(f"zeros and ones, {name}", of_law(COVERED[name])) for name in ("rate .1", "rate .01")),
    *(Case(f"missing, rate {rate:g}", missing(rate)) for rate in (0.1, 0.01)),
    Case("categories, Zipf", texts, kind="categorical"),
    *(Case(name, of_law(NOT_COVERED[name])) for name in ("AR(1), .3", "AR(1), .5", "AR(1), .8")),
    Case("daily season, 28 days known", of_law(_DAILY, step_ms=_STEP_MS), learn=28 * _ROWS_A_DAY),
    Case("weekly season, 12 weeks known", of_law(_WEEKLY, step_ms=_STEP_MS), learn=84 * _ROWS_A_DAY),
    Case("cold start: reference 200", of_law(COVERED["lognormal"]), learn=200),
    Case("a quarter of the week in one hour, 1 per week", surge, week_rows=_WEEK),
    Case("labels later by their value", labelled(by_outcome, step_ms=MINUTE_MS), age="3d"),
    Case("a nightly file of labels, sorted", labelled(sorted_by_class, step_ms=_STEP_MS), age="2d"),
    Case("two days without labels, then all", labelled(outage, step_ms=_STEP_MS), age="3d"),
    Case("ten retrains, none worse", retrains, learn=1_000, age="10m"),
)


def bad_retrain(g: np.random.Generator) -> list[int]:
    """The rows at which something is said, after a good version of `RETRAIN_AFTER` rows, of one that is no better than chance."""
    case = CASES[-1]
    found = case.alarms(retrains(g, 2 * RETRAIN_AFTER, versions=1, bad=True))
    return [row - RETRAIN_AFTER for row in found]


def public_nulls(size: Size) -> Section:
    """Alarms of streams without drift, each through the public path, and whether a bad retrain is told."""
    streams = max(size.null_streams // 20, 2)
    table, gates = [], []
    for case in CASES:
        rows = case.learn + size.null_rows
        count = sum(len(case.alarms(case.draw(generator(size.seed, "public", case.name, i), rows))) for i in range(streams))
        judged = streams * size.null_rows
        found, allowed = FalseAlarms(count, judged), 1e6 / case.period
        gates.append(Gate(f"alarms per million rows through replay, {case.name}", allowed, found.per_million, found.interval[0]))
        table.append([case.name, f"{judged:,}", f"{count}", f"{judged / case.period:.0f}", str(found)])
    late = Delay.of([late_by(bad_retrain(generator(size.seed, "retrain", i)), 0) for i in range(10 * streams)])
    told = len(late.delays) / (10 * streams)
    high = stats.binomtest(len(late.delays), 10 * streams).proportion_ci(method="exact").high
    gates.append(Gate("share of bad retrains that are told", 0.95, told, high, least=True))
    return Section(
        "Streams without drift, the public way",
        f"A file, a configuration and `driftline replay`: {FEATURES} features, a score and, where labels come, outcomes of a calibrated "
        f"model; a budget of one false alarm in {EVENTS:,} events over all of them, or of one a week of {_WEEK:,} rows. {streams} "
        f"streams of {size.null_rows:,} rows a line after a reference of 4,000 (of retrains: 1,000). What counts is every episode that "
        f"opens, and every version told to be another one. A bad retrain, of which the scores are those of other rows, is told in "
        f"{len(late.delays)} of {10 * streams} streams, {late.median:.0f} rows after its first one in the median.",
        ["stream", "rows", "alarms", "allowed", "alarms per million (95 %)"],
        table,
        gates,
    )
