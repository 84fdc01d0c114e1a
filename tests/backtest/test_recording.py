"""What backtest runs is what replay runs: the same events, whole or from a state kept on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from driftline.backtest.alarms import account, by_series
from driftline.backtest.recording import Recording
from driftline.backtest.run import Detect
from driftline.cli.main import cli
from driftline.schemas.config import Config
from tests.backtest.conftest import CHANGE, ROWS
from tests.cli.streams_for_tests import COLUMN_OPTIONS


def ledger(events: list[dict[str, Any]], *, outcomes: bool) -> list[dict[str, Any]]:
    return [event for event in events if (event["age_ms"] is not None) == outcomes]


def test_a_run_over_the_recording_says_what_replay_says(stream: Path, config: Config, recording: Recording) -> None:
    arguments = ["replay", str(stream), "-c", str(stream.parent / "fraud.yml"), *COLUMN_OPTIONS, "-o", "json"]
    result = CliRunner().invoke(cli, arguments)
    replayed = [json.loads(line) for line in result.stdout.splitlines()]
    found = Detect(config, recording).whole().found.events
    assert any(event["kind"] == "drift" for event in found)
    for outcomes in (False, True):
        assert ledger(found, outcomes=outcomes) == ledger(replayed, outcomes=outcomes)


def test_a_run_from_a_kept_state_goes_on_as_the_whole_run_did(config: Config, recording: Recording) -> None:
    detect = Detect(config, recording)
    whole = detect.whole().found.events
    for stop in (1, len(recording.records) // 2, len(recording.records) - 1):
        kept = detect.whole([stop])
        tail = detect.part(kept.states[stop], stop, len(recording.records), {}).events
        assert tail == whole[len(whole) - len(tail) :]
        head = detect.part({}, 0, stop, {}).events
        assert head + tail == whole


def test_rows_are_numbered_in_stream_order_and_outcomes_know_their_prediction(recording: Recording) -> None:
    rows = recording.models["fraud"]
    assert rows.count == ROWS == len(rows.times)
    for piece in rows.outcomes:
        batch = recording.batch(piece.record)
        assert (rows.times[piece.rows] == batch.time_ms).all()


def test_alarms_are_counted_by_series_against_what_run_length_implies(config: Config, recording: Recording) -> None:
    whole = Detect(config, recording).whole()
    times = recording.models["fraud"].times
    found = account(whole.models["fraud"], recording.models["fraud"], whole.found.events, [(int(times[0]), int(times[CHANGE]))])
    assert found.first_row == 2_000
    assert found.quiet == ()
    first = by_series(found.alarms)[0]
    assert first["series"] == "feature:amount"
    assert CHANGE <= min(alarm.row for alarm in found.alarms) < CHANGE + 200
    # 4,000 rows after learning in all rows and again in the segments; 3 detectors for each of 3 features, 1 for each of the
    # features' 12 rates and 5 more of other panels, a mean run of 1e8 each
    assert 4_000 * 2 * 21 / 1e8 < found.allowed.most < 4_000 * 2 * 50 / 1e8
