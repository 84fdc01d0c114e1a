"""One series: false alarms, delays, the peers, tolerances and dates."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from benchmarks.quality.apart import DEFAULTS, LEFT_OUT, TUNED
from benchmarks.quality.contenders import KSWIN, PEERS, Contender, ours
from benchmarks.quality.measure import Dates, Delay, FalseAlarms, delay, false_alarms, generator, nearest_setting
from benchmarks.quality.report import Gate, Section, Size
from benchmarks.quality.streams import CHANGES, COVERED, NOT_COVERED, RIVALRY, Change, Draw, Law, bernoulli
from driftline.detectors import EDetector

REFERENCE = 5_000
BEFORE, AFTER = 5_000, 5_000
RUN_LENGTH = 1e5


def _detect(run_length: float, **options: Any) -> Any:
    return lambda reference, values, seed: ours(run_length, reference, values, seed, **options)


def nulls(size: Size) -> Section:
    """False alarms per 10^6 values at one in 10^5, by law and size of the reference."""
    rows, gates = [], []
    for name, law in COVERED.items():
        cells = []
        for reference in (200, 1_000, REFERENCE):
            found = false_alarms(
                law, name, _detect(RUN_LENGTH), streams=size.null_streams, rows=size.null_rows, reference=reference, seed=size.seed
            )
            cells.append(str(found))
            gates.append(Gate(f"false alarms, {name}, reference {reference}", 1e6 / RUN_LENGTH, found.per_million, found.interval[0]))
        rows.append([name, *cells])
    return Section(
        "False alarms of one series, one in 100,000 values promised: at most 10 per million",
        f"`EDetector(reference, run_length=1e5)`; {size.null_streams} streams of {size.null_rows:,} values a cell, each after a reference "
        "of its own. Alarms per million values, exact 95 % Poisson intervals.",
        ["law", "reference 200", "1,000", "5,000"],
        rows,
        gates,
    )


def broken(size: Size) -> Section:
    """The same on values with a memory, where no promise is made."""
    rows = []
    streams = max(size.null_streams // 5, 4)
    for name, law in NOT_COVERED.items():
        draw = functools.partial(false_alarms, law, name, streams=streams, rows=size.null_rows, reference=REFERENCE, seed=size.seed)
        cells = [str(draw(detect=_detect(RUN_LENGTH)))]
        cells += [str(draw(detect=_peer(peer, law, peer.default))) for peer in PEERS[:2]]
        rows.append([name, *cells])
    return Section(
        "In a notebook: values with a memory are not covered",
        "`EDetector` and `AlarmBudget` take values as they come: the promise is for those that are exchangeable with the reference. A "
        "configuration whitens and checks them (above). Alarms per million values.",
        ["stream", "EDetector at 1e5", *(f"{peer.name}, default" for peer in PEERS[:2])],
        rows,
    )


def slope(size: Size) -> Section:
    """Measured false alarms against promised ones, over two decades."""
    law = COVERED["lognormal"]
    rows, gates, points = [], [], []
    for run_length in (2e4, 1e5, 1e6):
        scale = 1 if run_length < 1e6 else 4
        found = false_alarms(
            law, "slope", _detect(run_length), streams=scale * size.null_streams, rows=size.null_rows, reference=1_000, seed=size.seed
        )
        promised = 1e6 / run_length
        rows.append([f"1 in {run_length:,.0f}", f"{promised:g}", str(found)])
        gates.append(Gate(f"false alarms at 1 in {run_length:,.0f}", promised, found.per_million, found.interval[0]))
        if found.alarms:
            points.append((np.log10(promised), np.log10(found.per_million)))
    table = np.array(points, np.float64).reshape(-1, 2)
    fitted = float(np.polyfit(table[:, 0], table[:, 1], 1)[0]) if len(points) > 1 else float("nan")
    return Section(
        "Promised and measured, over two decades",
        f"Lognormal values, reference 1,000. Slope of the logarithms: {fitted:.2f} (1 = in proportion). Rarer than that the promise is "
        "the theorem's, not a measurement's.",
        ["promised", "per million", "measured per million"],
        rows,
        gates,
    )


def delays(size: Size) -> Section:
    """Delay from the change to the alarm, with and without a tolerance."""
    rows, gates = [], []
    for change in CHANGES:
        cells = []
        for options in ({}, {"min_effect": 0.2 if change.before.binary else 0.1}):
            found = _delay(change, _detect(RUN_LENGTH, **options), size)
            cells.append(str(found))
            if change.gate is not None and not options:
                gates.append(Gate(f"delay, {change.name}", change.gate, found.mean, found.mean - 1.96 * found.error))
        rows.append([change.name, *cells, "" if change.gate is None else f"{change.gate:g}"])
    return Section(
        "Delay at one false alarm in 100,000 values",
        f"{size.change_streams} streams: reference {REFERENCE:,}, {BEFORE:,} values, the change, {AFTER:,} values. Mean values from the "
        "change to the first alarm, with 95 % intervals. With a tolerance of .1 sd (rates: 20 %) shifts below it are no alarms, and "
        "those not far above it are found later.",
        ["change", "EDetector", "with tolerance", "target"],
        rows,
        gates,
    )


def rivals(size: Size, apart: Sequence[Contender] = ()) -> Section:
    """Delay of the peers, each tuned on the very law to the false alarms that are promised here; `apart`: more of them."""
    wanted, run_length = size.rivalry_rate, 1e6 / size.rivalry_rate
    rows, faster = [], []
    for change in RIVALRY:
        law = change.before
        found = _ours_at(change.law, run_length, size)
        mine = _delay(change, _detect(run_length), size)
        rows.append([change.name, "EDetector, as promised", f"1 in {run_length:,.0f}", str(found), _cell(mine)])
        for peer in (*PEERS, *apart):
            if not peer.suits(law) or not peer.settings:
                continue
            setting, rate = _tuned(peer, "normal" if peer.distribution_free else change.law, size, wanted)
            theirs = _their_delay(peer, change, setting, size)
            rows.append([change.name, peer.name, f"{setting:g}", str(rate), _cell(theirs)])
            faster += _faster(peer, change, theirs, mine)
    return Section(
        f"Beside the peers, at equal false alarms ({wanted:g} per million)",
        "Each peer is tuned, for each law by itself and with its true mean and standard deviation, to the most false alarms up to the "
        "rate that is promised here; `EDetector` has its promise and a reference, nothing else. river's ADWIN and Page-Hinkley are run "
        "by our kernels, which raise the same alarms to the last bit. "
        f"{TUNED if apart else LEFT_OUT} Mean delay with 95 % interval, median in brackets. "
        f"Where a peer is faster on average, once it is tuned so, a missed change counted as {AFTER:,}: {'; '.join(faster) or 'nowhere'}.",
        ["change", "detector", "setting", "false alarms per million", "delay"],
        rows,
    )


def defaults(size: Size, apart: Sequence[Contender] = ()) -> Section:
    """The peers as they come, and ours at the false alarms that each raises; `apart`: more of them."""
    rows, faster = [], []
    for name in ("normal", "rate .1"):
        law = COVERED[name]
        change = next(c for c in RIVALRY if c.before.binary == law.binary and c.name in ("normal, mean +0.5 sd", "rate 0.1 to 0.2"))
        for peer in (*PEERS, KSWIN, *apart):
            if not peer.suits(law) or not peer.stock:
                continue
            rate = _null(peer, name, peer.default, size)
            theirs = _their_delay(peer, change, peer.default, size)
            run_length = max(1e6 / max(rate.per_million, 0.5), 20.0)
            mine = _delay(change, _detect(run_length), size)
            rows.append([change.name, peer.name, str(rate), _cell(theirs), f"1 in {run_length:,.0f}", _cell(mine)])
            faster += _faster(peer, change, theirs, mine)
        rows.append([change.name, "alarm on every value", "1000000", "1", "", ""])
        rows.append([change.name, "never an alarm", "0", "none found", "", ""])
    return Section(
        "The peers with their own defaults",
        "False alarms per million, mean delay (median), and the delay of `EDetector` when it is promised the same false alarms "
        "(or one in 2,000,000 where none was seen). "
        f"{DEFAULTS if apart else LEFT_OUT} Where a peer is faster on average, a missed change counted as {AFTER:,}: "
        f"{'; '.join(faster) or 'nowhere'}. The two dummies bound what a table of delays alone could show.",
        ["change", "detector", "false alarms per million", "delay", "EDetector at", "its delay"],
        rows,
    )


def tolerance(size: Size) -> Section:
    """Shifts below the tolerance, for growing and frozen references."""
    rows, gates = [], []
    length = size.tolerance_rows
    for label, options, moved in (
        ("growing, .1 sd tolerated, mean +.1 sd for ever", {"min_effect": 0.1}, 0.1),
        ("frozen, .1 sd tolerated, no shift", {"min_effect": 0.1, "frozen": True}, 0.0),
        ("frozen, 2/sqrt(m) tolerated, no shift", {"min_effect": 0.0401, "frozen": True}, 0.0),
    ):
        base = COVERED["normal"]
        alarms = 0
        for stream in range(size.tolerance_streams):
            g = generator(size.seed, "tolerance", label, stream)
            values = base.draw(g, REFERENCE + length)
            values[REFERENCE:] += moved
            alarms += len(ours(RUN_LENGTH, values[:REFERENCE], values[REFERENCE:], stream, **options))
        found = FalseAlarms(alarms, size.tolerance_streams * length)
        rows.append([label, str(found)])
        gates.append(Gate(f"tolerance: {label}", 1e6 / RUN_LENGTH, found.per_million, found.interval[0]))
    return Section(
        "Small and certain shifts spend no budget",
        f"{size.tolerance_streams} streams of {length:,} values, one false alarm in 100,000 promised (10 per million).",
        ["reference and shift", "alarms per million"],
        rows,
        gates,
    )


@dataclass(frozen=True, slots=True)
class _Dated:
    """A change to date.

    Attributes
    ----------
    tolerated : `min_effect`, in sd or relative to the rate.
    held : the least share of intervals that hold the start.
    """

    name: str
    before: Law
    after: Draw
    tolerated: float = 0.0
    held: float = 0.9


def _shifted(sds: float, tolerated: float = 0.0) -> _Dated:
    normal = COVERED["normal"]
    name = f"+{sds:g} sd" + (f", {tolerated:g} tolerated" if tolerated else "")
    return _Dated(name, normal, lambda g, n: sds + normal.draw(g, n), tolerated)


def _rarer(before: float, after: float, tolerated: float = 0.0) -> _Dated:
    name = f"rate {before:g} to {after:g}" + (f", {before * (1.0 + tolerated):g} tolerated" if tolerated else "")
    return _Dated(name, bernoulli(before), bernoulli(after).draw, tolerated, held=0.8)


_DATED: Final = (_shifted(0.25), _shifted(0.5), _shifted(1.0), _shifted(0.3, 0.2), _rarer(0.1, 0.2), _rarer(0.002, 0.03, 4.0))


def dating(size: Size) -> Section:
    """How far the date of a change is off, and how often its interval holds the truth."""
    rows, gates = [], []
    for case in _DATED:
        dates = Dates()
        for stream in range(size.change_streams):
            g = generator(size.seed, "dating", case.name, stream)
            values = np.concatenate([case.before.draw(g, REFERENCE + BEFORE), case.after(g, AFTER)])
            detector = EDetector(values[:REFERENCE], RUN_LENGTH, min_effect=case.tolerated, frozen=case.tolerated > 0.0, seed=stream)
            if len(detector.update_many(values[REFERENCE : REFERENCE + BEFORE])):
                continue
            for start in range(REFERENCE + BEFORE, len(values), 20):
                if len(detector.update_many(values[start : start + 20])):
                    break
            found = detector.change
            if found is None or found.earliest is None or found.latest is None:
                continue
            dates.add(found.since, found.earliest, found.latest, BEFORE)
        rows.append([case.name, *dates.cells()])
        gates.append(dates.gate(case.name, case.held))
    return Section(
        "Since when: dates at the moment of the alarm",
        "Values between the date and the truth (median, 90th percentile), width of the 95 % interval, and how often it holds the truth. "
        "Of a rate a one may be the first thing that shows: its interval is asked to hold the truth in 80 %.",
        ["change", "off by, median", "90 %", "width, median", "holds the start"],
        rows,
        gates,
    )


def _peer(peer: Contender, law: Law, setting: float, **options: Any) -> Any:
    return lambda reference, values, _: peer.run(law, setting, reference, values, **options)


def _delay(change: Change, detect: Any, size: Size, streams: int | None = None) -> Delay:
    streams = streams or size.change_streams
    return delay(change, detect, streams=streams, before=BEFORE, after=AFTER, reference=REFERENCE, seed=size.seed)


def _their_delay(peer: Contender, change: Change, setting: float, size: Size) -> Delay:
    slow = size.kswin_streams if peer is KSWIN else min(math.ceil(peer.delay_times * size.slow_streams), size.change_streams)
    # A delay is that of the first alarm since the change: no later one is worth its time.
    options = {"enough": BEFORE} if peer.apart else {}
    return _delay(change, _peer(peer, change.before, setting, **options), size, slow if peer.slow else None)


def _faster(peer: Contender, change: Change, theirs: Delay, mine: Delay) -> list[str]:
    """For the text, where a peer is faster than `EDetector`."""
    late, own = theirs.within(AFTER), mine.within(AFTER)
    return [f"{peer.name} on {change.name} ({late:.0f} against {own:.0f})"] if late < own else []


def _cell(found: Delay) -> str:
    return f"{found} ({found.median:.0f})"


@functools.cache
def _ours_at(name: str, run_length: float, size: Size) -> FalseAlarms:
    streams, rows = size.tuning_streams, size.null_rows
    return false_alarms(COVERED[name], name, _detect(run_length), streams=streams, rows=rows, reference=REFERENCE, seed=size.seed)


@functools.cache
def _tuned(peer: Contender, name: str, size: Size, wanted: float) -> tuple[float, FalseAlarms]:
    return nearest_setting(peer.settings, lambda setting: _null(peer, name, setting, size), wanted)


def _null(peer: Contender, name: str, setting: float, size: Size) -> FalseAlarms:
    """False alarms of a peer, on fewer values where it is slow."""
    law, rows, streams = COVERED[name], size.null_rows, size.tuning_streams
    if peer.slow:
        count = size.kswin if peer is KSWIN else int(peer.null_times * size.slow)
        rows = min(count, rows, peer.null_rows or rows)
        streams = max(count // rows, 1)
    detect = _peer(peer, law, setting)
    return false_alarms(law, name, detect, streams=streams, rows=rows, reference=peer.reference, seed=size.seed)
