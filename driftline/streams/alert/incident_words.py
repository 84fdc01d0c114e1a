"""An incident in one line, for whoever is on call."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from msgspec import structs

from driftline.schemas.contracts import near_words, rfc3339_ms
from driftline.schemas.events import Blamed, Incident
from driftline.schemas.stream_series import INVALID_ROWS, JOIN_RATE, VOLUME
from driftline.schemas.units import percent, span
from driftline.streams.alert.blame import size_in_sd
from driftline.streams.alert.stream_words import SHARES

_NAMED_MAX: Final = 3
"""So many features are named, more are counted."""
_FEATURE: Final = frozenset({"feature", "quality"})
_SHORT: Final = frozenset({"outcome", "stream"})
"""Groups whose series are known by their last name: log_loss, freshness."""


def summary_of_incident(incident: Incident) -> str:
    """One line, for example::

    fraud: 12 features, score and log_loss changed since 2026-01-31 10:42:10 UTC (+- 3 min), largest amount +1.2 sd in country=NL
    """
    firing = [one for one in incident.blamed if one.condition == "firing"]
    since = f"since {_moment(incident.starts_at_ms)} (+- {span(incident.uncertain_ms)})"
    if not firing:
        why = "" if incident.reason is None else f": {incident.reason}"
        return f"{incident.model}: over after {span(incident.duration_ms or 0)}, {_who(incident.blamed)} had changed {since}{why}"
    largest = max(firing, key=lambda one: (size_in_sd(one), one.fingerprint))
    where = f" in {_where(largest.segment)}" if largest.segment else ""
    alike = all(one.segment == largest.segment for one in firing)
    # Of a series that is in no earlier incident any more: since then, it had changed before.
    again = all(one.changed_at_ms is not None and one.changed_at_ms <= incident.starts_at_ms + incident.uncertain_ms for one in firing)
    told = f"{incident.model}{where if alike else ''}: {_who(firing)} changed {'again ' if again else ''}{since}"
    size = _sized(largest)
    if size:
        told += f", largest {size}{'' if alike else where}"
    later = [one for one in firing if one.changed_at_ms is not None and one.changed_at_ms > incident.starts_at_ms + incident.uncertain_ms]
    if later:
        told += f"; {_who(later)} changed again, last since {_moment(max(one.changed_at_ms or 0 for one in later))}"
    if all(one.cause == "traffic_mix" for one in firing):
        told += "; the mix of segments moved, nothing within them"
    near = max((one.near for one in firing if one.near is not None), key=lambda one: one.time_ms, default=None)
    if near is not None:
        told += f"; {near_words(near.version, near.time_ms)}"
    if incident.hint == "suspected_concept":
        told += "; no feature changed with it"
    return told


def _who(blamed: Sequence[Blamed]) -> str:
    """Features, counted where they are many, then the other series."""
    every = {one.series for one in blamed}   # once each, however many segment values it has
    features = _features(every)
    others = sorted({_name(series) for series in every if _group(series) not in _FEATURE})
    named = features if len(features) <= _NAMED_MAX else [f"{len(features)} features"]
    if len(others) > _NAMED_MAX:
        others = [*others[:_NAMED_MAX], f"{len(others) - _NAMED_MAX} more"]
    words = [*named, *others]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _features(every: Collection[str]) -> list[str]:
    """Each feature once, with what is wrong with its values where that is what changed: ``amount (missing)``."""
    faults: dict[str, set[str]] = {_name(series): set() for series in every if _group(series) in _FEATURE}
    for series in every:
        if fault := _fault(series):
            faults[_name(series)].add(fault)
    own = {_name(series) for series in every if _group(series) == "feature"}
    told = {name: f"{'also ' if name in own else ''}{', '.join(sorted(found))}" for name, found in faults.items() if found}
    return [f"{name} ({told[name]})" if name in told else name for name in sorted(faults)]


def _fault(series: str) -> str:
    """What a series of a feature's faults is about; empty for another series."""
    return series.rpartition(":")[2].replace("_", " ") if _group(series) == "quality" else ""


def _group(series: str) -> str:
    return series.partition(":")[0]


def _name(series: str) -> str:
    group, _, rest = series.partition(":")
    if series == INVALID_ROWS:
        return "invalid rows"
    if group == "quality":
        return rest.rpartition(":")[0] or rest
    return rest if rest and (group == "feature" or group in _SHORT) else series


def _where(segment: Mapping[str, str] | None) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted((segment or {}).items()))


def _sized(one: Blamed) -> str:
    """What changed and by how much: ``amount +1.2 sd``, ``28 % of amount missing instead of 0 %``; empty for an unknown size.

    Of a line with both, the window's figure and the one since the change: ``amount +0.2 sd over its window, +1.2 sd since the change``.
    """
    found, told = one.since_change, _sized_by(one)
    if found is None or not told:
        return told
    share = bool(_fault(one.series)) or one.series in SHARES
    level = found.value if found.effect is not None and found.effect.kind == "rate" else None
    size = _size(structs.replace(one, effect=found.effect, value=None)) if level is None else percent(level) if share else f"{level:.3g}"
    return f"{told} over its window, {size} since the change" if size else told


def _sized_by(one: Blamed) -> str:
    now, base = one.value, one.baseline_value
    fault, name = _fault(one.series), _name(one.series)
    if one.effect is not None and one.effect.kind == "rate" and now is not None and base is not None:
        if one.series in SHARES:
            return f"{name} {percent(now)} instead of {percent(base)}"
        if fault:
            return f"{percent(now)} of {name} {fault} instead of {percent(base)}"
    if one.series == VOLUME and now is not None:
        return f"{name} {now:.3g} times what was expected"
    if one.series == JOIN_RATE and now is not None:
        return f"{name} {percent(now)}"
    size = _size(one)
    return f"{name}{f' {fault}' if fault else ''} {size}" if size else ""


def _size(one: Blamed) -> str:
    if one.effect is None:
        return ""
    if one.effect.kind == "mean":
        return f"{one.effect.size:+.2g} sd"
    if one.effect.kind == "mmd":
        return f"by {one.effect.size:.2g} jointly"
    if one.effect.kind == "psi":
        return f"PSI {one.effect.size:.2g}"
    if one.effect.kind == "silence":
        return f"silent for {span(one.effect.size * 1_000)}"
    if one.value is None or one.baseline_value is None:
        return f"{one.effect.size:+.0%}"
    return f"{one.value:.3g} instead of {one.baseline_value:.3g}"


def _moment(time_ms: int) -> str:
    return rfc3339_ms(time_ms)[:19].replace("T", " ") + " UTC"
