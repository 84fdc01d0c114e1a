"""Events about models and dead letters on stdout: a line each as they come, or the bytes of the topic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from driftline.cli.output import cell, write_line
from driftline.cli.times import iso

if TYPE_CHECKING:
    from confluent_kafka import Message


@dataclass(frozen=True, slots=True)
class Table:
    """How one kind of event is shown: its topic's short name, and (column, width) pairs; the last is open-ended."""

    topic: str
    columns: tuple[tuple[str, int], ...]


TABLES = {
    "drift": Table(
        "drift",
        (
            ("time", 19),
            ("kind", 17),
            ("severity", 8),
            ("model", 14),
            ("series", 30),
            ("segment", 18),
            ("detector", 12),
            ("effect", 12),
            ("level", 22),
            ("position", 12),
            ("since", 19),
        ),
    ),
    "alerts": Table(
        "alerts",
        (
            ("time", 19),
            ("condition", 9),
            ("severity", 8),
            ("model", 14),
            ("series", 30),
            ("segment", 18),
            ("seq", 4),
            ("step", 22),
            ("summary", 0),
        ),
    ),
    "incidents": Table(
        "incidents",
        (("time", 19), ("condition", 9), ("severity", 8), ("model", 14), ("firing", 6), ("alerts", 6), ("seq", 4), ("summary", 0)),
    ),
    "transitions": Table(
        "transitions",
        (("time", 19), ("change", 17), ("severity", 8), ("model", 14), ("condition", 9), ("seq", 4), ("fingerprint", 0), ("reason", 0)),
    ),
    "snapshots": Table(
        "snapshots",
        (("time", 19), ("model", 14), ("panel", 9), ("segment", 18), ("state", 8), ("rows", 12), ("open", 0)),
    ),
    "dlq": Table("dlq", (("time", 19), ("stage", 8), ("reason", 16), ("record", 40), ("error", 0))),
}
EVENTS: tuple[str, ...] = ("drift", "alerts", "incidents", "snapshots")
"""What `replay` prints: what the processors publish about models."""


class EventPrinter:
    """Prints events one by one, so that memory does not grow with them.

    Parameters
    ----------
    live : the reader waits for each line; else lines may be buffered.
    """

    def __init__(self, what: str, output: str, *, live: bool = False) -> None:
        self._what = what
        self._table = TABLES[what]
        self._json = output == "json"
        self._out = click.get_binary_stream("stdout")
        self._live = live
        self._started = False
        self.count = 0

    def add(self, value: bytes) -> None:
        """Print one event from its bytes."""
        self.count += 1
        if self._json:
            if self._live:
                write_line(value)
            else:
                self._out.write(value + b"\n")
            return
        if not self._started:
            self._started = True
            click.echo(self._line({name: name for name, _ in self._table.columns}))
        click.echo(self._line(self._row(value)))

    def finish(self) -> None:
        """Hand over what is buffered."""
        self._out.flush()

    def _line(self, row: dict[str, str]) -> str:
        return "  ".join(cell(row[name]).ljust(width) for name, width in self._table.columns).rstrip()

    def _row(self, value: bytes) -> dict[str, str]:
        import orjson

        event = orjson.loads(value)
        row = {name: cell(event.get(name)) for name, _ in self._table.columns}
        row["time"] = iso(event.get("time_ms") or event.get("observed_at_ms")) or "-"
        if self._what == "dlq":
            row["record"] = f"{event['topic']}/{event['partition']}:{event['offset']}"
        elif self._what == "alerts":
            row["step"] = _step(event)
        elif self._what == "drift":
            row["effect"] = _effect(event.get("effect"))
            row["level"] = _level(event)
            row["position"] = _position(event.get("position"))
            row["since"] = iso((event.get("since") or {}).get("time_ms")) or "-"
            if event.get("kind") in ("version_seen", "version_shift", "baseline", "baseline_mismatch", "recovery") and event.get("reason"):
                row["since"] = event["reason"]
            row["since"] += _cause(event)
        elif self._what == "snapshots":
            row["rows"] = f"{event['rows']:,}" if event["state"] != "learning" else f"{event['rows']:,}/{event['learn_rows']:,}"
            row["open"] = ", ".join(level["series"] for level in event["series"] if level["open"]) or "-"
        return row


def _effect(effect: dict[str, Any] | None) -> str:
    return f"{effect['kind']} {effect['size']:.3g}" if effect else "-"


def _cause(event: dict[str, Any]) -> str:
    from driftline.detectors.explained import mix_words

    traffic = event.get("traffic")
    if event.get("cause") != "traffic_mix" or not traffic:
        return ""
    moved = [(one["segment"].get(traffic["by"], "-"), one["expected"], one["observed"]) for one in traffic["moved"]]
    return f"  {mix_words(traffic['by'], moved)}"


def _step(alert: dict[str, Any]) -> str:
    """What this state of an alert adds to the one before."""
    evidence = alert.get("evidence") or {}
    last, ended = evidence.get("last") or {}, evidence.get("recovery") or {}
    if alert["condition"] == "resolved":
        return f"resolved: {ended['detector']}" if ended.get("detector") else "resolved"
    if ended.get("time_ms", -1) > last.get("time_ms", 0):
        return f"one of {len(evidence.get('open_episodes', ())) + 1} ended"
    detector = last.get("detector") or "-"
    if alert["seq"] == 1:
        return f"opened: {detector}"
    if last.get("again"):
        return f"change {last['again']['number']}: {detector}"
    return f"severity: {last['severity']}" if detector == "severity" else f"evidence: {detector}"


def _level(event: dict[str, Any]) -> str:
    """Now and in the baseline, in the unit of the series; `-` where what was judged has none."""
    from driftline.schemas.stream_series import LABEL_DELAY
    from driftline.schemas.units import level_words

    now, base = event.get("median"), event.get("baseline_median")
    if event.get("series") == LABEL_DELAY and now is not None:
        now, base = (None if one is None else level_words(LABEL_DELAY, one) for one in (now, base))
    if event.get("pair_correlation") is not None:
        now, base = event["pair_correlation"], event.get("baseline_correlation")
    if (event.get("effect") or {}).get("kind") == "rate":
        now, base = event.get("value"), event.get("baseline_value")
    return "-" if now is None else cell(now) if base is None else f"{cell(now)} ({cell(base)})"


def _position(position: dict[str, Any] | None) -> str:
    return f"{position['partition']}:{position['offset']}" if position else "-"


def dead_letter_head(message: Message) -> dict[str, Any]:
    """What the headers of a dead letter say; of a record that is none, where it stands."""
    import msgspec

    from driftline.schemas.dead_letter import DeadLetter, DeadLetterError

    headers = [(str(name), content if isinstance(content, bytes) else None) for name, content in list(message.headers() or [])]
    try:
        head: dict[str, Any] = msgspec.to_builtins(DeadLetter.from_headers(headers))
    except DeadLetterError as error:
        place = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
        return {**place, "stage": "-", "reason": "not_ours", "error": str(error), "time_ms": message.timestamp()[1]}
    head["time_ms"] = head.pop("timestamp_ms")
    return head


def dead_letter_line(message: Message) -> bytes:
    """A dead letter as one JSON object: what its headers say, and the source record's key and value as text, or in base64."""
    import base64

    import orjson

    letter = dead_letter_head(message)
    for name, content in (("key", message.key()), ("value", message.value())):
        raw = content.encode() if isinstance(content, str) else content
        try:
            letter[name] = None if raw is None else raw.decode()
        except UnicodeDecodeError:
            letter[f"{name}_base64"] = base64.b64encode(raw or b"").decode()
    return orjson.dumps(letter)
