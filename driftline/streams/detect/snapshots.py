"""How the series of a model stand, every so many rows: one record a panel, and one a segment value in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from driftline.streams.detect.comparing import hold_rows
from driftline.streams.detect.publish import PanelName, RowContext
from driftline.streams.detect.watched import WatchedPanel, segment_of
from driftline.streams.task import Output

if TYPE_CHECKING:
    from driftline.streams.detect.model import WatchedModel

LEARNING_SNAPSHOT_EVERY: Final = 500


def snapshot_every(model: WatchedModel, watched: WatchedPanel) -> int:
    """Learning is shown more often: it costs nothing and a person waits for it."""
    every = model.plan.model.snapshot_every
    return every if watched.panel.baseline is not None else min(every, LEARNING_SNAPSHOT_EVERY)


def snapshots(model: WatchedModel, watched: WatchedPanel, parts: Sequence[WatchedPanel], row: RowContext) -> Iterator[Output]:
    """One for all rows, and one for each segment value that had `snapshot_every` rows of its own since its last.

    Parts make one picture: the first that has a segment value speaks for the others too.
    """
    panel, plan = watched.panel, model.plan
    if panel.baseline is None:
        if len(parts) == 1:
            learns = hold_rows(plan.model) if panel.held else None
            yield model.writer.snapshot(
                plan, watched.name, row, [], segment=None, state="learning", rows=panel.learned, baseline=watched.compares or None,
                learns=learns, mismatched=_mismatched(model, watched.name),
            )  # fmt: skip
        return
    watched.shown += [0] * (len(panel.scope_names) - len(watched.shown))
    ready = [part.panel for part in parts if part.panel.baseline is not None]
    places = [one.shown_scopes() for one in ready]
    for scope, shown in enumerate(watched.shown):
        rows = panel.scope_rows(scope)
        if scope and rows - shown < plan.model.snapshot_every:
            continue
        named = panel.scope_names[scope]
        sharing = [(one, place[named]) for one, place in zip(ready, places, strict=True) if named in place]
        if not sharing or sharing[0][0] is not panel:
            continue
        watched.shown[scope] = rows
        levels = [level for one, place in sharing for level in one.levels(place)]
        about, baseline, seen = segment_of(panel, scope), panel.baseline.id, watched.seen if scope == 0 else rows
        yield model.writer.snapshot(
            plan, watched.name, row, levels, segment=about, state="watching", rows=seen, baseline=baseline,
            mismatched=[] if scope else _mismatched(model, watched.name),
        )  # fmt: skip


def _mismatched(model: WatchedModel, name: PanelName) -> list[str]:
    return model.mismatched.get((name.kind, name.age_ms), [])
