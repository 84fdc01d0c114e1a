"""The label cache in Redis: one hash a task, one script, at most one round trip for inserts and one for lookups a commit."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final

import redis

from driftline.streams.errors import AwayError
from driftline.streams.join.cache import CacheLost
from driftline.streams.join.facts import FACT_BYTES

_SCRIPT: Final = resources.files("driftline.streams.join").joinpath("label_cache.lua").read_text("utf-8")
_SHA: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
# One call to a script stalls every client of Redis while it runs; 20,000 labels take about 30 ms.
_CALL_ROWS: Final = 20_000


class RedisLabelCache:
    """Labels of one join task.

    Parameters
    ----------
    client : without retries; a repeated script may be applied late. Replies as bytes.
    key : prefix of the cache's keys; give it the hash tag of the task's state, so that both live on one node.
    owner_key, token : where the task's state store writes its owner, and this worker's token; None = nobody else can write.

    Raises
    ------
    CacheLost : another worker owns the task, or Redis lost what was put in.
    AwayError : Redis does not answer.
    """

    def __init__(self, client: Any, key: str, *, owner_key: str | None = None, token: str | None = None) -> None:
        self._client = client
        self._keys = [f"{key}:labels", f"{key}:labels:bounds", owner_key if owner_key is not None else f"{key}:labels:owner"]
        self._token = token or ""
        self._cursor = b"0"

    def covered(self) -> tuple[int, int] | None:
        try:
            first, last = self._client.hmget(self._keys[1], "from", "next")
        except redis.RedisError as error:
            raise AwayError(f"redis: label cache: {error}") from error
        return None if first is None or last is None else (int(first), int(last))

    def reset(self, start: int) -> None:
        self._cursor = b"0"
        self._call("reset", start)

    def insert(self, ids: Sequence[bytes], facts: Sequence[bytes], *, start: int, next_offset: int) -> None:
        for first in range(0, len(ids), _CALL_ROWS):
            part = facts[first : first + _CALL_ROWS]
            own = b"".join(ids[first : first + _CALL_ROWS])
            # Bounds move with the last part only: a crash between two leaves labels that are read, and added, again.
            reach = next_offset if first + _CALL_ROWS >= len(ids) else start
            plain = set(map(len, part)) == {FACT_BYTES}
            self._call("insert", start, reach, own, b"".join(part), FACT_BYTES if plain else 0, b"" if plain else _sizes(part))

    def lookup(self, ids: Sequence[bytes]) -> list[bytes | None]:
        out: list[bytes | None] = []
        for first in range(0, len(ids), _CALL_ROWS):
            codes, values = self._call("lookup", b"".join(ids[first : first + _CALL_ROWS]))
            out += _cut(codes, values)
        return out

    def settle(self, ids: Sequence[bytes], remains: Sequence[bytes]) -> None:
        for first in range(0, len(ids), _CALL_ROWS):
            if not any(remains[first : first + _CALL_ROWS]):
                self._call("settle", b"".join(ids[first : first + _CALL_ROWS]), b"", b"", b"")
                continue
            part = list(zip(ids[first : first + _CALL_ROWS], remains[first : first + _CALL_ROWS], strict=True))
            gone = b"".join(key for key, value in part if not value)
            kept = [(key, value) for key, value in part if value]
            values = [value for _, value in kept]
            self._call("settle", gone, b"".join(key for key, _ in kept), b"".join(values), _sizes(values))

    def sweep(self, before_ms: int, count: int) -> int:
        _, self._cursor, orphans = self._call("sweep", self._cursor, count, before_ms)
        return int(orphans)

    def sweep_all(self, before_ms: int) -> int:
        self._cursor = b"0"
        orphans = self.sweep(before_ms, 10_000)
        while self._cursor != b"0":
            orphans += self.sweep(before_ms, 10_000)
        return orphans

    def _call(self, operation: str, *arguments: Any) -> list[Any]:
        sent = [operation, self._token, *arguments]
        try:
            try:
                reply: list[Any] = self._client.evalsha(_SHA, len(self._keys), *self._keys, *sent)
            except redis.exceptions.NoScriptError:
                reply = self._client.eval(_SCRIPT, len(self._keys), *self._keys, *sent)
        except redis.RedisError as error:
            raise AwayError(f"redis: label cache: {error}") from error
        if reply[0] == b"owner":
            raise CacheLost(f'label cache "{self._keys[0]}": another worker owns this task')
        if reply[0] == b"lost":
            raise CacheLost(f'label cache "{self._keys[0]}": Redis lost entries: expected labels up to {arguments[0]}, holds {reply[1]!r}')
        return reply


def _sizes(values: Sequence[bytes]) -> bytes:
    return struct.pack(f"<{len(values)}I", *map(len, values))


def _cut(codes: bytes, values: bytes) -> list[bytes | None]:
    """The values of a lookup's reply."""
    if b"2" not in codes:
        cut = (values[at : at + FACT_BYTES] for at in range(0, len(values), FACT_BYTES))
        return list(cut) if b"0" not in codes else [next(cut) if code == 49 else None for code in codes]
    out: list[bytes | None] = []
    at = 0
    for code in codes:
        size = 0 if code == 48 else FACT_BYTES
        if code == 50:
            size = int.from_bytes(values[at : at + 4], "little")
            at += 4
        out.append(values[at : at + size] if size else None)
        at += size
    return out


