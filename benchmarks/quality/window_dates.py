"""Dates that the window gives: of categories and of spreads, which have no mean to follow. A panel under a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.quality.categories import FEW, RUN_LENGTH, Shares, draw, moved, panel, rows_of, spread
from benchmarks.quality.measure import Dates, generator
from benchmarks.quality.report import Section, Size
from driftline.detectors.panel import Panel
from driftline.detectors.spec import Column, ColumnDetector, PanelBudget, PanelRows, PanelSpec, Series, Signal

LEARN: Final = 4_000
BEFORE, AFTER = 3_000, 3_000
AT: Final = LEARN + BEFORE
WINDOW: Final = 2_000

Made = tuple[Panel, PanelRows]


@dataclass(frozen=True, slots=True)
class Case:
    """A change; `make` gives the panel and its rows."""

    name: str
    make: Callable[[np.random.Generator], Made]
    held: float = 0.9


def _shares(name: str, after: Shares) -> Case:
    def make(g: np.random.Generator) -> Made:
        codes = np.r_[draw(g, FEW, AT), draw(g, after, AFTER)]
        return panel(["f0"], LEARN, 1.0 / RUN_LENGTH), rows_of(codes[:, None], 0)

    return Case(name, make)


def _wider(times: float) -> Case:
    def make(g: np.random.Generator) -> Made:
        values = g.normal(size=AT + AFTER)
        values[AT:] *= times
        series = Series("x", None, (ColumnDetector("e_detector"),), WINDOW, warning=0.1)
        budget = PanelBudget(1.0 / RUN_LENGTH, True, RUN_LENGTH / 168)
        own = Panel(PanelSpec(columns=(Column("x", "numeric", (series,)),), window=WINDOW, learn_rows=LEARN, budget=budget))
        at = np.arange(len(values))
        rows = PanelRows(
            n=len(at), numeric=values[:, None], numeric_names=["x"], categorical={}, segments={},
            source=np.zeros(len(at), np.uint16), offset=at, time_ms=at * 1_000,
        )  # fmt: skip
        return own, rows

    return Case(f"spread times {times:.2g}", make)


CASES: Final = (
    _shares("a middle value gains 29 points", moved(FEW, 6, 0.35)),
    _shares("a middle value gains 19 points", moved(FEW, 6, 0.25)),
    _shares("the commonest loses 20 points", moved(FEW, 0, 0.1)),
    _shares("all, PSI .5", spread(FEW, 0.5)),
    _wider(1.3),
    _wider(1.5),
    _wider(3.0),
    _wider(0.67),
    _wider(0.5),
)


def _first(case: Case, g: np.random.Generator) -> Signal | None:
    own, rows = case.make(g)
    return next((s for s in own.update(rows) if s.kind == "open" and s.row >= AT), None)


def window_dates(size: Size) -> Section:
    """How far the date of a change is off that the window shows, and how often its interval holds the truth."""
    rows, gates = [], []
    for case in CASES:
        dates, unknown = Dates(), 0
        for stream in range(size.change_streams):
            found = _first(case, generator(size.seed, "window dates", case.name, stream))
            if found is None:
                continue
            if found.since is None or found.between is None or found.between[0] is None:
                unknown += 1
                continue
            dates.add(found.since.offset, found.between[0] // 1_000, found.between[1] // 1_000, AT)
        rows.append([case.name, *dates.cells(), str(unknown)])
        gates.append(dates.gate(case.name, case.held))
    return Section(
        "Since when: categories and spreads",
        "Such changes are dated by the window, at marks 32 rows apart. Rows between the date and the truth (median, 90th percentile), "
        "width of the 95 % interval, how often it holds the truth, and alarms without an interval, as no split stood out yet.",
        ["change", "off by, median", "90 %", "width, median", "holds the start", "without"],
        rows,
        gates,
    )
