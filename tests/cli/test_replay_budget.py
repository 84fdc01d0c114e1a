"""`false_alarms` through the public path: a file, `driftline replay`, and the drift events that come out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from driftline.cli.main import cli
from tests.cli.streams_for_tests import COLUMN_OPTIONS, config_text, write_transactions

ROWS, CHANGE = 12_000, 8_000
BUDGET = "    false_alarms: 1 per 20000 events\n"


def drift(stream: Path, text: str) -> list[dict[str, Any]]:
    config = stream.parent / "budget.yml"
    config.write_text(text)
    result = CliRunner().invoke(cli, ["replay", str(stream), "-c", str(config), *COLUMN_OPTIONS, "-o", "json"])
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def opened(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["kind"] == "drift" and not event["series"].startswith("stream:")]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_stream_without_a_change_stays_within_the_budget(tmp_path: Path, seed: int) -> None:
    stream = write_transactions(tmp_path / "null.csv", ROWS, seed=seed)
    # 12,000 rows of which 2,000 are learned from: half an alarm is allowed; three would have a chance below 2 %
    found = opened(drift(stream, config_text(labels=True) + BUDGET))
    assert len({(event["position"]["topic"], event["position"]["offset"]) for event in found}) <= 2


def test_a_change_is_found_by_the_budget_and_the_others_are_evidence(tmp_path: Path) -> None:
    stream = write_transactions(tmp_path / "change.csv", ROWS, shift_at=CHANGE)
    events = drift(stream, config_text(labels=True) + BUDGET)
    first = next(event for event in opened(events) if event["position"]["offset"] >= CHANGE)
    assert (first["series"], first["detector"]) == ("feature:amount", "e_detector")
    assert first["position"]["offset"] < CHANGE + 100
    assert first["statistic"] >= first["threshold"] == 1.0
    assert {event["detector"] for event in opened(events)} == {"e_detector"}
    assert {event["detector"] for event in events if event["kind"] == "evidence"} & {"psi", "adwin", "page_hinkley"}


def test_a_detector_may_be_asked_to_alert_and_says_that_it_is_not_covered(tmp_path: Path) -> None:
    stream = write_transactions(tmp_path / "change.csv", ROWS, shift_at=CHANGE)
    monitors = '    monitors: [{id: all, series: ["*"], detectors: [{page_hinkley: {alert: true}}]}]\n'
    tiny = BUDGET.replace("1 per 20000", "0.000000001 per 100000000000000")
    events = opened(drift(stream, config_text(labels=True) + tiny + monitors))
    heard = [event for event in events if event["detector"] == "page_hinkley"]
    assert heard
    assert all(event["reason"].endswith("; not covered by the budget") for event in heard)
