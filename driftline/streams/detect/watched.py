"""A panel as a model has it: its name, its place in the state, and what the stream side remembers of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from driftline.detectors.panel import Panel
from driftline.streams.detect.publish import PanelName

PREDICTIONS: Final = "predictions"
"""The ledger of a model's predictions."""
UNITS: Final = "units"
"""Where rings of units stand, in place of a panel's path."""


@dataclass(slots=True)
class WatchedPanel:
    """A panel with what the stream side remembers of it.

    Attributes
    ----------
    seen : rows so far, learning included; snapshots fall on its multiples.
    first_ms : event time of the first row, for the provisional time of a learned baseline.
    learned_here : the baseline came from these rows, not from a file.
    shown : rows of each scope at its last snapshot.
    compares : the file's baseline that its rows are held for; empty = it is watched, or learns.
    stirred : rows that a scope had when a series' open episode was last heard of, by scope and series (`relearning.py`).
    """

    name: PanelName
    panel: Panel
    seen: int = 0
    first_ms: int = -1
    learned_here: bool = True
    shown: list[int] = field(default_factory=list)
    compares: str = ""
    stirred: dict[tuple[int, str], int] = field(default_factory=dict)


def ledger_name(name: PanelName) -> str:
    """The ledger that a panel's rows belong to."""
    return PREDICTIONS if name.kind != "outcomes" else f"outcomes/{name.age_ms or ''}"


def panel_path(name: PanelName) -> str:
    """The panel's part of a blob's name; reversible and free of separators."""
    parts = [name.kind, quote(name.version or "", safe=""), "" if name.age_ms is None else str(name.age_ms)]
    return "~".join([*parts, str(name.part)] if name.part else parts)


def ring_of_units(ledger: str) -> str:
    """The ledger's part of a ring's name."""
    return quote(ledger, safe="")


def model_path(model: str) -> str:
    """The model's part of a blob's name."""
    return quote(model, safe="")


def segment_of(panel: Panel, scope: int) -> dict[str, str] | None:
    """The segment value of a scope; None = all rows."""
    named = panel.scope_names[scope]
    return None if named is None else {named[0]: named[1]}
