"""Which alerts are one incident: those of a model whose changes began together, whenever they were found.

A change of fifty features is found in the strongest first, in the weakest an hour later and in the outcomes when labels
come. So it is not arrival that counts but the date of each change. A date is uncertain by a share of the time the change
took to be found: the weaker it is, the later it is found and the worse it is dated. An alert joins the open incident of its
model whose start is within the model's `gather` time of its own, beside what both dates may be off by. Of several it
is the one that has the alert's series, over all rows or until a moment ago, else the nearest. Where there is none it opens one,
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

import orjson
from msgspec import structs

from driftline.schemas.events import Alert, Blamed, Incident
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
    held = next((state for state in book.incidents if _holds(state.incident, alert)), None)
    if held is not None and _leaves(held.incident, alert, gather_ms):
        return _moved(book, held, alert, source, gather_ms)
    found = held or _nearest(book, alert, source, gather_ms)
    if found is None:
        state = IncidentState(incident=_opened(alert, gather_ms), source=source.key, offset=source.offset)
        return Attributed(state.incident.id, _with_state(book, state, source), (state,))
    before = found.incident
    if _counted(found, source):
        # The store was filled from topics that have the incident from after this event: its figures hold, its list may lack it.
        state = structs.replace(found, incident=structs.replace(before, blamed=_with_alert(before.blamed, blamed_of(alert))))
        return Attributed(before.id, _with_state(book, state, source), ())
    after = _next(before, alert, reason, gather_ms if held is None else None)
    if after == before:
        return Attributed(before.id, book, ())
    after = structs.replace(after, seq=before.seq + 1, observed_at_ms=max(before.observed_at_ms, alert.observed_at_ms))
    state = IncidentState(incident=after, source=source.key, offset=source.offset)
    return Attributed(after.id, _with_state(book, state, source), (state,))


def listed(incident: Incident) -> Incident:
    """The incident as it is published: with the first of its alerts."""
    shown = incident.blamed[:LISTED_MAX]
    return structs.replace(incident, blamed=shown, more=incident.alerts - len(shown))


def _line(incident: Incident, alert: Alert) -> Blamed | None:
    """The line of an alert; one that it has left is not its own."""
    changes = blamed_of(alert).changes
    for one in incident.blamed:
        same = one.fingerprint == alert.fingerprint and one.episode == alert.episode
        if same and (one.condition == "firing" or one.changes == changes):
            return one
    return None


def _holds(incident: Incident, alert: Alert) -> bool:
    return _line(incident, alert) is not None


def _leaves(incident: Incident, alert: Alert, gather_ms: int) -> bool:
    """Whether an alert's series has just changed again, clearly later than the incident began."""
    line, now = _line(incident, alert), blamed_of(alert)
    if line is None or now.changes <= line.changes or alert.condition != "firing":
        return False
    began, uncertain = _date(alert, gather_ms)
    return began - incident.starts_at_ms - incident.uncertain_ms - uncertain > gather_ms


def _moved(book: Book, held: IncidentState, alert: Alert, source: Source, gather_ms: int) -> Attributed:
    """The incident of an alert's further change, and what is left of the one it was in."""
    others = Book(incidents=tuple(state for state in book.incidents if state is not held))
    found = attribute(others, alert, source, reason=None, gather_ms=gather_ms)
    before, line, began = held.incident, _line(held.incident, alert), _date(alert, gather_ms)[0]
    assert line is not None
    gone = structs.replace(line, condition="resolved", ends_at_ms=max(began, line.detected_at_ms))
    blamed = _with_alert(before.blamed, gone)
    rest = Book(incidents=(*found.book.incidents, held))
    if _counted(held, source):
        left = structs.replace(held, incident=structs.replace(before, blamed=blamed))
        return Attributed(found.incident, _with_state(rest, left, source), found.changed)
    after = _with_lines(before, blamed, f"its last alert has changed again and is in incident {found.incident}")
    after = structs.replace(after, seq=before.seq + 1, observed_at_ms=max(before.observed_at_ms, alert.observed_at_ms))
    left = IncidentState(incident=after, source=source.key, offset=source.offset)
    return Attributed(found.incident, _with_state(rest, left, source), (*found.changed, left))


def _counted(state: IncidentState, source: Source) -> bool:
    return state.source == source.key and source.offset <= state.offset


def _nearest(book: Book, alert: Alert, source: Source, gather_ms: int) -> IncidentState | None:
    """The incident that the alert is part of; else the one whose start is nearest to the alert's.

    Dates that may be off tell nothing of two incidents within both; there the starts as they are dated count, then the younger one.
    """
    began, uncertain = _date(alert, gather_ms)
    near = []
    for state in book.incidents:
        incident = state.incident
        part = _is_part(incident, alert, began - uncertain - gather_ms)
        apart = abs(began - incident.starts_at_ms)
        beyond = max(apart - incident.uncertain_ms - uncertain, 0)
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


def _date(alert: Alert, gather_ms: int) -> tuple[int, int]:
    """When an alert's last change began, and how far off that may be; a detector that dates nothing knows when it saw it."""
    changed_at_ms, seen = blamed_of(alert).changed_at_ms, _seen(alert)
    if changed_at_ms is not None:
        return changed_at_ms, (seen - changed_at_ms) // _DATE_PARTS if changed_at_ms < seen else gather_ms
    if alert.evidence.get("since") is None:
        return seen, gather_ms
    return alert.starts_at_ms, max(0, seen - alert.starts_at_ms) // _DATE_PARTS


def _seen(alert: Alert) -> int:
    """When an alert's last change was detected."""
    return alert.detected_at_ms if blamed_of(alert).changed_at_ms is None else int(alert.evidence["again"]["seen_ms"])


def _opened(alert: Alert, gather_ms: int) -> Incident:
    began, uncertain = _date(alert, gather_ms)
    identity: list[Any] = [alert.environment, alert.model, "incident", alert.fingerprint, alert.episode]
    changes = blamed_of(alert).changes
    identity += [changes] if changes > 1 else []
    empty = Incident(
        id=hashlib.sha256(orjson.dumps(identity)).hexdigest()[:_ID_CHARS], seq=1, environment=alert.environment, model=alert.model,
        condition="firing", severity=alert.severity, max_severity=alert.max_severity, hint=None, starts_at_ms=began,
        uncertain_ms=uncertain, detected_at_ms=_seen(alert), ends_at_ms=None, duration_ms=None,
        observed_at_ms=alert.observed_at_ms, reason=None, owner=alert.owner, summary="", alerts=0, firing=0, blamed=[], more=0,
        historical=alert.historical,
    )  # fmt: skip
    return _next(empty, alert, None, None)


def _next(before: Incident, alert: Alert, reason: str | None, joins_within_ms: int | None) -> Incident:
    """The incident with the alert as it is now; `seq` and `observed_at_ms` stay.

    Parameters
    ----------
    joins_within_ms : the model's gather time where the alert joins; a better date than the incident's becomes its own.
    """
    blamed = _with_alert(before.blamed, blamed_of(alert))
    began, uncertain = before.starts_at_ms, before.uncertain_ms
    if joins_within_ms is not None:
        date = _date(alert, joins_within_ms)
        # No change begins after it was first seen, however sure of it an alert is that was found a moment after its own date.
        if date[1] < uncertain and date[0] <= before.detected_at_ms:
            began, uncertain = date
    after = structs.replace(
        before,
        starts_at_ms=began,
        uncertain_ms=uncertain,
        alerts=before.alerts + all(one.fingerprint != alert.fingerprint for one in before.blamed),
        historical=before.historical and alert.historical,
    )
    return _with_lines(after, blamed, reason)


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
