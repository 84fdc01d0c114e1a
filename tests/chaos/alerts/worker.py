"""The alert processor as a process: ``python -m tests.chaos.alerts.worker CONFIG_FILE OPTIONS_JSON``.

The options are those of `run_alert`, and `port`, where health and metrics are served. CHAOS_WITHOUT names rules of
`switches.py` to take out of its code.
"""

from __future__ import annotations

import json
import os
import sys

from pytest import MonkeyPatch  # noqa: PT013 - a type only

from driftline.cli.logs import configure_logs
from driftline.schemas.loading import load_config
from driftline.streams.alert.main import run_alert
from driftline.streams.http import Health, HttpServer
from driftline.streams.metrics import Metrics
from tests.chaos.alerts.switches import take_out


def main() -> int:
    configure_logs("alert", style="text")
    take_out(os.environ.get("CHAOS_WITHOUT", ""), MonkeyPatch())
    options = json.loads(sys.argv[2])
    health, metrics = Health(stall_seconds=options.pop("stalled_after_s", 60)), Metrics()
    with HttpServer(metrics.registry, health, port=options.pop("port", 0)):
        return run_alert(load_config(sys.argv[1]), health=health, metrics=metrics, **options)


if __name__ == "__main__":
    sys.exit(main())
