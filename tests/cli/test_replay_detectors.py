"""Detectors that a configuration names, through the public path: a file, `driftline replay`, and the drift events."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from driftline.cli.main import cli
from driftline.detectors import RiverDetector
from tests.cli.streams_for_tests import COLUMN_OPTIONS, config_text, write_transactions

ROWS, CHANGE, LEARNED = 9_000, 6_000, 2_000
BINARY = ("river.DDM", "river.EDDM", "river.HDDMA", "river.HDDMW", "river.FHDDM")


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`amount` moves by one standard deviation at `CHANGE`, and from there on 70 % are decided "yes" instead of 27."""
    path = write_transactions(tmp_path_factory.mktemp("detectors") / "stream.csv", ROWS, shift_at=CHANGE)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    yes = np.random.default_rng(1).random(ROWS) < 0.7
    for row, decided in list(zip(rows, yes.tolist(), strict=True))[CHANGE:]:
        row["score"] = "0.9" if decided else "0.1"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def column(stream: Path, name: str) -> np.ndarray:
    with stream.open(newline="") as file:
        return np.array([float(row[name]) for row in csv.DictReader(file)])


def heard(stream: Path, series: str, detector: str) -> list[dict[str, Any]]:
    """The events that a detector opened or joined over all rows, where it is the only one."""
    config = stream.parent / "named.yml"
    monitors = f'    monitors: [{{id: named, series: ["{series}"], detectors: [{detector}], run_length: 1.0e+6}}]\n'
    config.write_text(config_text(labels=False).replace("    segments: [country]\n", "") + monitors)
    options = [option for option in COLUMN_OPTIONS if "label" not in option and option != "is_fraud"]
    result = CliRunner().invoke(cli, ["replay", str(stream), "-c", str(config), *options, "-o", "json"])
    assert result.exit_code == 0, result.stderr
    events = [json.loads(line) for line in result.stdout.splitlines()]
    return [event for event in events if event["series"] == series and event["detector"] == detector.strip("{").split(":")[0]]


@pytest.mark.parametrize("name", BINARY)
def test_rivers_detectors_of_zeros_and_ones_are_heard_when_they_say_so(stream: Path, name: str) -> None:
    river = RiverDetector(name.removeprefix("river."))
    decided = (column(stream, "score") >= 0.5).astype(float)
    expected = LEARNED + river.update_many(decided[LEARNED:])
    found = [event["position"]["offset"] for event in heard(stream, "decision", name)]
    # While an episode is open a detector is heard once.
    assert found[:1] == expected[:1].tolist()
    assert set(found) <= set(expected.tolist())
    # FHDDM detects falls, and the false alarms of EDDM have an episode open when the change comes.
    assert any(offset >= CHANGE for offset in found) == (name in ("river.DDM", "river.HDDMA", "river.HDDMW"))


def test_kswin_is_heard_when_river_says_so(stream: Path) -> None:
    events = heard(stream, "feature:amount", "{river.KSWIN: {input: raw, alpha: 0.0001}}")
    expected = LEARNED + RiverDetector("KSWIN", {"alpha": 0.0001}).update_many(column(stream, "amount")[LEARNED:])
    found = [event["position"]["offset"] for event in events]
    assert set(found) <= set(expected.tolist())
    assert any(CHANGE <= offset < CHANGE + 1_000 for offset in found)


@pytest.mark.parametrize("name", ["cusum", "ewma"])
def test_a_chart_finds_the_change_soon_and_says_since_when(stream: Path, name: str) -> None:
    [event] = heard(stream, "feature:amount", name)
    assert event["kind"] == "drift"
    assert CHANGE <= event["position"]["offset"] < CHANGE + 60
    assert abs(event["since"]["position"]["offset"] - CHANGE) <= 40
    assert {"chi_squared", "psi"} <= {statistic["name"] for statistic in event["statistics"]}
