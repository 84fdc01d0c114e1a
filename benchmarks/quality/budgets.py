"""Many series: one budget over all of them, in weeks of uneven traffic."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from benchmarks.quality.measure import generator, poisson_interval
from benchmarks.quality.report import Gate, Section, Size
from benchmarks.quality.streams import Values
from driftline.detectors import AlarmBudget

SERIES = 50
WEEK_MS = 7 * 24 * 3_600_000
Clock = Callable[[int], npt.NDArray[np.int64]]


def _correlated(g: np.random.Generator, rows: int, rho: float) -> Values:
    common = g.normal(size=(rows, 1))
    return np.asarray(math.sqrt(rho) * common + math.sqrt(1.0 - rho) * g.normal(size=(rows, SERIES)))


def _steady(rows: int) -> npt.NDArray[np.int64]:
    return np.linspace(0, WEEK_MS, rows, endpoint=False).astype(np.int64)


def _surge(rows: int) -> npt.NDArray[np.int64]:
    """A quarter of the week's rows in its first day's first hour."""
    first = rows // 4
    rest = np.linspace(3_600_000, WEEK_MS, rows - first, endpoint=False)
    return np.concatenate([np.linspace(0, 3_600_000, first, endpoint=False), rest]).astype(np.int64)


def _backlog(rows: int) -> npt.NDArray[np.int64]:
    """Six hours without a row, then those six hours' rows at fifty times their pace."""
    clock = _steady(rows).astype(np.float64)
    start, hours = WEEK_MS / 2, 6 * 3_600_000
    late = (clock >= start) & (clock < start + hours)
    clock[late] = start + hours + (clock[late] - start) / 50
    return np.sort(clock).astype(np.int64)


def _daily(rows: int) -> npt.NDArray[np.int64]:
    """All rows of a day in one second."""
    day = np.arange(rows) * 7 // rows
    return np.asarray((day * 24 * 3_600_000 + np.arange(rows) % (rows // 7) // 20), np.int64)


def weekly(size: Size) -> Section:
    """Alarms per week against the budget, with dependent series."""
    rows, gates = [], []
    cases: list[tuple[str, float, float, int, Clock]] = [
        ("independent", 1.0, 0.0, 5_000, _surge),
        ("correlation .5", 1.0, 0.5, 5_000, _surge),
        ("correlation .95", 1.0, 0.95, 5_000, _surge),
        ("correlation .5, budget .1", 0.1, 0.5, 5_000, _surge),
        ("cold start: reference 200", 1.0, 0.5, 200, _steady),
        ("6 hours' backlog at 50 times the pace", 1.0, 0.5, 5_000, _backlog),
        ("a day's rows in one second, daily", 1.0, 0.5, 5_000, _daily),
    ]
    for name, allowed, rho, reference, clock in cases:
        alarms, spent = 0, 0.0
        years = max(size.weeks // WEEKS_EACH, 1)
        for run in range(years):
            g = generator(size.seed, "budget", name, run)
            budget = AlarmBudget(np.exp(_correlated(g, reference, rho)), false_alarms=allowed, per=WEEK_MS, min_effect=0.0, seed=run)
            for week in range(WEEKS_EACH):
                values = np.exp(_correlated(g, size.week_rows, rho))
                alarms += len(budget.update_many(values, clock(size.week_rows) + week * WEEK_MS))
            spent += budget.spent
        weeks = years * WEEKS_EACH
        low, high = poisson_interval(alarms)
        rows.append([name, f"{allowed:g}", f"{spent / weeks:.2f}", f"{alarms / weeks:.2f} ({low / weeks:.2f} to {high / weeks:.2f})"])
        gates.append(Gate(f"alarms per week, {name}", allowed, alarms / weeks, low / weeks))
    return Section(
        f"A budget per week over {SERIES} series",
        f"`AlarmBudget` on {SERIES} lognormal series, weeks of {size.week_rows:,} rows, {WEEKS_EACH} weeks after each reference, "
        f"{max(size.weeks // WEEKS_EACH, 1) * WEEKS_EACH} weeks a line. The first four have a quarter of the week's rows in one hour. "
        "Came in: the part of the budget that reached the series; after a gap at most an hour of it counts.",
        ["series and traffic", "allowed", "came in", "alarms per week (95 %)"],
        rows,
        gates,
    )


WEEKS_EACH = 10


def spread(size: Size) -> Section:
    """Delay when one series of fifty changes, or some, or all."""
    rows = []
    after = 4_000
    for moved, sds, rho in ((1, 0.5, 0.0), (5, 0.25, 0.0), (50, 0.25, 0.0), (50, 0.25, 0.5), (1, 1.0, 0.5)):
        delays, named, missed = [], 0, 0
        streams = max(size.change_streams // 4, 10)
        for stream in range(streams):
            g = generator(size.seed, "spread", moved, sds, rho, stream)
            budget = AlarmBudget(np.exp(_correlated(g, 5_000, rho)), per=size.week_rows, min_effect=0.0, seed=stream)
            budget.update_many(np.exp(_correlated(g, 3_000, rho)))
            values = _correlated(g, after, rho)
            values[:, :moved] += sds
            first = next(iter(budget.update_many(np.exp(values))), None)
            if first is None:
                missed += 1
                continue
            delays.append(first.position - 3_000 + 1)
            named += int(first.blamed[0].name) < moved
        error = 1.96 * float(np.std(delays, ddof=1)) / math.sqrt(len(delays))
        lost = f", {missed} missed" if missed else ""
        found = f"{np.mean(delays):.0f} +- {error:.0f}{lost}"
        rows.append([f"{moved} of {SERIES}", f"+{sds:g} sd", f"{rho:g}", found, f"{named / len(delays):.0%}"])
    return Section(
        f"Delay within a budget of 1 in {size.week_rows:,} rows over {SERIES} series",
        "Rows from the change to the first alarm, and how often the series blamed first is one that changed. The changed series gather "
        "evidence together: fifty small shifts are found much earlier than one.",
        ["changed", "shift", "correlation", "delay", "right blame"],
        rows,
    )
