"""A budget and a tolerance to try next, from runs made with them: nothing is extrapolated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from driftline.backtest.alarms import Alarm, Quiet, account, alarms_of, duration_words, within
from driftline.backtest.changes import Change, span
from driftline.backtest.recording import Recording
from driftline.backtest.run import Detect, Json
from driftline.backtest.trials import Trial, try_changes
from driftline.schemas.budget import parse_false_alarms
from driftline.schemas.config import DEFAULT_MONITORS, Config, Monitor

FIRST: Final = "1 per week"
"""What is tried first where the configuration has no budget."""
_RARER_MOST: Final = 3
_MUCH: Final = 2
"""So many steps up the ladder a change that is lost is looked for: a budget a hundred times as large, or weeks to hours."""
_HALVINGS: Final = 3
_RAISES: Final = 4
_MORE: Final = 1.25
"""A level that was not enough is raised by this at least."""
_PERIODS: Final = (("hour", 3_600_000), ("day", 86_400_000), ("week", 604_800_000), ("4w", 4 * 604_800_000),
                   ("13w", 13 * 604_800_000), ("52w", 52 * 604_800_000), ("260w", 260 * 604_800_000))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """What runs under one setting gave.

    Attributes
    ----------
    alarms : on the rows as they are. quiet_alarms : those of them in the part named quiet; None = none was named.
    lost : the changes that were not found.
    """

    false_alarms: str | None
    alarms: int
    quiet_alarms: int | None
    runs: int
    found: int
    delays: tuple[int, ...]
    delays_ms: tuple[int, ...]
    lost: frozenset[Change]

    def as_json(self) -> Json:
        """Plain values."""
        return {
            "false_alarms": self.false_alarms,
            "alarms": self.alarms,
            "quiet_alarms": self.quiet_alarms,
            "runs": self.runs,
            "found": self.found,
            "delay_rows_median": median(self.delays) if self.delays else None,
            "delay_rows_worst": max(self.delays, default=None),
            "delay_ms_worst": max(self.delays_ms, default=None),
        }


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What was tried, and what came of it.

    Attributes
    ----------
    budget : the rarest at which every change was found that could be; None = there was none.
    warning : monitor to the `severity.warning` with which the part named quiet had no alarm; None = not asked for, or none did.
    """

    steps: tuple[Step, ...] = ()
    budget: Step | None = None
    warning: Mapping[str, float] | None = None
    at_warning: Step | None = None
    sentences: tuple[str, ...] = ()

    def as_json(self) -> Json:
        """Plain values."""
        return {
            "budgets": [step.as_json() for step in self.steps],
            "false_alarms": self.budget.false_alarms if self.budget else None,
            "warning": self.warning,
            "at_warning": self.at_warning.as_json() if self.at_warning else None,
            "summary": list(self.sentences),
        }


@dataclass(slots=True)
class Bench:
    """Runs one model of a recording under other settings, with the changes that are to be found.

    Attributes
    ----------
    changes : without those that no series showed (correlations, where no pair of `correlations` did), or could tell.
    """

    config: Config
    recording: Recording
    model: str
    changes: Sequence[Change]
    quiet: Quiet
    tell: Callable[[str], None] = field(default=lambda _: None)

    def step(self, *, false_alarms: str | None, monitors: Sequence[Monitor] | None = None) -> Step:
        """Run all of it under a budget, and with other monitors where they are given."""
        self.tell(f"false_alarms: {false_alarms}")
        rows = self.recording.models[self.model]
        detect = self._detect(false_alarms, monitors)
        records = [span(change, rows) for change in self.changes]
        whole = detect.whole([found[0] for found in records if found is not None])
        told = account(whole.models[self.model], rows, whole.found.events, self.quiet)
        trials = try_changes(detect, whole, self.recording, self.changes)
        return step_of(false_alarms, told.count, len(told.quiet) if self.quiet else None, trials)

    def quiet_alarms(self, false_alarms: str | None, monitors: Sequence[Monitor] | None) -> list[Alarm]:
        """The loud alarms of the part named quiet."""
        self.tell("the part named quiet")
        found = self._detect(false_alarms, monitors).whole().found.events
        return [alarm for alarm in alarms_of(found, self.model, self.recording.models[self.model]) if self.loud(alarm, false_alarms)]

    def loud(self, alarm: Alarm, false_alarms: str | None) -> bool:
        """Whether an alarm disturbs the part named quiet: under a budget any that it covers, without one what is not mere info."""
        return within(alarm.time_ms, self.quiet) and (alarm.covered if false_alarms is not None else alarm.severity != "info")

    def _detect(self, false_alarms: str | None, monitors: Sequence[Monitor] | None) -> Detect:
        model = self.config.models[self.model]
        update: dict[str, Any] = {"false_alarms": false_alarms} | ({} if monitors is None else {"monitors": list(monitors)})
        models = self.config.models | {self.model: model.model_copy(update=update)}
        return Detect(self.config.model_copy(update={"models": models}), self.recording)


def step_of(false_alarms: str | None, alarms: int, quiet_alarms: int | None, trials: Sequence[Trial]) -> Step:
    """One row of the table of budgets."""
    judged = [trial for trial in trials if trial.outcome != "open"]
    found = [trial for trial in judged if trial.outcome == "found"]
    return Step(
        false_alarms, alarms, quiet_alarms, len(judged), len(found), tuple(t.delay_rows or 0 for t in found),
        tuple(t.delay_ms or 0 for t in found), frozenset(t.change for t in judged if t.outcome == "missed"),
    )  # fmt: skip


def to_find(trials: Iterable[Trial]) -> list[Change]:
    """The changes a budget is judged by: not what nothing could tell, nor a broken correlation that no pair has shown."""
    shown = [trial for trial in trials if trial.change.kind != "correlation" or trial.outcome == "found"]
    return [trial.change for trial in shown if trial.outcome != "open"]


def rarer(text: str, by: int) -> str | None:
    """The budget `by` steps smaller (negative: larger) on the ladder of budgets; None where it ends."""
    budget = parse_false_alarms(text)
    if budget.by_events:
        period = budget.period * 10.0**by
        return None if period < 100 or period > 1e12 else f"{budget.count:g} per {round(period)} events"
    gap = budget.period / budget.count
    if by > 0:
        above = [name for name, ms in _PERIODS if ms > gap * 1.01]
        return f"1 per {above[by - 1]}" if by <= len(above) else None
    below = [name for name, ms in _PERIODS if ms < gap * 0.99]
    return f"1 per {below[by]}" if -by <= len(below) else None


def suggest_budget(bench: Bench, first: Step | None) -> tuple[tuple[Step, ...], Step | None]:
    """Look for the rarest budget that finds all changes that any budget finds.

    What the configured one loses is looked for under a much larger one; what that loses too is given up. Then down from
    the configured one until something else is lost.

    Parameters
    ----------
    first : the step of the configuration as it is, where it has a budget.
    """
    start = first if first is not None and first.false_alarms is not None else bench.step(false_alarms=FIRST)
    assert start.false_alarms is not None
    steps, hopeless = [start], start.lost
    if start.lost:
        for up in (-_MUCH, -1):
            text = rarer(start.false_alarms, up)
            if text is not None:
                steps.append(bench.step(false_alarms=text))
                hopeless &= steps[-1].lost
            if hopeless == start.lost:
                break  # a much larger budget finds nothing more
    last, down = start, 1
    while last.found and last.lost <= hopeless and down <= _RARER_MOST:
        text = rarer(start.false_alarms, down)
        if text is None:
            break
        last, down = bench.step(false_alarms=text), down + 1
        steps.append(last)
    steps.sort(key=_rate, reverse=True)
    able = [step for step in steps if step.lost <= hopeless and step.found]
    return tuple(steps), min(able, key=_rate, default=None)


def _rate(step: Step) -> float:
    """Alarms allowed in a unit of its clock."""
    return parse_false_alarms(step.false_alarms or FIRST).per_unit


def suggest_warning(bench: Bench, false_alarms: str | None, alarms: Sequence[Alarm]) -> Mapping[str, float] | None:
    """`severity.warning` of the monitors that had alarms in the part named quiet, with which it has none; None = none was found.

    First the largest effects seen there; a monitor that then speaks in the place of another gets its own. Then all of them
    down together by halves (on a logarithm) while it stays quiet.
    """
    monitors = list(bench.config.models[bench.model].monitors or DEFAULT_MONITORS)
    lows = {monitor.id: monitor.severity.warning or 0.01 for monitor in monitors}
    highs: dict[str, float] = {}

    def raised(found: Iterable[Alarm]) -> None:
        for alarm in found:
            size = abs(alarm.effect or 0.0)
            # Evidence by PSI grows with the square of a shift in sd; the tolerance of a budget is in sd.
            size = math.sqrt(size) if alarm.effect_kind == "psi" and false_alarms is not None else size
            highs[alarm.monitor] = max(highs.get(alarm.monitor, lows[alarm.monitor]) * _MORE, size)

    def levels(share: float) -> dict[str, float]:
        return {name: rounded_up(lows[name] * (high / lows[name]) ** share) for name, high in highs.items()}

    def loud(share: float) -> list[Alarm]:
        return bench.quiet_alarms(false_alarms, [with_warning(monitor, levels(share).get(monitor.id)) for monitor in monitors])

    left: list[Alarm] = list(alarms)
    for _ in range(_RAISES):
        raised(left)
        left = loud(1.0)
        if not left:
            break
    else:
        return None
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if loud(middle) else (low, middle)
    return levels(high)


def with_warning(monitor: Monitor, warning: float | None) -> Monitor:
    """The monitor with another `severity.warning`, and `critical` not below it; None = as it is."""
    if warning is None:
        return monitor
    update: dict[str, float] = {"warning": warning}
    if warning > monitor.severity.critical:
        update["critical"] = warning
    return monitor.model_copy(update={"severity": monitor.severity.model_copy(update=update)})


def rounded_up(value: float) -> float:
    """To two digits, so that what was tried is what is said."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return round(math.ceil(value / step - 1e-9) * step, 12)


def suggest(bench: Bench, now: Step, alarms: Sequence[Alarm]) -> Suggestion:
    """All of it.

    Parameters
    ----------
    now : the configuration as it is. alarms : of the rows as they are.
    """
    said: list[str] = []
    steps, best = suggest_budget(bench, now) if bench.changes else ((), None)
    if steps:
        said.append(_budget_sentence(steps, best))
    warning, at_warning = None, None
    loud = [alarm for alarm in alarms if bench.loud(alarm, now.false_alarms)]
    if bench.quiet and not loud:
        said.append("the part named quiet had no alarm: severity.warning can stay")
    elif loud:
        warning = suggest_warning(bench, now.false_alarms, loud)
        if warning is not None:
            monitors = bench.config.models[bench.model].monitors or DEFAULT_MONITORS
            changed = [with_warning(monitor, warning.get(monitor.id)) for monitor in monitors]
            at_warning = bench.step(false_alarms=now.false_alarms, monitors=changed)
        said.append(_warning_sentence(len(loud), warning, at_warning))
    return Suggestion(steps, best, warning, at_warning, tuple(said))


def _budget_sentence(steps: Sequence[Step], best: Step | None) -> str:
    if best is None:
        return "no budget that was tried finds any of the changes in time: give them longer (--within), or try larger ones"
    hopeless = ", ".join(sorted({f"{change.kind} of {change.feature}" if change.feature else change.kind for change in best.lost}))
    worst = f"{max(best.delays):,} events ({duration_words(max(best.delays_ms))}) at worst"
    what = f"the {best.found} changes that any budget tried finds are all found" if hopeless else f"all {best.found} changes are found"
    said = f"false_alarms: {best.false_alarms} is the smallest budget tried at which {what} in time, {worst}"
    after = steps[steps.index(best) + 1 :]
    said += f"; at {after[0].false_alarms} it is {after[0].found}" if after else "; a smaller one was not tried"
    return said + (f". None finds {hopeless}: too small for the time they were given (--within)" if hopeless else "")


def _warning_sentence(loud: int, warning: Mapping[str, float] | None, at: Step | None) -> str:
    had = f"the part named quiet had {loud} alarm{'s' if loud > 1 else ''}"
    if warning is None:
        return f"{had}; no severity.warning that was tried keeps it quiet: was it?"
    names = ", ".join(f"{name} {value:g}" for name, value in warning.items())
    found = f"; {at.found} of {at.runs} changes are still found then" if at is not None and at.runs else ""
    return f"{had}; with severity.warning of {names} it has none (tried){found}"
