"""What a line of `tail` says of an event."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest
from click.testing import CliRunner

from driftline.cli.events import EventPrinter
from driftline.cli.main import cli
from driftline.cli.output import plain_table
from driftline.schemas.events import DriftEvent, Effect, Position
from driftline.streams.alert.pipeline import AlertPipeline
from driftline.streams.alert.state import Source
from tests.alert.conftest import DEFAULTS


def lines(what: str, events: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> list[str]:
    printer = EventPrinter(what, "table")
    for event in events:
        printer.add(orjson.dumps(event))
    header, *rows = capsys.readouterr().out.splitlines()
    return [row[header.index("step" if what == "alerts" else "level") :] for row in rows]


def drift(number: int, **fields: Any) -> DriftEvent:
    times = {"time_ms": 1_000 * number, "record_time_ms": 1_000 * number}
    return DriftEvent(**{"id": f"e{number}", "position": Position("p", 0, number), **DEFAULTS, **times, **fields})


def test_a_line_of_an_alert_says_what_this_step_added(capsys: pytest.CaptureFixture[str]) -> None:
    life = [
        drift(1),
        drift(2, kind="evidence", detector="adwin"),
        drift(3, kind="evidence", detector="severity", severity="critical"),
        drift(4, episode="ep2", version="2", detector="page_hinkley"),
        drift(5, kind="recovery", detector="level", reason="back"),
        drift(6, episode="ep2", version="2", kind="recovery", detector="stale", reason="gone"),
    ]
    pipeline, state, alerts = AlertPipeline(), None, []
    for number, event in enumerate(life):
        decision = pipeline.process(event, Source("t", 0, number), state)
        state = decision.state
        alerts.append(msgspec.to_builtins(decision.alert))
    steps = [line[:22].strip() for line in lines("alerts", alerts, capsys)]
    assert steps == ["opened: psi", "evidence: adwin", "severity: critical", "evidence: page_hinkley", "one of 2 ended", "resolved: stale"]


def test_a_line_of_a_drift_event_has_levels_in_the_unit_of_the_series(capsys: pytest.CaptureFixture[str]) -> None:
    shown = [
        drift(1, effect=Effect("mean", 0.93), value=0.93, baseline_value=0.0, median=83.25, baseline_median=41.0),
        drift(2, effect=Effect("rate", 1.0), value=0.04, baseline_value=0.02),
        drift(3),
        drift(4, effect=Effect("mean", 0.48), value=0.48, baseline_value=0.0, pair_correlation=0.512, baseline_correlation=-0.02),
        drift(5, effect=Effect("mean", 1.3), value=1.3, series="stream:label_delay", median=7.2e6, baseline_median=4.5e5),
    ]
    events = [msgspec.to_builtins(event) for event in shown]
    levels = [line[:22].strip() for line in lines("drift", events, capsys)]
    assert levels == ["83.25 (41)", "0.04 (0.02)", "-", "0.512 (-0.02)", "2 h (7.5 min)"]


def test_control_characters_of_a_record_are_told_and_not_sent_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A segment value and a version come from records as they are: one could clear the screen, or write a line of its own."""
    wild = "a\x1b[2J\nresolved\u202e"
    told = "a\\x1b[2J\\nresolved\\u202e"
    for what, fields in (("drift", {"segment": {"country": wild}}), ("drift", {"kind": "version_seen", "reason": wild})):
        printer = EventPrinter(what, "table")
        printer.add(orjson.dumps(msgspec.to_builtins(drift(1, **fields))))
        _, row = capsys.readouterr().out.splitlines()
        assert told in row
    assert told in plain_table([{"summary": wild}], ["summary"])[1]
    assert plain_table([{"summary": "größer als 中"}], ["summary"])[1] == "größer als 中"


def test_a_transition_and_a_long_kind_keep_the_columns(capsys: pytest.CaptureFixture[str]) -> None:
    event = {
        "fingerprint": "f" * 32, "episode": "e", "seq": 2, "model": "fraud", "change": "baseline_mismatch", "from_severity": None,
        "severity": "info", "condition": None, "reason": "new prices", "time_ms": 0, "drift_event": "d",
    }  # fmt: skip
    printer = EventPrinter("transitions", "table")
    printer.add(orjson.dumps(event))
    printer.finish()
    head, line = capsys.readouterr().out.splitlines()
    assert line[head.index("severity") :].startswith("info ")
    assert line.endswith("new prices")


def test_baseline_build_help_has_its_example_as_it_is_typed() -> None:
    shown = CliRunner().invoke(cli, ["baseline", "build", "--help"]).stdout
    assert "\\b" not in shown
    assert "--label-time label_at \\\n" in shown
