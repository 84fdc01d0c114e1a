"""A model's state opened under the configuration of now: what was not edited goes on, what is gone ends and says so.

The state says itself what it was made with, so that an edit is seen in full, whoever made it and whenever. What an edit
of each key does stands in `driftline.schemas.effects`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from driftline.detectors.panel import Panel
from driftline.detectors.panel_carry import TAKEN_OVER, UNWATCHED
from driftline.detectors.spec import Anchor, Ended, PanelSpec, RingState, Severity
from driftline.schemas.effects import edited, reset_by
from driftline.schemas.events import Position
from driftline.schemas.stream_series import FRESHNESS, JOIN_RATE, VOLUME
from driftline.streams.detect.comparing import fits, open_panel, resume
from driftline.streams.detect.health import StreamHealth
from driftline.streams.detect.held import HeldModel, HeldPanel
from driftline.streams.detect.join_rate import JoinRate
from driftline.streams.detect.ledger import Ledger
from driftline.streams.detect.model import WatchedModel
from driftline.streams.detect.parts import reasons_of, share_out, split_budget
from driftline.streams.detect.plan import PanelKind
from driftline.streams.detect.publish import PanelName, about_series, anchor_position
from driftline.streams.detect.relearning import look_every
from driftline.streams.detect.sources import SourceTable
from driftline.streams.detect.units import Units
from driftline.streams.detect.watched import PREDICTIONS, UNITS, WatchedPanel, ledger_name, panel_path, ring_of_units
from driftline.streams.task import Output

_log = logging.getLogger(__name__)

Blobs = Mapping[str, bytes]
Rings = Mapping[str, RingState]


def reopen(model: WatchedModel, meta: Mapping[str, Any], state_of: Callable[[str], tuple[Blobs, Rings]]) -> list[Output]:
    """Go on from `WatchedModel.export_meta` and the panels' blobs; what is to be published of the edits since.

    Parameters
    ----------
    state_of : a panel's path to its blobs and rings.

    Raises
    ------
    ValueError : damaged, or of another release.
    """
    held = msgspec.convert(meta, HeldModel)
    model.sources, model.rebuilt = SourceTable(held.sources), model.rebuilt or held.rebuilt
    model.health = StreamHealth.restore(model.plan.model.freshness, held.health)
    model.ledgers = {name: Ledger.restore(ledger) for name, ledger in held.ledgers.items()}
    model.health_opened = {series: Position(*position) for series, position in held.health_opened.items()}
    model.taken = {kind for kind, file in model.baselines.items() if held.taken.get(kind) == file.id}
    _units(model, held, state_of(UNITS)[1])
    reset = reset_by(held.settings, model.plan.settings)
    for kind, age_ms, columns in held.mismatched:
        if left := [column for column in columns if edited(reset, f"{kind}/{column}") is None]:
            model.mismatched[kind, age_ms] = left
    groups: dict[PanelName, list[HeldPanel]] = {}
    for panel in held.panels:
        groups.setdefault(PanelName(panel.kind, panel.version, panel.age_ms), []).append(panel)
    outputs: list[Output] = []
    for name, panels in groups.items():
        outputs += _Group(model, name, panels, state_of).open(held.settings)
    outputs += _stream_series(model, held.owners)
    outputs += _joins(model, held)
    _forget_sources(model)
    return outputs


def _units(model: WatchedModel, held: HeldModel, rings: Rings) -> None:
    """What is remembered of units, unless the model has none any more."""
    if model.plan.model.unit is None:
        model.dropped += [] if model.plan.gone else [f"{UNITS}/{name}" for name in rings]
        return
    for ledger, one in held.units.items():
        ring = rings.get(ring_of_units(ledger))
        model.units[ledger] = Units.restore(model.plan.model, one, b"" if ring is None else ring.rows)


class _Group:
    """The parts of one panel."""

    def __init__(self, model: WatchedModel, name: PanelName, held: Sequence[HeldPanel], state_of: Callable[[str], tuple[Blobs, Rings]]):
        self._model = model
        self._name = name
        self._held = [_watched(replace(name, part=one.part), one) for one in held]
        self._found = {watched.name: state_of(one.path) for watched, one in zip(self._held, held, strict=True)}

    def open(self, settings_before: Mapping[str, Any]) -> list[Output]:
        plan, name = self._model.plan, self._name
        wanted = plan.panel(name.kind, rank=self._model.rank(name))
        made_with = [Panel.made_with(wanted, self._found[watched.name][0]) for watched in self._held]
        if why := plan.left_out(name.kind, name.age_ms):
            return [o for watched, spec in zip(self._held, made_with, strict=True) for o in self._leave(watched, spec, why)]
        reset = reset_by(settings_before, plan.settings)
        kept, begun = split_budget(*share_out(wanted, name.kind, made_with, reset), wanted)
        outputs = []
        for watched, made, spec in zip(self._held, made_with, kept, strict=True):
            outputs += self._go_on(watched, made, spec, reasons_of(made, name.kind, reset))
        first = max(watched.name.part for watched in self._held) + 1
        for part, spec in enumerate(begun, first):
            self._begin(replace(name, part=part), spec, accepted=_accepted(spec, name.kind, reset))
        return outputs

    def _go_on(self, watched: WatchedPanel, before: PanelSpec, spec: PanelSpec | None, reasons: Mapping[str, str]) -> list[Output]:
        blobs, rings = self._found[watched.name]
        if spec is None:
            # Not of the model any more; `_begin` still asks which reference it had.
            watched.panel = Panel.restore(before, blobs, rings)
            self._model.taken |= {watched.name.kind} if self._model.began_with_file(watched) else set()
            self._model.dropped += [f"{panel_path(watched.name)}/{name}" for name in (*blobs, *rings)]
            _log.info("panel_removed model=%s panel=%s", self._model.plan.name, panel_path(watched.name))
            return self._said(watched, watched.panel.end_all(UNWATCHED, reasons))
        watched.panel = Panel.restore(spec, blobs, rings, reasons=reasons)
        if len(watched.shown) > len(watched.panel.scope_names) or before.segments.keys() != spec.segments.keys():
            # By scope number; the next snapshot of each comes early.
            watched.shown, watched.stirred = [], {}
        if not look_every(self._model.plan.model):
            # What is heard of episodes from now on is not noted.
            watched.stirred = {}
        resume(self._model, watched)
        self._model.warn_of_unused(watched.name, watched.panel)
        self._model.add(watched)
        return self._said(watched, watched.panel.ended())

    def _leave(self, watched: WatchedPanel, before: PanelSpec, why: str) -> list[Output]:
        """Keep a panel as it stood, for the day on which its model or age is back."""
        watched.panel = Panel.restore(before, *self._found[watched.name])
        self._model.add(watched)
        return self._said(watched, watched.panel.end_all(why))

    def _begin(self, name: PanelName, spec: PanelSpec, *, accepted: bool) -> None:
        """A part of its own for what is new; its reference from the file if that has all of it and this panel's came from there.

        Parameters
        ----------
        accepted : it is new because what it is like now is accepted: then another file than was used before may also take the place of
            what was learned.
        """
        baseline = self._model.baselines.get(name.kind)
        if baseline is not None:
            held = any(watched.panel.baseline is not None and watched.panel.baseline.id == baseline.id for watched in self._held)
            known = name.kind in self._model.taken if accepted else all(watched.learned_here for watched in self._held)
            if held or not fits(spec, baseline) or known:
                baseline = None
        self._model.add(open_panel(self._model, name, spec, baseline))
        columns_named = None if spec.columns is None else [column.name for column in spec.columns]
        _log.info(
            "panel_begun model=%s panel=%s columns=%s segments=%s all_rows=%s",
            self._model.plan.name, panel_path(name), columns_named, list(spec.segments), spec.whole,
        )  # fmt: skip

    def _said(self, watched: WatchedPanel, ended: Sequence[Ended]) -> list[Output]:
        out = []
        for one in ended:
            segment = None if one.segment is None else {one.segment[0]: one.segment[1]}
            about = about_series(self._model.plan.name, watched.name, one.series, segment)
            out += removed(self._model, watched.name, one, about, anchor_position(one.episode, self._model.sources))
        return out


def _accepted(spec: PanelSpec, kind: PanelKind, reset: Mapping[str, str]) -> bool:
    """Whether every column of a part begins anew because of an edited ``accepted``; of one that discovers them, all there were."""
    names = [""] if spec.columns is None else [column.name for column in spec.columns]
    places = [edited(reset, f"{kind}/{name}") for name in names]
    return bool(places) and all(place is not None and place.endswith(".accepted") for place in places)


def _watched(name: PanelName, held: HeldPanel) -> WatchedPanel:
    """What is remembered of a panel; the panel itself is still to be opened."""
    stirred = {(scope, series): rows for scope, series, rows in held.stirred}
    return WatchedPanel(name, Panel(PanelSpec(columns=())), held.seen, held.first_ms, held.learned_here, held.shown, held.compares, stirred)


def removed(
    model: WatchedModel, panel: PanelName | None, ended: Ended, about: tuple[str | int | None, ...], opened: Position
) -> list[Output]:
    """The event, at the last row of the ledger; nothing where there never was a row."""
    ledger = model.ledgers.get(PREDICTIONS if panel is None else ledger_name(panel))
    if ledger is None or ledger.last is None:
        return []
    model.writer.rebuilt = model.rebuilt or ledger.rebuilt
    return [model.writer.removed(model.plan.name, panel, ended, ledger.last, about=about, opened=opened)]


def _stream_series(model: WatchedModel, owners: Mapping[str, str]) -> list[Output]:
    """End what is open of freshness and volume where nobody watches it any more, or somebody else does."""
    health, out = model.health, []
    for series, open_ in ((FRESHNESS, health.silent), (VOLUME, health.volume_open)):
        off = series == FRESHNESS and health.freshness_ms is None
        if not open_ or (why := _gone(model, series, owners, off=off)) is None:
            continue
        if series == FRESHNESS:
            health.silent = False
        else:
            health.volume_open = False
        opened = model.health_opened.pop(series, None)
        if opened is not None and series in owners:
            out += removed(model, None, _ended(series, owners[series], why, "critical"), (model.plan.name, series), opened)
    return out


def _joins(model: WatchedModel, before: HeldModel) -> list[Output]:
    opened = {PanelName(kind, version, age): Position(*position) for kind, version, age, position in before.joins_opened}
    owners = before.owners
    out: list[Output] = []
    for kind, version, age_ms, held in before.joins:
        name = PanelName(kind, version, age_ms)
        limits = None if model.plan.left_out(kind, age_ms) else model.join_limits(age_ms)
        why = _gone(model, JOIN_RATE, owners, off=limits is None)
        if held.get("open") and why is not None and JOIN_RATE in owners:
            about = (model.plan.name, version, age_ms, JOIN_RATE)
            if (position := opened.pop(name, None)) is not None:
                out += removed(model, name, _ended(JOIN_RATE, owners[JOIN_RATE], why, "warning"), about, position)
            held = {**held, "open": False, "told": False}
        if limits is not None:
            model.joins[name] = JoinRate.restore(*limits, held)
    model.joins_opened = {name: position for name, position in opened.items() if name in model.joins}
    return out


def _gone(model: WatchedModel, series: str, owners: Mapping[str, str], *, off: bool) -> str | None:
    """Why an open episode of a stream series ends; None = it does not."""
    monitor = model.plan.monitor_of(series)
    if model.plan.gone or off or monitor is None:
        return model.plan.gone or UNWATCHED
    return TAKEN_OVER.format(owner=monitor.id) if owners.get(series, monitor.id) != monitor.id else None


def _ended(series: str, owner: str, reason: str, severity: Severity) -> Ended:
    return Ended(series, None, owner, severity, 0, Anchor(0, 0, 0, True), reason)


def _forget_sources(model: WatchedModel) -> None:
    """A topic that is no longer read would hold up the time of every ledger for ever."""
    if model.plan.topics is None:
        return
    gone = {number for number, (topic, _) in enumerate(model.sources) if topic not in model.plan.topics}
    for ledger in model.ledgers.values():
        ledger.forget(gone)
    model.health.reached = {source: ms for source, ms in model.health.reached.items() if source not in gone}
