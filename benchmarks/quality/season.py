"""Values that go by the hour: a panel under a budget whose reference is grouped by it, beside one that is not, and beside ADWIN."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from benchmarks.quality.contenders import PEERS, Contender
from benchmarks.quality.measure import Delay, FalseAlarms, false_alarms, generator, late_by, nearest_setting
from benchmarks.quality.memory import RUN_LENGTH, TOLERANCE, Found, panel, rows_of
from benchmarks.quality.report import Gate, Section, Size
from benchmarks.quality.streams import Law, Values, autoregressive
from driftline.detectors.spec import Grouping

MINUTE_MS = 60_000
DAY = 1_440
"""A row a minute."""
REFERENCE_DAYS = 7
WEEKS = 6
BEFORE, AFTER = 7 * DAY, 5_000
_SETTINGS = tuple(10.0 ** (k / 3) for k in range(30, 8, -1))


def _sine(n: int) -> Values:
    return np.asarray(math.sqrt(0.5) * np.sin(2.0 * math.pi * np.arange(n) / DAY))


def _daily(noise: Law, n: int, g: np.random.Generator) -> Values:
    """A sine with a quarter of the variance, and noise."""
    return np.asarray(_sine(n) + math.sqrt(0.75) * noise.draw(g, n))


def _weekend(n: int) -> Values:
    return np.asarray((np.arange(n) // DAY % 7 >= 5).astype(float))


FLAT = Law(lambda g, n: g.normal(size=n))
SEASONS: dict[str, tuple[Law, int]] = {
    "no season": (FLAT, REFERENCE_DAYS),
    "daily": (Law(lambda g, n: _daily(FLAT, n, g)), REFERENCE_DAYS),
    "daily, lognormal": (Law(lambda g, n: np.exp(_daily(FLAT, n, g))), REFERENCE_DAYS),
    "daily, on AR(1) of .5": (Law(lambda g, n: _daily(autoregressive(0.5), n, g)), REFERENCE_DAYS),
    "spread by half, daily": (Law(lambda g, n: g.normal(size=n) * (1.0 + _sine(n) / math.sqrt(2.0))), REFERENCE_DAYS),
    "daily and +1 at weekends": (Law(lambda g, n: _daily(FLAT, n, g) + _weekend(n)), 7 * WEEKS),
}
"""Laws, and the days of their references."""


def _null(law: Law, name: str, size: Size, days: int, grouping: Grouping, before: Law | None = None) -> tuple[Found, list[str]]:
    """Episodes, each series with one false alarm in 1e5 values; and how the series were grouped."""
    streams, reference = size.null_streams, days * DAY
    columns = []
    for stream in range(streams):
        g = generator(size.seed, "season", name, days, stream)
        values = law.draw(g, reference + size.null_rows)
        if before is not None:
            values[:reference] = before.draw(g, reference)
        columns.append(values)
    watched = panel([f"f{c}" for c in range(streams)], reference, streams / RUN_LENGTH, grouping=grouping)
    opened = [s for s in watched.update(rows_of(np.stack(columns, axis=1), 0, step_ms=MINUTE_MS)) if s.kind == "open"]
    inside = sum(s.suspended is not None for s in opened)
    total, held = watched.values_judged()
    grouped = [] if watched.baseline is None else sorted(watched.baseline.grouping().values())
    return Found(FalseAlarms(inside, held), FalseAlarms(len(opened) - inside, total - held)), grouped


def seasons(size: Size) -> Section:
    """False alarms where the reference covers the season."""
    rows, gates = [], []
    target = 1e6 / RUN_LENGTH
    for name, (law, days) in SEASONS.items():
        found, grouped = _null(law, name, size, days, "auto")
        plain, _ = _null(law, name, size, days, "none")
        shown = ", ".join(f"{grouped.count(way)} {way.replace('_', ' ')}" for way in sorted(set(grouped))) or "none"
        rows.append([name, str(days), shown, str(found.both), f"{found.suspended:.0%}", str(plain.both), f"{plain.suspended:.0%}"])
        gates.append(Gate(f"by the hour, {name}", target, found.both.per_million, found.both.interval[0]))
        if name == "no season":
            gates.append(Gate("series without a season that are grouped", 0.0, len(grouped), len(grouped)))
        else:
            gates.append(Gate(f"suspended by the hour, {name}", 0.05, found.suspended, found.suspended))
    return Section(
        "Values that go by the hour, and a reference that covers it",
        f"A panel under a budget, tolerance {TOLERANCE:g} sd, 1 in 100,000 values a series, {size.null_streams} series of "
        f"{size.null_rows:,} values, one a minute. A sine of a day with a quarter of the variance, alone, as exponents, on an "
        "autoregression, and in the spread; a level at weekends. Episodes per million values and the share of values that came while "
        "their series was suspended: with `baseline.season: auto`, and with `none`, where whitening takes what it can of the season.",
        ["season", "days of reference", "series by", "auto", "suspended", "none", "suspended"],
        rows,
        gates,
    )


def uncovered(size: Size) -> Section:
    """What the self-check makes of a season that the reference does not show."""
    rows, gates = [], []
    for name, before in (("daily", FLAT), ("daily and +1 at weekends", FLAT)):
        found, _ = _null(SEASONS[name][0], f"uncovered {name}", size, 4, "auto", before)
        early = found.outside.alarms / size.null_streams
        rows.append([name, f"{found.suspended:.0%}", str(found.inside), f"{early:.2f}"])
        gates.append(Gate(f"suspended for the hour, {name}", 2e6 / RUN_LENGTH, found.inside.per_million, found.inside.interval[0]))
    return Section(
        "Suspended for the hour: a season that the reference did not show",
        "The same panels after four days of independent normal values. Suspended monitors may raise twice the budget. Until the hour "
        "has shown for five or six days its alarms are true changes against such a reference: how many of them a series.",
        ["season", "values suspended", "episodes per million, suspended", "episodes a series, before"],
        rows,
        gates,
    )


def _panel(run_length: float, grouping: Grouping) -> Any:
    def alarms(reference: Values, values: Values, _: int) -> list[int]:
        watched = panel(["f0"], len(reference), 1.0 / run_length, grouping=grouping)
        watched.update(rows_of(reference[:, None], 0, step_ms=MINUTE_MS))
        found = watched.update(rows_of(values[:, None], len(reference), step_ms=MINUTE_MS))
        return [s.row for s in found if s.kind == "open"]

    return alarms


def _peer(contender: Contender, law: Law, setting: float) -> Any:
    return lambda reference, values, _: contender.run(law, setting, reference, values)


def price(size: Size) -> Section:
    """Delay on a daily season, beside no grouping and beside ADWIN at equal measured false alarms."""
    daily, reference = SEASONS["daily"][0], REFERENCE_DAYS * DAY
    # A shift is one in standard deviations of the noise: that is what is left once the hour is known.
    unit = math.sqrt(0.75)
    streams = max(size.change_streams // 2, 3)
    draw = functools.partial(
        false_alarms, daily, "season price", streams=size.tuning_streams, rows=size.null_rows, reference=reference, seed=size.seed
    )
    adwin = next(peer for peer in PEERS if peer.name == "river ADWIN")
    wanted = 1e6 / RUN_LENGTH
    tuned, rate = nearest_setting(adwin.settings, lambda setting: draw(detect=_peer(adwin, daily, setting)), wanted)
    grouped, own_rate = nearest_setting(_SETTINGS, lambda run_length: draw(detect=_panel(run_length, "auto")), wanted)
    rows, gates = [], []
    for sds in (0.5, 1.0):
        by_hour = _delay(daily, sds * unit, _panel(RUN_LENGTH, "auto"), size, streams)
        flat = _delay(FLAT, sds, _panel(RUN_LENGTH, "auto"), size, streams)
        plain = _delay(daily, sds * unit, _panel(RUN_LENGTH, "none"), size, streams)
        tuned_own = _delay(daily, sds * unit, _panel(grouped, "auto"), size, streams)
        tuned_peer = _delay(daily, sds * unit, _peer(adwin, daily, tuned), size, streams)
        rows.append([f"+{sds:g} sd", str(by_hour), str(flat), str(plain), str(tuned_own), str(tuned_peer)])
        # A season that is known costs no more than its hours' own errors.
        chance = 1.96 * math.hypot(by_hour.error, 1.2 * flat.error)
        gates.append(Gate(f"delay by the hour, +{sds:g} sd", 1.2 * flat.mean, by_hour.mean, by_hour.mean - chance))
    return Section(
        "The price of a season: delay",
        f"A lasting shift of the mean, in standard deviations of the noise, on a sine with a quarter of the variance, {streams} streams, "
        "seven days of reference, seven before the change. At the promise of 1 in 100,000: by the hour, on the same noise without a "
        f"season, and with `season: none`. Then by the hour at 1 in {grouped:.0e} ({own_rate} per million measured) and ADWIN at delta "
        f"{tuned:.2g} ({rate}): each the most false alarms up to 10 per million on this very stream.",
        ["shift", "by the hour", "no season", "not grouped", "by the hour, tuned", "ADWIN, tuned"],
        rows,
        gates,
    )


def _delay(law: Law, shift: float, detect: Any, size: Size, streams: int) -> Delay:
    """As `measure.delay`, but the season goes on through the change."""
    found = []
    reference = REFERENCE_DAYS * DAY
    for stream in range(streams):
        g = generator(size.seed, "season shifted", stream)
        # Changes come at any hour.
        late = int(g.integers(DAY))
        values = law.draw(g, reference + BEFORE + late + AFTER)
        values[reference + BEFORE + late :] += shift
        found.append(late_by(detect(values[:reference], values[reference:], size.seed * 100_003 + stream), BEFORE + late))
    return Delay.of(found)
