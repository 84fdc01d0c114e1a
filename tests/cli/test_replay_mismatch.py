"""A baseline file that is not what is live, through the public path: one event, no page, and changes are found all the same."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from driftline.cli.main import cli
from tests.cli.streams_for_tests import START_MS

OPTIONS = ["--id", "id", "--time", "time", "--score", "score"]
FEATURES = ("amount", "age", "items")
CONFIG = """
predictions: p
models:
  shop:
    features: {amount: numeric, age: numeric, items: numeric, country: categorical}
    decision: 0.5
    window: 2000
    baseline: {learn: 3000, settle: 0s}
"""
WITH_FILE = CONFIG.replace("baseline: {", "baseline: {file: base.json, ")
Row = dict[str, Any]


def drawn(rng: np.random.Generator) -> Row:
    amount, age = rng.lognormal(3.0, 0.8), rng.normal(40, 12)
    country = rng.choice(["de", "fr", "us"], p=[0.5, 0.3, 0.2])
    return {"amount": amount, "age": age, "items": rng.poisson(3), "country": country, "score": 1 / (1 + np.exp(2.0 - amount / 20))}


def write(path: Path, rows: int, seed: int, change: Callable[[int, Row], Row | None] = lambda _, row: row) -> Path:
    """Rows of one stream; `change` makes another row of it, or drops it."""
    rng = np.random.default_rng(seed)
    written = 0
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "time", *FEATURES, "country", "score"])
        while written < rows:
            row = change(written, drawn(rng))
            if row is not None:
                values = [f"{row[name]:.6g}" if name != "country" else row[name] for name in (*FEATURES, "country", "score")]
                writer.writerow([f"r{written}", START_MS + 1_000 * written, *values])
                written += 1
    return path


def build(folder: Path, train: Path) -> None:
    (folder / "train.yml").write_text(CONFIG)
    command = ["baseline", "build", str(folder / "train.yml"), "--from-file", str(train), "-o", "base.json", "--force"]
    done = CliRunner().invoke(cli, [*command, *OPTIONS])
    assert done.exit_code == 0, done.output


def replay(folder: Path, live: Path, text: str = WITH_FILE, what: str = "drift") -> list[dict[str, Any]]:
    config = folder / "shop.yml"
    config.write_text(text)
    done = CliRunner().invoke(cli, ["replay", str(live), "-c", str(config), "--what", what, *OPTIONS, "-o", "json"])
    assert done.exit_code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def cheap(_: int, row: Row) -> Row | None:
    """Training data without what costs much, as a filter upstream leaves it."""
    return row if row["amount"] < 30 else None


def test_a_file_of_filtered_data_is_one_event_and_no_alert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build(tmp_path, write(tmp_path / "train.csv", 5_000, 1, cheap))
    live = write(tmp_path / "live.csv", 9_000, 2)
    found = replay(tmp_path, live)
    (event,) = [e for e in found if e["kind"] == "baseline_mismatch"]
    assert event["position"]["offset"] == 999
    assert (event["severity"], event["n"], event["series"]) == ("info", 1_000, "baseline:predictions")
    named = {one["series"]: one for one in event["differences"]}
    assert set(named) >= {"feature:amount", "score", "decision"}
    assert not {"feature:age", "feature:items", "feature:country"} & set(named)
    with live.open() as file:
        amounts = [float(row["amount"]) for row in csv.DictReader(file)][:1_000]
    assert named["feature:amount"]["median"] == pytest.approx(np.median([a for a in amounts if a < 30]), rel=0.5)
    assert named["feature:amount"]["p"] < 1e-3
    assert "feature:amount (" in event["reason"]
    assert "driftline baseline build CONFIG --from-topic --from=-24h -o NEW.json" in event["reason"]
    assert not [e for e in found if e["kind"] in ("drift", "evidence") and not e["series"].startswith("stream:")]
    learned = [e["position"]["offset"] for e in found if e["kind"] == "baseline"]
    assert learned == [2_999, 2_999], "from the rows that were held on, those of features and of scores"
    assert not replay(tmp_path, live, what="alerts")


def test_later_changes_of_what_did_not_fit_and_of_what_did_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build(tmp_path, write(tmp_path / "train.csv", 5_000, 1, cheap))

    def later(index: int, row: Row) -> Row:
        if index >= 6_000:
            row["amount"] *= 1.6
        if index >= 2_000:
            row["age"] += 6.0
        return row

    found = [e for e in replay(tmp_path, write(tmp_path / "live.csv", 9_000, 2, later)) if e["kind"] == "drift"]
    first = {e["series"]: e["position"]["offset"] for e in reversed(found)}
    assert 2_000 <= first["feature:age"] < 2_300, "against the file, while what did not fit still learns"
    assert 6_000 <= first["feature:amount"] < 6_300
    assert "critical" in {e["severity"] for e in found if e["series"] == "feature:amount"}


def test_without_the_comparison_everything_drifts_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build(tmp_path, write(tmp_path / "train.csv", 5_000, 1, cheap))
    found = replay(tmp_path, write(tmp_path / "live.csv", 4_000, 2), WITH_FILE.replace("{file:", "{compare: false, file:"))
    assert not [e for e in found if e["kind"] == "baseline_mismatch"]
    early = {e["series"] for e in found if e["kind"] == "drift" and e["position"]["offset"] < 1_000}
    assert early >= {"feature:amount", "score"}, "PSI speaks as soon as its window is half full"


def test_a_file_that_fits_is_watched_from_the_comparison_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build(tmp_path, write(tmp_path / "train.csv", 5_000, 1))

    def later(index: int, row: Row) -> Row:
        return {**row, "age": row["age"] + 12.0 * (index >= 1_100)}

    found = replay(tmp_path, write(tmp_path / "live.csv", 2_000, 3, later))
    assert not [e for e in found if e["kind"] in ("baseline_mismatch", "baseline")]
    first = next(e for e in found if e["kind"] == "drift")
    assert first["series"] == "feature:age"
    assert 1_100 <= first["position"]["offset"] < 1_200


def test_files_that_fit_are_no_mismatch_over_many_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in range(12):
        build(tmp_path, write(tmp_path / "train.csv", 3_000, 100 + seed))
        found = replay(tmp_path, write(tmp_path / "live.csv", 1_050, 200 + seed))
        # One comparison in a thousand may be wrong: two of twelve would have a chance below 1 in 10,000.
        assert not [e for e in found if e["kind"] == "baseline_mismatch"], seed


def test_a_block_fits_where_its_features_do_and_learns_with_one_that_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = CONFIG.replace("    decision: 0.5\n", "    false_alarms: 1 per 20000 events\n    blocks: {all: [amount, age, items]}\n")
    monkeypatch.setattr("tests.cli.test_replay_mismatch.CONFIG", text)
    live = write(tmp_path / "live.csv", 2_000, 2)
    with_file = text.replace("baseline: {", "baseline: {file: base.json, ")
    build(tmp_path, write(tmp_path / "train.csv", 5_000, 1))
    assert not [e for e in replay(tmp_path, live, with_file) if e["kind"] == "baseline_mismatch"]
    build(tmp_path, write(tmp_path / "train.csv", 5_000, 1, cheap))
    (event,) = [e for e in replay(tmp_path, live, with_file) if e["kind"] == "baseline_mismatch"]
    assert "block:all" not in {one["series"] for one in event["differences"]}
    every = with_file.replace("  shop:\n", "  shop:\n    snapshot_every: 500\n")
    shown = replay(tmp_path, live, every, "snapshots")
    assert "block:all" in [one for one in shown if one["panel"] == "features"][-1]["mismatched"]
