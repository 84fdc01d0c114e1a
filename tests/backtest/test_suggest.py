"""Settings to try: the ladder of budgets, and that what is suggested does what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from driftline.backtest.changes import Change
from driftline.backtest.suggest import Bench, Step, rarer, rounded_up, suggest_budget, with_warning
from driftline.cli.main import cli
from driftline.schemas.config import Levels, Monitor
from tests.cli.streams_for_tests import COLUMN_OPTIONS, config_text


@pytest.mark.parametrize(
    ("text", "by", "expected"),
    [
        ("1 per week", 1, "1 per 4w"),
        ("1 per week", -1, "1 per day"),
        ("1 per week", -2, "1 per hour"),
        ("1 per week", -3, None),
        ("2 per week", 1, "1 per week"),
        ("1 per 260w", 1, None),
        ("1 per 100000 events", 1, "1 per 1000000 events"),
        ("1 per 100000 events", -2, "1 per 1000 events"),
        ("0.5 per 100 events", -1, None),
    ],
)
def test_budgets_stand_on_a_ladder(text: str, by: int, expected: str | None) -> None:
    assert rarer(text, by) == expected


@pytest.mark.parametrize(("value", "expected"), [(0.101, 0.11), (0.35, 0.35), (1.234, 1.3), (17.01, 18.0)])
def test_a_suggested_level_has_two_digits_and_is_not_below_what_was_asked(value: float, expected: float) -> None:
    assert rounded_up(value) == expected


class Ladder(Bench):
    """A bench that knows by itself up to which budget (events for one alarm) each change is found."""

    def __init__(self, found_up_to: dict[Change, int]) -> None:
        self.changes = list(found_up_to)
        self.found_up_to = found_up_to
        self.asked: list[str | None] = []

    def step(self, *, false_alarms: str | None, monitors: Any = None) -> Step:
        self.asked.append(false_alarms)
        events = int(str(false_alarms).split()[2])
        lost = frozenset(change for change, most in self.found_up_to.items() if events > most)
        found = len(self.changes) - len(lost)
        return Step(false_alarms, 0, None, len(self.changes), found, (9,) * found, (9,) * found, lost)


EASY, HARD, NEVER = (Change("shift", "m", name, 1.0, 0, 9, 0) for name in ("easy", "hard", "never"))


@pytest.mark.parametrize(
    ("found_up_to", "suggested", "tried"),
    [
        ({EASY: 10**6}, "1 per 1000000 events", [10**6, 10**7]),
        ({EASY: 10**6, NEVER: 0}, "1 per 1000000 events", [10**3, 10**6, 10**7]),
        ({EASY: 10**6, HARD: 10**4}, "1 per 10000 events", [10**3, 10**4]),
        ({EASY: 10**6, HARD: 10**3}, "1 per 1000 events", [10**3, 10**4]),
        ({EASY: 10**12}, "1 per 100000000 events", [10**6, 10**7, 10**8]),
        ({NEVER: 0}, None, [10**3]),
    ],
)
def test_the_smallest_budget_that_finds_what_any_finds_is_suggested(
    found_up_to: dict[Change, int], suggested: str | None, tried: list[int]
) -> None:
    ladder = Ladder(found_up_to)
    first = ladder.step(false_alarms="1 per 100000 events")
    steps, best = suggest_budget(ladder, first)
    assert (best.false_alarms if best else None) == suggested
    assert ladder.asked[1:] == [f"1 per {events} events" for events in tried]
    assert [step.false_alarms for step in steps] == sorted((str(a) for a in ladder.asked), key=lambda text: int(text.split()[2]))


def test_critical_is_never_below_a_raised_warning() -> None:
    monitor = Monitor(id="m", series=["feature:*"], severity=Levels(warning=0.1, critical=0.25))
    assert with_warning(monitor, 0.2).severity == Levels(warning=0.2, critical=0.25)
    assert with_warning(monitor, 0.4).severity == Levels(warning=0.4, critical=0.4)
    rates = Monitor(id="m", series=["quality:*"])
    assert with_warning(rates, 0.2).severity.of_rates == (0.2, 1.0)


def test_a_part_named_quiet_is_quiet_with_the_levels_that_are_suggested(stream: Path) -> None:
    """`amount` moves by one sd in it: whoever calls that quiet wants a tolerance of about one sd."""
    text = config_text(labels=True) + "    false_alarms: 1 per 10000 events\n"
    path = stream.parent / "quiet.yml"
    path.write_text(text)
    options = ["--changes", "nulls", "--starts", "1", "--into", "age", "--quiet", "all", "-o", "json"]
    command = ["backtest", str(stream), "-c", str(path), *COLUMN_OPTIONS, *options]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.stderr
    first = json.loads(result.stdout)["models"]["fraud"]
    assert first["quiet_alarms"] > 0
    warning = first["suggestion"]["warning"]
    assert set(warning) == {"feature_drift"}
    assert 0.5 < warning["feature_drift"] < 2.5
    assert first["suggestion"]["at_warning"]["quiet_alarms"] == 0
    level = warning["feature_drift"]
    quiet = f'      - {{id: feature_drift, series: ["feature:*"], severity: {{warning: {level}, critical: {max(level, 1.0)}}}}}'
    path.write_text(text + "\n".join(["    monitors:", quiet, '      - {id: rest, series: ["*"]}', ""]))
    again = CliRunner().invoke(cli, [*command[:4], *COLUMN_OPTIONS, "--changes", "none", "--quiet", "all", "-o", "json"])
    assert again.exit_code == 0, again.stderr
    assert json.loads(again.stdout)["models"]["fraud"]["quiet_alarms"] == 0
