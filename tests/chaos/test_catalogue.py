"""What a campaign is made of: faults and controls that fit each other, and an input that repeats."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest

from tests.chaos.command import parse, tried
from tests.chaos.controls import CONTROLS
from tests.chaos.fault import Fault
from tests.chaos.faults import FAULTS
from tests.chaos.inputs import InputStream, missing_cases
from tests.chaos.report import Row
from tests.chaos.scene import Scene
from tests.chaos.switches import SWITCHES
from tests.chaos.table import newest


def test_names_are_unique_and_every_fault_says_what_it_does() -> None:
    assert [name for name, n in Counter(fault.name for fault in FAULTS).items() if n > 1] == []
    assert [fault.name for fault in FAULTS if not fault.about] == []


def test_both_group_protocols_are_killed_and_haunted() -> None:
    pairs = {(fault.name.removesuffix("_consumer"), fault.options.protocol) for fault in FAULTS}
    for name in ("kill_at_steps", "kill_at_random", "zombies", "hung"):
        assert {(name, "classic"), (name, "consumer")} <= pairs


def test_every_control_has_its_fault_and_its_switch() -> None:
    names = {fault.name for fault in FAULTS}
    assert [control for control in CONTROLS if control.fault not in names] == []
    assert [control for control in CONTROLS for rule in control.without.split(",") if rule not in SWITCHES] == []


def test_what_breaks_kafkas_own_promise_is_run_by_its_name_only() -> None:
    beyond = {fault.name for fault in FAULTS if fault.beyond}
    assert beyond == {"broker_is_killed", "broker_restarts"}
    # What the same does to three brokers is promised.
    assert {"one_of_three_brokers_is_killed", "one_of_three_brokers_restarts"} <= {fault.name for fault in FAULTS if fault.form == "long"}
    for arguments in ([], ["--short"]):
        assert not beyond & {fault.name for fault in parse("chaos", "", FAULTS, arguments).faults(FAULTS)}
    assert [fault.name for fault in parse("chaos", "", FAULTS, ["--only", "broker_is_killed"]).faults(FAULTS)] == ["broker_is_killed"]


def test_the_short_form_has_a_control_whose_fault_is_in_it() -> None:
    short = {fault.name for fault in FAULTS if fault.short}
    assert [control for control in CONTROLS if control.short and control.fault in short]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_seed_gives_the_same_input_whatever_bursts_come_between(seed: int) -> None:
    plain, disturbed = InputStream(seed, 200.0), InputStream(seed, 200.0)
    rows, others = iter(plain), iter(disturbed)
    first = list(itertools.islice(others, 1_000))
    list(disturbed.burst(50, 0))
    assert list(itertools.islice(rows, 2_000)) == first + list(itertools.islice(others, 1_000))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_input_has_its_share_of_trouble_and_rises_in_time(seed: int) -> None:
    stream = InputStream(seed, 200.0)
    records = list(itertools.islice(stream, 10_000))
    assert missing_cases(stream.shares()) == []
    assert [record.at_ms for record in records] == sorted(record.at_ms for record in records)
    assert {record.partition for record in records} == {0, 1, 2}
    assert 0.005 < sum(not record.good for record in records) / len(records) < 0.02


def fault_of(_scene: Scene) -> None:
    """Nothing."""


def test_a_row_fails_for_each_of_its_reasons() -> None:
    fault = Fault("nothing", fault_of)
    assert Row(fault.name, "classic", 1).passed
    for trouble in ({"lost": 1}, {"doubled": 1}, {"changed": 1}, {"failures": ["x"]}, {"unwitnessed": {"kill": "0 of 1"}}):
        assert not Row(fault.name, "classic", 1, **trouble).passed


def test_a_control_is_red_only_for_a_difference_that_no_delay_explains() -> None:
    assert not Row("nothing", "classic", 1, without="rule", rule=9, drained=True).passed
    assert not Row("nothing", "classic", 1, without="rule", rule=9, lost=5).passed
    assert Row("nothing", "classic", 1, without="rule", rule=9, lost=5, drained=True).passed
    assert Row("nothing", "classic", 1, without="rule", rule=9, lost=5, surprises=["ended"]).passed


@pytest.mark.parametrize(
    ("trouble", "inconclusive"),
    [
        ({}, False),
        ({"failures": ["not so: ingest recovers"]}, True),
        ({"unwitnessed": {"kill": "0 of 1"}, "drained": True}, True),
        ({"lost": 3, "failures": ["not so: ingest recovers"]}, True),
        ({"lost": 3, "drained": True}, False),
        ({"doubled": 1, "failures": ["not so: ingest recovers"]}, False),
        ({"changed": 1, "failures": ["not so: ingest recovers"]}, False),
        ({"lost": 3, "surprises": ["ended"], "failures": ["ended"]}, False),
        ({"without": "rule"}, True),
        ({"without": "rule", "lost": 3, "drained": True}, False),
    ],
)
def test_only_what_lacked_time_or_a_witness_is_inconclusive(trouble: dict[str, Any], inconclusive: bool) -> None:
    assert Row("nothing", "classic", 1, **trouble).inconclusive is inconclusive


LATE: dict[str, Any] = {"failures": ["not so: ingest recovers"]}
LOST: dict[str, Any] = {"lost": 1, "drained": True}


@pytest.mark.parametrize(
    ("again", "first", "second", "passed", "attempts"),
    [
        (False, [LATE], [], [False], 1),
        (True, [LATE], [{}], [True], 2),
        (True, [LATE], [LATE], [False], 2),
        (True, [{}], [], [True], 1),
        (True, [LOST], [], [False], 1),
        (True, [LATE, LOST], [], [False, False], 1),
        (True, [LATE, {}], [{}, LATE], [True, True], 2),
        (True, [LATE, {}], [{}, LOST], [True, False], 2),
    ],
)
def test_a_run_is_tried_once_more_when_asked_for_and_when_nothing_shows_a_broken_promise(
    again: bool, first: list[dict[str, Any]], second: list[dict[str, Any]], passed: list[bool], attempts: int
) -> None:
    made: list[int] = []

    def run(attempt: int) -> list[Row]:
        made.append(attempt)
        return [Row("nothing", "classic", 1, **trouble) for trouble in (first, second)[attempt - 1]]

    assert [row.passed for row in tried(run, again=again)] == passed
    assert made == list(range(1, attempts + 1))


def test_a_table_has_the_last_run_of_each_fault_also_where_it_failed() -> None:
    def report(started: int, form: str, *runs: Row) -> dict[str, Any]:
        return {"started": started, "form": form, "runs": [run.export() for run in runs]}

    early = report(1, "short", Row("a", "classic", 1), Row("b", "classic", 1))
    late = report(2, "short", Row("a", "classic", 1, lost=1), Row("a", "classic", 1, without="rule", rule=9))
    longer = report(3, "long", Row("b", "classic", 1))
    found = [(run["name"], run["form"], run["without"], run["passed"]) for run in newest([late, early, longer])]
    assert found == [("a", "short", "", False), ("b", "short", "", True), ("a", "short", "rule", False), ("b", "long", "", True)]


def test_the_choice_is_the_same_in_every_campaign() -> None:
    """Faults by form or by name, controls with their faults, and either without the other."""

    def chosen(*arguments: str) -> tuple[int, int]:
        options = parse("chaos", "", FAULTS, arguments)
        return len(options.faults(FAULTS)), len(options.controls(CONTROLS, FAULTS))

    long = sum(not fault.beyond for fault in FAULTS)
    assert chosen() == (long, len(CONTROLS))
    assert chosen("--short") == (sum(fault.short for fault in FAULTS), sum(control.short for control in CONTROLS))
    assert chosen("--no-faults") == (0, len(CONTROLS))
    assert chosen("--no-controls") == (long, 0)
    mine = sum(control.fault == "redis_wiped" for control in CONTROLS)
    assert mine
    assert chosen("--short", "--only", "redis_wiped", "ingest_down") == (2, mine + sum(c.fault == "ingest_down" for c in CONTROLS))


@pytest.mark.parametrize("arguments", [("--only", "no_such_fault"), ("--no-faults", "--no-controls")])
def test_a_choice_that_nothing_can_come_of_is_refused(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("chaos", "", FAULTS, arguments)
    assert arguments[-1] in capsys.readouterr().err
