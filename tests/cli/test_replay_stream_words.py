"""The series of the stream itself, from a file to the alert's words: with units."""

from __future__ import annotations

import json
import re
from pathlib import Path

from click.testing import CliRunner

from driftline.cli.main import cli
from tests.cli.streams_for_tests import COLUMN_OPTIONS, config_text, write_transactions

ROWS, CHANGE, LATER_MS = 6_000, 4_000, 900_000


def test_labels_that_come_later_are_told_in_minutes(tmp_path: Path) -> None:
    stream = write_transactions(tmp_path / "stream.csv", ROWS)
    header, *rows = [line.split(",") for line in stream.read_text().splitlines()]
    for row in rows[CHANGE:]:
        row[-1] = str(int(row[-1]) + LATER_MS)
    stream.write_text("\n".join(",".join(row) for row in [header, *rows]) + "\n")
    config = tmp_path / "c.yml"
    config.write_text(config_text(labels=True))
    result = CliRunner().invoke(cli, ["replay", str(stream), "-c", str(config), *COLUMN_OPTIONS, "--what", "alerts", "-o", "json"])
    assert result.exit_code == 0, result.stderr
    told = [one["summary"] for one in map(json.loads, result.stdout.splitlines()) if one["series"] == "stream:label_delay"]
    assert told
    found = re.search(r"labels come (\d+) min after their predictions, baseline ([\d.]+) min, ", told[0])
    assert found is not None, told[0]
    # Exponential with mean 10 minutes, of which those within 30 count: its median is 6.3, and from 15 minutes on 20.
    assert 5.5 < float(found[2]) < 7 < 15 < float(found[1]) < 25
