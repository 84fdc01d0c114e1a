"""Values with a memory through the public path: a file, `driftline replay`, and what its events and snapshots say."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import signal

from driftline.cli.main import cli
from driftline.cli.status import _model_row, _show

START_MS = 1_762_000_000_000
CONFIG = """
version: 1
kafka: {bootstrap: "localhost:9092"}
redis: {url: "redis://localhost:6379/0"}
predictions: p
models:
  m:
    segments: [shop]
    snapshot_every: 5000
    false_alarms: 1 per 20000 events
    baseline: {learn: 3000}
"""


def autoregressive(generator: np.random.Generator, n: int, phi: float) -> np.ndarray:
    out: np.ndarray = signal.lfilter([np.sqrt(1 - phi * phi)], [1.0, -phi], generator.normal(size=n + 500))[500:]
    return out


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.9g}"


def replay(folder: Path, columns: dict[str, np.ndarray], *options: str) -> list[dict[str, Any]]:
    n = len(next(iter(columns.values())))
    generator = np.random.default_rng(3)
    with (folder / "stream.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "time", "score", "shop", *columns])
        for i in range(n):
            row = [f"{generator.random():.6f}", generator.choice(["a", "b"]), *(_cell(column[i]) for column in columns.values())]
            writer.writerow([f"t{i}", START_MS + 1_000 * i, *row])
    (folder / "m.yml").write_text(CONFIG)
    arguments = ["replay", str(folder / "stream.csv"), "-c", str(folder / "m.yml"), "--id", "id", "--time", "time", "--score", "score"]
    result = CliRunner().invoke(cli, [*arguments, "-o", "json", *options])
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_configuration_keeps_its_budget_on_values_with_a_memory_and_has_nothing_to_suspend(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    columns = {f"f{phi}": autoregressive(generator, 23_000, phi / 10) for phi in (3, 5, 8)}
    columns["heavy"] = np.exp(2 * autoregressive(generator, 23_000, 0.8))
    events = replay(tmp_path, columns)
    opened = [e for e in events if e["kind"] == "drift" and not e["series"].startswith("stream:")]
    # one alarm is allowed in the 20,000 rows that are watched; four would have a chance below 2 %
    assert len({e["position"]["offset"] for e in opened}) <= 3
    shots = replay(tmp_path, columns, "--what", "snapshots")
    last = [shot for shot in shots if shot["panel"] == "features" and shot["segment"] is None][-1]
    # values out of the range of an autoregression come in bursts, and may say so
    assert [level["series"] for level in last["series"] if level.get("suspended") and level["series"].startswith("feature:")] == []


def test_what_the_reference_did_not_show_is_suspended_and_snapshots_events_and_status_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(4)
    values = np.r_[generator.normal(size=3_000), autoregressive(generator, 12_000, 0.8)]
    values[11_000:] += 3.0
    columns = {"x": values, "y": generator.normal(size=15_000)}
    opened = [
        e for e in replay(tmp_path, columns) if e["kind"] == "drift" and e["series"] == "feature:x" and e["position"]["offset"] > 11_000
    ]
    assert opened
    assert opened[0]["suspended"]["one_in"] >= 4
    assert "guarantee suspended" in opened[0]["reason"]
    shots = replay(tmp_path, columns, "--what", "snapshots")
    last = [shot for shot in shots if shot["panel"] == "features" and shot["segment"] is None][-1]
    held = {level["series"]: level["suspended"] for level in last["series"]}
    assert held["feature:x"]["one_in"] >= 4
    assert held["feature:y"] is None
    _show([], [], [_model_row({**last, "written_ms": 0}, None)], [])
    assert "guarantee suspended: m feature:x: values" in capsys.readouterr().out


def test_a_category_in_runs_of_uneven_length_is_judged_by_its_runs(tmp_path: Path) -> None:
    """Two to five equal rows in a row; a page of 6 % comes to 40 %, once nothing is suspended for the runs."""
    generator = np.random.default_rng(5)
    before = np.array([0.34, 0.22, 0.14, 0.12, 0.12, 0.06])
    after = np.append(before[:-1] * 0.6 / 0.94, 0.4)

    def pages(n: int, law: np.ndarray) -> np.ndarray:
        times = generator.integers(2, 6, n)
        return np.repeat(np.array([f"page{k}" for k in range(6)])[generator.choice(6, n, p=law)], times)[:n]

    columns = {"page": np.r_[pages(9_000, before), pages(4_000, after)], "x": generator.normal(size=13_000)}
    drifts = [e for e in replay(tmp_path, columns) if e["kind"] == "drift"]
    first = next(e for e in drifts if e["series"] == "feature:page" and e["segment"] is None)
    assert 9_000 < first["position"]["offset"] < 10_200
    assert first["suspended"] is None
    assert first["bins"][0]["bin"] == "page5"
    shots = replay(tmp_path, columns, "--what", "snapshots")
    levels = [level for shot in shots if shot["panel"] == "features" for level in shot["series"] if level["series"] == "feature:page"]
    assert [level["suspended"] for level in levels if level.get("suspended")] == []
