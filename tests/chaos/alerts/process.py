"""The alert worker as a process: started with a failpoint, watched, killed, put to sleep and woken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.chaos.workers import PATIENCE_SECONDS, ROOT, until


class AlertProcess:
    """One alert worker."""

    def __init__(self, config: Path, log: Path, options: Mapping[str, Any], *, failpoint: str, without: str) -> None:
        self.log_path, self.instance = log, str(options["instance"])
        self.port = int(options["port"])
        self.expected = {0} | ({-signal.SIGKILL} if failpoint.count(":") < 2 and failpoint else set())
        environment = os.environ | {"DRIFTLINE_FAILPOINT": failpoint, "CHAOS_WITHOUT": without}
        command = [sys.executable, "-m", "tests.chaos.alerts.worker", str(config), json.dumps(options)]
        with log.open("wb") as sink:
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sink, stderr=sink)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        return self._process.poll()

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def asleep(self) -> bool:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    @property
    def rss_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def ready(self) -> tuple[bool, list[str]]:
        """What /readyz says."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=10) as answer:
                state = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            state = json.loads(error.read())
        except OSError as error:
            return False, [f"no page: {error}"]
        return bool(state["ready"]), list(state["reasons"])

    def kill(self) -> None:
        self.expected.add(-signal.SIGKILL)
        self._process.kill()
        self._process.wait(30)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def until_logged(self, text: str, *, after: int = 0, seconds: float = PATIENCE_SECONDS) -> None:
        self.until(lambda: text in self.log[after:], f'log "{text}"', seconds)

    def until(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for a condition while it lives."""

        def met() -> bool:
            if condition():
                return True
            assert self.code is None, f"alert/{self.instance} ended with {self.code} and did not {what}:\n{self.log[-3_000:]}"
            return False

        until(met, lambda: f"alert/{self.instance} did not {what}:\n{self.log[-3_000:]}", seconds)

    def until_dead(self, seconds: float = PATIENCE_SECONDS) -> int:
        until(lambda: self.code is not None, lambda: f"alert/{self.instance} did not end:\n{self.log[-3_000:]}", seconds)
        assert self.code is not None
        return self.code
