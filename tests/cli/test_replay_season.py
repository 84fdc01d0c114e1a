"""Values that go by the hour through the public path: a baseline built from a file, `validate`, `replay`, and what they say."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from driftline.cli.main import cli
from driftline.cli.status import _model_row, _show

MINUTE_MS = 60_000
START_MS = 1_762_128_000_000
"""A midnight, UTC."""
DAY_ROWS = 1_440
CONFIG = """
version: 1
kafka: {{bootstrap: "localhost:9092"}}
redis: {{url: "redis://localhost:6379/0"}}
predictions: p
models:
  m:
    snapshot_every: 1440
    false_alarms: 1 per 20000 events
    baseline: {{{baseline}}}
"""


def seasonal(seed: int, n: int, share: float = 0.3) -> np.ndarray:
    sine = np.sin(2 * math.pi * np.arange(n) / DAY_ROWS)
    out: np.ndarray = math.sqrt(2 * share) * sine + math.sqrt(1 - share) * np.random.default_rng(seed).normal(size=n)
    return out


def write(path: Path, columns: dict[str, np.ndarray], first: int = 0) -> Path:
    n = len(next(iter(columns.values())))
    scores = np.random.default_rng(3).random(n)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "time", "score", *columns])
        for i in range(n):
            at = START_MS + (first + i) * MINUTE_MS
            writer.writerow([f"t{first + i}", at, f"{scores[i]:.6f}", *(f"{column[i]:.9g}" for column in columns.values())])
    return path


def configured(folder: Path, baseline: str) -> str:
    path = folder / "m.yml"
    path.write_text(CONFIG.format(baseline=baseline))
    return str(path)


def call(*arguments: str) -> str:
    result = CliRunner().invoke(cli, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def replayed(config: str, stream: Path, *options: str) -> list[dict[str, Any]]:
    shown = call("replay", str(stream), "-c", config, "--id", "id", "--time", "time", "--score", "score", "-o", "json", *options)
    return [json.loads(line) for line in shown.splitlines()]


def test_a_week_of_a_file_is_a_reference_by_the_hour_and_its_season_is_no_alarm(tmp_path: Path) -> None:
    columns = {"x": seasonal(1, 19 * DAY_ROWS), "y": np.random.default_rng(2).normal(size=19 * DAY_ROWS)}
    columns["x"][17 * DAY_ROWS :] += 0.8
    week = write(tmp_path / "week.csv", {name: values[: 7 * DAY_ROWS] for name, values in columns.items()})
    stream = write(tmp_path / "stream.csv", {name: values[7 * DAY_ROWS :] for name, values in columns.items()}, 7 * DAY_ROWS)
    config = configured(tmp_path, f"file: {tmp_path / 'm.baseline.json'}")
    build = ["baseline", "build", config, "--from-file", str(week), "--id", "id", "--time", "time", "--score", "score"]
    built = [json.loads(line) for line in call(*build, "-o", str(tmp_path / "m.baseline.json"), "--format", "json").splitlines()]
    assert next(row for row in built if row["panel"] == "features")["by_hour"] == {"x": "hour_of_day"}
    assert "x=hour_of_day" in call("baseline", "ls", str(tmp_path / "m.baseline.json"))
    assert "m: judged against the values of their hour, as the baseline was built: x (hour_of_day)" in call("validate", config)
    opened = [e for e in replayed(config, stream) if e["kind"] == "drift" and e["series"].startswith("feature:")]
    # a half is allowed in ten days
    assert [e["series"] for e in opened] == ["feature:x"]
    assert 10 * DAY_ROWS <= opened[0]["position"]["offset"] < 10 * DAY_ROWS + 150
    assert opened[0]["suspended"] is None


def test_a_reference_of_a_day_is_suspended_for_the_hour_and_one_that_is_not_to_be_grouped_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = write(tmp_path / "stream.csv", {"x": seasonal(4, 14 * DAY_ROWS)})
    grouped = replayed(configured(tmp_path, f"learn: {7 * DAY_ROWS}"), stream)
    learned = next(e for e in grouped if e["kind"] == "baseline" and "columns are judged by the hour" in (e["reason"] or ""))
    assert learned["reason"].endswith(": x")
    shots = replayed(configured(tmp_path, "learn: 2000"), stream, "--what", "snapshots")
    last = [shot for shot in shots if shot["panel"] == "features"][-1]
    held = next(level["suspended"] for level in last["series"] if level["series"] == "feature:x")
    assert (held["cause"], held["one_in"]) == ("hour_effect", DAY_ROWS)
    _show([], [], [_model_row({**last, "written_ms": 0}, None)], [])
    assert "guarantee suspended: m feature:x: the hour of the day makes" in capsys.readouterr().out
    none = replayed(configured(tmp_path, f"learn: {7 * DAY_ROWS}, season: none"), stream)
    assert not any("by the hour" in (e["reason"] or "") for e in none)
