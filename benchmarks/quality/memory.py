"""Values with a memory: a panel under a budget, as a configuration makes it, with its whitening and its self-check."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import signal

from benchmarks.quality.contenders import ours
from benchmarks.quality.measure import Delay, FalseAlarms, false_alarms, generator, late_by, nearest_setting
from benchmarks.quality.report import Gate, Section, Size
from benchmarks.quality.streams import NOT_COVERED, Law, Values, autoregressive
from driftline.detectors.panel import Panel
from driftline.detectors.spec import Column, ColumnDetector, Grouping, PanelBudget, PanelRows, PanelSpec, Series

RUN_LENGTH = 1e5
REFERENCE = 5_000
BEFORE, AFTER = 5_000, 5_000
WINDOW = 200
"""Of a series; it rests for so long after an alarm, so that few alarms are hidden by others."""
SHOPS = 4
TOLERANCE = 0.1
_SETTINGS = (*(10.0**k for k in range(100, 10, -4)), *(10.0 ** (k / 3) for k in range(30, 8, -1)))


def _innovations(phi: float, draw: Any) -> Law:
    """An autoregression with innovations of another law, of variance 1."""

    def values(g: np.random.Generator, n: int) -> Values:
        out = signal.lfilter([1.0], [1.0, -phi], draw(g, n + 500))[500:]
        return np.asarray(out * math.sqrt(1.0 - phi * phi))

    return Law(values)


def _t3(g: np.random.Generator, n: int) -> Values:
    return np.asarray(g.standard_t(3, n) / math.sqrt(3.0))


def _exponential(phi: float) -> Law:
    base = autoregressive(phi)
    return Law(lambda g, n: np.exp(base.draw(g, n)))


MEMORIES: dict[str, Law] = {
    "normal": Law(lambda g, n: g.normal(size=n)),
    **{f"AR(1), {phi:g}": autoregressive(phi) for phi in (0.3, 0.5, 0.8)},
    **{f"AR(1), {phi:g}, t3 innovations": _innovations(phi, _t3) for phi in (0.3, 0.5, 0.8)},
    **{f"lognormal, AR(1), {phi:g}": _exponential(phi) for phi in (0.3, 0.5, 0.8)},
}
"""What whitening is for: gates."""
OTHERS: dict[str, Law] = {
    "AR(1), .95": autoregressive(0.95),
    **{name: NOT_COVERED[name] for name in ("daily season", "clusters of 2 to 500 equal rows")},
}


@dataclass(frozen=True, slots=True)
class Found:
    """Episodes that a panel opened, and how much of its values came while their series was suspended."""

    inside: FalseAlarms
    outside: FalseAlarms

    @property
    def both(self) -> FalseAlarms:
        return FalseAlarms(self.inside.alarms + self.outside.alarms, self.inside.values + self.outside.values)

    @property
    def suspended(self) -> float:
        return self.inside.values / self.both.values


def panel(names: list[str], learn: int, per_unit: float, *, segments: bool = False, grouping: Grouping = "auto") -> Panel:
    """A panel of numeric series with nothing but the budget's e-detectors."""
    detectors = (ColumnDetector("e_detector"),)
    columns = tuple(Column(name, "numeric", (Series(name, None, detectors, WINDOW, warning=TOLERANCE),)) for name in names)
    budget = PanelBudget(per_unit, True, 1.0 / (168 * per_unit))
    shops = {"shop": SHOPS} if segments else {}
    return Panel(PanelSpec(columns=columns, segments=shops, window=WINDOW, learn_rows=learn, budget=budget, grouping=grouping))


def rows_of(values: Values, first: int, *, segments: bool = False, step_ms: int = 1_000) -> PanelRows:
    """Rows of a matrix, one column a series, so far apart."""
    n = len(values)
    at = np.arange(first, first + n)
    # Each shop has a stream of its own, and theirs are interleaved.
    shops = {"shop": ((at % SHOPS).astype(np.int32), [f"s{k}" for k in range(SHOPS)])} if segments else {}
    return PanelRows(
        n=n, numeric=np.ascontiguousarray(values), numeric_names=[f"f{c}" for c in range(values.shape[1])], categorical={}, segments=shops,
        source=np.zeros(n, np.uint16), offset=at, time_ms=at * step_ms,
    )  # fmt: skip


def null(law: Law, name: str, size: Size, *, reference: int, before: Law | None = None, segments: bool = False) -> Found:
    """Episodes on streams of a law, each series with one false alarm in 1e5 values; `before`: the reference's law."""
    streams = size.null_streams
    scopes = 1 + SHOPS if segments else 1
    columns = []
    for stream in range(streams):
        g = generator(size.seed, "memory", name, reference, stream)
        if segments:
            own = [law.draw(g, (reference + size.null_rows) // SHOPS + 1) for _ in range(SHOPS)]
            columns.append(np.stack(own, axis=1).ravel()[: reference + size.null_rows])
            continue
        values = law.draw(g, reference + size.null_rows)
        if before is not None:
            values[:reference] = before.draw(g, reference)
        columns.append(values)
    values = np.stack(columns, axis=1)
    watched = panel([f"f{c}" for c in range(streams)], reference, streams / RUN_LENGTH, segments=segments)
    opened = [s for s in watched.update(rows_of(values, 0, segments=segments)) if s.kind == "open"]
    inside = sum(s.suspended is not None for s in opened)
    total, held = watched.values_judged()
    assert total <= streams * size.null_rows * scopes
    return Found(FalseAlarms(inside, held), FalseAlarms(len(opened) - inside, total - held))


def whitened(size: Size) -> Section:
    """False alarms where the reference shows the memory."""
    rows, gates = [], []
    for name, law in (MEMORIES | OTHERS).items():
        cells = []
        for reference in (1_000, REFERENCE):
            found = null(law, name, size, reference=reference)
            cells += [str(found.both), f"{found.suspended:.0%}"]
            if name in MEMORIES:
                target = 1e6 / RUN_LENGTH
                gates.append(Gate(f"whitened, {name}, reference {reference:,}", target, found.both.per_million, found.both.interval[0]))
        rows.append([name, *cells])
    for phi in (0.5, 0.8):
        found = null(autoregressive(phi), f"shops {phi:g}", size, reference=2 * REFERENCE, segments=True)
        rows.append([f"AR(1), {phi:g}, in each of {SHOPS} segments", "", "", str(found.both), f"{found.suspended:.0%}"])
        # All rows and the segments share one budget.
        gates.append(Gate(f"whitened, segments, AR(1), {phi:g}", 1e6 / RUN_LENGTH, found.both.per_million, found.both.interval[0]))
    return Section(
        "Values with a memory, and a reference that shows it",
        f"A panel under a budget, as `false_alarms` makes it: tolerance {TOLERANCE:g} sd, 1 in 100,000 values a series, "
        f"{size.null_streams} series of {size.null_rows:,} values each. Episodes per million values, and the share of values that came "
        "while their series was suspended. Segments: four streams, interleaved, and all rows; a reference of 10,000 rows; per million "
        "values of all five. Gates for all but the three below them: a level that wanders, a season and bursts are more than eight "
        "values remember. A reference of 1,000 covers less than a day of the season, and four bursts.",
        ["stream", "reference 1,000", "suspended", "5,000", "suspended"],
        rows,
        gates,
    )


def unseen(size: Size) -> Section:
    """False alarms where the reference was independent and the stream is not."""
    rows, gates = [], []
    plain = MEMORIES["normal"]
    for name, law in {**{key: MEMORIES[key] for key in list(MEMORIES)[:4]}, **OTHERS}.items():
        found = null(law, f"unseen {name}", size, reference=REFERENCE, before=plain)
        early = found.outside.alarms / size.null_streams
        inside = str(found.inside) if found.inside.values else ""
        rows.append([name, f"{found.suspended:.1%}", inside, f"{early:.2f}"])
        if found.inside.values and name != "normal":
            gates.append(Gate(f"suspended, {name}", 2e6 / RUN_LENGTH, found.inside.per_million, found.inside.interval[0]))
        if name == "normal":
            gates.append(Gate("independent values that are suspended", 0.001, found.suspended, found.suspended))
    return Section(
        "Suspended: a memory that the reference did not show",
        "The same panels after references of 5,000 independent normal values, so that nothing is whitened. Suspended monitors may "
        "raise twice the budget, 20 per million. Before the self-check has seen enough, or while a season looks like a level that "
        "moves, alarms are outside of suspension: how many of them a series.",
        ["stream", "values suspended", "episodes per million, suspended", "episodes a series, before"],
        rows,
        gates,
    )


def _panel(run_length: float) -> Any:
    def alarms(reference: Values, values: Values, _: int) -> list[int]:
        watched = panel(["f0"], len(reference), 1.0 / run_length)
        watched.update(rows_of(reference[:, None], 0))
        return [s.row for s in watched.update(rows_of(values[:, None], len(reference))) if s.kind == "open"]

    return alarms


def price(size: Size) -> Section:
    """Delay on values with a memory, beside the same e-detector without whitening, at equal measured false alarms."""
    rows = []
    streams = max(size.change_streams // 2, 3)
    for phi in (0.0, 0.3, 0.5, 0.8):
        law = autoregressive(phi) if phi else MEMORIES["normal"]
        draw = functools.partial(
            false_alarms, law, f"price {phi:g}", streams=size.tuning_streams, rows=size.null_rows, reference=REFERENCE, seed=size.seed
        )
        tuned = [nearest_setting(_SETTINGS, _rate(draw, detect), 1e6 / RUN_LENGTH) for detect in (_panel, _plain)]
        for sds in (0.5, 1.0):
            cells = [str(_delay(law, sds, _panel(RUN_LENGTH), size, streams))]
            for detect, (run_length, rate) in zip((_panel, _plain), tuned, strict=True):
                cells += [f"1 in {run_length:.0e}: {rate}", str(_delay(law, sds, detect(run_length), size, streams))]
            rows.append([f"AR(1) of {phi:g}, mean +{sds:g} sd", *cells])
    return Section(
        "The price of a memory: delay at equal false alarms",
        f"A lasting shift of the mean on AR(1) values, {streams} streams, reference 5,000, tolerance .1 sd. First a panel at its promise "
        "of 1 in 100,000; then panel and unwhitened e-detector (`EDetector`, frozen), each with the promise that gives the most false "
        "alarms up to 10 per million on this very law: the promise, what was measured, the delay.",
        ["change", "as promised", "panel, tuned", "delay", "unwhitened, tuned", "delay"],
        rows,
    )


def _rate(draw: Any, detect: Any) -> Any:
    return lambda run_length: draw(detect=detect(run_length))


def _plain(run_length: float) -> Any:
    return lambda reference, values, seed: ours(run_length, reference, values, seed, min_effect=TOLERANCE, frozen=True)


def _delay(law: Law, sds: float, detect: Any, size: Size, streams: int) -> Delay:
    """As `measure.delay`, but the memory goes on through the change."""
    found = []
    for stream in range(streams):
        values = law.draw(generator(size.seed, "shifted", sds, stream), REFERENCE + BEFORE + AFTER)
        values[REFERENCE + BEFORE :] += sds
        found.append(late_by(detect(values[:REFERENCE], values[REFERENCE:], size.seed * 100_003 + stream), BEFORE))
    return Delay.of(found)
