"""A few percent of a feature go missing: the alert that gets louder says how many since then, beside its window's share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from driftline.cli.main import cli
from tests.cli.streams_for_tests import NO_LABEL_OPTIONS, config_text, write_transactions

ROWS, CHANGE, EVERY = 6_000, 4_000, 20


def replayed(tmp_path: Path, what: str) -> list[dict[str, Any]]:
    """States of a stream in which one `amount` in twenty is missing from row `CHANGE` on."""
    stream = write_transactions(tmp_path / "stream.csv", ROWS)
    header, *rows = stream.read_text().splitlines()
    for i in range(CHANGE, ROWS, EVERY):
        cells = rows[i].split(",")
        rows[i] = ",".join([*cells[:2], "", *cells[3:]])
    stream.write_text("\n".join([header, *rows]) + "\n")
    config = tmp_path / "budget.yml"
    text = config_text(labels=False).replace("{learn: 2000}", "{learn: 2000, settle: 0s}")
    config.write_text(text + "    false_alarms: 1 per 100000 events\n")
    result = CliRunner().invoke(cli, ["replay", str(stream), "-c", str(config), *NO_LABEL_OPTIONS, "--what", what, "-o", "json"])
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_louder_alert_tells_the_share_since_the_change_beside_its_windows(tmp_path: Path) -> None:
    alerts = [one for one in replayed(tmp_path, "alerts") if one["series"] == "quality:amount:missing" and not one["segment"]]
    louder = [one for one in alerts if one["evidence"]["detector"] == "severity"]
    assert louder
    for one in louder:
        window, found = one["evidence"], one["evidence"]["since_change"]
        # One in twenty since then, of which the window has seen but the last of its rows.
        assert window["value"] < 0.6 / EVERY < 0.6 * found["value"]
        assert found["n"] < window["n"] == 1_000
        told = f"since the change, when it was found: value {found['value']:.6g}, baseline 0, n {found['n']})"
        assert f"over the last 1,000 values; {told}" in one["summary"]
