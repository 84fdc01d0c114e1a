"""An alert in words and figures: its one-line summary and its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from driftline.schemas.events import DriftEvent, Effect
from driftline.streams.alert.state import Member

_STALE = "stale"
"""The detector of an event that ends an episode because no rows came; nothing is back then."""
_VERBS = {"up": "moved up", "down": "moved down", None: "changed"}


def summary_of(event: DriftEvent, *, resolved: bool) -> str:
    """One line, for example ``fraud: feature:amount in country=BR moved up (PSI 0.31; value 12.3, baseline 10.1, n 5,000)``."""
    where = f"{event.model}: {event.series}"
    if event.segment:
        where += " in " + ", ".join(f"{key}={value}" for key, value in sorted(event.segment.items()))
    if resolved and event.detector == _STALE:
        return f"{where}: {event.reason}"
    if resolved:
        return f"{where} is back in its band" + (f" ({event.reason})" if event.reason else "")
    if event.kind == "recovery":
        return f"{where}: one of several open episodes ended" + (f" ({event.reason})" if event.reason else "")
    figures = "; ".join(part for part in (_effect_words(event.effect), _levels(event)) if part)
    return f"{where} {_VERBS[event.direction]} ({figures})"


def _effect_words(effect: Effect | None) -> str:
    if effect is None:
        return ""
    if effect.kind == "psi":
        return f"PSI {effect.size:.3g}"
    if effect.kind == "mean":
        return f"{effect.size:.3g} baseline standard deviations"
    if effect.kind == "rate":
        return f"{effect.size:+.0%} against the baseline"
    return f"silent for {effect.size:.3g} s"


def _levels(event: DriftEvent) -> str:
    parts = []
    if event.value is not None:
        parts.append(f"value {event.value:.6g}")
    if event.baseline_value is not None:
        parts.append(f"baseline {event.baseline_value:.6g}")
    parts.append(f"n {event.n:,}")
    return ", ".join(parts)


def evidence_of(event: DriftEvent, members: Sequence[Member], before: dict[str, Any] | None) -> dict[str, Any]:
    """The figures behind the alert; a recovery keeps the last ones and adds its own level.

    `detectors` names every detector that has spoken in this episode with its last statistic and threshold.
    """
    detectors = dict(before.get("detectors", {})) if before else {}
    open_episodes = [msgspec.to_builtins(member) for member in members]
    if event.kind == "recovery" and before is not None:
        recovery = {"detector": event.detector, "reason": event.reason, "value": event.value, "n": event.n, "time_ms": event.time_ms}
        return {**before, "open_episodes": open_episodes, "recovery": recovery}
    detectors[event.detector] = {"statistic": event.statistic, "threshold": event.threshold, "time_ms": event.time_ms}
    return {
        "kind": event.kind,
        "version": event.version,
        "detector": event.detector,
        "statistic": event.statistic,
        "threshold": event.threshold,
        "value": event.value,
        "baseline_value": event.baseline_value,
        "effect": msgspec.to_builtins(event.effect),
        "direction": event.direction,
        "n": event.n,
        "window": event.window,
        "baseline": event.baseline,
        "provisional": event.provisional,
        "position": msgspec.to_builtins(event.position),
        "since": msgspec.to_builtins(event.since),
        "bins": msgspec.to_builtins(event.bins),
        "detectors": detectors,
        "open_episodes": open_episodes,
    }
