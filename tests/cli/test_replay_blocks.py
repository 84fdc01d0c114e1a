"""`blocks` through the public path: groups of features, and an embedding as a list in a Parquet file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from driftline.cli.main import cli
from tests.cli.streams_for_tests import START_MS

OPTIONS = ["--id", "id", "--time", "time", "--score", "score"]
CONFIG = """
predictions: p
models:
  search:
    features: {amount: numeric, text: {kind: vector, length: 24}}
    blocks: {text: [text]}
    false_alarms: 1 per 20000 events
    baseline: {learn: 2000, settle: 0s}
    window: 800
"""
ROWS, CHANGED = 6_000, 4_000


def write(path: Path, *, shift: float, odd: dict[int, Any] | None = None) -> Path:
    """Embeddings of 24 numbers that hang together, all of which move by `shift` from `CHANGED` on."""
    g = np.random.default_rng(3)
    mixing = g.normal(size=(8, 24))
    values = g.normal(size=(ROWS, 8)) @ mixing / 3.0 + g.normal(size=(ROWS, 24)) * 0.3
    values[CHANGED:] += shift
    text = values.round(5).tolist()
    for row, value in (odd or {}).items():
        text[row] = value
    table = {
        "id": [str(i) for i in range(ROWS)], "time": START_MS + np.arange(ROWS) * 10_000, "score": g.beta(2, 5, ROWS),
        "amount": g.normal(size=ROWS), "text": pa.array(text, pa.list_(pa.float64())),
    }  # fmt: skip
    parquet.write_table(pa.table(table), path)
    return path


def found(path: Path, *options: str, text: str = CONFIG) -> list[dict[str, Any]]:
    config = path.parent / "search.yml"
    config.write_text(text)
    result = CliRunner().invoke(cli, ["replay", str(path), "-c", str(config), *OPTIONS, *options, "-o", "json"])
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def drifts(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [e for e in events if e["kind"] == "drift"]


def test_an_embedding_that_moves_is_found_and_one_that_does_not_is_left_alone(tmp_path: Path) -> None:
    alarms = drifts(found(write(tmp_path / "moved.parquet", shift=0.5)))
    assert [(e["series"], e["monitor"]) for e in alarms] == [("block:text", "block_drift")]
    assert CHANGED < alarms[0]["position"]["offset"] < CHANGED + 300
    assert alarms[0]["effect"]["kind"] == "mmd"
    assert all(one["bin"].startswith(("mean of text[", "spread of text[")) for one in alarms[0]["bins"])
    assert drifts(found(write(tmp_path / "same.parquet", shift=0.0))) == []


def test_a_model_that_sends_another_length_is_invalid_and_not_silent(tmp_path: Path) -> None:
    """Another model behind the embedding: 16 numbers instead of 24 from one row on."""
    path = write(tmp_path / "short.parquet", shift=0.0, odd={row: [0.1] * 16 for row in range(CHANGED, ROWS)})
    alarms = drifts(found(path))
    assert "quality:text:invalid" in {e["series"] for e in alarms}
    assert "block:text" not in {e["series"] for e in alarms}


def test_embeddings_that_are_missing_are_a_series(tmp_path: Path) -> None:
    path = write(tmp_path / "gone.parquet", shift=0.0, odd=dict.fromkeys(range(CHANGED, ROWS, 3)))
    assert "quality:text:missing" in {e["series"] for e in drifts(found(path))}


@pytest.mark.parametrize("length", [24, 16])
def test_a_baseline_of_a_file_knows_the_embedding_and_one_of_another_length_is_refused(tmp_path: Path, length: int) -> None:
    path = write(tmp_path / "moved.parquet", shift=0.5)
    config, baseline = tmp_path / "build.yml", tmp_path / "search.json"
    config.write_text(CONFIG)
    build = ["baseline", "build", str(config), "--from-file", str(path), *OPTIONS, "--rows", "3000", "-o", str(baseline)]
    result = CliRunner().invoke(cli, build)
    assert result.exit_code == 0, result.stderr
    held = CONFIG.replace("{learn: 2000, settle: 0s}", f"{{file: {baseline}, settle: 0s}}").replace("length: 24", f"length: {length}")
    (tmp_path / "search.yml").write_text(held)
    replayed = CliRunner().invoke(cli, ["replay", str(path), "-c", str(tmp_path / "search.yml"), *OPTIONS, "-o", "json"])
    if length != 24:
        assert replayed.exit_code != 0
        assert 'block "text"' in replayed.stderr
        return
    assert replayed.exit_code == 0, replayed.stderr
    alarms = drifts([json.loads(line) for line in replayed.stdout.splitlines()])
    assert "block:text" in {e["series"] for e in alarms}
