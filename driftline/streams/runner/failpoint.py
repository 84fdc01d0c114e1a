"""Kill this process at a named step of its work, for tests of recovery.

``DRIFTLINE_FAILPOINT=checkpointed`` kills at the first pass of that step, ``checkpointed:5`` at the fifth;
``checkpointed:5:stop`` sends SIGSTOP instead, which makes a zombie when the process is continued, and
``checkpointed:5:hang`` holds the calling thread alone until SIGCONT: the Kafka client's threads go on.
``checkpointed:5:raise`` raises an error that no code expects.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Sequence
from typing import Final

_log = logging.getLogger(__name__)

STEPS: Final = ("restored", "produced", "checkpointed", "offsets_sent", "committed")
"""Of a commit (`commit.py`)."""

ALERT_STEPS: Final = ("alert_taken", "alert_decided", "alert_stored", "alert_sending", "alert_delivered", "alert_deleted")
"""Of the alert app (`alert/worker.py`): an event is looked at; its effect is known; it is stored; what follows from it has been
read from the outbox; Kafka has acknowledged that; it is gone from the outbox, and the event is not acknowledged to the group yet."""

RESCALE_STEPS: Final = ("rescale_committed",)
"""Of `driftline state rescale`: a transaction with some of what is moved stands."""

_TURN_SECONDS: Final = 0.05
_WAYS: Final = ("kill", "stop", "hang", "raise")


class FailpointError(Exception):
    """Raised on purpose; of no class that any code catches."""


class Failpoints:
    """Reads the variable once; without it a pass costs one comparison.

    Parameters
    ----------
    steps : those that this process passes; the variable may name a step of another one, and means nothing here then.
    """

    def __init__(self, setting: str | None = None, *, steps: Sequence[str] = STEPS) -> None:
        text = os.environ.get("DRIFTLINE_FAILPOINT", "") if setting is None else setting
        self._step, _, rest = text.partition(":")
        times, _, how = rest.partition(":")
        self._left = int(times or 1)
        self._how = how or "kill"
        known = (*STEPS, *ALERT_STEPS, *RESCALE_STEPS)
        if self._step and self._step not in known:
            raise ValueError(f'DRIFTLINE_FAILPOINT: expected one of {", ".join(known)}, got "{self._step}"')
        if self._how not in _WAYS:
            raise ValueError(f'DRIFTLINE_FAILPOINT: expected one of {", ".join(_WAYS)}, got "{self._how}"')
        if self._step not in steps:
            self._step = ""
        self._held = False
        if self._step and self._how == "hang":
            # A handler, because any thread may be given the signal: one that waits for it in `sigwait` is passed over at times.
            signal.signal(signal.SIGCONT, self._let_go)

    def reach(self, step: str) -> None:
        """Stop here if this is the pass to stop at."""
        if step != self._step:
            return
        self._left -= 1
        if self._left != 0:
            return
        if self._how == "raise":
            raise FailpointError(f'DRIFTLINE_FAILPOINT: raised at "{step}"')
        if self._how == "hang":
            self._hang(step)
        else:
            os.kill(os.getpid(), signal.SIGSTOP if self._how == "stop" else signal.SIGKILL)

    def _hang(self, step: str) -> None:
        self._held = True
        _log.warning("failpoint_hangs step=%s", step)
        # A flag and turns: the handler may run in this very thread, and would wait for ever for a lock of an Event's.
        while self._held:
            time.sleep(_TURN_SECONDS)

    def _let_go(self, *_: object) -> None:
        self._held = False
