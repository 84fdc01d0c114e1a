"""What an alert is: a visible list of stages from a drift event to an alert record and a transition.

    decode -> fingerprint -> dedup -> episode -> severity -> record -> incident

A stage takes the work so far and returns it with its own part filled in, or a `Dropped` that says why nothing
changes. Nothing here reads a clock, Kafka or Redis: the state of an alert and its model's incidents come in, the next ones go out.
Routing, silences and receivers are further stages between `severity` and `record`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, cast, get_args

import msgspec
import orjson
from msgspec import structs

from driftline.schemas import contracts
from driftline.schemas.config import Config
from driftline.schemas.events import Alert, DriftEvent, Severity, Transition
from driftline.streams.alert.blame import RANK
from driftline.streams.alert.describe import evidence_of, figures_beside, figures_of, summary_of
from driftline.streams.alert.incidents import GATHER_MS, Attributed, attribute
from driftline.streams.alert.state import CLOSED_MAX, SEEN_MAX, AlertState, Book, IncidentState, Member, Source

Change = Literal["opened", "severity", "evidence", "resolved"]

_FINGERPRINT_CHARS = 32
Note = Literal["version_seen", "baseline", "baseline_mismatch", "version_shift"]
"""Events of which the history has a line, and nobody is told. A version shift that is critical is an alert all the same; the next
comparison, of whichever version, ends it, and is another where that one is critical too."""
NOTES: Final = frozenset(get_args(Note))


class PoisonEventError(ValueError):
    """The record is not a drift event; it belongs in the dead-letter topic."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """No alert changes; `reason` is a counter's label: duplicate, closed_episode, no_alert.

    Attributes
    ----------
    state : what is remembered of the event all the same.
    """

    reason: str
    state: AlertState | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What one drift event changes: at most one alert, one transition, and the incidents that the alert is in and has left.

    Attributes
    ----------
    book : the model's incidents, next; None where they stay as they are.
    """

    fingerprint: str
    state: AlertState | None = None
    alert: Alert | None = None
    transition: Transition | None = None
    book: Book | None = None
    incidents: tuple[IncidentState, ...] = ()
    dropped: str | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """A drift event on its way through the stages."""

    event: DriftEvent
    source: Source
    before: AlertState | None = None
    fingerprint: str = ""
    change: Change = "evidence"
    members: tuple[Member, ...] = ()
    closed: tuple[str, ...] = ()
    severity: Severity = "info"
    max_severity: Severity = "info"
    owners: Mapping[str, str] = field(default_factory=dict)

    @property
    def open_before(self) -> AlertState | None:
        """The state while its alert is firing; a resolved alert makes room for a new one."""
        if self.before is not None and self.before.alert.condition == "firing":
            return self.before
        return None


Stage = Callable[[Work], Work | Dropped]


def decode(value: bytes | None, headers: contracts.Headers | None) -> DriftEvent:
    """A drift event from a record's JSON and its CloudEvents headers.

    Raises
    ------
    PoisonEventError : not JSON, or not the contract; the message names the failing path.
    """
    try:
        event = contracts.decode("drift", value, headers)
    except contracts.ContractError as error:
        raise PoisonEventError(str(error)) from error
    assert isinstance(event, DriftEvent)
    return event


def fingerprint_of(event: DriftEvent) -> str:
    """32 hex of what the alert is about; never severity, value, window or version, or a resolve would miss its alert."""
    identity: dict[str, object] = {
        "environment": event.environment,
        "model": event.model,
        "monitor": event.monitor,
        "series": event.series,
        "segment": event.segment,
    }
    if event.age_ms is not None:
        # The same loss at another label age is another series.
        identity["age_ms"] = event.age_ms
    return hashlib.sha256(orjson.dumps(identity, option=orjson.OPT_SORT_KEYS)).hexdigest()[:_FINGERPRINT_CHARS]


def dedup(work: Work) -> Work | Dropped:
    """Drop what this alert has taken already: by offset after a restart, by id when the producer repeated itself."""
    before = work.before
    if before is None:
        return work
    if work.event.id in before.seen:
        return Dropped("duplicate")
    if before.source == work.source.key and work.source.offset <= before.offset:
        return Dropped("duplicate", _remembered(before, work.event))
    return work


def episode(work: Work) -> Work | Dropped:
    """Open an alert, join the open one, or resolve it when nothing is open under it any more."""
    event, current = work.event, work.open_before
    if work.before is not None and event.episode in work.before.closed:
        return Dropped("closed_episode")
    members = current.members if current is not None else ()
    known = next((member for member in members if member.episode == event.episode), None)
    others = tuple(member for member in members if member is not known)
    closed = work.before.closed if work.before is not None else ()
    if event.kind == "version_shift" and members:
        closed = (*closed, *(member.episode for member in members))[-CLOSED_MAX:]
        if event.severity != "critical":
            return replace(work, change="resolved", members=(), closed=closed)
        members, known = (), None
    if event.kind == "recovery":
        if known is None:
            return Dropped("no_alert")
        closed = (*closed, event.episode)[-CLOSED_MAX:]
        return replace(work, change="evidence" if others else "resolved", members=others, closed=closed)
    # evidence without its opening (cut away by retention) opens too: better a late start than a silent episode
    since_ms = known.since_ms if known else event.time_ms
    if event.since is not None:
        since_ms = min(since_ms, event.since.time_ms)
    loud = _severity(event)
    # Later evidence at the same severity is often weaker: what set the severity stays in front, until the series changes again.
    weaker = event.again is None and known is not None and bool(known.evidence) and known.severity == loud
    before = known.evidence if known is not None else {}
    kept = {name: before[name] for name in ("again",) if name in before}
    shown = before if weaker else {**kept, **figures_of(event), **figures_beside(event, before)}
    member = Member(episode=event.episode, version=event.version, severity=loud, since_ms=since_ms, evidence=shown)
    joined = tuple(member if other is known else other for other in members) if known else (*members, member)
    return replace(work, change="evidence" if current else "opened", members=joined, closed=closed)


def severity(work: Work) -> Work | Dropped:
    """The loudest open episode; an alert that resolves keeps its last one. The maximum is kept apart."""
    current = work.open_before
    if work.members:
        loudest = max((member.severity for member in work.members), key=RANK.__getitem__)
    else:
        assert current is not None, "only an open alert resolves"
        loudest = current.alert.severity
    highest = loudest if current is None else max(loudest, current.alert.max_severity, key=RANK.__getitem__)
    change = work.change
    if change == "evidence" and current is not None and loudest != current.alert.severity:
        change = "severity"
    return replace(work, severity=loudest, max_severity=highest, change=change)


STAGES: tuple[Stage, ...] = (dedup, episode, severity)
"""What runs between fingerprint (which finds the state) and record (which writes it)."""


class AlertPipeline:
    """The stages in order, for one environment's configuration.

    Parameters
    ----------
    owners : model name to owner, for those that have one.
    gather_ms : model name to how far apart the changes of one incident may begin.
    """

    def __init__(
        self, *, owners: Mapping[str, str] | None = None, gather_ms: Mapping[str, int] | None = None, stages: tuple[Stage, ...] = STAGES
    ) -> None:
        self._owners = dict(owners or {})
        self._gather_ms = dict(gather_ms or {})
        self._stages = stages

    @classmethod
    def of(cls, config: Config) -> AlertPipeline:
        """The pipeline of a configuration."""
        owners = {name: model.owner for name, model in config.models.items() if model.owner}
        return cls(owners=owners, gather_ms={name: model.gather for name, model in config.models.items()})

    def process(self, event: DriftEvent, source: Source, before: AlertState | None, book: Book | None = None) -> Decision:
        """What `event` changes; the same event again changes nothing.

        Parameters
        ----------
        before : the state of the alert with the event's fingerprint, None when there never was one.
        book : the incidents of its model, None when there never was one.
        """
        fires = before is not None and before.alert.condition == "firing"
        if event.kind in NOTES and not (event.kind == "version_shift" and (fires or event.severity == "critical")):
            return _note(event)
        fingerprint = fingerprint_of(event)
        work = Work(event=event, source=source, before=before, fingerprint=fingerprint, owners=self._owners)
        for stage in self._stages:
            done = stage(work)
            if isinstance(done, Dropped):
                return Decision(fingerprint, state=done.state, dropped=done.reason)
            work = done
        return self._with_incident(record(work), source, book or Book())

    def adopt(self, state: AlertState, book: Book) -> Attributed:
        """The incident of an open alert that is in none: from before there were incidents, or after their topic was lost."""
        return self._attributed(state.alert, Source.of(state), book, None)

    def _with_incident(self, decision: Decision, source: Source, book: Book) -> Decision:
        """The decision with the incident that the alert belongs to, and what becomes of that."""
        alert, state, transition = decision.alert, decision.state, decision.transition
        assert alert is not None
        assert state is not None
        assert transition is not None
        found = self._attributed(alert, source, book, transition.reason)
        alert = structs.replace(alert, incident=found.incident)
        return replace(
            decision,
            state=structs.replace(state, alert=alert),
            alert=alert,
            transition=structs.replace(transition, incident=found.incident),
            book=None if found.book == book else found.book,
            incidents=found.changed,
        )

    def _attributed(self, alert: Alert, source: Source, book: Book, reason: str | None) -> Attributed:
        return attribute(book, alert, source, reason=reason, gather_ms=self._gather_ms.get(alert.model, GATHER_MS))


def record(work: Work) -> Decision:
    """The alert's next state, its record and its transition."""
    event, current = work.event, work.open_before
    resolved = work.change == "resolved"
    starts_at_ms = min([member.since_ms for member in work.members] or [event.time_ms])
    if current is not None:
        starts_at_ms = min(starts_at_ms, current.alert.starts_at_ms)
    shown = _shown(work)
    near = event.near if current is None else current.alert.evidence.get("near")
    shown = {**shown, "near": msgspec.to_builtins(near)} if near is not None else shown
    alert = Alert(
        fingerprint=work.fingerprint,
        episode=current.alert.episode if current else event.episode,
        seq=current.alert.seq + 1 if current else 1,
        environment=event.environment,
        model=event.model,
        monitor=event.monitor,
        series=event.series,
        segment=event.segment,
        condition="resolved" if resolved else "firing",
        severity=work.severity,
        max_severity=work.max_severity,
        starts_at_ms=starts_at_ms,
        detected_at_ms=current.alert.detected_at_ms if current else event.time_ms,
        ends_at_ms=event.time_ms if resolved else None,
        observed_at_ms=event.record_time_ms,
        owner=work.owners.get(event.model),
        summary=summary_of(event, shown, resolved=resolved),
        evidence=evidence_of(event, work.members, shown, current.alert.evidence if current else None),
        historical=_historical(event, current),
    )
    seen = (*(work.before.seen if work.before else ()), event.id)[-SEEN_MAX:]
    state = AlertState(
        alert=alert, members=work.members, closed=work.closed, seen=seen, source=work.source.key, offset=work.source.offset
    )
    return Decision(work.fingerprint, state=state, alert=alert, transition=_transition(work, alert))


def _remembered(before: AlertState, event: DriftEvent) -> AlertState:
    """A store that was filled from the alerts topic knows each alert, not what led to it: the drift topic, read again, tells."""
    ended = event.kind == "recovery" and all(member.episode != event.episode for member in before.members)
    closed = (*before.closed, event.episode)[-CLOSED_MAX:] if ended and event.episode not in before.closed else before.closed
    return structs.replace(before, seen=(*before.seen, event.id)[-SEEN_MAX:], closed=closed)


def _shown(work: Work) -> Mapping[str, object]:
    """The figures that set the alert's severity; those of the first episode where several are as loud, none once all ended."""
    loudest = next((member for member in work.members if member.severity == work.severity), None)
    if loudest is None:
        return {}
    return loudest.evidence or (work.open_before.alert.evidence if work.open_before is not None else {})


def _transition(work: Work, alert: Alert) -> Transition:
    current = work.open_before
    return Transition(
        fingerprint=alert.fingerprint,
        episode=alert.episode,
        seq=alert.seq,
        model=alert.model,
        change=work.change,
        from_severity=current.alert.severity if current else None,
        severity=alert.severity,
        condition=alert.condition,
        reason=work.event.reason,
        time_ms=work.event.time_ms,
        drift_event=work.event.id,
    )


def _note(event: DriftEvent) -> Decision:
    """A new version, a new baseline, one that did not fit: a line in the history, no alert. Its own id is its episode."""
    fingerprint = fingerprint_of(event)
    transition = Transition(
        fingerprint=fingerprint,
        episode=event.id,
        seq=1,
        model=event.model,
        change=cast(Note, event.kind),
        from_severity=None,
        severity="info",
        condition=None,
        reason=event.reason or event.version,
        time_ms=event.time_ms,
        drift_event=event.id,
    )
    return Decision(fingerprint, transition=transition)


def _severity(event: DriftEvent) -> Severity:
    # a provisional baseline has not seen a whole day yet: nobody is woken by it (SEMANTICS 5)
    return "info" if event.provisional else event.severity


def _historical(event: DriftEvent, current: AlertState | None) -> bool:
    """An alert stays historical until live evidence joins it; a live recovery alone wakes nobody."""
    if current is None:
        return event.historical
    return current.alert.historical and (event.historical or event.kind == "recovery")
