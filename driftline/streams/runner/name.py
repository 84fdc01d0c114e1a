"""An instance name that the group denies: to wait for it, to take it back, or to leave it to a living rival.

A worker is refused for two reasons, and both may be the doing of its own former self:

- **in use** (KIP-848): who joins is refused while a member of that name is there. A worker that was killed stays one until its
  session ends; whoever stays for longer is alive.
- **taken** (classic): who joins throws out the member of that name. After a broker stood still a request to join that the client
  had given up may be served behind the one it made instead; the member that nobody is then throws out the worker. Joining once
  more throws out that one, for good; a living rival comes back, and one of the two finds that it was thrown out too often.

librdkafka's client is dead after either. What was not committed by then never will be: the group's metadata is of a member that is gone.
"""

from __future__ import annotations

import time
from typing import Final

from confluent_kafka import KafkaError

from driftline.streams.errors import FatalError, OwnershipError

# With the consumer protocol the name of a worker that was killed is free again once its session has ended: 45 s after its last
# heartbeat by default, 60 s at most unless the broker was told otherwise.
# Two that take a name from each other do so once in two heartbeats (2 s by default) and two pauses.
NAME_SECONDS: Final = 120.0
# A broker that stands still twice within that time may do it to one worker twice; two workers of one name do it for ever.
# A rival that is the rightful one, such as the successor of a worker that was frozen, loses its partitions as often.
_TAKEN_MAX: Final = 2
_RIVAL: Final = "does another worker run with the same instance name? Each needs a DRIFTLINE_INSTANCE of its own"
# A client that was refused passes on the broker's reason as text alone.
_IN_USE_TEXT: Final = KafkaError(KafkaError.UNRELEASED_INSTANCE_ID).str()
_TAKEN_TEXT: Final = KafkaError(KafkaError.FENCED_INSTANCE_ID).str()


class InstanceName:
    """What the group has said of this worker's name."""

    def __init__(self) -> None:
        self._denied_since: float | None = None
        self._taken: list[float] = []

    def granted(self) -> None:
        """The group let the worker in."""
        self._denied_since = None

    def denied(self, error: KafkaError, holder: str | None = None) -> str:
        """Why to ask again, in words.

        Parameters
        ----------
        holder : who the group has under this name, as far as it says.

        Raises
        ------
        OwnershipError : the name is another living worker's.
        FatalError : the group has another reason, which asking again does not change.
        """
        now = time.monotonic()
        said = error.str() if holder is None else f"{error.str()}; the group has it as {holder}"
        if _IN_USE_TEXT in error.str():
            if self._denied_since is None:
                self._denied_since = now
            if now - self._denied_since > NAME_SECONDS:
                raise OwnershipError(f"kafka: {said}", hint=_RIVAL)
            return "the worker that had this instance name before is a member of the group until its session ends"
        if _TAKEN_TEXT in error.str():
            # What counts is how it follows on the last time, not how many there were in an hour: a slow pair is no pair of ghosts.
            self._taken = [*self._taken, now] if self._taken and now - self._taken[-1] <= NAME_SECONDS else [now]
            if len(self._taken) > _TAKEN_MAX:
                raise OwnershipError(f"kafka: taken {len(self._taken)} times in a row: {said}", hint=_RIVAL)
            return "the group gave this instance name to another member, which is a former self of this worker or a rival"
        raise FatalError(f"kafka: the group refuses this worker for good: {error.str()}")
