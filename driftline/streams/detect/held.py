"""What detect keeps of a model beside the blobs of its panels, with types and bounds."""

from __future__ import annotations

from typing import Any

import msgspec

from driftline.streams.bounded import Count, Signed64
from driftline.streams.detect.plan import PanelKind
from driftline.streams.detect.units import HeldUnits

_Place = tuple[str, Count, Count]


class HeldPanel(msgspec.Struct, array_like=True):
    """A panel; its blobs stand under `path`.

    Attributes
    ----------
    stirred : scope, series and rows of `WatchedPanel.stirred`.
    """

    path: str
    kind: PanelKind
    version: str | None
    age_ms: Count | None
    seen: Count
    first_ms: Signed64
    learned_here: bool
    shown: list[Count]
    part: Count = 0
    compares: str = ""
    stirred: list[tuple[Count, str, Signed64]] = []


class HeldModel(msgspec.Struct):
    """`WatchedModel.export_meta` as a checkpoint holds it.

    Attributes
    ----------
    settings : what decided the meaning of its series, by place in the configuration; see `driftline.schemas.effects`.
    owners : the monitors of series that no panel has.
    sources : what numbers of sources in it mean; `rebuilt` as of the task it was made in.
    units : by ledger, where the model has a unit.
    taken : ids of the file's baselines that a panel began with, by kind; of the file that is configured.
    mismatched : panel kind, age and columns that learn here because the file's baseline did not fit.
    parked : it is configured no more, and its open episodes have ended.
    """

    panels: list[HeldPanel]
    health: dict[str, Any]
    ledgers: dict[str, dict[str, Any]]
    health_opened: dict[str, _Place]
    joins: list[tuple[PanelKind, str | None, Count | None, dict[str, Any]]] = []
    joins_opened: list[tuple[PanelKind, str | None, Count | None, _Place]] = []
    settings: dict[str, Any] = {}
    owners: dict[str, str] = {}
    units: dict[str, HeldUnits] = {}
    sources: list[tuple[str, Count]] = []
    rebuilt: bool = False
    taken: dict[str, str] = {}
    mismatched: list[tuple[PanelKind, Count | None, list[str]]] = []
    parked: bool = False


class HeldTask(msgspec.Struct):
    """A detect task.

    Attributes
    ----------
    sources : of version 1, where all models shared one table; since then each has its own.
    sequence, generations : of each upstream task, the last batch and the life it is of.
    models : `HeldModel` of each.
    """

    sequence: dict[str, Count]
    models: dict[str, dict[str, Any]]
    sources: list[tuple[str, Count]] = []
    generations: dict[str, Count] = {}
    rebuilt: bool = False
    live_since_ms: Count = 0
