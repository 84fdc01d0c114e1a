"""`replay` and `baseline` over files: the whole way of an event without a broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from driftline.cli.main import cli
from tests.cli.streams_for_tests import COLUMN_OPTIONS, NO_LABEL_OPTIONS, config_text, write_transactions

ROWS, CHANGE = 8_000, 5_000


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_transactions(tmp_path_factory.mktemp("replay") / "stream.csv.gz", ROWS, shift_at=CHANGE)


@pytest.fixture(scope="module")
def config(stream: Path) -> Path:
    path = stream.parent / "fraud.yml"
    path.write_text(config_text(labels=True))
    return path


@pytest.fixture(scope="module")
def drift(stream: Path, config: Path) -> Result:
    return invoke("replay", str(stream), "-c", str(config), *COLUMN_OPTIONS, "-o", "json")


def test_a_shifted_feature_is_found_after_the_change_and_not_before(drift: Result) -> None:
    opened = [event for event in lines(drift) if event["kind"] == "drift" and event["series"] == "feature:amount"]
    assert opened, "no drift event for the shifted feature"
    assert all(event["position"]["offset"] >= CHANGE for event in opened)
    # one standard deviation: Page-Hinkley needs its threshold over half the shift, well under 500 rows for all rows
    assert min(event["position"]["offset"] for event in opened if event["segment"] is None) < CHANGE + 500


def test_features_that_did_not_move_are_not_accused(drift: Result) -> None:
    accused = {event["series"] for event in lines(drift) if event["kind"] == "drift"}
    assert not accused & {"feature:age", "feature:country", "score"}


def test_the_same_replay_gives_the_same_bytes(stream: Path, config: Path, drift: Result) -> None:
    again = invoke("replay", str(stream), "-c", str(config), *COLUMN_OPTIONS, "-o", "json")
    assert again.stdout_bytes == drift.stdout_bytes


def test_raw_messages_replay_as_the_file_they_came_from(stream: Path, config: Path, drift: Result, tmp_path: Path) -> None:
    messages = tmp_path / "messages.jsonl"
    messages.write_bytes(invoke("publish", str(stream), "-c", str(config), *COLUMN_OPTIONS, "--print").stdout_bytes)
    again = invoke("replay", str(messages), "-c", str(config), "-o", "json")
    assert again.stdout_bytes == drift.stdout_bytes


def test_alerts_open_for_the_shifted_feature(stream: Path, config: Path) -> None:
    alerts = lines(invoke("replay", str(stream), "-c", str(config), *COLUMN_OPTIONS, "--what", "alerts", "-o", "json"))
    assert {alert["condition"] for alert in alerts if alert["series"] == "feature:amount"} >= {"firing"}


def test_snapshots_show_learning_and_then_watching(stream: Path, config: Path) -> None:
    shots = lines(invoke("replay", str(stream), "-c", str(config), *COLUMN_OPTIONS, "--what", "snapshots", "-o", "json"))
    shown = [(shot["rows"], shot["state"]) for shot in shots if shot["panel"] == "features" and shot["segment"] is None]
    assert shown == sorted(shown)
    assert {state for rows, state in shown if rows < 2_000} == {"learning"}
    assert {state for rows, state in shown if rows > 2_000} == {"watching"}


def test_a_table_has_a_header_and_a_line_an_event(stream: Path, config: Path, drift: Result) -> None:
    done = invoke("replay", str(stream), "-c", str(config), *COLUMN_OPTIONS)
    assert done.stdout.splitlines()[0].split()[:3] == ["time", "kind", "severity"]
    assert len(done.stdout.splitlines()) == 1 + len(drift.stdout.splitlines())


def test_labels_without_a_labels_topic_are_refused(stream: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.yml"
    path.write_text(config_text(labels=False))
    done = invoke("replay", str(stream), "-c", str(path), *COLUMN_OPTIONS)
    assert done.exit_code == 2
    assert "no labels topic" in done.stderr


def test_messages_of_an_unknown_topic_are_named_with_their_line(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"topic": "driftline-in.predictions", "time_ms": 1, "value": {}}\n{"topic": "elsewhere", "time_ms": 1, "value": {}}\n')
    done = invoke("replay", str(path), "-c", str(config))
    assert done.exit_code == 2
    assert f"{path}:2" in done.stderr
    assert '"elsewhere"' in done.stderr


def test_rows_that_were_all_refused_do_not_look_like_a_quiet_stream(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"topic": "driftline-in.predictions", "time_ms": 1, "value": "not json"}\n' * 5)
    done = invoke("replay", str(path), "-c", str(config))
    assert done.exit_code == 0
    assert "5 invalid" in done.stderr


@pytest.mark.parametrize(("fate", "words"), [("skip", "skipped"), ("dead_letter", "dead-lettered")])
def test_rows_of_models_without_configuration_are_told_with_a_name(config: Path, tmp_path: Path, fate: str, words: str) -> None:
    path, own = tmp_path / "m.jsonl", tmp_path / "own.yml"
    own.write_text(config.read_text() + f"unknown_models: {fate}\n")
    rows = [{"id": str(i), "model": name} for i, name in enumerate(["bank", "shop", "shop", "fraud"])]
    path.write_text("".join(json.dumps({"topic": "driftline-in.predictions", "time_ms": 1_000, "value": row}) + "\n" for row in rows))
    done = invoke("replay", str(path), "-c", str(own))
    assert done.exit_code == 0
    assert f"3 rows of 2 models that the configuration does not name were {words}, such as 'shop'" in done.stderr.splitlines()
    assert done.stderr.count("unknown_model name='bank'") == 1


def test_a_stream_that_was_only_learned_from_does_not_look_like_a_quiet_one(stream: Path, config: Path) -> None:
    result = invoke("replay", str(stream), "-c", str(config), *COLUMN_OPTIONS, "--rows", "300")
    assert result.exit_code == 0
    assert "nothing of model fraud was watched: its first" in result.stderr
    whole = invoke("replay", str(stream), "-c", str(config), *COLUMN_OPTIONS)
    assert "was watched" not in whole.stderr


def test_a_file_or_a_topic_is_needed_but_not_both(stream: Path, config: Path) -> None:
    assert invoke("replay", "-c", str(config)).exit_code == 2
    assert invoke("replay", str(stream), "--topic", "-c", str(config)).exit_code == 2


def test_a_baseline_from_a_file_watches_from_the_first_event_on(stream: Path, config: Path, tmp_path: Path) -> None:
    past = write_transactions(tmp_path / "past.csv", 4_000, seed=77)
    target = tmp_path / "fraud.baseline.json"
    built = invoke("baseline", "build", str(config), "--from-file", str(past), *COLUMN_OPTIONS, "-o", str(target))
    assert built.exit_code == 0, built.stderr
    with_file = tmp_path / "with.yml"
    with_file.write_text(config.read_text().replace("{learn: 2000}", "{file: fraud.baseline.json}"))
    events = lines(invoke("replay", str(stream), "-c", str(with_file), *COLUMN_OPTIONS, "-o", "json"))
    listed = lines(invoke("baseline", "ls", str(tmp_path), "-o", "json"))
    ids = {row["panel"]: row["id"] for row in listed}
    drifted = [event for event in events if event["kind"] == "drift" and event["series"] == "feature:amount"]
    assert [event for event in events if event["kind"] == "baseline" and event["series"] == "panel:features"] == []
    assert {event["baseline"] for event in drifted} == {ids["features"]}
    assert set(ids) == {"features", "scores", "outcomes"}
    assert {row["rows"] for row in listed} == {4_000}


def test_a_baseline_from_a_file_is_the_one_learned_from_the_same_rows(stream: Path, config: Path, drift: Result, tmp_path: Path) -> None:
    learned = {event["series"]: event["baseline"] for event in lines(drift) if event["kind"] == "baseline" and event["segment"] is None}
    first = ["--rows", "2000", "-o", str(tmp_path / "first.json"), "--format", "json"]
    built = lines(invoke("baseline", "build", str(config), "--from-file", str(stream), *COLUMN_OPTIONS, *first))
    ids = {f"panel:{row['panel']}": row["id"] for row in built}
    assert ids["panel:features"] == learned["panel:features"]
    assert ids["panel:scores"] == learned["panel:scores"]


def test_a_baseline_file_holds_no_raw_rows_and_is_not_overwritten(config: Path, tmp_path: Path) -> None:
    past = write_transactions(tmp_path / "past.csv", 3_000)
    target = tmp_path / "b.json"
    command = ["baseline", "build", str(config), "--from-file", str(past), *NO_LABEL_OPTIONS, "-o", str(target)]
    assert invoke(*command).exit_code == 0
    assert "t0000017" not in target.read_text()
    assert invoke(*command).exit_code == 2


def test_an_edited_baseline_is_refused(config: Path, tmp_path: Path) -> None:
    past = write_transactions(tmp_path / "past.csv", 3_000)
    target = tmp_path / "b.json"
    invoke("baseline", "build", str(config), "--from-file", str(past), *NO_LABEL_OPTIONS, "-o", str(target))
    target.write_text(target.read_text().replace('"rows": 3000', '"rows": 3001'))
    done = invoke("baseline", "ls", str(target))
    assert done.exit_code == 2
    assert "edited or damaged" in done.stderr


def test_the_alerts_of_one_change_are_one_incident(stream: Path, config: Path) -> None:
    arguments = ("replay", str(stream), "-c", str(config), *COLUMN_OPTIONS, "-o", "json")
    alerts, told = (lines(invoke(*arguments, "--what", what)) for what in ("alerts", "incidents"))
    named = {alert["incident"] for alert in alerts if alert["series"] == "feature:amount"}
    assert named <= {incident["id"] for incident in told}
    assert any(one["series"] == "feature:amount" for incident in told if incident["id"] in named for one in incident["blamed"])
