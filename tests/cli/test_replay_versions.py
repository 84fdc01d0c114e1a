"""A new version of a model through the public path: one comparison with the one before, and what drifts near it names it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from driftline.cli.main import cli
from tests.cli.streams_for_tests import START_MS

OPTIONS = ["--id", "id", "--time", "time", "--score", "score", "--version", "version", "--label", "y", "--label-time", "label_at"]
CONFIG = """
predictions: p
labels: l
models:
  shop:
    features: {amount: numeric}
    decision: 0.5
    window: 2000
    labels: {ages: [1h]}
    baseline: {learn: 2000, settle: 0s}
"""
NEW_AT = 4_000


def write(path: Path, *, new: str = "2.0", bias: float = 0.0, noise: float = 0.3, moved_at: int | None = None, seed: int = 1) -> Path:
    """Version 2.0 answers from row `NEW_AT` on, `bias` higher in log odds and with so much noise; `amount` moves at a row."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "time", "version", "amount", "score", "y", "label_at"])
        for row in range(7_000):
            late = row >= NEW_AT
            risk, amount = rng.normal(-1.5, 1.2), rng.normal() + (moved_at is not None and row >= moved_at)
            score = 1 / (1 + np.exp(-(risk + rng.normal(0, noise if late else 0.3) + bias * late)))
            label = int(rng.random() < 1 / (1 + np.exp(-risk)))
            time_ms = START_MS + 1_000 * row
            writer.writerow([f"r{row}", time_ms, new if late else "1.9", f"{amount:.5f}", f"{score:.6f}", label, time_ms + 60_000])
    return path


def replay(path: Path, what: str = "drift") -> list[dict[str, Any]]:
    config = path.parent / "shop.yml"
    config.write_text(CONFIG)
    done = CliRunner().invoke(cli, ["replay", str(path), "-c", str(config), "--what", what, *OPTIONS, "-o", "json"])
    assert done.exit_code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def shifts(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    events = [e for e in found if e["kind"] == "version_shift"]
    assert len(events) == len({e["series"] for e in events})
    return {e["series"]: e for e in events}


def test_a_harmless_retrain_is_one_info_record_for_predictions_and_one_for_outcomes(tmp_path: Path) -> None:
    path = write(tmp_path / "same.csv")
    found = shifts(replay(path))
    assert {(s, e["severity"], e["version"], e["n"]) for s, e in found.items()} == {
        ("version:predictions", "info", "2.0", 1_000),
        ("version:outcomes", "info", "2.0", 1_000),
    }
    assert found["version:predictions"]["position"]["offset"] == NEW_AT + 999
    assert found["version:predictions"]["differences"] == []
    told = 'the first 1,000 rows of version "2.0" against the last 2,000 of "1.9": no difference that counts'
    assert found["version:predictions"]["reason"] == told
    assert not replay(path, "alerts")


def test_a_bad_retrain_is_critical_and_an_alert(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.csv", bias=2.5, noise=2.0)
    found = shifts(replay(path))
    named = {one["series"]: one for one in found["version:predictions"]["differences"]}
    assert set(named) >= {"score", "decision"}
    assert found["version:predictions"]["severity"] == "critical"
    assert {one["series"] for one in found["version:outcomes"]["differences"]} >= {"outcome:log_loss"}
    assert found["version:outcomes"]["severity"] == "critical"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    rate = np.mean([float(row["score"]) >= 0.5 for row in rows[NEW_AT : NEW_AT + 1_000]])
    before = np.mean([float(row["score"]) >= 0.5 for row in rows[NEW_AT - 2_000 : NEW_AT]])
    assert named["decision"]["value"] == pytest.approx(rate, abs=1e-9)
    assert named["decision"]["baseline_value"] == pytest.approx(before, abs=1e-9)
    firing = {a["series"]: a for a in replay(path, "alerts") if a["condition"] == "firing"}
    assert {"version:predictions", "version:outcomes"} <= set(firing)
    assert firing["version:predictions"]["summary"].startswith('shop: version:predictions: the first 1,000 rows of version "2.0"')


def test_what_drifts_soon_after_a_version_names_it_and_what_drifts_later_does_not(tmp_path: Path) -> None:
    soon = replay(write(tmp_path / "soon.csv", moved_at=NEW_AT + 200))
    opened = next(e for e in soon if e["kind"] == "drift" and e["series"] == "feature:amount")
    assert opened["near"] == {"version": "2.0", "time_ms": START_MS + 1_000 * NEW_AT}
    assert 'near version "2.0", first seen at ' in opened["reason"]
    alert = next(a for a in replay(tmp_path / "soon.csv", "alerts") if a["series"] == "feature:amount")
    assert 'near version "2.0"' in alert["summary"]
    incident = next(i for i in replay(tmp_path / "soon.csv", "incidents") if any(b["series"] == "feature:amount" for b in i["blamed"]))
    assert 'near version "2.0"' in incident["summary"]
    later = replay(write(tmp_path / "later.csv", moved_at=NEW_AT + 2_000))
    opened = next(e for e in later if e["kind"] == "drift" and e["series"] == "feature:amount")
    assert opened["near"] is None
