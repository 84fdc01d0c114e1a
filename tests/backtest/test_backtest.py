"""`driftline backtest` as a user runs it."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from driftline.cli.main import cli
from tests.cli.streams_for_tests import COLUMN_OPTIONS, NO_LABEL_OPTIONS, config_text, write_transactions

ROWS = 9_000


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stream without a change, and its configuration with a budget."""
    path = write_transactions(tmp_path_factory.mktemp("quiet") / "quiet.csv", ROWS, seed=3)
    (path.parent / "budget.yml").write_text(config_text(labels=True) + "    false_alarms: 1 per 100000 events\n")
    return path


def backtest(path: Path, *options: str, config: str = "budget.yml", columns: list[str] = COLUMN_OPTIONS) -> Result:
    return CliRunner().invoke(cli, ["backtest", str(path), "-c", str(path.parent / config), *columns, *options])


def fraud(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)["models"]["fraud"]
    return found


def test_a_quiet_stream_stays_within_its_budget_and_a_shift_of_one_sd_is_found(quiet: Path) -> None:
    options = ["--changes", "shift,correlation", "--starts", "2", "--seed", "4", "--quiet", "all", "--no-suggest"]
    found = fraud(backtest(quiet, *options, "-o", "json"))
    assert found["allowed"] == {"most": pytest.approx(7_000 / 100_000), "source": "false_alarms: 1 per 100000 events"}
    # .07 alarms are allowed: one would have a chance of 7 %, and the seed is fixed
    assert found["alarms"] == found["quiet_alarms"] == 0
    shift, correlation = found["changes"]
    assert (shift["runs"], shift["found"], shift["accused"]) == (2, 2, 0)
    assert shift["delay_rows_worst"] < 200
    assert (correlation["runs"], correlation["found"]) == (2, 0)
    assert any("not found in 2 of 2 runs: the feature's own values did not change" in line for line in found["summary"])
    for run in found["runs"][:2]:
        assert run["series"] == f"feature:{run['feature']}"
        assert run["delay_ms"] == (run["delay_rows"] - 1) * 1_000  # a row a second


def test_a_broken_correlation_is_found_by_a_pair_that_is_named(quiet: Path, tmp_path: Path) -> None:
    """Either feature is permuted: the pair's series sees both, the features' own see neither."""
    path = tmp_path / "pair.csv"
    with open(quiet, newline="") as source, open(path, "w", newline="") as target:
        reader = csv.DictReader(source)
        writer = csv.DictWriter(target, reader.fieldnames or [])
        writer.writeheader()
        for row in reader:
            # The two make up the age between them: a correlation of .7.
            writer.writerow(row | {"age": f"{40 + 0.7 * (float(row['age']) - 40) + 6.4 * float(row['amount']):.1f}"})
    text = (quiet.parent / "budget.yml").read_text()
    (tmp_path / "budget.yml").write_text(text + "    correlations: [[amount, age]]\n")
    page = tmp_path / "report.html"
    options = ["--changes", "correlation", "--starts", "1", "--into", "age,amount", "--html", str(page), "-o", "json"]
    found = fraud(backtest(path, *options))
    assert [(run["outcome"], run["series"], run["accused"]) for run in found["runs"]] == [("found", "correlation:age~amount", [])] * 2
    assert max(run["delay_rows"] for run in found["runs"]) < 300
    # A smaller budget is judged by what this one finds.
    assert found["suggestion"]["budgets"][0]["runs"] == 2
    assert "correlation of age, from row 4,500: correlation:age~amount, found after" in page.read_text()


def test_of_a_unit_only_rows_that_are_watched_are_held_against_the_budget(quiet: Path, tmp_path: Path) -> None:
    """A row a second of sixty cards in turn: in two minutes one row of each is watched, every second one."""
    path = tmp_path / "cards.csv"
    with open(quiet, newline="") as source, open(path, "w", newline="") as target:
        reader = csv.DictReader(source)
        writer = csv.DictWriter(target, [*(reader.fieldnames or []), "card"])
        writer.writeheader()
        for row, values in enumerate(reader):
            writer.writerow(values | {"card": f"c{row % 60}"})
    text = (quiet.parent / "budget.yml").read_text() + "    unit: card\n    unit_window: 2m\n"
    (tmp_path / "budget.yml").write_text(text)
    result = backtest(path, "--changes", "nulls", "--starts", "1", "--into", "age", "--no-suggest", "-o", "json")
    found = fraud(result)
    # 2,000 of what is left of 9,000 were learned from.
    judged = (ROWS - 120) // 2 - 2_000
    assert found["allowed"]["most"] == pytest.approx(judged / 100_000, abs=60 / 100_000)
    assert re.search(rf"events, of which {judged // 1_000},\d\d\d are watched; asked for", found["summary"][0])


def test_the_table_says_the_same_in_words(quiet: Path) -> None:
    result = backtest(quiet, "--changes", "nulls", "--starts", "1", "--into", "age", "--nulls", "0.3", "--within", "500", "--no-suggest")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("fraud: 0 alarms in 116.7 minutes and 7,000 events; asked for at most 0.07")
    assert "nulls (null in 30% of the rows): found in 1 of 1 runs" in result.stdout
    assert "quality:age:missing" in result.stdout


@pytest.mark.parametrize(
    ("options", "columns", "told"),
    [
        (["--model", "frod"], COLUMN_OPTIONS, '--model "frod": neither a column nor a model'),
        (["--rows", "2200"], COLUMN_OPTIONS, "2,200 rows, of which 2,000 are learned from: 200 are left for changes"),
        (["--changes", "labels"], NO_LABEL_OPTIONS, '--changes labels: model "fraud": no row has a label'),
        (["--changes", "shfit"], COLUMN_OPTIONS, '--changes "shfit": expected some of shift, scale'),
        (["--changes", "shift", "--into", "aeg"], COLUMN_OPTIONS, '--into "aeg": not a watched feature of model "fraud", which has amount'),
        (["--quiet", "2026-01-02"], COLUMN_OPTIONS, "expected all, or FROM/TO"),
        (["--within", "soon"], COLUMN_OPTIONS, '--within "soon": a number of events, or expected a duration'),
    ],
)
def test_what_cannot_be_tried_is_said(quiet: Path, options: list[str], columns: list[str], told: str) -> None:
    result = backtest(quiet, *options, columns=columns)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_model_that_is_not_configured_is_refused_before_a_topic_is_read(quiet: Path) -> None:
    result = CliRunner().invoke(cli, ["backtest", "--topic", "-c", str(quiet.parent / "budget.yml"), "--model", "frod"])
    assert result.exit_code == 2
    assert '--model "frod": not a model of the configuration, which has "fraud"' in result.stderr


def test_without_rows_of_the_model_nothing_is_reported(quiet: Path, tmp_path: Path) -> None:
    lines = tmp_path / "empty.jsonl"
    lines.write_text("")
    result = CliRunner().invoke(cli, ["backtest", str(lines), "-c", str(quiet.parent / "budget.yml")])
    assert result.exit_code == 2
    assert "no rows of fraud" in result.stderr


def test_the_page_stands_alone_and_has_a_picture_of_every_run(quiet: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    options = ["--changes", "shift,correlation", "--starts", "1", "--into", "age", "--no-suggest", "--html", str(page)]
    assert backtest(quiet, *options).exit_code == 0
    text = page.read_text()
    assert "default-src 'none'" in text
    assert "<script" not in text
    assert [link for link in re.findall(r"https?://[^\"'<\s]*", text) if link != "http://www.w3.org/2000/svg"] == []
    titles = re.findall(r'font-weight="600">((?:shift|correlation) of [^<]*)<', text)
    assert len(titles) == 2
    assert re.fullmatch(r"shift of age, from row 4,500: feature:age, found after \d+ events", titles[0])
    assert titles[1] == "correlation of age, from row 4,500: feature:age, not found"
    lines = [len(points.split()) for points in re.findall(r'points="([^"]*)"', text)]
    assert len(lines) == 4  # level and statistic of both
    assert min(lines) > 15
