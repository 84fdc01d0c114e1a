"""`driftline run` on a real Kafka and Redis, ended from outside."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import Kafka
from tests.e2e.programs import driftline, write_config


@pytest.fixture
def config(kafka: Kafka, redis_url: str, topic_prefix: str, tmp_path: Path) -> Path:
    path = write_config(tmp_path / "m.yml", kafka, redis_url, topic_prefix, "{m: {}}")
    driftline("topics", "create", path, "--sources")
    return path


@pytest.fixture
def running(config: Path, tmp_path: Path) -> Iterator[tuple[psutil.Popen, list[psutil.Process]]]:
    """All four processors under their supervisor, ready."""
    log = tmp_path / "log"
    with log.open("wb") as sink:
        process = psutil.Popen([sys.executable, "-m", "driftline", "run", str(config), "--instance", "pod-0"], stderr=sink)
    deadline = time.monotonic() + 120
    while log.read_bytes().count(b"processor_ready") < 3 or b"alert_assigned" not in log.read_bytes():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    children = process.children(recursive=True)
    yield process, children
    for left in (process, *children):
        if left.is_running():
            left.kill()
    process.wait(30)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGKILL, -9)])
def test_run_told_to_end_or_killed_leaves_no_process_behind(
    running: tuple[psutil.Popen, list[psutil.Process]], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process, children = running
    assert len(children) == 4
    process.send_signal(number)
    assert process.wait(60) == code
    _gone, left = psutil.wait_procs(children, timeout=240)
    assert [child.cmdline() for child in left if child.status() != psutil.STATUS_ZOMBIE] == []
    assert "Traceback" not in (tmp_path / "log").read_text()
