"""An alert in words and figures: its one-line summary and its evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from driftline.detectors.explained import mix_words
from driftline.detectors.openers import E_DETECTOR
from driftline.schemas.contracts import near_words
from driftline.schemas.events import DriftEvent
from driftline.schemas.units import level_words
from driftline.streams.alert.state import Member
from driftline.streams.alert.stream_words import said_whole, stream_words

_NOT_BACK: Final = frozenset({"stale", "removed", "relearned"})
"""The detectors of events that end an episode because no rows came, because nothing watches it, or because what has stayed is taken as
what is normal; nothing is back then."""
_TOLERANCE: Final = 1e-6
_POINTS_WHOLE: Final = 10.0
"""From so many on percentage points are told without decimals."""
_OF_WINDOW: Final = "severity"
"""The detector of a step of severity: its figures are of the whole window, in which the rows since the change may be few."""
_OF_LEVEL: Final = (
    "detector", "value", "baseline_value", "median", "baseline_median", "pair_correlation", "baseline_correlation", "effect", "n", "bins",
    "since", "time_ms",
)  # fmt: skip
"""What is kept of the figures since the change beside those of a whole window."""
_VERBS = {"up": "moved up", "down": "moved down", None: "changed"}


def summary_of(event: DriftEvent, shown: Mapping[str, Any], *, resolved: bool) -> str:
    """One line, for example ``fraud: feature:amount in country=BR moved up (PSI 0.31; median 12.3, baseline 10.1, n 5,000)``.

    Parameters
    ----------
    shown : figures of the event that set the alert's severity: what came last may be far weaker.
    """
    where = f"{event.model}: {event.series}"
    if event.segment:
        where += " in " + ", ".join(f"{key}={value}" for key, value in sorted(event.segment.items()))
    if event.kind == "version_shift":
        return f"{where}: {event.reason}"
    if resolved and event.detector in _NOT_BACK:
        return f"{where}: {event.reason}"
    if resolved:
        return f"{where} is back in its band" + (f" ({event.reason})" if event.reason else "")
    size = "" if said_whole(event.series) else _effect_words(shown)
    figures = "; ".join(part for part in (size, _levels(event.series, shown), _since_words(event.series, shown)) if part)
    told = f"{where} {_VERBS[_side_of(shown)]} ({figures}){_again_words(event.series, shown)}"
    told += _cause_words(shown)
    if (near := shown.get("near")) is not None:
        told += f"; {near_words(near['version'], near['time_ms'])}"
    if event.kind == "recovery":
        told += "; one of several open episodes ended" + (f" ({event.reason})" if event.reason else "")
    return told


def _side_of(shown: Mapping[str, Any]) -> str | None:
    """The side a series moved to; None where an e-detector found another spread or other shares: their mean goes either way."""
    psi = shown["effect"] is not None and shown["effect"]["kind"] == "psi"
    return None if psi and shown.get("detector") == E_DETECTOR else shown["direction"]


def _cause_words(shown: Mapping[str, Any]) -> str:
    traffic = shown.get("traffic")
    if shown.get("cause") != "traffic_mix" or traffic is None:
        return ""
    moved = [(one["segment"][traffic["by"]], one["expected"], one["observed"]) for one in traffic["moved"]]
    return f": {mix_words(traffic['by'], moved)}"


def _again_words(series: str, shown: Mapping[str, Any]) -> str:
    """What the figures are against beside the baseline, where they are of a further change."""
    again = shown.get("again")
    if again is None:
        return ""
    before = ((again["median_before"], "median"), (again["correlation_before"], "correlation"), (again["value_before"], "value"))
    name, level = next((name, level) for level, name in before if level is not None)
    # Sized by its own words: a rate's share is of the level before.
    size = _effect_words({**shown, "effect": again["effect"], "value": None}).removesuffix(" against the baseline")
    return f", changed again by {size} from {name} {level_words(series, level) if name == 'median' else f'{level:.6g}'}"


def _effect_words(shown: Mapping[str, Any]) -> str:
    effect = shown["effect"]
    if effect is None:
        return ""
    size = effect["size"]
    if effect["kind"] == "psi":
        return f"PSI {size:.3g}"
    if effect["kind"] == "mean":
        return f"{size:.3g} baseline standard deviations"
    if effect["kind"] == "mmd":
        return f"joint distance {size:.3g}"
    if effect["kind"] == "rate":
        value, base = shown["value"], shown["baseline_value"]
        if value is not None and base is not None and abs(base * (1 + size) - value) > _TOLERANCE * abs(value - base):
            # Sized against the floor for small baseline rates: a percentage of the rate itself would be no such number.
            points = 100 * (value - base)
            return f"{points:+.0f} percentage points" if abs(points) >= _POINTS_WHOLE else f"{points:+.2g} percentage points"
        return f"{size:+.0%} against the baseline"
    return f"silent for {size:.3g} s"


def _levels(series: str, shown: Mapping[str, Any]) -> str:
    if (told := stream_words(series, shown)) and said_whole(series):
        return told
    rows = f"over the last {shown['n']:,} values" if shown.get("detector") == _OF_WINDOW else f"n {shown['n']:,}"
    return ", ".join(part for part in (told or _in_own_unit(shown) or _as_judged(shown), rows) if part)


def _since_words(series: str, shown: Mapping[str, Any]) -> str:
    """The level since the change, as it was when that was found, where the other figures are of a whole window."""
    found = shown.get("since_change")
    if found is None:
        return ""
    # Of a distribution no level is one number: its size then.
    size = _effect_words(found) if found["effect"] is not None and found["effect"]["kind"] == "psi" else ""
    return f"since the change, when it was found: {', '.join(part for part in (size, _levels(series, found)) if part)}"


def _in_own_unit(shown: Mapping[str, Any]) -> str:
    """The median of what the series holds, the correlation of a pair, or a block's features that are most unlike the baseline's; else
    the share of the bin that moved most.

    That is a category, or what lies beyond the baseline. Empty for rates and times, whose value is in their own unit, and for events
    that say neither.
    """
    if shown["effect"] is not None and shown["effect"]["kind"] == "mmd":
        return ", ".join(f"{found['bin']} {found['observed']:.2g} against {found['expected']:.2g} sd" for found in shown["bins"])
    if shown["effect"] is None or shown["effect"]["kind"] not in ("psi", "mean"):
        return ""
    for name, of_baseline in (("median", "baseline_median"), ("pair_correlation", "baseline_correlation")):
        now, base = shown.get(name), shown.get(of_baseline)
        if now is not None and base is not None:
            return f"{name.removeprefix('pair_')} {now:.6g}, baseline {base:.6g}"
    for found in shown["bins"][:1]:
        return f"{found['bin']} in {100 * found['observed']:.3g} % of rows, baseline {100 * found['expected']:.3g} %"
    return ""


def _as_judged(shown: Mapping[str, Any]) -> str:
    if shown["effect"] is not None and shown["effect"]["kind"] == "mmd":
        return ""   # it is the distance that has been told already
    named = (("value", shown["value"]), ("baseline", shown["baseline_value"]))
    return ", ".join(f"{name} {level:.6g}" for name, level in named if level is not None)


def figures_of(event: DriftEvent) -> dict[str, Any]:
    """What an event measured, as plain values."""
    return {
        "kind": event.kind,
        "version": event.version,
        "detector": event.detector,
        "statistic": event.statistic,
        "threshold": event.threshold,
        "value": event.value,
        "baseline_value": event.baseline_value,
        "median": event.median,
        "baseline_median": event.baseline_median,
        "pair_correlation": event.pair_correlation,
        "baseline_correlation": event.baseline_correlation,
        "effect": msgspec.to_builtins(event.effect),
        "cause": event.cause,
        "traffic": msgspec.to_builtins(event.traffic),
        "differences": msgspec.to_builtins(event.differences),
        "direction": event.direction,
        "severity": event.severity,
        "n": event.n,
        "window": event.window,
        "baseline": event.baseline,
        "provisional": event.provisional,
        "state": event.state,
        "suspended": msgspec.to_builtins(event.suspended),
        "position": msgspec.to_builtins(event.position),
        "since": msgspec.to_builtins(event.since),
        "bins": msgspec.to_builtins(event.bins),
        "statistics": msgspec.to_builtins(event.statistics),
        "time_ms": event.time_ms,
        **({} if event.again is None else {"again": _again_of(event)}),
    }


def figures_beside(event: DriftEvent, before: Mapping[str, Any]) -> dict[str, Any]:
    """The figures since the change, beside those of a step of severity; nothing beside others.

    Parameters
    ----------
    before : the figures that the step takes the place of.
    """
    if event.detector != _OF_WINDOW:
        return {}
    if (found := before.get("since_change")) is None and before.get("since") is not None:
        found = {name: before[name] for name in _OF_LEVEL if name in before}
    return {} if found is None else {"since_change": found}


def _again_of(event: DriftEvent) -> dict[str, Any]:
    """A further change with its date, which later evidence has none of."""
    began_ms = event.time_ms if event.since is None else event.since.time_ms
    return {**msgspec.to_builtins(event.again), "since_ms": began_ms, "seen_ms": event.time_ms}


def evidence_of(event: DriftEvent, members: Sequence[Member], shown: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """The figures behind the alert; a recovery keeps the last ones and adds its own level.

    At the top stand the figures that set the alert's severity, under `last` those that came last. `detectors` names every
    detector that has spoken in this episode with its last statistic and threshold.
    """
    held = dict(before or {})
    if shown:
        held.pop("since_change", None)   # of figures that others have taken the place of
    held["open_episodes"] = [msgspec.to_builtins(member) for member in members]
    if event.kind == "recovery" and before is not None:
        recovery = {"detector": event.detector, "reason": event.reason, "value": event.value, "n": event.n, "time_ms": event.time_ms}
        return {**held, **shown, "recovery": recovery}
    said = {"statistic": event.statistic, "threshold": event.threshold, "time_ms": event.time_ms}
    held["detectors"] = {**held.get("detectors", {}), event.detector: said}
    return {**held, **shown, "last": figures_of(event)}
