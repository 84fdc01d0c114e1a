"""The command line as a program: what it loads, how it ends, what it says when it cannot go on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from driftline.cli.main import COMMANDS, cli

ROOT = Path(__file__).parents[2]
HEAVY = ("numba", "pyarrow", "pydantic", "rich", "confluent_kafka", "numpy", "redis", "faust", "prometheus_client", "orjson")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "driftline", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def imported(*arguments: str) -> set[str]:
    """Top-level names of every module that a run of the command imported, from the interpreter's own report."""
    command = [sys.executable, "-X", "importtime", "-m", "driftline", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    lines = [line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {name.split(".")[0] for name in lines}


def test_help_imports_none_of_the_heavy_libraries() -> None:
    assert not imported("--help") & set(HEAVY)


@pytest.mark.parametrize("command", ["publish", "replay", "run", "state"])
def test_help_of_a_command_imports_none_of_the_heavy_libraries_either(command: str) -> None:
    assert not imported(command, "--help") & set(HEAVY)


def test_help_lists_every_command() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).output
    assert [name for name in COMMANDS if f"  {name} " not in shown] == []


def test_an_unknown_command_is_a_usage_error() -> None:
    done = run("frobnicate")
    assert done.returncode == 2
    assert "frobnicate" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_of_the_input_is_one_line_with_exit_code_2() -> None:
    done = run("replay", "README.md", "-c", "no-such-file.yml")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no-such-file.yml" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["run", "status", "replay", "validate"])
def test_every_mistake_of_a_configuration_is_an_error_with_its_line(command: str, tmp_path: Path) -> None:
    config = tmp_path / "bad.yml"
    config.write_text("predictions: p\nkafka: {commit_interval: 5 parsecs}\nmodels:\n  m:\n    windoww: 3\n    decision: x\n")
    words = ["README.md", "-c", str(config)] if command == "replay" else [str(config)]
    done = run(command, *words)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2
    assert [line[line.rindex("(") :] for line in errors] == [f"({config}:{line})" for line in (2, 5, 6)]


def test_debug_shows_the_traceback_wherever_it_stands() -> None:
    assert "Traceback" in run("status", "no.yml", "--debug").stderr
    assert "Traceback" in run("--debug", "status", "no.yml").stderr


def test_a_broker_that_is_not_there_is_named_with_a_hint(tmp_path: Path) -> None:
    config = tmp_path / "c.yml"
    config.write_text("kafka: {bootstrap: '127.0.0.1:9'}\npredictions: p\nmodels: {m: {}}\n")
    done = run("status", str(config))
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_stops_reading_is_no_error(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("x,y\n" + "".join(f"{i},1\n" for i in range(20_000)))
    command = f"{sys.executable} -m driftline publish {rows} --topic t --model m --print | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.splitlines()[-1] == "0"
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_an_interrupt_ends_quietly_with_130(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("x\n1\n")
    script = (
        "import sys, driftline.cli.publish as p\n"
        "def stop(*a, **k): raise KeyboardInterrupt\n"
        "p.open_file = stop\n"
        "from driftline.cli.main import cli\n"
        f"cli.main(['publish', {str(rows)!r}, '--topic', 't', '--model', 'm', '--print'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
