"""What is written of an outage is bounded, and says what it leaves out."""

from __future__ import annotations

import logging

from driftline.cli.logs import REPEAT_SECONDS, REPEATS_MAX, RepeatLimit


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
        logger.error("%s [%s]: %s", "FAIL", "driftline", f"attempt {number}")
        logger.info("task_started task=%d", number)
    logger.error("%s [%s]: %s", "CONFWARN", "driftline", "a property")
    logger.error("processor_stopped error=StateError")
    assert lines.lines.count("store_away") == REPEATS_MAX
    assert sum(line.startswith("FAIL") for line in lines.lines) == REPEATS_MAX
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
