"""Rows of one unit, the public way: bookings of which one in twenty is a group of equal rows, through `driftline replay`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from benchmarks.quality.measure import Delay, FalseAlarms, generator, late_by
from benchmarks.quality.public import replayed_columns
from benchmarks.quality.report import Gate, Section, Size

EVENTS: Final = 20_000
"""The budget: one false alarm in so many rows that are watched."""
LEARN: Final = 4_000
CHANGE: Final = LEARN + 1_500
_AFTER: Final = 1_000
START_MS: Final = 1_760_000_000_000
_GROUPS: Final = 1 / 20
_ROWS_MAX: Final = 500
_WINDOW_MS: Final = 600_000

CONFIG: Final = f"""\
version: 1
predictions: p
models:
  m:
    features: {{amount: numeric, nights: numeric, country: categorical}}
    false_alarms: 1 per {EVENTS} events
    window: 1000
    snapshot_every: 1000000
    baseline: {{learn: {LEARN}, settle: 0s}}
"""
UNIT: Final = f"    unit: booking\n    unit_window: {_WINDOW_MS}ms\n"


@dataclass(frozen=True, slots=True)
class Way:
    """How a stream is watched.

    Attributes
    ----------
    groups : the share of bookings with 2 to 500 equal rows.
    """

    name: str
    groups: float
    unit: bool


WAYS: Final = (
    Way("single bookings", 0.0, unit=False),
    Way("groups, without `unit`", _GROUPS, unit=False),
    Way("groups, `unit: booking`", _GROUPS, unit=True),
)


def stream(
    bookings: int, way: Way, g: np.random.Generator, *, shift_at: int | None = None
) -> tuple[dict[str, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The columns of a stream, the times of its rows, and their bookings: one every two seconds, the rows of a group within them."""
    group = g.random(bookings) < way.groups
    rows = np.where(group, (2.0 * (_ROWS_MAX / 2.0) ** g.random(bookings)).astype(int), 1)
    amount = g.lognormal(size=bookings)
    if shift_at is not None:
        amount[shift_at:] += math.sqrt((math.e - 1.0) * math.e)
    booking = np.repeat(np.arange(bookings), rows)
    within = np.arange(len(booking)) - np.repeat(np.cumsum(rows) - rows, rows)
    columns = {
        "booking": [f"b{b}" for b in booking.tolist()],
        "amount": amount[booking],
        "nights": g.integers(1, 15, bookings)[booking],
        "country": np.array(["NL", "DE", "FR", "BE"])[g.integers(0, 4, bookings)][booking],
        "score": g.beta(2, 8, bookings)[booking],
    }
    return columns, START_MS + booking * 2_000 + within * 4, booking


def alarms(way: Way, bookings: int, g: np.random.Generator, *, shift_at: int | None = None) -> np.ndarray[Any, Any]:
    """The bookings at which an episode opens, ascending."""
    columns, times_ms, booking = stream(bookings, way, g, shift_at=shift_at)
    events = replayed_columns(columns, times_ms, CONFIG + (UNIT if way.unit else ""), "--segment", "booking")
    opened = [e for e in events if e["kind"] == "drift" and not e["series"].startswith("stream:")]
    found: np.ndarray[Any, Any] = booking[np.unique([e["position"]["offset"] for e in opened]).astype(int)]
    return found


def units(size: Size) -> Section:
    """False alarms and delay with groups among single rows."""
    streams, bookings = max(size.null_streams // 10, 2), max(size.null_rows // 2, 10_000)
    table: list[list[str]] = []
    gates: list[Gate] = []
    single = Delay((), 0)
    for way in WAYS:
        warm = _WINDOW_MS // 2_000 if way.unit else 0
        count = sum(len(alarms(way, bookings, generator(size.seed, "units", way.name, i))) for i in range(streams))
        false = FalseAlarms(count, streams * (bookings - LEARN - warm))
        late, early, at = [], 0, CHANGE + warm
        for i in range(2 * streams):
            found = alarms(way, at + _AFTER, generator(size.seed, "units", way.name, "shift", i), shift_at=at)
            early += int((found < at).any())
            late.append(late_by(found, at))
        delay = Delay.of(late)
        if way.unit:
            gates.append(Gate(f"alarms per million watched rows, {way.name}", 1e6 / EVENTS, false.per_million, false.interval[0]))
            mean = delay.within(_AFTER)
            slack = 2.0 * math.hypot(delay.error, single.error)
            gates.append(
                Gate("bookings until a shift is found, groups with `unit` against single ones", 1.2 * single.mean, mean, mean - slack)
            )
        elif not way.groups:
            single = delay
        table.append([way.name, f"{false.values:,}", str(false), f"{delay.median:.0f}", f"{early} of {len(late)}"])
    return Section(
        "Many rows of one unit",
        f"`driftline replay` over bookings of which one in {round(1 / _GROUPS)} is a group of 2 to {_ROWS_MAX} equal rows (log-uniform), a "
        f"budget of one alarm in {EVENTS:,} rows ({1e6 / EVENTS:.0f} in a million) over three features and a score, `unit_window` of "
        f"{_WINDOW_MS // 60_000} minutes. The shift: `amount`, lognormal, by one standard deviation. Alarms are per million bookings.",
        ["stream", "bookings judged", "alarms per million", "bookings until a shift is found, median", "alarms before the shift"],
        table,
        gates,
    )
