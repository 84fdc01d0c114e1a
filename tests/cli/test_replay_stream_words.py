"""The series of the stream itself, from a file to the alert's words: with units."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from driftline.cli.main import cli
from tests.cli.streams_for_tests import COLUMN_OPTIONS, config_text, write_transactions

ROWS, CHANGE, BACK, LATER_MS = 10_000, 4_000, 7_000, 900_000


MILLISECONDS = re.compile(r"(?<![.\d])\d{5,}|\de\+0\d")


def delayed(folder: Path, later_ms: int, *, age: str = "30m") -> Path:
    """A stream whose labels come so much later for a while."""
    stream = write_transactions(folder / "stream.csv", ROWS)
    header, *rows = [line.split(",") for line in stream.read_text().splitlines()]
    for row in rows[CHANGE:BACK]:
        row[-1] = str(int(row[-1]) + later_ms)
    stream.write_text("\n".join(",".join(row) for row in [header, *rows]) + "\n")
    (folder / "c.yml").write_text(config_text(labels=True).replace("30m", age))
    return stream


def replayed(stream: Path, what: str) -> list[dict[str, Any]]:
    config = str(stream.parent / "c.yml")
    result = CliRunner().invoke(cli, ["replay", str(stream), "-c", config, *COLUMN_OPTIONS, "--what", what, "-o", "json"])
    assert result.exit_code == 0, result.stderr
    found = [one for one in map(json.loads, result.stdout.splitlines()) if one["series"] == "stream:label_delay"]
    assert found
    return found


def test_labels_that_come_later_are_told_in_minutes(tmp_path: Path) -> None:
    told = replayed(delayed(tmp_path, LATER_MS), "alerts")[0]["summary"]
    found = re.search(r"labels come (\d+) min after their predictions, baseline ([\d.]+) min, ", told)
    assert found is not None, told
    # Exponential with mean 10 minutes, of which those within 30 count: its median is 6.3, and from 15 minutes on 20.
    assert 5.5 < float(found[2]) < 7 < 15 < float(found[1]) < 25


@pytest.mark.parametrize("later_ms", [LATER_MS, 8 * LATER_MS])
def test_no_line_about_a_delay_has_milliseconds_in_it(tmp_path: Path, later_ms: int) -> None:
    """Also where half of the labels come later than any before, which has no median, and where the delay is back."""
    stream = delayed(tmp_path, later_ms, age="3h")
    alerts, events = replayed(stream, "alerts"), replayed(stream, "drift")
    lines = [one["summary"] for one in alerts] + [one["reason"] for one in events]
    assert [line for line in lines if MILLISECONDS.search(line)] == []
    ended = next(one for one in events if one["kind"] == "recovery")
    assert re.search(r"; median [67](\.\d)? min against [67](\.\d)? min", ended["reason"]), ended["reason"]
    assert ended["median"] == pytest.approx(7 * 60_000, rel=0.15)   # what a program reads is in milliseconds
    beyond = [re.search(r"delay > (2\d) min in (\d+(\.\d)?) % of rows, baseline (10|[78]\.\d+) %", one["summary"]) for one in alerts]
    assert any(beyond) == (later_ms > LATER_MS)
