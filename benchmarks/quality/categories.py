"""Categories: a panel under a budget, as a configuration makes it; with bets on ranks instead; and beside a window's chi-squared."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from unittest import mock

import numpy as np
import numpy.typing as npt

from benchmarks.quality.measure import Delay, FalseAlarms, generator, late_by
from benchmarks.quality.report import Gate, Section, Size
from driftline.detectors.panel import Panel
from driftline.detectors.spec import Column, ColumnDetector, PanelBudget, PanelRows, PanelSpec, Series

Shares = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

RUN_LENGTH: Final = 1e5
REFERENCE: Final = 5_000
BEFORE, AFTER = 3_000, 10_000
WINDOW: Final = 1_000
"""Of a series; it rests for so long after an alarm, so that few alarms are hidden by others."""
CHI_WINDOW: Final = 500
WARNING: Final = 0.1
_PIECE: Final = 20_000


def zipf(values: int) -> Shares:
    """Shares in proportion to 1 / rank."""
    weights = 1.0 / np.arange(1, values + 1)
    return np.asarray(weights / weights.sum())


def moved(shares: Shares, value: int, share: float) -> Shares:
    """One value has another share; the others keep their proportions. One past the last is a new value."""
    out = np.append(shares, 0.0) if value == len(shares) else shares.copy()
    out *= (1.0 - share) / (1.0 - out[value])
    out[value] = share
    return np.asarray(out)


def psi(shares: Shares, before: Shares) -> float:
    """Of two laws; infinite where one has what the other has not."""
    before = np.pad(before, (0, len(shares) - len(before)))
    if ((shares > 0) != (before > 0)).any():
        return math.inf
    used = shares > 0
    return float(((shares - before)[used] * np.log(shares[used] / before[used])).sum())


def spread(shares: Shares, wanted: float, seed: int = 5) -> Shares:
    """All shares times random factors, so that PSI is as wanted."""
    direction = np.random.default_rng(seed).normal(size=len(shares))

    def at(step: float) -> Shares:
        out = shares * np.exp(step * direction)
        return np.asarray(out / out.sum())

    low, high = 0.0, 5.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if psi(at(middle), shares) > wanted else (middle, high)
    return at(low)


FEW: Final = np.array([0.3, 0.2, 0.12, 0.1, 0.08, 0.07, 0.06, 0.04, 0.02, 0.009, 0.001])
LAWS: Final[dict[str, Shares]] = {
    "11 values, .3 to .001": FEW,
    "two, .999 and .001": np.array([0.999, 0.001]),
    "50, equally often": np.full(50, 0.02),
    "Zipf of 1,000": zipf(1_000),
    "3,000, equally often": np.full(3_000, 1 / 3_000),
}


@dataclass(frozen=True, slots=True)
class Change:
    """Shares before and after; `gate` the most mean delay."""

    name: str
    before: Shares
    after: Shares
    gate: float | None = None


def _swapped(shares: Shares, a: int, b: int) -> Shares:
    out = shares.copy()
    out[[a, b]] = out[[b, a]]
    return out


CHANGES: Final = (
    Change("a middle value gains 29 points", FEW, moved(FEW, 6, 0.35), 180.0),
    Change("the commonest loses 20 points", FEW, moved(FEW, 0, 0.1), 700.0),
    Change("a rare one, .1 % to 5 %", FEW, moved(FEW, 10, 0.05), 4_000.0),
    Change("a new one, 5 %", FEW, moved(FEW, 11, 0.05), 3_500.0),
    Change("two swap their shares, .12 and .02", FEW, _swapped(FEW, 2, 8), 500.0),
    Change("all a little, PSI .2", FEW, spread(FEW, 0.2), 2_500.0),
    Change("all, PSI .5", FEW, spread(FEW, 0.5), 400.0),
    Change("50 equal ones, all, PSI .2", LAWS["50, equally often"], spread(LAWS["50, equally often"], 0.2)),
    Change("50 equal ones, all, PSI .5", LAWS["50, equally often"], spread(LAWS["50, equally often"], 0.5), 700.0),
    Change("Zipf of 1,000, the 30th to 20 %", zipf(1_000), moved(zipf(1_000), 29, 0.2), 250.0),
)


def draw(g: np.random.Generator, shares: Shares, n: int) -> Codes:
    """Values of a law."""
    cumulated = np.cumsum(shares)
    return np.asarray(np.minimum(np.searchsorted(cumulated, g.random(n) * cumulated[-1], side="right"), len(shares) - 1))


def panel(names: list[str], learn: int, per_unit: float) -> Panel:
    """A panel of categorical series with nothing but the budget's e-detectors."""
    detectors = (ColumnDetector("e_detector"),)
    columns = tuple(Column(name, "categorical", (Series(name, None, detectors, WINDOW, warning=WARNING),)) for name in names)
    budget = PanelBudget(per_unit, True, 1.0 / (168 * per_unit))
    return Panel(PanelSpec(columns=columns, window=WINDOW, learn_rows=learn, budget=budget))


def rows_of(codes: Codes, first: int) -> PanelRows:
    """Rows of a matrix, one column a series."""
    n = len(codes)
    at = np.arange(first, first + n)
    categorical = {}
    for c in range(codes.shape[1]):
        values, own = np.unique(codes[:, c], return_inverse=True)
        categorical[f"f{c}"] = own.astype(np.int32), [f"v{value}" for value in values.tolist()]
    return PanelRows(
        n=n, numeric=np.zeros((n, 0)), numeric_names=[], categorical=categorical, segments={}, source=np.zeros(n, np.uint16), offset=at,
        time_ms=at * 1_000,
    )  # fmt: skip


def opened(codes: Codes, learn: int, per_unit: float) -> list[tuple[int, str]]:
    """Rows at which episodes opened, and whose; (n, C) values of as many series, the first rows of which are the reference."""
    watched = panel([f"f{c}" for c in range(codes.shape[1])], learn, per_unit)
    found = []
    for first in range(0, len(codes), _PIECE):
        signals = watched.update(rows_of(codes[first : first + _PIECE], first))
        found += [(first + s.row, s.series) for s in signals if s.kind == "open"]
    return found


def null(shares: Shares, name: str, size: Size, reference: int, after: Shares | None = None) -> FalseAlarms:
    """Episodes on streams of a law, each series with one false alarm in 1e5 values; `after`: what the values are that are judged."""
    streams = size.null_streams
    columns = []
    for stream in range(streams):
        g = generator(size.seed, "categories", name, reference, stream)
        columns.append(np.r_[draw(g, shares, reference), draw(g, shares if after is None else after, size.null_rows)])
    found = opened(np.stack(columns, axis=1), reference, streams / RUN_LENGTH)
    return FalseAlarms(len(found), streams * size.null_rows)


def categories(size: Size) -> Section:
    """False alarms of categorical series, and on shares that have changed by less than the tolerance."""
    rows, gates = [], []
    for name, shares in LAWS.items():
        cells = []
        for reference in (200, 1_000, REFERENCE):
            if reference < 1_000 and len(shares) > 1_000:
                cells.append("nearly all new: not watched")
                continue
            found = null(shares, name, size, reference)
            cells.append(str(found))
            gates.append(Gate(f"categories, {name}, reference {reference:,}", 1e6 / RUN_LENGTH, found.per_million, found.interval[0]))
        rows.append([name, *cells])
    for name, after in (("one value gains", one_gains(FEW, 0.09)), ("all change", spread(FEW, 0.09))):
        found = null(FEW, name, size, 20_000, after)
        rows.append([f"11 values, {name}, PSI .09", "", "", f"{found} (reference 20,000)"])
        gates.append(Gate(f"categories, {name} within the tolerance", 1e6 / RUN_LENGTH, found.per_million, found.interval[0]))
    return Section(
        "Categories: false alarms, one in 100,000 values promised",
        f"A panel of categorical series with a budget of one false alarm in 100,000 values each, as a configuration makes it; "
        f"{size.null_streams} streams of {size.null_rows:,} values a cell. Alarms per million values, exact 95 % Poisson intervals; "
        "at most 10. The last rows are of shares that have changed by less than the tolerance (PSI .1) and stay so.",
        ["values", "reference 200", "1,000", "5,000"],
        rows,
        gates,
    )


def one_gains(shares: Shares, wanted: float, value: int = 6) -> Shares:
    """A value gains so much that PSI is as wanted."""
    low, high = 0.0, 1.0 - shares[value]
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if psi(moved(shares, value, shares[value] + middle), shares) > wanted else (middle, high)
    return moved(shares, value, float(shares[value] + low))


Detect = Callable[[Codes, int], int | None]
"""(values, of the reference) to the delay of the first alarm from `BEFORE` values after the reference on."""


def _panel_delay(codes: Codes, reference: int) -> int | None:
    return late_by((row for row, _ in opened(codes[:, None], reference, 1.0 / RUN_LENGTH)), reference + BEFORE)


def _ranks_delay(codes: Codes, reference: int) -> int | None:
    with mock.patch("driftline.detectors.budget_bank.category_bins", return_value=None):
        return _panel_delay(codes, reference)


def chi_squared(codes: Codes, reference: int) -> Shares:
    """Pearson's statistic of the last `CHI_WINDOW` values after the reference, at each; rare values are one."""
    had = np.bincount(codes[:reference], minlength=int(codes.max()) + 1)
    kept = np.flatnonzero(had * CHI_WINDOW >= 5 * reference)
    place = np.full(len(had), len(kept))
    place[kept] = np.arange(len(kept))
    expected = np.bincount(place, had, len(kept) + 1) / reference * CHI_WINDOW
    expected[-1] = max(expected[-1], 0.5 / reference * CHI_WINDOW)
    total = np.zeros(len(codes) - reference - CHI_WINDOW + 1)
    for b in range(len(kept) + 1):
        hits = np.concatenate([[0.0], np.cumsum(place[codes[reference:]] == b)])
        total += (hits[CHI_WINDOW:] - hits[:-CHI_WINDOW] - expected[b]) ** 2 / expected[b]
    return total


def chi_alarms(statistic: Shares, limit: float) -> list[int]:
    """Ends of windows above a limit; after each alarm the window fills anew."""
    above, found, free = np.flatnonzero(statistic > limit), [], 0
    while (k := int(np.searchsorted(above, free))) < len(above):
        found.append(int(above[k]) + CHI_WINDOW - 1)
        free = int(above[k]) + CHI_WINDOW
    return found


def tuned(shares: Shares, size: Size) -> float:
    """The least limit of chi-squared with as many false alarms as are promised here."""
    streams = []
    for stream in range(size.tuning_streams):
        g = generator(size.seed, "chi", len(shares), float(shares[0]), stream)
        streams.append(chi_squared(draw(g, shares, REFERENCE + size.null_rows), REFERENCE))
    most = size.tuning_streams * size.null_rows / RUN_LENGTH
    low, high = 0.0, 2_000.0
    for _ in range(30):
        middle = 0.5 * (low + high)
        many = sum(len(chi_alarms(one, middle)) for one in streams) > most
        low, high = (middle, high) if many else (low, middle)
    return high


def _chi_delay(codes: Codes, reference: int, limit: float) -> int | None:
    return late_by(chi_alarms(chi_squared(codes, reference), limit), BEFORE)


def delay(change: Change, detect: Detect, size: Size, streams: int) -> Delay:
    """Delays over streams with one change."""
    found = []
    for stream in range(streams):
        g = generator(size.seed, "categories", change.name, stream)
        codes = np.r_[draw(g, change.before, REFERENCE + BEFORE), draw(g, change.after, AFTER)]
        found.append(detect(codes, REFERENCE))
    return Delay.of(found)


def category_delays(size: Size) -> Section:
    """How long until a change of shares is found."""
    rows, gates = [], []
    limits: dict[tuple[int, float], float] = {}
    streams = max(size.change_streams // 4, 12)
    for change in CHANGES:
        key = len(change.before), float(change.before[0])
        if key not in limits:
            limits[key] = tuned(change.before, size)
        ours = delay(change, _panel_delay, size, streams)
        ranks = delay(change, _ranks_delay, size, streams)
        chi: Any = functools.partial(_chi_delay, limit=limits[key])
        rows.append([change.name, _psi_words(change), str(ours), str(ranks), str(delay(change, chi, size, streams))])
        if change.gate is not None:
            gates.append(ours.gate(f"categories, {change.name}", change.gate, AFTER))
    tolerated = null_chi(size, limits[len(FEW), float(FEW[0])])
    return Section(
        "Categories: delay at one false alarm in 100,000 values",
        f"{streams} streams: reference {REFERENCE:,}, {BEFORE:,} values, the change, {AFTER:,} values; a panel as above. PSI .1 is no "
        "change for it. Bets on the ranks of frequencies, as on a number's, are what it had before. The window is Pearson's chi-squared "
        f"over the last {CHI_WINDOW} values, its limit tuned on the very law to as many false alarms as are promised here; it tolerates "
        f"nothing: on 11 values whose shares differ by PSI .05 for ever it raises {tolerated} alarms per million values.",
        ["change", "PSI", "panel", "bets on ranks", "chi-squared, tuned"],
        rows,
        gates,
    )


def _psi_words(change: Change) -> str:
    found = psi(change.after, change.before)
    return f"{found:.2f}" if math.isfinite(found) else "new"


def null_chi(size: Size, limit: float) -> FalseAlarms:
    """Alarms of the window on a change that is tolerated here."""
    after, count = spread(FEW, 0.05), 0
    for stream in range(4):
        g = generator(size.seed, "chi tolerated", stream)
        codes = np.r_[draw(g, FEW, REFERENCE), draw(g, after, size.null_rows)]
        count += len(chi_alarms(chi_squared(codes, REFERENCE), limit))
    return FalseAlarms(count, 4 * size.null_rows)
