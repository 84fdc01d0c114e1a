"""The alert worker as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.chaos.process import ROOT, WorkerProcess, read_ready


class AlertProcess(WorkerProcess):
    """One alert worker, started with the options of `worker.py`."""

    def __init__(self, config: Path, log: Path, options: Mapping[str, Any], *, failpoint: str, without: str) -> None:
        self.port = int(options["port"])
        environment = os.environ | {"DRIFTLINE_FAILPOINT": failpoint, "CHAOS_WITHOUT": without}
        command = [sys.executable, "-m", "tests.chaos.alerts.worker", str(config), json.dumps(options)]
        with log.open("wb") as sink:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sink, stderr=sink)
        # A failpoint without a way of its own kills.
        kills = bool(failpoint) and failpoint.count(":") < 2
        super().__init__(f"alert/{options['instance']}", process, log, [-signal.SIGKILL] if kills else [])

    def ready(self) -> tuple[bool, list[str]]:
        """What /readyz says."""
        return read_ready(self.port)
