"""Logs of long-running commands: one event a line on stderr, ``event key=value`` or JSON."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Literal

_PAIR = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)')
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
        fields = {name: _value(value) for name, value in _PAIR.findall(rest)}
        line = {"time": _time(record), "level": record.levelname, "processor": self._processor, "event": event, **fields}
        left = _PAIR.sub("", rest).strip()
        if left:
            line["message"] = message
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logs(processor: str, *, style: Literal["text", "json"], level: str = "INFO") -> None:
    """Send our logs to stderr; third parties only from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(processor) if style == "json" else TextFormatter(processor))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("driftline").setLevel(level)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _value(text: str) -> str | int | float:
    if text.startswith('"'):
        return str(json.loads(text))
    if _NUMBER.match(text):
        return float(text) if "." in text else int(text)
    return text
