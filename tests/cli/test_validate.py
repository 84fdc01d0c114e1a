"""`validate` and `topics create --print`: what a file says and costs, without a broker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from driftline.cli.main import cli
from tests.cli.streams_for_tests import config_text


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "fraud.yml"
    path.write_text(config_text(labels=True))
    return path


def test_all_mistakes_of_all_files_are_listed_with_their_lines(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yml", tmp_path / "b.yml"
    first.write_text("predictions: p\nmodels:\n  m:\n    windov: 5000\n    features: {x: numerik}\n")
    second.write_text("predictions: [{topic: 'a b'}]\nmodels: {m: {window: 5}}\n")
    done = CliRunner().invoke(cli, ["validate", str(first), str(second)])
    assert done.exit_code == 2
    assert done.stdout == ""
    places = [f"{first}:4", f"{first}:5", f"{second}:1", f"{second}:2"]
    assert [place for place in places if place not in done.stderr] == []
    assert 'did you mean "window"?' in done.stderr


def test_a_damaged_baseline_is_a_mistake_with_its_line_and_the_next_file_is_still_read(config: Path, tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text("{}")
    damaged = tmp_path / "damaged.yml"
    damaged.write_text("predictions: p\nmodels:\n  m:\n    baseline: {file: b.json}\n")
    done = CliRunner().invoke(cli, ["validate", str(damaged), str(config)])
    assert done.exit_code == 2
    assert "not a baseline file" in done.stderr
    assert f"({damaged}:4)" in done.stderr
    assert "BaselineError" not in done.stderr
    assert f"{config}: valid" in done.stdout


def test_a_mistake_as_json_says_line_path_and_hint(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text("predictions: p\nmodels:\n  m:\n    windov: 5000\n")
    done = CliRunner().invoke(cli, ["validate", str(path), "-o", "json"])
    problem = json.loads(done.stdout)
    assert done.exit_code == 2
    assert (problem["valid"], problem["line"], problem["path"]) == (False, 4, "models.m.windov")


def test_a_valid_file_prints_series_redis_topics_and_cpu(config: Path) -> None:
    done = CliRunner().invoke(cli, ["validate", str(config)])
    assert done.exit_code == 0
    assert [word for word in ("series", "redis", "topics", "cpu") if word not in done.stdout] == []


def test_ten_times_the_rate_is_ten_times_the_bytes_a_day(config: Path) -> None:
    slow, fast = (json.loads(CliRunner().invoke(cli, ["validate", str(config), "-o", "json", "--rate", r]).stdout) for r in ("10", "100"))
    assert fast["topic_bytes_per_day"] == pytest.approx(10 * slow["topic_bytes_per_day"], rel=1e-6)
    assert fast["series"] == slow["series"]


def test_topics_print_lists_topics_and_the_rights_of_each_processor(config: Path) -> None:
    done = CliRunner().invoke(cli, ["topics", "create", str(config), "--print", "-o", "json"])
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["topic"] for row in rows if "topic" in row} >= {"driftline.drift", "driftline.alerts", "driftline.observations"}
    who = {row["who"] for row in rows if "who" in row}
    assert who == {"ingest", "join", "detect", "alert", "topics create", "publish", "state", "state rescale", "status, tail, picture"}
    assert {row["partitions"] for row in rows if row.get("topic") == "driftline.observations"} == {1}


def test_topics_print_asks_no_rights_for_a_join_that_is_not_needed(tmp_path: Path) -> None:
    path = tmp_path / "c.yml"
    path.write_text(config_text(labels=False))
    done = CliRunner().invoke(cli, ["topics", "create", str(path), "--print"])
    assert done.exit_code == 0
    assert "join " not in done.stdout


def test_what_is_learned_anew_by_itself_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    own = "features: {x: numeric, y: {kind: numeric, after_change: keep}}"
    path.write_text(f"predictions: p\nmodels:\n  m:\n    {own}\n    after_change: {{relearn_after: 20000}}\n  n: {{}}\n")
    lines = CliRunner().invoke(cli, ["validate", str(path)]).stdout.splitlines()
    told = [line for line in lines if line.startswith(("m:", "n:"))]
    assert told == [
        "m: a change that stays for 20,000 values is learned as what is normal (features: y never); "
        "what is watched to one side, as losses and missing values, never is",
        "m: without false_alarms nothing is followed after its change: so many rows without another alarm count instead",
    ]
    models = json.loads(CliRunner().invoke(cli, ["validate", str(path), "-o", "json"]).stdout)["models"]
    assert [model["relearn_after"] for model in models] == [{"*": 20_000, "y": None}, {"*": None}]


def test_a_reference_is_not_learned_anew_from_less_than_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    of_vector = "features: {v: {kind: vector, length: 4, after_change: {relearn_after: 9000}}}\n    blocks: {v: [v]}"
    models = f"  m:\n    {of_vector}\n    after_change: {{relearn_after: 4000}}\n  n: {{after_change: 20000}}\n"
    path.write_text(f"predictions: p\nmodels:\n{models}")
    done = CliRunner().invoke(cli, ["validate", str(path)])
    assert done.exit_code == 2
    for words in (
        "after_change.relearn_after: expected at least 10000: baseline.learn (5000), and twice the longest window (5000), got 4000",
        "features.v.after_change: expected a numeric or categorical feature, got a vector",
        'after_change: expected one of "keep" or a mapping, got 20000',
        "write after_change: keep, or after_change: {relearn_after: 20000}",
    ):
        assert words in done.stderr


def test_a_model_without_a_budget_is_named(tmp_path: Path) -> None:
    path = tmp_path / "two.yml"
    path.write_text("predictions: p\nmodels: {fraud: {}, ads: {false_alarms: 1 per week}}\n")
    told = CliRunner().invoke(cli, ["validate", str(path)]).stdout.splitlines()
    assert [line.split(",")[0] for line in told if "no false_alarms" in line] == ["fraud: no false_alarms"]
