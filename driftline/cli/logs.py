"""Logs of long-running commands: one event a line on stderr, ``event key=value`` or JSON."""

from __future__ import annotations

import ast
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, Literal

REPEATS_MAX: Final = 5
REPEAT_SECONDS: Final = 30.0
CONNECTION_LINES_MAX: Final = 2
"""Of a broker that went away each client tells in words of its own, a dozen lines within a second; what a worker does about it
stands in our lines."""

_PAIR = re.compile(r"""(\w+)=("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\S+)""")
_OURS = frozenset({"time", "level", "event"})
"""What no pair of a message may say: its text quotes records that others wrote."""
_CLIENTS = frozenset({"FAIL", "kafka_client_error", "aiokafka"})
_CONNECTION = re.compile(
    r"connect|NodeNotReady|brokers are down|coordinator dead|update metadata|Coordinator Request failed|Heartbeat|Failed fetch",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"^-?\d+(\.\d+)?$")


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.000Z INFO detect task_opened task=detect/0``."""

    def __init__(self, processor: str) -> None:
        super().__init__()
        self._processor = processor

    def format(self, record: logging.LogRecord) -> str:
        text = f"{_time(record)} {record.levelname} {self._processor} {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class JsonFormatter(logging.Formatter):
    """One object a line; the pairs of the message become fields."""

    def __init__(self, processor: str) -> None:
        super().__init__()
        self._processor = processor

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        event, _, rest = message.partition(" ")
        fields = {name: _value(value) for name, value in _PAIR.findall(rest) if name not in _OURS}
        line = {"time": _time(record), "level": record.levelname, "processor": self._processor, "event": event, **fields}
        left = _PAIR.sub("", rest).strip()
        if left:
            line["message"] = message
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class RepeatLimit(logging.Filter):
    """Lets the same warning or error through a few times in half a minute; the next one after that says how many were not shown.

    An outage of hours is told in a few lines a minute, however often each client of a worker tries. The same is what is
    written by one line of code, whatever its fields say; a line may tell its kinds apart by an extra, `repeats`.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind, most = _kind(record)
        if most == CONNECTION_LINES_MAX:
            # An error is what somebody must act on now; clients connect again by themselves.
            record.levelno, record.levelname = min((record.levelno, record.levelname), (logging.WARNING, "WARNING"))
        elif record.levelno < logging.WARNING:
            return True
        now = self._clock()
        with self._lock:
            began, count = self._seen.get(kind, (now, 0))
            hidden = 0
            if now - began >= REPEAT_SECONDS:
                began, count, hidden = now, 0, max(0, count - most)
            self._seen[kind] = (began, count + 1)
        if hidden:
            record.msg, record.args = f"{record.getMessage()} not_shown={hidden}", ()
        return count < most


def _kind(record: logging.LogRecord) -> tuple[tuple[str, str], int]:
    """What a line is the same as, and how many of those are shown."""
    template = str(record.msg)
    if template.startswith("%") and isinstance(record.args, tuple) and record.args:
        # librdkafka writes all its lines with one template: facility, client, text.
        template = str(record.args[0])
    client = "aiokafka" if record.name.startswith("aiokafka") else template.split(" ", 1)[0]
    if client in _CLIENTS and _CONNECTION.search(record.getMessage()):
        return ("connection", client), CONNECTION_LINES_MAX
    return (record.name, template + getattr(record, "repeats", "")), REPEATS_MAX


def configure_logs(processor: str, *, style: Literal["text", "json"], level: str = "INFO") -> None:
    """Send our logs to stderr; third parties only from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(processor) if style == "json" else TextFormatter(processor))
    handler.addFilter(RepeatLimit())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("driftline").setLevel(level)


@contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Our warnings, as a short command shows them: a line each, repeats left out."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    handler.setLevel(logging.WARNING)
    handler.addFilter(RepeatLimit())
    logger = logging.getLogger("driftline")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _value(text: str) -> str | int | float:
    if text[0] in "\"'":
        return _unquoted(text)
    if _NUMBER.match(text):
        return float(text) if "." in text else int(text)
    return text


def _unquoted(text: str) -> str:
    """A value as it was before `%r`, or JSON, put quotes about it; as it stands where neither did."""
    for read in (json.loads, ast.literal_eval):
        try:
            return str(read(text))
        except (ValueError, SyntaxError):
            continue
    return text
