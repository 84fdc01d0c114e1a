"""What is written of an outage is bounded, and says what it leaves out."""

from __future__ import annotations

import json
import logging

import pytest

from driftline.cli.logs import CONNECTION_LINES_MAX, REPEAT_SECONDS, REPEATS_MAX, JsonFormatter, RepeatLimit


class Lines(logging.Handler):
    """Keeps what passes the limit."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.lines: list[str] = []
        self.addFilter(RepeatLimit(clock=lambda: self.now))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def written() -> tuple[logging.Logger, Lines]:
    logger, lines = logging.Logger("test"), Lines()
    logger.addHandler(lines)
    return logger, lines


def test_the_same_warning_is_written_a_few_times_and_then_counted() -> None:
    logger, lines = written()
    for attempt in range(40):
        logger.warning("store_away attempt=%d", attempt)
    assert lines.lines == [f"store_away attempt={attempt}" for attempt in range(REPEATS_MAX)]
    lines.now = REPEAT_SECONDS
    logger.warning("store_away attempt=%d", 40)
    assert lines.lines[REPEATS_MAX:] == [f"store_away attempt=40 not_shown={40 - REPEATS_MAX}"]


def test_an_hour_of_an_outage_is_a_few_lines_a_minute() -> None:
    logger, lines = written()
    for second in range(3_600):
        lines.now = second
        logger.warning("kafka_away reason=%r", "connection refused")
    assert len(lines.lines) <= 3_600 / REPEAT_SECONDS * REPEATS_MAX
    assert lines.lines[-REPEATS_MAX].endswith("not_shown=25")


def test_other_lines_pass_whatever_is_held_back() -> None:
    logger, lines = written()
    for number in range(20):
        logger.warning("store_away")
        logger.error("%s [%s]: %s", "PARTCNT", "driftline", f"attempt {number}")
        logger.info("task_started task=%d", number)
    logger.error("%s [%s]: %s", "CONFWARN", "driftline", "a property")
    logger.error("processor_stopped error=StateError")
    assert lines.lines.count("store_away") == REPEATS_MAX
    assert sum(line.startswith("PARTCNT") for line in lines.lines) == REPEATS_MAX
    assert sum(line.startswith("task_started") for line in lines.lines) == 20
    assert lines.lines[-2:] == ["CONFWARN [driftline]: a property", "processor_stopped error=StateError"]


def test_kinds_of_one_line_are_counted_apart_where_it_says_so() -> None:
    limit = RepeatLimit(clock=lambda: 0.0)

    def passes(reason: str) -> bool:
        said = {"msg": "dead_lettered reason=%s", "args": (reason,), "repeats": reason}
        made = logging.makeLogRecord({"name": "n", "levelno": logging.WARNING, **said})
        return bool(limit.filter(made))

    assert [passes("decode") for _ in range(REPEATS_MAX + 1)] == [True] * REPEATS_MAX + [False]
    assert passes("id")


def test_a_broker_that_goes_away_is_a_handful_of_warnings_however_many_clients_tell_of_it() -> None:
    levels: set[str] = set()

    class Levels(Lines):
        def emit(self, record: logging.LogRecord) -> None:
            levels.add(record.levelname)
            super().emit(record)

    lines = Levels()
    ours, theirs, other = logging.Logger("driftline.streams.kafka"), logging.Logger("aiokafka.client"), logging.Logger("aiokafka.conn")
    for logger in (ours, theirs, other):
        logger.addHandler(lines)
    for number in range(20):
        ours.info("%s [%s]: %s", "FAIL", f"consumer-{number}", "127.0.0.1:9092: Disconnected: connection closed by peer")
        ours.error("%s [%s]: %s", "FAIL", f"consumer-{number}", "Connect to ipv4#127.0.0.1:9092 failed: Connection refused")
        ours.warning("kafka_client_error code=%s error=%r", "_ALL_BROKERS_DOWN", "1/1 brokers are down")
        theirs.error("Unable connect to node with id %s: %s", 1, "[Errno 111]")
        theirs.error("Unable to update metadata from %s", [1])
        other.error("Failed fetch messages from %s: %s", 1, "NodeNotReadyError")
    assert len(lines.lines) == 3 * CONNECTION_LINES_MAX
    assert levels == {"INFO", "WARNING"}
    lines.now = REPEAT_SECONDS
    theirs.error("Unable to update metadata from %s", [1])
    assert lines.lines[-1].endswith(f"not_shown={60 - CONNECTION_LINES_MAX}")
    # What no new connection mends is told as it was.
    theirs.error("Topic authorization failed for %s", "t")
    ours.error("%s [%s]: %s", "FAIL", "consumer-1", "SASL authentication error: bad password")
    assert levels == {"INFO", "WARNING", "ERROR"}
    assert "SASL" in lines.lines[-1]


@pytest.mark.parametrize("text", [
    '"id": expected a text, got "{\'x\': 1}"', "it's \x1b[31m", "two\nlines", "a\\", "",
    'model "a level=CRITICAL time=1970 event=ended b=c"',
])  # fmt: skip
def test_a_quoted_value_is_one_field_of_a_json_line_whatever_it_says(text: str) -> None:
    said = logging.makeLogRecord({"levelname": "WARNING", "msg": "dead_lettered reason=%s error=%r", "args": ("id", text)})
    found = json.loads(JsonFormatter("ingest").format(said))
    assert found.pop("time").startswith("20")
    assert found == {"level": "WARNING", "processor": "ingest", "event": "dead_lettered", "reason": "id", "error": text}


@pytest.mark.parametrize("value", ['"it\'s \\q"', "'", '"', '"\\ud800"', "'\\x'", '"a" level=CRITICAL'])
def test_a_value_that_nobody_quoted_stands_in_the_message(value: str) -> None:
    said = logging.makeLogRecord({"levelname": "WARNING", "msg": "refused error=%s", "args": (value,)})
    found = json.loads(JsonFormatter("ingest").format(said))
    assert (found["level"], found["event"]) == ("WARNING", "refused")
    assert "error" in found
