"""`after_change: {relearn_after: N}`: what has stayed for N values since a change is what is normal from then on.

A series whose e-detector has raised an alarm is followed against what it has been since (`detectors/post_change.py`): `N` counts the
values that were judged so without a further change. What is not followed (series without a budget, numbers that are judged by the
hour, blocks) counts the rows of its scope since anything was last heard of its episode (a detector speaks once in it): less is
known of whether it still moves, and what does is found against the new reference.

A reference is of a column, with all its series and segment values, and so is what is learned anew. All rows decide for a column where
they have an open episode of it, and segment values then follow: a value with one row in a hundred would hold the others up for a hundred
times as long. Where only segment values have some, each of those has to have stayed for N values of its own. The distribution decides
for the shares of values that are out of its range or unseen, which are often found later. An open fault
(`detectors/standing.py`) of any of its series keeps a column as it is. With a feature go its correlations and blocks, as with `accepted`;
they decide for themselves where none of their features has an open episode.

What is back in its band is about to end, and is waited for.

It is looked for at every tenth of the smallest N, counted in rows of the panel, so that columns which changed together are one part with
one reference (`parts.py`), and the cut of the stream does not show. What follows is what a restart with an edited `accepted` does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape
from typing import TYPE_CHECKING, Final

from driftline.detectors.panel import Panel
from driftline.detectors.spec import Column, Ended, PanelSpec, Signal
from driftline.detectors.standing import Standing
from driftline.schemas.after_change import Relearn
from driftline.schemas.config import Model
from driftline.streams.detect.parts import share_out, split_budget
from driftline.streams.detect.publish import RELEARNED, PanelName, RowContext, about_series, anchor_position
from driftline.streams.detect.watched import WatchedPanel, panel_path
from driftline.streams.task import Output

if TYPE_CHECKING:
    from driftline.streams.detect.model import WatchedModel

LOOKS: Final = 10
"""Looks in the smallest N: a reference is at most a tenth of it late, and what changed within as long is one part."""
LOOK_ROWS_LEAST: Final = 100

_log = logging.getLogger(__name__)
_HEARD: Final = -1
"""In place of rows: something was heard of the episode since the last look."""


@dataclass(frozen=True, slots=True)
class Stayed:
    """A column that is to be learned anew.

    Attributes
    ----------
    values : N.
    followed : whether these were judged; else rows of its scope.
    """

    values: int
    followed: bool


def look_every(model: Model) -> int:
    """Rows of a panel between looks; 0 = nothing is ever learned anew by itself."""
    said = (model.after_change, *(feature.after_change for feature in (model.features or {}).values()))
    least = min((one.relearn_after for one in said if isinstance(one, Relearn)), default=0)
    return max(least // LOOKS, LOOK_ROWS_LEAST) if least else 0


def hear(watched: WatchedPanel, signals: Iterable[Signal]) -> None:
    """Note of which episodes something was heard."""
    for signal in signals:
        if signal.kind in ("open", "evidence"):
            watched.stirred[signal.scope, signal.series] = _HEARD


def relearn(model: WatchedModel, name: PanelName, row: RowContext) -> list[Output]:
    """Look at the parts of a panel after a row, and let the columns that have stayed learn anew; what ends with it.

    Parameters
    ----------
    row : the last one they had.
    """
    parts = model.parts_of(name)
    standing: list[tuple[WatchedPanel, Standing]] = []
    for part in parts:
        own, stirred = part.panel.standing(), part.stirred
        since = [stirred.get((one.scope, one.series), _HEARD) for one in own]
        part.stirred = {(one.scope, one.series): one.rows if at == _HEARD else at for one, at in zip(own, since, strict=True)}
        standing += [(part, one) for one in own]
    made_of = _made_of(name, parts)
    stayed = _stayed(model, name, standing, made_of)
    return _begin_anew(model, name, stayed, made_of, row) if stayed else []


def _made_of(name: PanelName, parts: Sequence[WatchedPanel]) -> dict[str, tuple[str, ...]]:
    """The features that each correlation and block is made of."""
    if name.kind != "features":
        return {}
    return {column.name: column.factors for part in parts for column in _columns(part.panel) or () if column.factors}


def _stayed(
    model: WatchedModel, name: PanelName, standing: Sequence[tuple[WatchedPanel, Standing]], made_of: Mapping[str, Sequence[str]]
) -> dict[str, Stayed]:
    """The columns that are to be learned anew, by name."""
    by_column: dict[str, list[tuple[WatchedPanel, Standing]]] = {}
    for part, one in standing:
        by_column.setdefault(one.column, []).append((part, one))
    found = {}
    for column, own in by_column.items():
        values = model.plan.relearn_after(name.kind, column)
        of_feature = any(factor in by_column for factor in made_of.get(column, ()))
        if values is None or of_feature or any(one.fault for _, one in own):
            continue
        deciding = [(part, one) for part, one in own if one.scope == 0] or own
        deciding = [(part, one) for part, one in deciding if not one.of_values] or deciding
        if all(_since(part, one) >= values and not one.back for part, one in deciding):
            found[column] = Stayed(values, all(one.judged is not None for _, one in deciding))
    return found


def _since(part: WatchedPanel, one: Standing) -> int:
    """For how long nothing further was heard of an episode."""
    return one.rows - part.stirred[one.scope, one.series] if one.judged is None else one.judged


def _begin_anew(
    model: WatchedModel, name: PanelName, stayed: Mapping[str, Stayed], made_of: Mapping[str, Sequence[str]], row: RowContext
) -> list[Output]:
    """Take columns off the parts that have them, into one that learns; the ends of their episodes."""
    parts = model.parts_of(name)
    wanted = _explicit(model.plan.panel(name.kind, rank=model.rank(name)), parts)
    held = [replace(part.panel.spec, columns=_columns(part.panel)) for part in parts]
    reasons = _reasons(stayed, made_of)
    reset = {f"{name.kind}/{escape(column)}": reason for column, reason in reasons.items()}
    kept, begun = split_budget(*share_out(wanted, name.kind, held, reset), wanted)
    outputs: list[Output] = []
    left: list[WatchedPanel] = []
    for part, before, spec in zip(parts, held, kept, strict=True):
        outputs += _said(model, part, _go_on(part, before, spec, reasons), row)
        if spec is not None:
            left.append(part)
            continue
        model.taken |= {name.kind} if model.began_with_file(part) else set()
        model.dropped += [f"{panel_path(part.name)}/{stored}" for stored in part.panel.stored()]
    first, seen = max(part.name.part for part in parts) + 1, next(part.seen for part in parts if part.seen)
    for number, spec in enumerate(begun, first):
        # Rows go on being counted with those of the parts beside it: snapshots and looks fall on the same ones.
        left.append(WatchedPanel(replace(name, part=number), Panel(spec), seen, row.time_ms))
    model.put(name, left)
    # As with `accepted`: what is learned anew fits again.
    off = model.mismatched.pop((name.kind, name.age_ms), [])
    if still := [column for column in off if column not in reasons]:
        model.mismatched[name.kind, name.age_ms] = still
    _log.info("relearning model=%s panel=%s columns=%s part=%d", model.plan.name, panel_path(name), sorted(reasons), first)
    return outputs


def _go_on(part: WatchedPanel, before: PanelSpec, spec: PanelSpec | None, reasons: Mapping[str, str]) -> list[Ended]:
    """Let a part go on with what is left to it, or end all that it has."""
    if spec is None:
        return part.panel.end_all("", reasons)
    assert spec.columns is not None
    assert before.columns is not None
    if len(spec.columns) == len(before.columns) and spec.budget == before.budget:
        return []
    return part.panel.go_on_under(spec, reasons)


def _reasons(stayed: Mapping[str, Stayed], made_of: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Why the episodes of each column end, those of what is made of it included."""
    reasons = {column: _words(one) for column, one in stayed.items()}
    for column, factors in made_of.items():
        if of := [factor for factor in factors if factor in stayed]:
            reasons[column] = f'closed because its feature "{of[0]}" is learned anew (after_change), not because it recovered'
    return reasons


def _words(one: Stayed) -> str:
    what = "values without a further change" if one.followed else "rows without another alarm"
    return f"taken as what is normal after {one.values:,} {what} (after_change): the reference is learned anew"


def _columns(panel: Panel) -> tuple[Column, ...] | None:
    """The columns of a part; None while it discovers them."""
    return panel.spec.columns if panel.spec.columns is not None else panel.columns or None


def _explicit(wanted: PanelSpec, parts: Sequence[WatchedPanel]) -> PanelSpec:
    """What a panel is to watch with its columns by name, where they were discovered, in the order in which a restart has them."""
    if wanted.columns is not None:
        return wanted
    known = {column.name: column for part in parts for column in _columns(part.panel) or ()}
    plain = tuple(column for column in known.values() if not column.factors)
    return replace(wanted, columns=plain + tuple(pair for pair in wanted.pairs if pair.name in known))


def _said(model: WatchedModel, part: WatchedPanel, ended: Sequence[Ended], row: RowContext) -> list[Output]:
    out = []
    for one in ended:
        segment = None if one.segment is None else {one.segment[0]: one.segment[1]}
        about = about_series(model.plan.name, part.name, one.series, segment)
        opened = anchor_position(one.episode, model.sources)
        out.append(model.writer.removed(model.plan.name, part.name, one, row, about=about, opened=opened, detector=RELEARNED))
    return out
