"""The demo itself, as a user runs it: embedded broker, real Redis, real workers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from driftline.demo.run import _tell_compiling


def demo(directory: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "driftline", "demo", "--json", "--rows", "30000", "--out", str(directory), *options]
    done = subprocess.run(command, capture_output=True, timeout=800)
    assert done.returncode == 0, done.stderr.decode()[-3_000:] + (directory / "workers.log").read_text()[-3_000:]
    result: dict[str, Any] = orjson.loads(done.stdout)
    return result


def test_each_change_is_found_its_alert_opens_and_resolves_and_nobody_else_is_accused(tmp_path: Path) -> None:
    result = demo(tmp_path, "--seed", "7")
    assert [c["change"] for c in result["changes"] if c["detected"]] == ["feature_shift", "concept", "nulls"]
    assert all(0 < c["delay_events"] < 2_500 for c in result["changes"])
    assert all(c["alert_opened"] and c["alert_resolved"] for c in result["changes"])
    assert result["wrongly_accused"] == []
    page = (tmp_path / "demo.html").read_text()
    assert "<svg" in page
    assert not re.search(r"(src|href)=", page), "the picture must not need anything but itself"


@pytest.mark.parametrize(("log", "told"), [
    ("INFO detect kernels_loading\nINFO detect kernels_compiling note='compiling kernels, once'\n", ["compiling kernels, once"]),
    ("INFO detect kernels_loading\nINFO detect processor_ready processor=detect topics=a\n", []),
])  # fmt: skip
def test_a_start_that_compiles_is_told_and_another_one_is_not(tmp_path: Path, log: str, told: list[str]) -> None:
    path, said = tmp_path / "workers.log", list[str]()
    path.write_text(log)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as worker:
        try:
            _tell_compiling(path, worker, said.append)
        finally:
            worker.kill()
    assert said == told


def test_a_stream_without_changes_accuses_nobody(tmp_path: Path) -> None:
    result = demo(tmp_path, "--seed", "8", "--no-changes")
    assert result["changes"] == []
    assert result["wrongly_accused"] == []
