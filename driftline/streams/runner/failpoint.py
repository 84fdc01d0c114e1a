"""Kill this process at a named step of the commit, for tests of recovery.

``DRIFTLINE_FAILPOINT=checkpointed`` kills at the first pass of that step, ``checkpointed:5`` at the fifth;
``checkpointed:5:stop`` sends SIGSTOP instead, which makes a zombie when the process is continued.
"""

from __future__ import annotations

import os
import signal
from typing import Final

STEPS: Final = ("restored", "produced", "checkpointed", "offsets_sent", "committed")


class Failpoints:
    """Reads the variable once; without it a pass costs one comparison."""

    def __init__(self, setting: str | None = None) -> None:
        text = os.environ.get("DRIFTLINE_FAILPOINT", "") if setting is None else setting
        self._step, _, rest = text.partition(":")
        times, _, how = rest.partition(":")
        self._left = int(times or 1)
        self._signal = signal.SIGSTOP if how == "stop" else signal.SIGKILL
        if self._step and self._step not in STEPS:
            raise ValueError(f'DRIFTLINE_FAILPOINT: expected one of {", ".join(STEPS)}, got "{self._step}"')

    def reach(self, step: str) -> None:
        """Stop here if this is the pass to stop at."""
        if step != self._step:
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), self._signal)
