"""Detectors of other packages in a process of their own: what is asked arrives, and what they answer is theirs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.environments import environment
from benchmarks.quality import apart as module
from benchmarks.quality import single
from benchmarks.quality.apart import ENVIRONMENT, INSTALLS, Apart
from benchmarks.quality.contenders import Contender
from benchmarks.quality.streams import COVERED, RIVALRY
from tests.detectors.test_quality import TINY


@pytest.fixture
def here() -> Iterator[Apart]:
    """The process in this environment, which has the protocol and none of the packages."""
    with Apart(sys.executable) as apart:
        yield apart


def test_values_arrive_to_the_last_bit_and_alarms_come_back(here: Apart) -> None:
    reference, values = np.array([9.0, 9.0]), np.array([0.1, 0.5, np.nextafter(0.5, 1.0), -3.0, 7.0, np.inf])
    assert here.alarms("above", 0.5, reference, values) == [2, 4, 5]
    assert here.alarms("above", 7.0, reference[:0], values) == [5]
    assert here.alarms("above", 0.5, reference, values[:0]) == []


def test_alarms_after_the_first_that_is_enough_are_not_asked_for(here: Apart) -> None:
    values = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    assert here.alarms("above", 0.5, values[:0], values, enough=3) == [0, 2, 4]
    assert here.alarms("above", 0.5, values[:0], values, enough=4) == [0, 2, 4]
    assert here.alarms("above", 0.5, values[:0], values) == [0, 2, 4, 5]


def test_a_process_that_ends_is_an_error_and_not_a_detector_without_alarms(capfd: pytest.CaptureFixture[str]) -> None:
    with Apart(sys.executable) as here, pytest.raises(RuntimeError, match=r"ended at frouros \{'kind': 'CUSUM'"):
        here.alarms("frouros", 50.0, np.zeros(0), np.zeros(5), kind="CUSUM", parameter="lambda_")
    assert "No module named 'frouros'" in capfd.readouterr().err


def test_tables_have_rows_of_those_apart_and_say_so_where_they_were_left_out(monkeypatch: pytest.MonkeyPatch, here: Apart) -> None:
    monkeypatch.setattr(single, "PEERS", ())
    monkeypatch.setattr(single, "KSWIN", Contender("nothing", lambda *_: [], 0.0))
    monkeypatch.setattr(single, "ours", lambda run_length, reference, values, seed, **options: [])
    monkeypatch.setattr(single, "RIVALRY", [change for change in RIVALRY if change.name in ("normal, mean +0.5 sd", "rate 0.1 to 0.2")])

    def run(law: object, setting: float, reference: np.ndarray, values: np.ndarray, enough: int | None = None) -> list[int]:
        return here.alarms("above", setting, reference, values, enough=enough)

    far = Contender("far out", run, 3.0, (5.0, 3.2, 2.0, 1.0), numbers=True, slow=True, apart=True)
    found = single.rivals(TINY, [far])
    (row,) = [row for row in found.rows if row[1] == "far out"]
    # Of 2,000 normal values one or two are above 3.2, which is at most 1,000 a million, and some forty above 2.
    assert row[:3] == ["normal, mean +0.5 sd", "far out", "3.2"]
    assert module.LEFT_OUT not in found.text
    assert [row[1] for row in single.defaults(TINY, [far]).rows].count("far out") == 1
    for section in (single.rivals(TINY), single.defaults(TINY)):
        assert module.LEFT_OUT in section.text
        assert not [row for row in section.rows if row[1] == "far out"]


def test_an_environment_that_was_left_half_made_is_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[list[str]] = []

    def installs(command: list[str], check: bool) -> None:
        assert check
        ran.append(command)
        if command[1:3] == ["-m", "venv"]:
            (tmp_path / "bin").mkdir(exist_ok=True)
            (tmp_path / "bin" / "python").touch()
        if "broken" in command:
            raise RuntimeError("no network")

    monkeypatch.setattr("benchmarks.environments.subprocess.run", installs)
    with pytest.raises(RuntimeError, match="no network"):
        environment(tmp_path, ["broken"])
    python = environment(tmp_path, ["one==1"], ["--no-deps", "two==2"])
    assert [command[1:5] for command in ran[-2:]] == [["-m", "pip", "install", "-q"]] * 2
    assert [command[5:] for command in ran[-2:]] == [["one==1"], ["--no-deps", "two==2"]]
    assert {command[0] for command in ran[-2:]} == {python}
    count = len(ran)
    assert environment(tmp_path, ["one==1"], ["--no-deps", "two==2"]) == python
    assert len(ran) == count
    environment(tmp_path, ["one==2"])
    assert len(ran) == count + 2


def cusum(values: np.ndarray, threshold: float, delta: float) -> list[int]:
    """Page (1954) upwards from the running mean, from its thirtieth value on, anew after each alarm."""
    found, total, mean, count = [], 0.0, 0.0, 0
    for position, value in enumerate(values.tolist()):
        count += 1
        mean += (value - mean) / count
        total = max(0.0, total + value - mean - delta)
        if count >= 30 and total > threshold:
            found.append(position)
            total, mean, count = 0.0, 0.0, 0
    return found


def test_alarms_of_frouros_are_those_of_a_naive_cusum() -> None:
    made = ENVIRONMENT / "installed.json"
    if not made.exists() or json.loads(made.read_text()) != [list(arguments) for arguments in INSTALLS]:
        # Not a skip, which CI takes for a failure: these packages are nobody's dependency, and 750 MB.
        pytest.xfail("frouros is not there: python -m benchmarks.quality --only rivals --with-peers makes its environment")
    g = np.random.default_rng(4)
    law = COVERED["lognormal"]
    values = np.concatenate([law.draw(g, 3_000), law.draw(g, 1_000) + 0.5 * law.sd, law.draw(g, 1_000) + 1.5 * law.sd])
    scaled = (values - law.mean) / law.sd
    with Apart.made() as apart:
        own = {peer.name: peer for peer in module.peers(apart)}
        for name, delta in (("frouros CUSUM", 0.005), ("frouros CUSUM, delta 1/8", 0.125)):
            found = own[name].run(law, 12.0, values[:1], values)
            assert found == cusum(scaled, 12.0, delta)
            assert len(found) > 5
            assert own[name].run(law, 12.0, values[:1], values, enough=found[2]) == found[:3]
