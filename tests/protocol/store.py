"""A Redis that loses, repeats and delays: the real store in memory with faults around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from driftline.streams.errors import AwayError, WriteRefused
from driftline.streams.state.store import Claim, MemoryStore, Write
from tests.protocol.clients import Host

_HISTORY = 40


class FaultyStore:
    """The same for all workers.

    Attributes
    ----------
    owners : by owner key, the token of the last claim that the server still knows of.
    trespass : what a former owner wrote after another worker's claim.
    fault : of the next write: ``lost`` never arrives, ``done`` arrives and the answer does not, ``late`` arrives when the
        network likes, ``twice`` arrives now and once more then.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.inner = MemoryStore()
        self.fault = ""
        self.owners: dict[str, str] = {}
        self.trespass = ""
        self._history: list[dict[str, bytes]] = []

    def check(self) -> None:
        self._host.step("store_check")

    def claim(self, owner_key: str, head_key: str, token: str, epoch_floor: int) -> Claim:
        self._host.step("claim")
        self._remember()
        self.owners[owner_key] = token
        return self.inner.claim(owner_key, head_key, token, epoch_floor)

    def head(self, head_key: str) -> str:
        return self.inner.head(head_key)

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        self._host.step("store_read")
        return self.inner.read(keys)

    def write(self, writes: Sequence[Write]) -> None:
        self._host.step("store_write")
        fault, self.fault = self.fault, ""
        if fault in ("late", "twice"):
            self._host.later(self._again(writes))
        if fault in ("", "done", "twice"):
            self._apply(writes)
        if fault:
            self._host.advance(5.0)
            raise AwayError("redis: timed out")

    def _again(self, writes: Sequence[Write]) -> Callable[[], None]:
        def arrive() -> None:
            with suppress(WriteRefused):
                self._apply(writes)

        return arrive

    def _apply(self, writes: Sequence[Write]) -> None:
        self._remember()
        before = {write.head_key: self.inner.head(write.head_key) for write in writes}
        try:
            self.inner.write(writes)
        finally:
            for write in writes:
                moved = self.inner.head(write.head_key) != before[write.head_key]
                if moved and self.owners.get(write.owner_key, write.token) != write.token:
                    self.trespass = f"{write.task}: {write.new_head} was written by a former owner"

    def close(self) -> None:
        pass

    # -- what happens to a server

    def _remember(self) -> None:
        self._history = [*self._history[1 - _HISTORY :], dict(self.inner.data)]

    def roll_back(self, writes: int) -> None:
        """Restart from a file that lacks the last claims and writes."""
        for _ in range(writes):
            if self._history:
                self.inner.data = self._history.pop()
        self.owners.clear()

    def wipe(self) -> None:
        self.inner.data = {}
        self.owners.clear()

    def newest(self, task: str, kind: str) -> list[str]:
        """Keys of the newest checkpoint of a task: ``m`` its manifest, ``b`` blobs written with it, ``r`` its rings."""
        data = self.inner.data
        head = next((value.decode() for key, value in data.items() if key.endswith(f"{task}}}:head")), None)
        if head is None:
            return []
        mine = sorted(key for key in data if f"{task}}}:{kind}:" in key)
        return mine if kind == "r" else [key for key in mine if key.endswith(f":{head}")]

    def damage(self, task: str, kind: str) -> None:
        """Change a byte, the last one: of a ring it is a row."""
        for key in self.newest(task, kind)[-1:]:
            value = self.inner.data[key]
            self.inner.data[key] = value[:-1] + bytes([value[-1] ^ 1])

    def lose(self, task: str, kind: str) -> None:
        for key in self.newest(task, kind):
            del self.inner.data[key]
