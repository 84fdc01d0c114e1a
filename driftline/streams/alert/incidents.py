"""Which alerts are one incident: those of a model whose changes began together, whenever they were found.

A change of fifty features is found in the strongest first, in the weakest an hour later and in the outcomes when labels
come. So it is not arrival that counts but the date of each change. A date is uncertain by the interval that its event has, or by a
share of the time the change took to be found: the weaker it is, the later it is found and the worse it is dated. An alert joins
the open incident of its model whose start is within the model's `gather` time of its own, beside what both dates may be off by. Of
several it is the one that has the alert's series, over all rows or until a moment ago, else the nearest. Where there is none it opens one,
even if another is open: a step that stays must not hide the next one.

The same holds of a further change of a series whose alert is firing: where it clearly began later than the incident its alert is in,
the alert leaves that for the one of the new date. Who is paged when an incident opens then hears of it; what is left behind ends
with its last alert.

All drift events of a model stand on one partition of the drift topic, so its incidents change in one order. Nothing here
reads a clock, Kafka or Redis.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
import orjson
from msgspec import structs

from driftline.schemas.events import Alert, Blamed, Incident, Since
from driftline.streams.alert.blame import RANK, blamed_of, place_of
from driftline.streams.alert.incident_words import summary_of_incident
from driftline.streams.alert.state import Book, IncidentState, Source

GATHER_MS: Final = 300_000
"""Of a model that the configuration no longer has."""
LISTED_MAX: Final = 20
"""Alerts in a published record: a group message is read by a person, and a record is sent at every change."""
_ID_CHARS: Final = 32
_ANSWERS: Final = frozenset({"score", "decision", "class", "class_share", "confidence", "entropy"})
"""Series of what the model answers, by the first part of their name."""
_DATE_PARTS: Final = 2
"""A date is off by at most one part in so many of the time from the change to its detection.

Both grow with 1 / shift^2; measured in docs/quality.md, the half interval of a date is a tenth to a third of the delay.
"""


@dataclass(frozen=True, slots=True)
class Attributed:
    """Where an alert belongs.

    Attributes
    ----------
    incident : its id.
    book : of the model, next.
    changed : the incidents where a reader sees others than before: it, and the one that it has left.
    """

    incident: str
    book: Book
    changed: tuple[IncidentState, ...]


@dataclass(frozen=True, slots=True)
class _Change:
    """An alert as an incident sees it: its line, and its last change.

    Attributes
    ----------
    began_ms, uncertain_ms : when that began, and how far off that may be.
    seen_ms : when it was detected.
    """

    alert: Alert
    line: Blamed
    began_ms: int
    uncertain_ms: int
    seen_ms: int


def book_key(environment: str, model: str) -> str:
    """The name of a model's book."""
    return orjson.dumps([environment, model]).decode()


def attribute(book: Book, alert: Alert, source: Source, *, reason: str | None, gather_ms: int) -> Attributed:
    """The incident of an alert that has just changed, and what the change does to it.

    Parameters
    ----------
    source : the drift event behind the change.
    reason : why the alert resolved, if it did.
    """
    return _attribute(book, _change_of(alert, gather_ms), source, reason, gather_ms)


def listed(incident: Incident) -> Incident:
    """The incident as it is published: with the first of its alerts."""
    shown = incident.blamed[:LISTED_MAX]
    return structs.replace(incident, blamed=shown, more=incident.alerts - len(shown))


def _change_of(alert: Alert, gather_ms: int) -> _Change:
    """What has changed last; a detector that dates nothing knows when it saw it."""
    line = blamed_of(alert)
    seen_ms = alert.detected_at_ms if line.changed_at_ms is None else int(alert.evidence["again"]["seen_ms"])
    began_ms, uncertain_ms = seen_ms, gather_ms
    if line.changed_at_ms is not None:
        began_ms = line.changed_at_ms
        uncertain_ms = (seen_ms - began_ms) // _DATE_PARTS if began_ms < seen_ms else gather_ms
    elif alert.evidence.get("since") is not None:
        began_ms = alert.starts_at_ms
        uncertain_ms = max(0, seen_ms - began_ms) // _DATE_PARTS
    within_ms = _interval_ms(alert, began_ms)
    return _Change(alert, line, began_ms, uncertain_ms if within_ms is None else within_ms, seen_ms)


def _interval_ms(alert: Alert, began_ms: int) -> int | None:
    """How far off a date may be by its own interval; None where its detector has none, or it is of another event."""
    try:
        since = msgspec.convert(alert.evidence.get("since"), Since | None)
    except msgspec.ValidationError:
        return None
    if since is None or since.time_ms != began_ms or since.earliest_ms is None or since.latest_ms is None:
        return None
    return max(began_ms - since.earliest_ms, since.latest_ms - began_ms, 0)


def _attribute(book: Book, now: _Change, source: Source, reason: str | None, gather_ms: int) -> Attributed:
    held = next((state for state in book.incidents if _line(state.incident, now) is not None), None)
    if held is not None and _leaves(held.incident, now, gather_ms):
        return _moved(book, held, now, source, gather_ms)
    found = held or _nearest(book, now, source, gather_ms)
    if found is None:
        state = IncidentState(incident=_opened(now), source=source.key, offset=source.offset)
        return Attributed(state.incident.id, _with_state(book, state, source), (state,))
    before = found.incident
    if _counted(found, source):
        # The store was filled from topics that have the incident from after this event: its figures hold, its list may lack it.
        state = structs.replace(found, incident=structs.replace(before, blamed=_with_alert(before.blamed, now.line)))
        return Attributed(before.id, _with_state(book, state, source), ())
    after = _next(before, now, reason, joins=held is None)
    if after == before:
        return Attributed(before.id, book, ())
    return _changed(book, after, before, now, source)


def _changed(book: Book, after: Incident, before: Incident, now: _Change, source: Source) -> Attributed:
    """The book with an incident's next record."""
    after = structs.replace(after, seq=before.seq + 1, observed_at_ms=max(before.observed_at_ms, now.alert.observed_at_ms))
    state = IncidentState(incident=after, source=source.key, offset=source.offset)
    return Attributed(after.id, _with_state(book, state, source), (state,))


def _line(incident: Incident, now: _Change) -> Blamed | None:
    """The line of an alert; one that it has left is not its own."""
    for one in incident.blamed:
        same = one.fingerprint == now.alert.fingerprint and one.episode == now.alert.episode
        if same and (one.condition == "firing" or one.changes == now.line.changes):
            return one
    return None


def _leaves(incident: Incident, now: _Change, gather_ms: int) -> bool:
    """Whether an alert's series has just changed again, clearly later than the incident began."""
    line = _line(incident, now)
    if line is None or now.line.changes <= line.changes or now.alert.condition != "firing":
        return False
    return now.began_ms - incident.starts_at_ms - incident.uncertain_ms - now.uncertain_ms > gather_ms


def _moved(book: Book, held: IncidentState, now: _Change, source: Source, gather_ms: int) -> Attributed:
    """The incident of an alert's further change, and what is left of the one it was in."""
    others = Book(incidents=tuple(state for state in book.incidents if state is not held))
    found = _attribute(others, now, source, None, gather_ms)
    before, line = held.incident, _line(held.incident, now)
    assert line is not None
    gone = structs.replace(line, condition="resolved", ends_at_ms=max(now.began_ms, line.detected_at_ms))
    blamed = _with_alert(before.blamed, gone)
    rest = Book(incidents=(*found.book.incidents, held))
    if _counted(held, source):
        left = structs.replace(held, incident=structs.replace(before, blamed=blamed))
        return Attributed(found.incident, _with_state(rest, left, source), found.changed)
    after = _with_lines(before, blamed, f"its last alert has changed again and is in incident {found.incident}")
    behind = _changed(rest, after, before, now, source)
    return Attributed(found.incident, behind.book, (*found.changed, *behind.changed))


def _counted(state: IncidentState, source: Source) -> bool:
    return state.source == source.key and source.offset <= state.offset


def _nearest(book: Book, now: _Change, source: Source, gather_ms: int) -> IncidentState | None:
    """The incident that the alert is part of; else the one whose start is nearest to the alert's.

    Dates that may be off tell nothing of two incidents within both; there the starts as they are dated count, then the younger one.
    """
    near = []
    for state in book.incidents:
        incident = state.incident
        part = _is_part(incident, now.alert, now.began_ms - now.uncertain_ms - gather_ms)
        apart = abs(now.began_ms - incident.starts_at_ms)
        beyond = max(apart - incident.uncertain_ms - now.uncertain_ms, 0)
        if (part or beyond <= gather_ms) and (incident.condition == "firing" or _counted(state, source)):
            near.append((not part, beyond, apart, -incident.starts_at_ms, incident.id, state))
    return min(near, key=lambda one: one[:5])[5] if near else None


def _is_part(incident: Incident, alert: Alert, ended_after_ms: int) -> bool:
    """Whether the incident has the alert's change already, whatever their dates say."""
    for one in incident.blamed:
        if one.fingerprint == alert.fingerprint and one.ends_at_ms is not None and one.ends_at_ms >= ended_after_ms:
            # A series about the edge of its band comes and goes; soon after its end it is the same change still.
            return True
        if alert.segment is not None and one.segment is None and one.series == alert.series and one.condition == "firing":
            # A part of what is known as a whole: small segments are found one after the other, each dated by its last stretch.
            return True
    return False


def _opened(now: _Change) -> Incident:
    alert = now.alert
    identity: list[Any] = [alert.environment, alert.model, "incident", alert.fingerprint, alert.episode]
    identity += [now.line.changes] if now.line.changes > 1 else []
    empty = Incident(
        id=hashlib.sha256(orjson.dumps(identity)).hexdigest()[:_ID_CHARS], seq=1, environment=alert.environment, model=alert.model,
        condition="firing", severity=alert.severity, max_severity=alert.max_severity, hint=None, starts_at_ms=now.began_ms,
        uncertain_ms=now.uncertain_ms, detected_at_ms=now.seen_ms, ends_at_ms=None, duration_ms=None,
        observed_at_ms=alert.observed_at_ms, reason=None, owner=alert.owner, summary="", alerts=0, firing=0, blamed=[], more=0,
        historical=alert.historical,
    )  # fmt: skip
    return _next(empty, now, None, joins=False)


def _next(before: Incident, now: _Change, reason: str | None, *, joins: bool) -> Incident:
    """The incident with the alert as it is now; `seq` and `observed_at_ms` stay.

    Parameters
    ----------
    joins : it was not in it; a better date than the incident's becomes its own.
    """
    began, uncertain = before.starts_at_ms, before.uncertain_ms
    # No change begins after it was first seen, however sure of it an alert is that was found a moment after its own date.
    if joins and now.uncertain_ms < uncertain and now.began_ms <= before.detected_at_ms:
        began, uncertain = now.began_ms, now.uncertain_ms
    after = structs.replace(
        before,
        starts_at_ms=began,
        uncertain_ms=uncertain,
        alerts=before.alerts + all(one.fingerprint != now.alert.fingerprint for one in before.blamed),
        historical=before.historical and now.alert.historical,
    )
    return _with_lines(after, _with_alert(before.blamed, now.line), reason)


def _with_lines(before: Incident, blamed: list[Blamed], reason: str | None) -> Incident:
    """The incident with these lines."""
    firing = [one for one in blamed if one.condition == "firing"]
    began = before.starts_at_ms
    ends_at_ms = None if firing else max(began, *(one.ends_at_ms or began for one in blamed))
    loudest = firing[0].severity if firing else before.severity   # of what fires the loudest stands first
    after = structs.replace(
        before,
        condition="firing" if firing else "resolved",
        severity=loudest,
        max_severity=max(before.max_severity, loudest, key=RANK.__getitem__),
        hint=_hint(blamed) if firing else before.hint,
        ends_at_ms=ends_at_ms,
        duration_ms=None if ends_at_ms is None else ends_at_ms - began,
        reason=None if firing else reason,
        firing=len(firing),
        blamed=blamed,
    )
    return structs.replace(after, summary=summary_of_incident(after))


def _hint(blamed: Sequence[Blamed]) -> Literal["suspected_concept"] | None:
    """What the model answers has changed alone: its inputs have not, also none that is back, and no outcome says yet what that means.

    Nor is it that others ask.
    """
    answers = all(one.series.partition(":")[0] in _ANSWERS for one in blamed)
    return "suspected_concept" if answers and any(one.cause is None for one in blamed) else None


def _with_alert(blamed: Sequence[Blamed], one: Blamed) -> list[Blamed]:
    """The list with one line more or another one: a series that came back has the line of its last episode."""
    lines = [other for other in blamed if other.fingerprint != one.fingerprint]
    bisect.insort(lines, one, key=place_of)   # the rest is in its order: a thousand lines are not sorted anew at each event
    return lines


def _with_state(book: Book, state: IncidentState, source: Source) -> Book:
    """The book with the incident as it is now; what has resolved leaves once the events up to its end are taken."""
    states = (*(one for one in book.incidents if one.incident.id != state.incident.id), state)
    kept = [one for one in states if one.incident.condition == "firing" or (one.source == source.key and one.offset > source.offset)]
    return Book(incidents=tuple(sorted(kept, key=lambda one: (one.incident.starts_at_ms, one.incident.id))))
