"""What the demo's topics say, held against the truth: found, how late, and who was wrongly accused.

Everything here is made from records of topics; the simulator's truth is one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from driftline.demo.simulator import Change

Json = Mapping[str, Any]

FORGOTTEN_ROWS: Final = 4_000
"""The smallest segment has 30 % of the rows, so its window of 1,000 spans 3,333 of the stream's."""


@dataclass(slots=True)
class Found:
    """A change and the first drift event that speaks of it."""

    change: Change
    time_ms: int
    event: Json | None = None
    opened_ms: int | None = None
    resolved_ms: int | None = None

    def delay_events(self) -> int | None:
        """Predictions between the change and the one the event names."""
        return None if self.event is None else int(self.event["position"]["offset"]) - self.change.start

    def delay_seconds(self) -> float | None:
        """The same in the stream's own time."""
        return None if self.event is None else (self.event["time_ms"] - self.time_ms) / 1000

    def as_json(self) -> dict[str, Any]:
        event = self.event or {}
        return {
            "change": self.change.name,
            "detected": self.event is not None,
            "series": event.get("series"),
            "segment": event.get("segment"),
            "detector": event.get("detector"),
            "severity": event.get("severity"),
            "delay_events": self.delay_events(),
            "delay_seconds": self.delay_seconds(),
            "alert_opened": self.opened_ms is not None,
            "alert_resolved": self.resolved_ms is not None,
        }

    def follow(self, transition: Json) -> bool:
        """Take note of what became of the change's alert; false for another one's."""
        if self.event is None or self.event["episode"] != transition["episode"]:
            return False
        if transition["change"] == "opened":
            self.opened_ms = transition["time_ms"]
        if transition["change"] == "resolved":
            self.resolved_ms = transition["time_ms"]
        return True


@dataclass(slots=True)
class Verdict:
    """Grows with every record read from the topics."""

    found: list[Found] = field(default_factory=list)
    accused: dict[tuple[str, str], Json] = field(default_factory=dict)
    events: list[Json] = field(default_factory=list)
    snapshots: list[Json] = field(default_factory=list)
    transitions: list[Json] = field(default_factory=list)
    rows_seen: int = 0

    def truth(self, record: Json) -> Found:
        """A change was injected."""
        change = Change(record["name"], record["start"], record["stop"], tuple(record["series"]), record["segment"], record["text"])
        self.found.append(Found(change, record["time_ms"]))
        return self.found[-1]

    def drift(self, event: Json) -> Found | None:
        """A drift event; the change it is the first to speak of, if any."""
        self.events.append(event)
        if event["kind"] != "drift":
            return None
        matching = [found for found in self.found if _speaks_of(event, found.change)]
        if not matching:
            self.accused.setdefault((event["series"], str(event["segment"])), event)
            return None
        unseen = next((found for found in matching if found.event is None and event["position"]["offset"] < found.change.stop), None)
        if unseen is not None:
            unseen.event = event
            # Its alert stands in another topic, and may have been read first.
            for record in self.transitions:
                unseen.follow(record)
        return unseen

    def transition(self, record: Json) -> Found | None:
        """An alert opened or resolved; the change it belongs to, if any."""
        self.transitions.append(record)
        for found in self.found:
            if found.follow(record):
                return found
        return None

    def snapshot(self, record: Json) -> None:
        self.snapshots.append(record)
        if record["panel"] == "features" and record["segment"] is None:
            self.rows_seen = max(self.rows_seen, record["rows"])

    def as_json(self) -> dict[str, Any]:
        return {
            "changes": [found.as_json() for found in self.found],
            "false_alarms": len(self.accused),
            "wrongly_accused": [{name: event[name] for name in ("series", "segment", "detector")} for event in self.accused.values()],
            "drift_events": len(self.events),
            "transitions": len(self.transitions),
        }  # fmt: skip


def truth_records(changes: Iterable[Change], start_ms: int, rate: float) -> list[tuple[int, dict[str, Any]]]:
    """(first row, record) of each change for the demo's truth topic."""
    return [
        (
            change.start,
            {
                "name": change.name,
                "start": change.start,
                "stop": change.stop,
                "series": list(change.series),
                "segment": change.segment,
                "text": change.text,
                "time_ms": start_ms + int(change.start * 1000 / rate),
                "stop_ms": start_ms + int(change.stop * 1000 / rate),
            },
        )
        for change in changes
    ]


def _speaks_of(event: Json, change: Change) -> bool:
    """Whether a series truly changed: of a changed feature, for all rows or for the segment that changed.

    Only while the change lasts and until a segment's window of 1,000 rows has forgotten it; later it is a false alarm.
    """
    if not change.start <= event["position"]["offset"] < change.stop + FORGOTTEN_ROWS:
        return False
    if not event["series"].startswith(change.series):
        return False
    segment = event["segment"]
    return change.segment is None or segment is None or change.segment in segment.values()
