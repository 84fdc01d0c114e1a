"""Which panel of a model holds what, after edits: a reference is never extended, so what is new learns one of its own.

At first a model's features, for example, are one panel: columns, segment keys, one baseline. A feature or a segment key
that is added later is another panel beside it, a *part*, with rows, windows and baseline of its own. Each (column, segment
key) is in one part only; all rows together count as a key too, called None here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from driftline.detectors.openers import E_DETECTOR
from driftline.detectors.spec import Column, PanelSpec
from driftline.detectors.tolerances import WHOLE_SHARE
from driftline.schemas.effects import edited
from driftline.schemas.stream_series import INVALID_ROWS
from driftline.streams.observation import Observations


def share_out(
    wanted: PanelSpec, kind: str, held: Sequence[PanelSpec], reset: Mapping[str, str]
) -> tuple[list[PanelSpec | None], list[PanelSpec]]:
    """What each part that is there goes on with (None = it has nothing left), and the parts that begin.

    Parameters
    ----------
    held : what the parts were made with.
    reset : see `effects.reset_by`.
    """
    kept = [_kept(wanted, kind, one, reset) for one in held]
    going_on = [spec for spec in kept if spec is not None]
    if any(spec.columns is None for spec in going_on):
        # Still discovering its columns: whatever comes is its own.
        return kept, []
    known: dict[str, Column] = {}
    covered: dict[str, set[str | None]] = {}
    for spec in going_on:
        for column in spec.columns or ():
            known[column.name] = column
            covered.setdefault(column.name, set()).update(_keys(spec))
    if wanted.columns is None and not known:
        return kept, [wanted]
    lacking: dict[frozenset[str | None], list[Column]] = {}
    # A pair that was asked for when columns were discovered, and is none of them, is not of numbers.
    tried = {pair.name for one, spec in zip(held, kept, strict=True) if spec is not None for pair in one.pairs}
    discovered = (*known.values(), *(pair for pair in wanted.pairs if pair.name not in known.keys() | tried))
    for column in discovered if wanted.columns is None else wanted.columns:
        # A block is watched over all rows alone.
        keys: set[str | None] = {None} if column.joint else _keys(wanted)
        if lack := frozenset(keys - covered.get(column.name, set())):
            lacking.setdefault(lack, []).append(column)
    begun = [
        replace(
            wanted,
            columns=tuple(columns),
            segments={key: most for key, most in wanted.segments.items() if key in lack},
            whole=None in lack,
        )
        for lack, columns in lacking.items()
    ]
    return kept, begun


def split_budget(
    kept: Sequence[PanelSpec | None], begun: Sequence[PanelSpec], wanted: PanelSpec
) -> tuple[list[PanelSpec | None], list[PanelSpec]]:
    """What `share_out` has found, the parts with one panel's budget between them.

    Each column has as much of it as in one panel: half for all rows and half for the segment keys, as many series as it
    has. An edit that adds a part lowers the others' as it would lower those of a panel that had it from the beginning.
    """
    budget = wanted.budget
    if budget is None:
        return list(kept), list(begun)
    weights = [_weight(spec, wanted) for spec in (*kept, *begun) if spec is not None]
    total = sum(weights)

    def own(spec: PanelSpec) -> PanelSpec:
        share = _weight(spec, wanted) / total if total else 1.0 / len(weights)
        return replace(spec, budget=replace(budget, per_unit=budget.per_unit * share))

    return [None if spec is None else own(spec) for spec in kept], [own(spec) for spec in begun]


def _weight(spec: PanelSpec, wanted: PanelSpec) -> float:
    if spec.columns is None:
        # It will have whatever comes, and is alone.
        return 1.0
    series = sum(detector.name == E_DETECTOR for column in spec.columns for one in column.series for detector in one.detectors)
    whole = WHOLE_SHARE if wanted.segments else 1.0
    keys = (1.0 - whole) * len(spec.segments) / max(len(wanted.segments), 1)
    return series * (whole * spec.whole + keys)


def _kept(wanted: PanelSpec, kind: str, held: PanelSpec, reset: Mapping[str, str]) -> PanelSpec | None:
    keys = {key: most for key, most in wanted.segments.items() if key in held.segments and edited(reset, f"segment/{key}") is None}
    if held.columns is None:
        # The rows it has hold whatever was sent; they must hold the segment keys too.
        whole = len(keys) == len(wanted.segments) and not any(glob.startswith(f"{kind}/") for glob in reset)
        return wanted if whole else None
    known = {(column.name, column.kind, column.tails) for column in held.columns}
    columns = wanted.columns
    if columns is None:
        assert wanted.column_factory is not None
        columns = tuple(wanted.column_factory(column.name, column.kind) for column in held.columns if not column.factors) + wanted.pairs
    columns = tuple(c for c in columns if (c.name, c.kind, c.tails) in known and edited(reset, f"{kind}/{c.name}") is None)
    if not columns or not (keys or held.whole):
        return None
    return replace(wanted, columns=columns, segments=keys, whole=held.whole)


def _keys(spec: PanelSpec) -> set[str | None]:
    return {*spec.segments, *([None] if spec.whole else [])}


def begins(spec: PanelSpec, kind: str, batch: Observations) -> bool:
    """Whether rows of this batch are what a part that was added can learn from.

    Rows that ingest wrote before it knew of a feature or a segment key lack it: learned from, they would look like rows in
    which it is missing. Those from before a vector's length was edited have one of another length, and would look invalid.
    """
    if not spec.whole and not any(key in batch.segments for key in spec.segments):
        return False
    if kind != "features" or spec.columns is None:
        return True
    # Of a pair, both: what is learned from rows with one of them alone is nothing.
    own = [(column.factors or (column.name,), column.width) for column in spec.columns if column.name != INVALID_ROWS]
    there = {*batch.numeric_names, *batch.categorical, *batch.vectors}
    widths = {name: vector.shape[1] for name, vector in batch.vectors.items()}
    return not own or any(there.issuperset(names) and width in (0, widths.get(names[0])) for names, width in own)


def reasons_of(spec: PanelSpec, kind: str, reset: Mapping[str, str]) -> dict[str, str]:
    """Why episodes end with an edit that gives their series another meaning, by column and by ``segment/key``."""
    named = {column.name: f"{kind}/{column.name}" for column in spec.columns or ()}
    named |= {f"segment/{key}": f"segment/{key}" for key in spec.segments}
    places = {name: edited(reset, what) for name, what in named.items()}
    return {name: f"closed because {place} was edited, not because it recovered" for name, place in places.items() if place is not None}
