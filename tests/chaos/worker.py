"""`driftline` with a rule taken out of it, or with a clock that is off; what it then does is the real program's.

CHAOS_WITHOUT names rules of `switches.py`; CHAOS_CLOCK a file of seconds to add to the clock, read at every look.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from pytest import MonkeyPatch  # noqa: PT013 - a type only

from driftline.cli.main import main
from driftline.streams.runner import Runner
from tests.chaos.switches import take_out


def clock_of(file: Path) -> float:
    """The time, off by what the file says; leaves a trace that it was read."""
    file.with_name(f"{file.name}.{os.getpid()}").touch()
    return time.time() + float(file.read_text() if file.exists() else 0)


if __name__ == "__main__":
    take_out(os.environ.get("CHAOS_WITHOUT", ""), MonkeyPatch())
    if clock := os.environ.get("CHAOS_CLOCK"):
        # The runner's own port for a clock; `run` leaves it at its default.
        defaults = Runner.__init__.__kwdefaults__
        assert defaults is not None
        defaults["clock"] = lambda: clock_of(Path(clock))
    main()
