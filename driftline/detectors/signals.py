"""From the kernel's notes to signals a person can read: names of detectors and bins, reasons, positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from driftline.detectors.baseline import ColumnReference
from driftline.detectors.episodes import EVIDENCE, NO_DETECTOR, OPENED, RECOVERED, Notes
from driftline.detectors.evidence import statistics_of
from driftline.detectors.explained import BinEvidence, ChangedAgain, TrafficSplit, mix_words
from driftline.detectors.groups import grouped
from driftline.detectors.layout import SKIP, Layout
from driftline.detectors.levels import MEAN_EFFECT, PSI_EFFECT
from driftline.detectors.medians import correlation_of, median_of
from driftline.detectors.openers import RUN_DETECTOR
from driftline.detectors.spec import (
    ABOVE,
    BELOW,
    INVALID,
    MISSING,
    NOT_APPLICABLE,
    SEVERITIES,
    Anchor,
    EffectKind,
    Int64,
    Series,
    Signal,
    Suspended,
    ordered_codes,
)
from driftline.detectors.tables import Tables
from driftline.schemas.units import level_words

BINS_SHOWN: Final = 3
MIX_SHARE_TOLD: Final = 0.2
"""The part of an effect from which on the mix of segments is worth a word beside another cause."""
_KINDS: Final[dict[int, Any]] = {OPENED: "open", EVIDENCE: "evidence", RECOVERED: "recovery"}
_EFFECTS: Final[tuple[EffectKind, ...]] = ("psi", "mean", "rate")
_MMD: Final[EffectKind] = "mmd"
_DIRECTIONS: Final[dict[int, Any]] = {1: "up", -1: "down", 0: None}


Suspensions = Callable[[int, int, int], "Suspended | None"]
"""Of a scope and series at a row."""
Explanations = Callable[[int, int], tuple[BinEvidence, ...]]
"""Of a column that is a block, at a row."""


def signals_of(
    notes: Notes,
    layout: Layout,
    tables: Tables,
    suspended: Suspensions,
    explain: Explanations,
    traffic: Sequence[TrafficSplit | None] = (),
) -> list[Signal]:
    """Signals in order of row, scope, column, series; those of one series in the order they were made.

    Parameters
    ----------
    traffic : of each note; empty = there are no segments.
    """
    order = sorted(range(len(notes)), key=lambda i: (int(notes[i]["row"]), int(notes[i]["scope"]), int(notes[i]["series"])))
    return [_signal(notes[i], layout, tables, suspended, explain, traffic[i] if traffic else None) for i in order]


def _signal(
    note: Any, layout: Layout, tables: Tables, suspended: Suspensions, explain: Explanations, traffic: TrafficSplit | None
) -> Signal:
    q, scope = int(note["series"]), int(note["scope"])
    held = suspended(scope, q, int(note["row"]))
    series, effect, c = layout.series[q], int(note["effect_kind"]), layout.column_of[q]
    now, base = (median_of(of, layout.references[c]) if tables.is_value[q] else None for of in (note["counts"], layout.counts[scope, c]))
    together, before = (correlation_of(of, layout.references[c]) for of in (note["counts"], layout.counts[scope, c]))
    recovered = int(note["kind"]) == RECOVERED
    joint = layout.references[c].block is not None
    unit = layout.references[c].unit if effect == MEAN_EFFECT else 1.0
    again = _again(note, layout, tables, q, c)
    return Signal(
        kind=_KINDS[int(note["kind"])],
        row=int(note["row"]),
        scope=scope,
        column=c,
        series=series.name,
        detector="level" if recovered or _resumed(note) else _detector_name(series, int(note["detector"])),
        statistic=float(note["statistic"]) * (unit if _of_level(note) else 1.0),
        threshold=float(note["threshold"]) * (unit if _of_level(note) else 1.0),
        value=float(note["value"]) * unit,
        baseline_value=float(note["base"]) * unit,
        effect_kind=_MMD if joint and effect == MEAN_EFFECT else _EFFECTS[effect],
        effect_size=float(note["effect"]) * unit,
        direction=_DIRECTIONS[int(note["direction"])],
        severity=SEVERITIES[int(note["severity"])],
        n=int(note["n"]),
        window=series.window,
        since=None if not note["since"] else _anchor(note["since_at"], exact=int(note["since"]) == 2),
        episode=_anchor(note["episode_at"], exact=True),
        bins=explain(c, int(note["row"])) if joint and effect == MEAN_EFFECT else _bins(note["counts"], layout, tables, scope, q),
        statistics=statistics_of(note["counts"], note["dependence"], layout, tables, scope, q),
        reason=_reason(note, series, effect, unit, joint=joint)
        + _unit_words(series.name, "median", now, base)
        + _unit_words(series.name, "correlation", together, before)
        + _again_words(series.name, again)
        + ("" if traffic is not None and traffic.alone else _unsure(note, tables, q))
        + ("" if traffic is None else traffic_words(traffic, float(note["effect"])))
        + _uncovered(note, tables, q, held),
        suspended=held,
        median=now,
        baseline_median=base,
        correlation=together,
        baseline_correlation=before,
        traffic=traffic,
        again=again,
        between=_between(note),
    )


def _between(note: Any) -> tuple[int | None, int] | None:
    """From when to when a change may have begun; event times need not go up with rows, and the date is in between."""
    first, last = note["between"].tolist()
    if not note["since"] or last < 0:
        return None
    date = int(note["since_at"][2])
    return (min(first, date) if first >= 0 else None), max(last, date)


def _again(note: Any, layout: Layout, tables: Tables, q: int, c: int) -> ChangedAgain | None:
    if not int(note["again"]):
        return None
    reference = layout.references[c]
    return ChangedAgain(
        number=int(note["again"]),
        value_before=float(note["before"]),
        effect_size=float(note["step"]),
        median_before=median_of(note["codes_before"], reference) if tables.is_value[q] else None,
        correlation_before=correlation_of(note["codes_before"], reference),
    )


def _again_words(series: str, again: ChangedAgain | None) -> str:
    if again is None:
        return ""
    unit = ((again.median_before, "median"), (again.correlation_before, "correlation"))
    own = "".join(f", {name} {level_words(series, value)}" for value, name in unit if value is not None)
    return f"; changed again: change {again.number} of the episode, before it {again.value_before:.4g}{own}"


def _of_level(note: Any) -> bool:
    """Whether statistic and threshold are a level's, in its unit."""
    return int(note["kind"]) == RECOVERED or int(note["detector"]) == NO_DETECTOR


def _resumed(note: Any) -> bool:
    """Whether an episode that had ended for want of rows opens anew."""
    return int(note["kind"]) == OPENED and int(note["detector"]) == NO_DETECTOR


def _detector_name(series: Series, place: int) -> str:
    if place == NO_DETECTOR:
        return "severity"
    return "constant_run" if place == RUN_DETECTOR else series.detectors[place].name


def _anchor(at: Int64, *, exact: bool) -> Anchor:
    return Anchor(source=int(at[0]), offset=int(at[1]), time_ms=int(at[2]), exact=exact)


def _reason(note: Any, series: Series, effect: int, unit: float, *, joint: bool) -> str:
    value, base = (float(note[name]) * unit for name in ("value", "base"))
    statistic, threshold = (float(note[name]) * (unit if _of_level(note) else 1.0) for name in ("statistic", "threshold"))
    if int(note["kind"]) == RECOVERED:
        distance = "joint distance" if joint else "distance of the mean"
        what = {PSI_EFFECT: "PSI", MEAN_EFFECT: distance}.get(effect, "distance of the rate")
        return f"level back in its band for a full window of {series.window} rows: {what} {statistic:.4g}, band {threshold:.4g}"
    mean = "joint distance" if joint else "mean of the standardised score"
    what = {PSI_EFFECT: "PSI", MEAN_EFFECT: mean}.get(effect, "rate")
    level = f"{what} {value:.4g} against {base:.4g} in the baseline, over {int(note['n'])} values"
    place = int(note["detector"])
    if place == RUN_DETECTOR:
        return f"{int(statistic)} equal values in a row"
    if _resumed(note):
        return f"{level}: rows have come again, and it is still out of its band ({statistic:.4g}, band {threshold:.4g})"
    if place == NO_DETECTOR:
        return f"{level}: effect {statistic:.4g} has passed {threshold:.4g}"
    return f"{series.detectors[place].name} {statistic:.4g} passed {threshold:.4g}; {level}"


def _unit_words(series: str, what: str, now: float | None, base: float | None) -> str:
    """What was judged has no unit; these have the series' own."""
    return "" if now is None or base is None else f"; {what} {level_words(series, now)} against {level_words(series, base)}"


def traffic_words(traffic: TrafficSplit, effect: float) -> str:
    """What the mix of segments has to do with an effect; nothing where that is little."""
    if traffic.alone:
        return f"; {mix_words(traffic.segment, traffic.moved)}"
    if abs(traffic.mix) < MIX_SHARE_TOLD * abs(effect):
        return ""
    return f"; {traffic.mix:.3g} by the mix of {traffic.segment}, {traffic.within:.3g} within each {traffic.segment}"


def _unsure(note: Any, tables: Tables, q: int) -> str:
    """Why an episode opens quieter than its effect looks: sampling noise is taken off before the size is judged."""
    severity = int(note["severity"])
    if int(note["kind"]) != OPENED or severity + 1 >= len(SEVERITIES) or abs(float(note["effect"])) < tables.bounds[q, severity]:
        return ""
    return f"; too few values yet to be sure of more than {SEVERITIES[severity]}"


def _uncovered(note: Any, tables: Tables, q: int, suspended: Suspended | None) -> str:
    """What to add where a panel has a budget, and its promise is not about this episode."""
    if int(tables.opens[q]) == -1 or int(note["kind"]) != OPENED or int(note["detector"]) == NO_DETECTOR:
        return ""
    if int(note["detector"]) != int(tables.budgeted[q]):
        return "; not covered by the budget"
    return "" if suspended is None else f"; {suspension_reason(suspended)}"


def suspension_reason(suspended: Suspended) -> str:
    """Why the promise does not cover a series, for people."""
    if suspended.cause == "hour_effect":
        return f"guarantee suspended: the hour of the day makes {suspended.correlation:.0%} of the variance, one value a day is judged"
    apart = "neighbouring values" if suspended.lag == 1 else f"values {suspended.lag} apart"
    return f"guarantee suspended: {apart} have a correlation of {suspended.correlation:.2f}, one in {suspended.one_in} is judged"


def _bins(counts: Any, layout: Layout, tables: Tables, scope: int, q: int) -> tuple[BinEvidence, ...]:
    series, c = layout.series[q], layout.column_of[q]
    reference = layout.references[c]
    expected, observed = layout.counts[scope, c], counts.astype("i8")
    if series.flag is not None:
        if series.flag == "constant":
            return _largest_groups(expected, observed, tables, reference, scope, c)
        counted = tables.flags[q] != SKIP
        hit = tables.flags[q] == 1
        before = float(expected[hit].sum()) / max(int(expected[counted].sum()), 1)
        now = float(observed[hit].sum()) / max(int(observed[counted].sum()), 1)
        return (BinEvidence(bin=_flag_name(series.flag), expected=before, observed=now, contribution=now - before),)
    return _largest_groups(expected, observed, tables, reference, scope, c)


def _flag_name(flag: str) -> str:
    kind, _, value = flag.partition(":")
    if kind == "tail":
        return f"above the baseline's {value} quantile"
    return value if kind == "value" else {"one": "1", "out_of_range": "out of range"}.get(flag, flag)


def _largest_groups(
    expected: Int64, observed: Int64, tables: Tables, reference: ColumnReference, scope: int, c: int
) -> tuple[BinEvidence, ...]:
    """The groups of bins that contribute most to PSI; only those are named."""
    order = np.array([*ordered_codes(reference.kind, reference.n_bins), MISSING, INVALID])
    group, used = tables.group[scope, c], int(tables.groups[scope, c])
    had, has = (grouped(counts, group, used).astype(np.int64) for counts in (expected, observed))
    m, n = int(expected[:NOT_APPLICABLE].sum()), int(observed[:NOT_APPLICABLE].sum())
    gap = tables.log_half[has] - tables.log_half[n] - tables.log_share[scope, c, :used]
    # ln((n + .5) / (n + .5 B)): here the terms stand alone, so the true denominator matters.
    gap -= (0.5 * used - 0.5) / (n + 0.5 * used)
    contribution = ((has + 0.5) / (n + 0.5 * used) - tables.share[scope, c, :used]) * gap
    found = [g for g in np.argsort(-contribution, kind="stable").tolist() if had[g] or has[g]]
    return tuple(
        BinEvidence(
            bin=_group_name(reference, order[group[order] == g].tolist()),
            expected=int(had[g]) / max(m, 1),
            observed=int(has[g]) / max(n, 1),
            contribution=float(contribution[g]),
        )
        for g in found[:BINS_SHOWN]
    )


def _group_name(reference: ColumnReference, codes: list[int]) -> str:
    if len(codes) == 1:
        return reference.bin_name(codes[0])
    if reference.kind == "categorical":
        return "rare values"
    inner = [code for code in codes if code < reference.n_bins]
    special = [reference.bin_name(code) for code in codes if code >= MISSING or not inner]
    return " or ".join([*([_range_name(reference, inner, codes)] if inner else []), *special])


def _range_name(reference: ColumnReference, inner: list[int], codes: list[int]) -> str:
    """The values of neighbouring bins, which end where the reference did unless what lies beyond is among them."""
    first, last = inner[0], inner[-1]
    if reference.kind == "binary":
        return " or ".join(map(str, inner))
    lower = None if BELOW in codes else reference.edges[first - 1] if first else reference.low
    upper = None if ABOVE in codes else reference.edges[last] if last < len(reference.edges) else reference.high
    if lower is None:
        return "any" if upper is None else f"<= {upper:.6g}"
    opens = "(" if first else "["
    if upper is None:
        return f"{'>' if first else '>='} {lower:.6g}"
    return f"{opens}{lower:.6g}, {upper:.6g}]"
