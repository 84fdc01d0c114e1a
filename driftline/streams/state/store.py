"""The port to the store of checkpoints, and the store in memory.

A store knows keys and bytes only. What they mean is in `checkpoints.py`, so that the store in memory and Redis differ
in nothing but the transport; both pass tests/state/test_store.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from driftline.streams.errors import WriteRefused

Refusal = Literal["owner", "lost", "head", "length"]


@dataclass(frozen=True, slots=True)
class Copy:
    """A new value made of `head`, parts of another value (start and end byte, end excluded) and `tail`."""

    key: str
    source: str
    head: bytes
    parts: tuple[tuple[int, int], ...]
    tail: bytes


@dataclass(frozen=True, slots=True)
class Write:
    """Everything one checkpoint changes; applied whole if all of its conditions hold, else not at all.

    Attributes
    ----------
    token : must equal the owner's.
    expected_head, new_head : id of the newest checkpoint before and after; empty = none yet.
    lengths : (key, bytes) that must be so; Redis that lost its last second would zero-fill otherwise.
    ranges : (key, byte offset, bytes) to write into a value, which grows as needed.
    epoch : of the claim that `token` comes from.
    """

    task: str
    owner_key: str
    token: str
    head_key: str
    expected_head: str
    new_head: str
    lengths: list[tuple[str, int]] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
    ranges: list[tuple[str, int, bytes]] = field(default_factory=list)
    values: list[tuple[str, bytes]] = field(default_factory=list)
    deletes: list[str] = field(default_factory=list)
    epoch: int = 0

    @property
    def size(self) -> int:
        """Bytes of state in it."""
        return sum(len(part) for _, _, part in self.ranges) + sum(len(value) for _, value in self.values)


@dataclass(frozen=True, slots=True)
class Claim:
    """What taking over a task found: its new epoch and the id of the newest checkpoint, committed or not."""

    epoch: int
    head: str


class Store(Protocol):
    """Keys and bytes with one conditional write."""

    def check(self) -> None:
        """Refuse a store that may drop keys by itself; raise `AwayError` when it does not answer."""

    def claim(self, owner_key: str, head_key: str, token: str, epoch_floor: int) -> Claim:
        """Make `token` the owner, with an epoch above the last one and above `epoch_floor`."""

    def head(self, head_key: str) -> str:
        """The id of the newest checkpoint, empty when there is none."""

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of keys."""

    def write(self, writes: Sequence[Write]) -> None:
        """Apply writes in one round trip; each is atomic, and the first refused one raises `WriteRefused`."""

    def close(self) -> None:
        """Give connections back."""


def refusal(write: Write, reason: str, found: str) -> WriteRefused:
    """The error of a refused write.

    Parameters
    ----------
    found : what the condition was compared with; of ``owner`` the owner's epoch. Every takeover raises the epoch, so with
        a lower one, or none, nobody has taken the task over: the store has lost our claim, which is ``lost``.
    """
    if reason == "owner" and int(found or 0) < write.epoch:
        reason = "lost"
    expected = {
        "owner": "another worker took this task over",
        "lost": f"it has lost the claim {write.epoch} of this worker (found {found or 'none'})",
        "head": f'expected newest checkpoint "{write.expected_head or "none"}", found "{found or "none"}"',
        "length": f"a window has another length than this worker wrote ({found}); the store lost writes",
    }
    return WriteRefused(write.task, reason, expected.get(reason, reason))


class MemoryStore:
    """A store that dies with the process; for tests and for replay."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def check(self) -> None:
        """Memory drops nothing."""

    def claim(self, owner_key: str, head_key: str, token: str, epoch_floor: int) -> Claim:
        _, _, old = self.data.get(owner_key, b" 0").partition(b" ")
        epoch = max(int(old), epoch_floor) + 1
        self.data[owner_key] = f"{token} {epoch}".encode()
        return Claim(epoch, self.head(head_key))

    def head(self, head_key: str) -> str:
        return self.data.get(head_key, b"").decode()

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self.data.get(key) for key in keys]

    def write(self, writes: Sequence[Write]) -> None:
        refused = [error for write in writes if (error := self._write(write)) is not None]
        if refused:
            raise refused[0]

    def _write(self, write: Write) -> WriteRefused | None:
        token, _, epoch = self.data.get(write.owner_key, b"").decode().partition(" ")
        if token != write.token:
            return refusal(write, "owner", epoch)
        if (head := self.head(write.head_key)) != write.expected_head:
            return refusal(write, "head", head)
        for key, expected in write.lengths:
            if (found := len(self.data.get(key, b""))) != expected:
                return refusal(write, "length", f"{found} bytes, expected {expected}")
        for copy in write.copies:
            source = self.data.get(copy.source, b"")
            self.data[copy.key] = copy.head + b"".join(source[start:end] for start, end in copy.parts) + copy.tail
        for key, offset, part in write.ranges:
            value = self.data.get(key, b"").ljust(offset, b"\0")
            self.data[key] = value[:offset] + part + value[offset + len(part) :]
        self.data.update(write.values)
        for key in write.deletes:
            self.data.pop(key, None)
        self.data[write.head_key] = write.new_head.encode()
        return None

    def close(self) -> None:
        """Nothing to give back."""
