"""Kill this process at a named step of the commit, for tests of recovery.

``DRIFTLINE_FAILPOINT=checkpointed`` kills at the first pass of that step, ``checkpointed:5`` at the fifth;
``checkpointed:5:stop`` sends SIGSTOP instead, which makes a zombie when the process is continued, and
``checkpointed:5:hang`` holds the calling thread alone until SIGCONT: the Kafka client's threads go on.
"""

from __future__ import annotations

import logging
import os
import signal
from typing import Final

_log = logging.getLogger(__name__)

STEPS: Final = ("restored", "produced", "checkpointed", "offsets_sent", "committed")
_WAYS: Final = ("kill", "stop", "hang")


class Failpoints:
    """Reads the variable once; without it a pass costs one comparison."""

    def __init__(self, setting: str | None = None) -> None:
        text = os.environ.get("DRIFTLINE_FAILPOINT", "") if setting is None else setting
        self._step, _, rest = text.partition(":")
        times, _, how = rest.partition(":")
        self._left = int(times or 1)
        self._how = how or "kill"
        if self._step and self._step not in STEPS:
            raise ValueError(f'DRIFTLINE_FAILPOINT: expected one of {", ".join(STEPS)}, got "{self._step}"')
        if self._how not in _WAYS:
            raise ValueError(f'DRIFTLINE_FAILPOINT: expected one of {", ".join(_WAYS)}, got "{self._how}"')

    def reach(self, step: str) -> None:
        """Stop here if this is the pass to stop at."""
        if step != self._step:
            return
        self._left -= 1
        if self._left != 0:
            return
        if self._how == "hang":
            _hang(step)
        else:
            os.kill(os.getpid(), signal.SIGSTOP if self._how == "stop" else signal.SIGKILL)


def _hang(step: str) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCONT})
    _log.warning("failpoint_hangs step=%s", step)
    signal.sigwait({signal.SIGCONT})
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
