"""The alert processor as a process: ``python worker_process.py CONFIG_JSON UNTIL_IDLE_SECONDS|-``."""

from __future__ import annotations

import logging
import sys

from driftline.schemas.config import Config
from driftline.streams.alert.main import run_alert

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    idle = None if sys.argv[2] == "-" else float(sys.argv[2])
    sys.exit(run_alert(Config.model_validate_json(sys.argv[1]), until_idle_s=idle, stall_s=20, session_timeout_s=6))
