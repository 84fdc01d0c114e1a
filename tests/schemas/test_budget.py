"""A budget of false alarms in a configuration: how it is read, split and checked."""

from __future__ import annotations

import pytest

from driftline.schemas.budget import FalseAlarms, parse_false_alarms, parts, reference_least, version_share
from driftline.schemas.loading import parse_config
from tests.schemas.configs import only_problem, with_model

HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 per week", FalseAlarms(1.0, 168 * HOUR_MS, by_events=False)),
        ("0.5 per day", FalseAlarms(0.5, 24 * HOUR_MS, by_events=False)),
        ("2 per hour", FalseAlarms(2.0, HOUR_MS, by_events=False)),
        ("1 per 4w", FalseAlarms(1.0, 4 * 168 * HOUR_MS, by_events=False)),
        ("  3  per  100000 events ", FalseAlarms(3.0, 100_000, by_events=True)),
    ],
)
def test_budgets_are_counts_in_a_period(text: str, expected: FalseAlarms) -> None:
    assert parse_false_alarms(text) == expected


@pytest.mark.parametrize("text", ["", "1", "week", "0 per week", "-1 per week", "1 per 0 events", "1 per 5 parsecs", "1 per week or so"])
def test_what_is_no_budget_is_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(ValueError, match='expected "1 per week"'):
        parse_false_alarms(text)


@pytest.mark.parametrize("ages", [[], ["auto"], [3_600_000, 86_400_000]])
def test_the_parts_of_a_budget_sum_to_it(ages: list[int | str]) -> None:
    found = parts(ages)
    assert sum(part.share for part in found) == pytest.approx(1.0)
    assert [part.panel for part in found] == ["features", "scores"] + ["outcomes"] * len(ages)
    # each ledger has as much as every other
    assert {round(part.share, 12) for part in found[2:]} <= {round(found[0].share + found[1].share, 12)}


def test_the_parts_of_all_versions_sum_to_one_however_many_come() -> None:
    assert version_share(1) == 0.5
    assert sum(version_share(k) for k in range(1, 52)) == pytest.approx(1 - 1 / 52)


def test_a_gap_counts_an_hour_or_as_much_of_a_period_of_events() -> None:
    assert parse_false_alarms("1 per week").cap == HOUR_MS
    assert parse_false_alarms("1 per 16800 events").cap == pytest.approx(100.0)


def test_a_frozen_reference_must_be_larger_than_four_times_its_error() -> None:
    assert reference_least(0.1) == 1_600
    problem = only_problem(with_model("false_alarms: 1 per week\nbaseline: {learn: 1500}\nwindow: 300"))
    assert "at least 1600 with false_alarms" in str(problem)
    assert parse_config(with_model("false_alarms: 1 per week\nbaseline: {learn: 1600}\nwindow: 300"), name="f.yml")


def test_a_warning_level_within_four_of_the_references_errors_is_refused() -> None:
    monitor = 'monitors: [{id: all, series: ["*"], severity: {warning: 0.02, critical: 0.1}}]'
    problem = only_problem(with_model(f"false_alarms: 1 per week\n{monitor}"))
    assert "at least 0.0566 with baseline.learn 5000" in str(problem)
    assert "40,000" in str(problem)


def test_alert_without_a_budget_is_refused() -> None:
    problem = only_problem(with_model('monitors: [{id: all, series: ["*"], detectors: [{adwin: {alert: true}}]}]'))
    assert "false_alarms" in str(problem)


def test_a_budget_that_cannot_be_read_is_named_with_its_line() -> None:
    problem = only_problem(with_model("false_alarms: often"))
    assert "1 per week" in str(problem)
