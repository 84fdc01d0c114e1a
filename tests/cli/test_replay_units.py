"""`unit` through the public path: bursts of equal rows are one event in truth, and a change of what they are is found."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from driftline.cli.main import cli
from driftline.streams.detect.reference import read_baselines
from tests.cli.streams_for_tests import START_MS

OPTIONS = ["--id", "id", "--time", "time", "--score", "score"]
CONFIG = """
predictions: p
models:
  shop:
    features: {amount: numeric, country: categorical}
    false_alarms: 1 per 20000 events
    baseline: {learn: 3000}
"""
UNIT = "    unit: booking\n    unit_window: 10m\n"


def write_bookings(path: Path, bookings: int, *, shift_at: int | None = None, seed: int = 1) -> Path:
    """One booking in ten is of a group: 2 to 500 equal rows within seconds. `amount` moves by one sd at booking `shift_at`."""
    rng = np.random.default_rng(seed)
    time_ms, row = START_MS, 0
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "time", "booking", "amount", "country", "score"])
        for booking in range(bookings):
            rooms = 1 if rng.random() < 0.9 else int(2 * 250 ** rng.random())
            amount = rng.normal() + (shift_at is not None and booking >= shift_at)
            values = [f"b{booking}", f"{amount:.4f}", rng.choice(["de", "fr", "us"]), f"{rng.beta(2, 5):.4f}"]
            for _ in range(rooms):
                writer.writerow([row, time_ms, *values])
                row, time_ms = row + 1, time_ms + 10
            time_ms += int(rng.exponential(2_000))
    return path


def found(path: Path, text: str) -> list[dict[str, Any]]:
    config = path.parent / "shop.yml"
    config.write_text(text)
    result = CliRunner().invoke(cli, ["replay", str(path), "-c", str(config), *OPTIONS, "-o", "json"])
    assert result.exit_code == 0, result.stderr
    events = [json.loads(line) for line in result.stdout.splitlines()]
    return [e for e in events if e["kind"] == "drift" and not e["series"].startswith("stream:")]


def test_bursts_of_one_unit_are_one_row_and_without_it_they_are_changes(tmp_path: Path) -> None:
    stream = write_bookings(tmp_path / "null.csv", 16_000)
    # 13,000 bookings are judged: two thirds of an alarm are allowed; four would have a chance below 1 %.
    assert len({e["position"]["offset"] for e in found(stream, CONFIG + UNIT)}) <= 3
    assert len({e["position"]["offset"] for e in found(stream, CONFIG)}) > 3


def test_a_change_of_what_units_are_like_is_found(tmp_path: Path) -> None:
    stream = write_bookings(tmp_path / "change.csv", 12_000, shift_at=8_000)
    with stream.open() as file:
        first = next(n for n, row in enumerate(csv.DictReader(file)) if row["booking"] == "b8000")
        file.seek(0)
        rows = list(csv.DictReader(file))
    alarm = next(e for e in found(stream, CONFIG + UNIT) if e["position"]["offset"] >= first)
    at = alarm["position"]["offset"]
    assert alarm["series"] == "feature:amount"
    assert len({row["booking"] for row in rows[first:at]}) < 100
    assert at == 0 or rows[at]["booking"] != rows[at - 1]["booking"], "a row that is watched is the first of its unit"


def test_a_baseline_is_of_watched_rows_and_one_of_other_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stream = write_bookings(tmp_path / "train.csv", 6_000)
    config = tmp_path / "shop.yml"

    def run(text: str, *arguments: str) -> Any:
        config.write_text(text)
        return CliRunner().invoke(cli, [*arguments])

    build = ["baseline", "build", str(config), "--from-file", str(stream), *OPTIONS, "-o", "shop.json", "--force"]
    with_file = "".join(line + "\n" for line in CONFIG.splitlines() if "baseline" not in line) + "    baseline: {file: shop.json}\n"
    assert run(CONFIG + UNIT, *build).exit_code == 0
    with stream.open() as file:
        learned = {row["booking"] for row in csv.DictReader(file) if int(row["time"]) >= START_MS + 600_000}
    built = [json.loads(line) for line in run(CONFIG + UNIT, "baseline", "ls", "shop.json", "-o", "json").stdout.splitlines()]
    # A group that the end of the first ten minutes cuts was watched before it.
    assert {panel["rows"] for panel in built} <= {len(learned), len(learned) - 1}
    assert run(with_file + UNIT, "validate", str(config)).exit_code == 0
    for other in ("", UNIT.replace("10m", "20m"), UNIT.replace("booking", "country")):
        refused = run(with_file + other, "validate", str(config))
        assert (refused.exit_code, "other rows are watched; build it again" in refused.stderr) == (2, True), refused.stderr
    assert run(CONFIG, *build).exit_code == 0
    assert "other rows are watched; build it again" in run(with_file + UNIT, "validate", str(config)).stderr


def build(stream: Path, text: str, *options: str) -> Any:
    """`baseline build` of a file, into b.json beside it."""
    config = stream.parent / "shop.yml"
    config.write_text(text)
    command = ["baseline", "build", str(config), "--from-file", str(stream), *OPTIONS, "-o", str(stream.parent / "b.json"), *options]
    return CliRunner().invoke(cli, command)


def test_a_file_within_one_window_has_no_watched_row_and_says_so(tmp_path: Path) -> None:
    refused = build(write_bookings(tmp_path / "short.csv", 100), CONFIG + UNIT.replace("10m", "1d"))
    assert refused.exit_code == 2
    assert "would be watched: its unit_window is 24 h, and they span no more" in refused.stderr


def test_of_a_file_the_unit_is_no_feature(tmp_path: Path) -> None:
    text = CONFIG.replace("    features: {amount: numeric, country: categorical}\n", "") + UNIT
    assert build(write_bookings(tmp_path / "train.csv", 3_000), text).exit_code == 0
    features = read_baselines(tmp_path / "b.json")["panels"]["features"]
    assert sorted(column.name for column in features.columns) == ["amount", "country", "stream:invalid"]


def test_a_file_without_the_unit_makes_no_baseline_of_rows_that_live_are_left_out(tmp_path: Path) -> None:
    """As where the unit is the key or a header, which no file has, or its column has another name."""
    stream, text = write_bookings(tmp_path / "train.csv", 3_000), CONFIG + UNIT.replace("booking", "order_no")
    refused = build(stream, text)
    assert refused.exit_code == 2
    assert 'no row says its unit, "order_no"' in refused.stderr
    assert not (tmp_path / "b.json").exists()
    assert build(stream, text, "--segment", "order_no=booking").exit_code == 0


@pytest.mark.parametrize("options", [[], ["--segment", "booking"], ["--segment", "segments.booking=booking"]])
def test_the_unit_of_driftline_publish_is_sent_where_it_is_read(tmp_path: Path, options: list[str]) -> None:
    """The same rows are watched as under the short name, and the unit is no feature."""
    stream = write_bookings(tmp_path / "train.csv", 3_000)
    text = CONFIG.replace("    features: {amount: numeric, country: categorical}\n", "")
    panels = []
    for unit, given in (("booking", []), ("segments.booking", options)):
        result = build(stream, text + UNIT.replace("booking", unit), *given, "--force")
        assert result.exit_code == 0, result.stderr
        panels.append(read_baselines(tmp_path / "b.json")["panels"])
    short, long = panels
    assert {kind: panel.id for kind, panel in short.items()} == {kind: panel.id for kind, panel in long.items()}
    assert sorted(column.name for column in long["features"].columns) == ["amount", "country", "stream:invalid"]


def test_a_column_of_another_name_is_sent_as_the_unit_of_driftline_publish(tmp_path: Path) -> None:
    stream, text = write_bookings(tmp_path / "train.csv", 3_000), CONFIG + UNIT.replace("booking", "segments.order_no")
    assert 'no row says its unit, "segments.order_no"' in build(stream, text).stderr
    assert build(stream, text, "--segment", "order_no=booking").exit_code == 0


def test_replay_warns_of_a_unit_that_no_row_says(tmp_path: Path) -> None:
    stream, config = write_bookings(tmp_path / "train.csv", 1_000), tmp_path / "shop.yml"
    config.write_text(CONFIG + UNIT.replace("booking", "boking"))
    result = CliRunner().invoke(cli, ["replay", str(stream), "-c", str(config), *OPTIONS, "-o", "json"])
    assert result.exit_code == 0
    assert result.stderr.count("unit_missing model=shop unit='boking'") == 1
