"""A panel: everything that is watched of one model, for all rows and for each segment value.

Batch cuts change nothing: `update` over any cut of the stream gives the same signals and the same state, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from driftline.detectors.baseline import Baseline
from driftline.detectors.spec import Column, Level, PanelRows, PanelSpec, RingState, Signal


class Panel:
    """Columns, scopes, windows, detectors and episodes.

    Attributes
    ----------
    rows : rows of scope 0 since the baseline stands.
    learned : learning rows absorbed so far.
    baseline : None while learning.
    columns : in the order that `Signal.column` indexes; empty while a panel with discovered columns learns.
    scope_names : (segment key, value) of each scope; entry 0 is None, all rows.
    """

    rows: int
    learned: int
    baseline: Baseline | None
    columns: tuple[Column, ...]
    scope_names: list[tuple[str, str] | None]

    def __init__(self, spec: PanelSpec, baseline: Baseline | None = None) -> None:
        raise NotImplementedError

    def update(self, rows: PanelRows) -> list[Signal]:
        """Take rows in stream order; the signals are in order of row, scope, column, series, detector.

        While there is no baseline rows are learned from; it is built from exactly the first `learn_rows` rows, a
        ``baseline`` signal marks the last of them, and what follows goes to the detectors.
        """
        raise NotImplementedError

    def levels(self, scope: int) -> list[Level]:
        """Every series of a scope as it stands; empty while learning."""
        raise NotImplementedError

    def export(self) -> tuple[dict[str, bytes | None], list[RingState]]:
        """What changed since the last call: blobs to write (None = drop) and ring rows to append."""
        raise NotImplementedError

    @classmethod
    def restore(cls, spec: PanelSpec, blobs: Mapping[str, bytes], rings: Mapping[str, RingState]) -> Panel:
        """The panel as it stood at those exports; goes on to the bit as if it had never stopped.

        `rings` maps a name to anything with the fields of RingState whose `rows` are the last `min(head, window)`
        records, oldest first.

        Raises
        ------
        StateError : damaged, of a newer version, or of another specification.
        """
        raise NotImplementedError
