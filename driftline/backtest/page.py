"""The report as one self-contained page: sentences, tables, and a picture of every series that alarmed or was changed."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Final

from driftline.backtest.alarms import RANK, Alarm, by_series, duration_words, effect_words, sentence
from driftline.backtest.report import ModelReport, change_sentences, run_json
from driftline.backtest.run import Found, Line, SeriesKey
from driftline.backtest.suggest import Step
from driftline.backtest.trials import Trial
from driftline.schemas.series import pair_of
from driftline.streams.canvas import Band, Canvas, clock, page, table

PICTURES_MOST: Final = 40
"""Of series on the rows as they are, the loudest; every run with a change has its own."""
_RATIO_MOST: Final = 3.0
"""Statistics are cut here, so that quiet ones stay readable."""


def render(title: str, reports: Sequence[ModelReport], base: Found) -> str:
    """The page.

    Parameters
    ----------
    base : the run over the rows as they are, with its lines.
    """
    return page(title, "".join(_model(report, base) for report in reports))


def _model(report: ModelReport, base: Found) -> str:
    name = report.account.model
    parts = [f"<h2>{html.escape(name)}</h2>", _paragraph(sentence(report.account)), _alarms(report.account.alarms)]
    if report.trials:
        parts += ["<h3>Changes put into the rows</h3>", *map(_paragraph, change_sentences(report.trials)), _runs(report.trials)]
    if report.suggestion.sentences:
        parts += ["<h3>Settings to try</h3>", *map(_paragraph, report.suggestion.sentences), _steps(report.suggestion.steps)]
    drawn = "".join(_quiet_picture(name, series, segment, report, base) for series, segment in _loudest(report.account.alarms))
    if drawn:
        parts += ["<h3>Series that alarmed on the rows as they are</h3>", drawn]
    if report.trials:
        parts += ["<h3>Runs with a change</h3>", *(_run_picture(trial, report, base) for trial in report.trials)]
    return "".join(parts)


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _alarms(alarms: Sequence[Alarm]) -> str:
    columns = ("series", "segment", "alarms", "first", "last", "severity", "largest effect", "open")
    rows = [
        (
            row["series"], row["segment"] or "", str(row["alarms"]), clock(row["first_ms"]), clock(row["last_ms"]), row["severity"],
            "" if row["effect"] is None else effect_words(row["effect_kind"], row["effect"]), str(row["open"]),
        )
        for row in by_series(alarms)
    ]  # fmt: skip
    return table(columns, rows) if rows else ""


def _runs(trials: Sequence[Trial]) -> str:
    columns = ("change", "size", "feature", "from row", "outcome", "found in", "detector", "after events", "after", "accused")
    rows = []
    for trial in trials:
        run = run_json(trial)
        where = "" if run["series"] is None else run["series"] + (f" in {run['segment']}" if run["segment"] else "")
        delay = "" if run["delay_ms"] is None else duration_words(run["delay_ms"])
        size = "" if run["size"] is None else f"{run['size']:g}"
        events = "" if run["delay_rows"] is None else f"{run['delay_rows']:,}"
        named = ", ".join(run["accused"])
        what = (run["change"], size, run["feature"] or "", f"{run['start_row']:,}", run["outcome"])
        rows.append((*what, where, run["detector"] or "", events, delay, named))
    return table(columns, rows)


def _steps(steps: Sequence[Step]) -> str:
    columns = ("false_alarms", "alarms on the rows as they are", "in the part named quiet", "changes found", "worst delay")
    rows = [
        (
            step.false_alarms or "none", str(step.alarms), "" if step.quiet_alarms is None else str(step.quiet_alarms),
            f"{step.found} of {step.runs}", f"{max(step.delays):,} events" if step.delays else "",
        )
        for step in steps
    ]  # fmt: skip
    return table(columns, rows) if rows else ""


def _loudest(alarms: Sequence[Alarm]) -> list[tuple[str, str]]:
    ranked = sorted(alarms, key=lambda alarm: (-RANK[alarm.severity], alarm.row))
    return list(dict.fromkeys((alarm.series, alarm.segment) for alarm in ranked))[:PICTURES_MOST]


def _quiet_picture(model: str, series: str, segment: str, report: ModelReport, base: Found) -> str:
    line = base.lines.get((model, series, segment))
    alarms = [alarm for alarm in report.account.alarms if (alarm.series, alarm.segment) == (series, segment)]
    title = series + (f" in {segment}" if segment else "") + f": {len(alarms)} alarm{'s' if len(alarms) > 1 else ''}"
    return _picture(title, line or Line(), alarms, report.account.first_ms, report.account.last_ms, [])


def _run_picture(trial: Trial, report: ModelReport, base: Found) -> str:
    """The rows before the change as they are, then those with it."""
    change, alarm = trial.change, trial.alarm
    series, segment = (alarm.series, alarm.segment) if alarm else (_looked_at(trial), "")
    key: SeriesKey = (change.model, series, segment)
    start_ms, stop_ms = report.times(change)
    from_ms = start_ms - (stop_ms - start_ms)
    before, after = base.lines.get(key, Line()), trial.found.lines.get(key, Line())
    line = Line(before.unit or after.unit)
    for source, low, high in ((before, from_ms, start_ms), (after, start_ms, stop_ms)):
        for time_ms, level, ratio in zip(source.times, source.levels, source.ratios, strict=True):
            if low <= time_ms < high:
                line.times.append(time_ms)
                line.levels.append(level)
                line.ratios.append(ratio)
    what = f"{change.kind} of {change.feature or 'labels'}, from row {change.start:,}"
    where = series + (f" in {segment}" if segment else "")
    told = f"found after {trial.delay_rows:,} events" if alarm else {"open": "off its baseline before"}.get(trial.outcome, "not found")
    return _picture(f"{what}: {where}, {told}", line, [alarm] if alarm else [], from_ms, stop_ms, [Band(start_ms, stop_ms, change.kind)])


def _looked_at(trial: Trial) -> str:
    """The series to show of a change that was not found."""
    change = trial.change
    if change.kind == "labels":
        keys = [series for _, series, segment in trial.found.lines if series.startswith("outcome:") and not segment]
        return keys[0] if keys else "outcome:log_loss"
    pairs = [series for _, series, segment in trial.found.lines if pair_of(series) and not segment]
    if change.kind == "correlation" and (own := [series for series in pairs if change.touched(series, "")]):
        return own[0]
    flags = {"nulls": f"quality:{change.feature}:missing", "unseen": f"quality:{change.feature}:unseen"}
    return flags.get(change.kind, f"feature:{change.feature}")


def _picture(title: str, line: Line, alarms: Sequence[Alarm], start_ms: int, end_ms: int, bands: Sequence[Band]) -> str:
    canvas = Canvas(start_ms, max(end_ms, start_ms + 1))
    levels = list(zip(map(int, line.times), line.levels, strict=True))
    ratios = [(int(t), min(r, _RATIO_MOST)) for t, r in zip(line.times, line.ratios, strict=True) if not math.isnan(r)]
    canvas.lane("level over the window", {line.unit: levels} if levels else {}, zero=True)
    canvas.lane("statistic / threshold", {"nearest to its threshold": ratios} if ratios else {}, limit=1.0)
    canvas.marks([(alarm.time_ms, alarm.severity, f"{clock(alarm.time_ms)} {alarm.detector}, {alarm.severity}") for alarm in alarms])
    return f"<p>{canvas.finish(title, bands)}</p>"
