"""A record dated ahead of all others, as the first of its stream: a budget that it mutes is muted with a word."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from driftline.cli.main import cli
from tests.cli.streams_for_tests import NO_LABEL_OPTIONS, config_text, write_transactions

ROWS, CHANGE = 4_000, 3_000


def replayed(tmp_path: Path, *, ahead: int) -> Result:
    """A replay of a stream of one row a second, of which the first rows are dated five days ahead."""
    stream = write_transactions(tmp_path / "stream.csv", ROWS, shift_at=CHANGE)
    header, *rows = stream.read_text().splitlines()
    rows[:ahead] = [row.replace("2023-11-14T22:13:", "2023-11-19T22:13:", 1) for row in rows[:ahead]]
    stream.write_text("\n".join([header, *rows]) + "\n")
    config = tmp_path / "budget.yml"
    config.write_text(config_text(labels=False) + "    false_alarms: 1 per week\n")
    result = CliRunner().invoke(cli, ["replay", str(stream), "-c", str(config), *NO_LABEL_OPTIONS, "-o", "json"])
    assert result.exit_code == 0, result.stderr
    return result


@pytest.mark.parametrize("ahead", [1, 3])
def test_first_records_that_mute_a_budget_are_named_with_their_time(tmp_path: Path, ahead: int) -> None:
    result = replayed(tmp_path, ahead=ahead)
    (warning,) = [line for line in result.stderr.splitlines() if "time_stands_still" in line]
    assert f" model=fraud ledger=predictions at=2023-11-19T22:13:2{ahead - 1}.000Z " in warning
    assert f" record=driftline-in.predictions[0]@{ahead - 1} " in warning
    assert "correct or leave out what is dated ahead" in warning
    assert '"kind":"drift"' not in result.stdout.replace(" ", "")


def test_rows_in_the_order_of_time_bring_no_warning_and_are_watched(tmp_path: Path) -> None:
    result = replayed(tmp_path, ahead=0)
    assert "time_stands_still" not in result.stderr
    assert '"kind":"drift"' in result.stdout.replace(" ", "")
