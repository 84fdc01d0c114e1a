"""Two comparisons that are asked once: of a baseline file with the first live rows, of a new version with the one before.

A reference from a file is compared before anything is judged by it.

Training data is often sampled, filtered or prepared otherwise than what is live: judged by it, every feature drifts at the first row.
So a panel that begins with a file's reference holds its rows until `hold_rows` of them are there, or its rows span `HOLD_MS`. Then all
panels of the ledger are compared, as one question. What agrees is watched against the file from there on. What does not is said in one
event, and its columns learn a reference of their own (a part of the panel, see `parts.py`), from the rows that were held on.

A further version learns scores and outcomes of its own, so that no detector compares it with the version before. Its first rows
are compared with that one's window instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from driftline.detectors.baseline import Baseline
from driftline.detectors.compare import ROWS_LEAST, Difference, looks
from driftline.detectors.layout import lay_out
from driftline.detectors.panel import Panel
from driftline.detectors.spec import PanelSpec
from driftline.schemas.config import Model
from driftline.schemas.topics import DAY_MS
from driftline.streams.detect.ledger import Feed
from driftline.streams.detect.parts import split_budget
from driftline.streams.detect.publish import PanelName, RowContext
from driftline.streams.detect.watched import WatchedPanel, ledger_name
from driftline.streams.task import Output

if TYPE_CHECKING:
    from driftline.streams.detect.model import WatchedModel

HOLD_ROWS: Final = 1_000
"""A mean is known to .03 sd, a rate of 10 % to a tenth of itself: enough for what counts (.1 sd), and minutes of most streams."""

HOLD_MS: Final = DAY_MS
"""Event time that rows are held for: a model of a hundred rows a day is not to be without a watch for ten days."""

Mismatched = dict[tuple[str, int | None], list[str]]
"""Panel kind and age -> the columns that learned their reference here because the file's did not fit."""


def hold_rows(model: Model) -> int:
    """Rows that a reference from a file is compared with."""
    return max(min(model.window, HOLD_ROWS), ROWS_LEAST)


def open_panel(model: WatchedModel, name: PanelName, spec: PanelSpec, baseline: Baseline | None) -> WatchedPanel:
    """A panel that learns, or with a reference from a file holds its first rows.

    Raises
    ------
    SpecError : the file's reference does not fit the specification.
    """
    if baseline is None:
        return WatchedPanel(name, Panel(spec))
    if not model.plan.model.baseline.compare:
        return WatchedPanel(name, Panel(spec, baseline), learned_here=False)
    lay_out(spec, baseline)
    watched = WatchedPanel(name, Panel(spec), learned_here=False, compares=baseline.id)
    watched.panel.held = True
    return watched


def resume(model: WatchedModel, watched: WatchedPanel) -> None:
    """Go on with a panel that was held at the last checkpoint, under the file and the setting of now.

    Raises
    ------
    SpecError : the file has a column of another kind.
    """
    if not watched.compares:
        return
    file = model.baselines.get(watched.name.kind)
    if file is None or not fits(watched.panel.spec, file):
        # What was held is what it now learns from.
        watched.compares, watched.learned_here = "", True
    elif model.plan.model.baseline.compare:
        lay_out(watched.panel.spec, file)
        watched.compares, watched.panel.held = file.id, True
    else:
        watched.compares = ""
        watched.panel.begin(watched.panel.spec, file)


def fits(spec: PanelSpec, baseline: Baseline) -> bool:
    """Whether a file has every column and segment key that a panel watches; what it lacks would not be watched."""
    columns = None if spec.columns is None else [baseline.column(column.name) for column in spec.columns]
    return (columns is None or (bool(columns) and None not in columns)) and spec.segments.keys() <= baseline.segments.keys()


def version_rows(model: Model) -> int:
    """Rows of a further version that are compared with the version before: no more than it learns from; 0 = too few to compare any."""
    rows = min(hold_rows(model), model.baseline.learn)
    return rows if rows >= ROWS_LEAST else 0


def next_cut(model: WatchedModel, feeds: Sequence[Feed], start: int, stop: int) -> int:
    """The row before which a piece of a batch ends, since a comparison is due after the one before it; `stop` = none is."""
    cut = _next_hold(model, feeds, start, stop) if model.baselines else stop
    for feed in feeds:
        if feed.name.version:
            first, last = feed.within(start, cut)
            need = version_rows(model.plan.model) - sum(part.seen for part in model.parts_of(feed.name)[:1])
            if 0 < need <= last - first:
                cut = feed.place(first + need - 1) + 1
    return cut


def compare_versions(model: WatchedModel, feeds: Sequence[Feed], start: int, stop: int, row: RowContext) -> list[Output]:
    """Compare a version that has just had its first rows with the version before it, once; where there is one.

    Parameters
    ----------
    start, stop : of the piece of the batch that was worked on, `row` its last row.
    """
    out = []
    for feed in feeds:
        first, last = feed.within(start, stop)
        parts = model.parts_of(feed.name)[:1] if feed.name.version and last > first else []
        for watched in parts:
            if watched.seen != version_rows(model.plan.model) or watched.panel.held or watched.name.part:
                continue
            if (old := _version_before(model, watched)) is not None:
                found, n = _shift(model, watched, old)
                out.append(model.writer.version_shift(model.plan, watched.name, row, found, n=watched.seen, old=old.version or "", old_n=n))
    return out


def _version_before(model: WatchedModel, watched: WatchedPanel) -> PanelName | None:
    """The version that came last before another and had rows enough."""
    about, found = watched.name, None
    for name, one in model.panels.items():
        if name == about:
            break
        if (name.kind, name.age_ms) == (about.kind, about.age_ms) and not name.part and name.version and one.seen >= ROWS_LEAST:
            found = name
    return found


def _shift(model: WatchedModel, watched: WatchedPanel, old: PanelName) -> tuple[list[Difference], int]:
    """What the rows of a version differ in from the window of another, and how many rows that has."""
    references = [recent for part in model.parts_of(old) if (recent := part.panel.recent()) is not None]
    total = sum(looks(watched.panel.spec, reference) for reference in references)
    found = [one for reference in references for one in watched.panel.compare(reference, total)]
    return found, max((reference.rows for reference in references), default=0)


def _next_hold(model: WatchedModel, feeds: Sequence[Feed], start: int, stop: int) -> int:
    """The place after the first row of a piece with which a comparison is due in some panel; `stop` = none is."""
    for feed in feeds:
        first, last = feed.within(start, stop)
        held = [part for part in model.parts_of(feed.name) if part.panel.held]
        if first == last or not (held or model.opens_held(feed.name)):
            continue
        need = max(hold_rows(model.plan.model) - max((part.panel.learned for part in held), default=0), 1)
        time_ms = feed.rows.time_ms[first:last]
        since_ms = min((part.first_ms if part.seen else int(time_ms[0]) for part in held), default=int(time_ms[0]))
        late = np.flatnonzero(time_ms[: need - 1] - since_ms >= HOLD_MS)
        need = int(late[0]) + 1 if len(late) else need
        if need <= last - first:
            stop = feed.place(first + need - 1) + 1
    return stop


def settle(model: WatchedModel, ledger: str, feeds: Sequence[Feed], start: int, stop: int, row: RowContext) -> list[Output]:
    """Compare what is held in a ledger, once it is due with a row of its own; one event where anything differs.

    Parameters
    ----------
    start, stop : of the piece of the batch that was worked on, `row` its last row.
    """
    if not model.baselines:
        return []
    enough, late = _due(model, feeds, start, stop)
    if not (enough or late):
        return []
    ready = [
        watched for name, watched in model.panels.items()
        if watched.panel.held and ledger_name(name) == ledger and watched.panel.learned >= ROWS_LEAST
    ]  # fmt: skip
    for watched in late:
        if watched.panel.learned < ROWS_LEAST:
            # A day of them tells nothing that is worth a word, and the next may not either.
            _begin(model, watched, model.baselines[watched.name.kind], set())
    total = sum(looks(watched.panel.spec, model.baselines[watched.name.kind]) for watched in ready)
    found: list[Difference] = []
    rows = max((watched.panel.learned for watched in ready), default=0)
    for watched in ready:
        baseline = model.baselines[watched.name.kind]
        differing = watched.panel.compare(baseline, total)
        found += differing
        _begin(model, watched, baseline, {one.column for one in differing})
    if not found:
        return []
    return [model.writer.mismatch(model.plan, ready[0].name, row, found, n=rows, baseline=model.baselines[ready[0].name.kind].id)]


def _due(model: WatchedModel, feeds: Sequence[Feed], start: int, stop: int) -> tuple[bool, list[WatchedPanel]]:
    """Whether a panel with rows in a piece of the batch has all that it holds, and those that have held them for `HOLD_MS`."""
    enough, late = False, []
    for feed in feeds:
        first, last = feed.within(start, stop)
        for watched in model.parts_of(feed.name) if last > first else ():
            if watched.panel.held and watched.panel.learned:
                enough = enough or watched.panel.learned >= hold_rows(model.plan.model)
                late += [watched] if int(feed.rows.time_ms[last - 1]) - watched.first_ms >= HOLD_MS else []
    return enough, late


def _begin(model: WatchedModel, watched: WatchedPanel, baseline: Baseline, off: set[str]) -> None:
    """Watch against the file what agrees with it, and let the columns `off` learn."""
    panel, name = watched.panel, watched.name
    model.taken.add(name.kind)
    watched.compares = ""
    if not off:
        panel.begin(panel.spec, baseline)
        return
    columns = lay_out(panel.spec, baseline).columns
    # Features that do not fit make a joint reference of them unfit as well.
    off = off | {column.name for column in columns if column.joint and not off.isdisjoint(column.factors)}
    model.mismatched.setdefault((name.kind, name.age_ms), []).extend(column.name for column in columns if column.name in off)
    if off == {column.name for column in columns}:
        panel.held, watched.learned_here = False, True
        return
    kept = replace(panel.spec, columns=tuple(column for column in columns if column.name not in off))
    learns = replace(panel.spec, columns=tuple(column for column in columns if column.name in off))
    parts = model.parts_of(name)
    specs = [kept if part is watched else part.panel.spec for part in parts]
    shared, begun = split_budget(specs, [learns], model.plan.panel(name.kind))
    own = shared[parts.index(watched)]
    assert own is not None
    part = replace(name, part=max(one.name.part for one in parts) + 1)
    model.add(WatchedPanel(part, panel.part(begun[0]), watched.seen, watched.first_ms))
    panel.begin(own, baseline)
