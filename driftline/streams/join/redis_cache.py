"""The label cache of a worker: looked up in memory, kept in Redis as a journal that a restart reads.

Every label would cost Redis four hash operations and as many passes through a script; as a part of a journal entry it
costs a copy. The journal holds a few entries a commit: labels added, ids gone. What it holds of labels that are gone is
reclaimed from its oldest end, a little each commit: labels of an old entry that are still wanted are written again at
the new end, then the entry is dropped. So it stays within about one and a half times what is held.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final

import redis

from driftline.streams.errors import StateError
from driftline.streams.join.cache import CacheLost, MemoryLabelCache
from driftline.streams.join.facts import FactError, check_facts
from driftline.streams.join.journal import ADDED, GONE, HELD, JournalError, pack, replay, unpack
from driftline.streams.redis_client import redis_errors

_log = logging.getLogger(__name__)

_SCRIPT: Final = resources.files("driftline.streams.join").joinpath("label_journal.lua").read_text("utf-8")
_SHA: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
_ENTRY_ROWS: Final = 20_000
_DIGITS_MAX: Final = 18
_READ_ENTRIES: Final = 64
_CLEANED_AT_ONCE: Final = 8 << 20
"""Bytes of old entries looked at in one commit, at most: reading and writing them takes about as many milliseconds."""
_KEPT_ROWS: Final = 1_000
"""Labels of an entry that is written again, at most. Entries are dropped whole: one of all labels that are held would be read and
written with every commit, for the little that each adds."""
_REMEMBERED_MAX: Final = 1 << 18
"""Labels written again in a round, at most, before another one begins: they take 60 bytes each until it ends."""
_GARBAGE_BYTES_MIN: Final = 1 << 18
"""Below this nothing is worth reclaiming."""


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
        self._memory = MemoryLabelCache()
        self._version = 0
        self._sizes: deque[int] = deque()
        self._bytes = self._appended = 0
        self._round = 0
        self._kept: set[bytes] = set()

    def covered(self) -> tuple[int, int] | None:
        """As `LabelCache.covered`; reads the journal, so a task asks once, when it opens."""
        entries: dict[bytes, bytes] = {}
        sizes: list[int] = []
        try:
            with redis_errors(self._client):
                bounds = self._client.hmget(self._keys[1], "from", "next", "version")
                if None in bounds:
                    return None
                first, last, version = map(_bound, bounds)
                while part := self._client.lrange(self._keys[0], len(sizes), len(sizes) + _READ_ENTRIES - 1):
                    replay(part, entries)
                    sizes += map(len, part)
            for packed in entries.values():
                check_facts(packed)
        except (JournalError, FactError, StateError) as error:
            # Damaged, or not ours: the labels topic has it all, and a reset takes the keys' place.
            _log.warning("label_cache_unusable key=%s error=%r", self._keys[0], str(error))
            return None
        self._memory = MemoryLabelCache(entries, (first, last))
        self._version, self._sizes, self._bytes = version, deque(sizes), sum(sizes)
        self._end_round()
        return self._memory.covered()

    def reset(self, start: int) -> None:
        self._memory.reset(start)
        self._run("reset", 0, start, 0)
        self._version, self._sizes, self._bytes = 0, deque(), 0
        self._end_round()

    def insert(self, ids: Sequence[bytes], facts: Sequence[bytes], *, start: int, next_offset: int) -> int:
        for first in range(0, len(ids), _ENTRY_ROWS):
            last = first + _ENTRY_ROWS
            # The bound moves with the last part only: a crash between two leaves labels that are read, and added, again.
            self._append([pack(ADDED, ids[first:last], facts[first:last])], start, next_offset if last >= len(ids) else start)
        return self._memory.insert(ids, facts, start=start, next_offset=next_offset)

    def __len__(self) -> int:
        return len(self._memory)

    def lookup(self, ids: Sequence[bytes]) -> list[bytes | None]:
        return self._memory.lookup(ids)

    def settle(self, ids: Sequence[bytes], remains: Sequence[bytes]) -> None:
        self._memory.settle(ids, remains)
        if not any(remains):
            self._append([pack(GONE, ids)])
        else:
            kept = [(key, value) for key, value in zip(ids, remains, strict=True) if value]
            gone = pack(GONE, [key for key, value in zip(ids, remains, strict=True) if not value])
            self._append([gone, pack(HELD, *zip(*kept, strict=True))])
        self._clean()

    def sweep(self, before_ms: int, count: int) -> int:
        gone, orphans = self._memory.sweep_keys(before_ms, count)
        if gone:
            self._append([pack(GONE, gone)])
            self._clean()
        return orphans

    def count_rest(self) -> int:
        changed, uncounted = self._memory.count_keys()
        if changed:
            self._append([pack(HELD, changed, self._memory.lookup(changed))])  # type: ignore[arg-type]
            self._clean()
        return uncounted

    def _clean(self) -> None:
        """Drop the oldest entries while much of the journal says nothing any more.

        It goes round: of a label that is still held the first entry that names it is written again, at the end and with all there is
        now, and further ones that were there when the round began are dropped.
        """
        entries = self._memory.entries
        surplus = self._bytes - 3 * self._memory.held_bytes // 2 - _GARBAGE_BYTES_MIN
        # As fast as it grows, at least: after an outage a commit may bring hundreds of thousands of labels.
        most, self._appended = max(_CLEANED_AT_ONCE, 2 * self._appended), 0
        if surplus > 0 and not self._round:
            self._round = len(self._sizes)
        count = size = 0
        while count < self._round and size < min(surplus, most):
            size += self._sizes[count]
            count += 1
        if not count:
            return
        with redis_errors(self._client):
            old = self._client.lrange(self._keys[0], 0, count - 1)
        # A removal has nothing before it left to remove: only labels that are still held are written again.
        try:
            named = (key for kind, ids, _ in map(unpack, old) if kind != GONE for key in ids)
            held = dict.fromkeys(key for key in named if key in entries and key not in self._kept)
        except JournalError as error:
            raise CacheLost(f'label cache "{self._keys[0]}": {error}') from error
        keys = list(held)
        parts = [keys[first : first + _KEPT_ROWS] for first in range(0, len(keys), _KEPT_ROWS)]
        self._append([pack(HELD, part, [entries[key] for key in part]) for part in parts], drop=count)
        self._round -= count
        self._kept.update(keys)
        if not self._round or len(self._kept) > _REMEMBERED_MAX:
            self._end_round()

    def _end_round(self) -> None:
        self._round = 0
        self._kept.clear()

    def _append(self, added: Sequence[bytes], start: int = 0, next_offset: int = 0, *, drop: int = 0) -> None:
        self._run(self._version, start, next_offset, drop, *added)
        self._version += 1
        for _ in range(drop):
            self._bytes -= self._sizes.popleft()
        self._sizes.extend(map(len, added))
        grown = sum(map(len, added))
        self._bytes += grown
        self._appended += 0 if drop else grown

    def _run(self, version: int | str, start: int, next_offset: int, drop: int, *added: bytes) -> None:
        sent = [self._token, version, start, next_offset, drop, *added]
        with redis_errors(self._client):
            try:
                reply: list[bytes] = self._client.evalsha(_SHA, len(self._keys), *self._keys, *sent)
            except redis.exceptions.NoScriptError:
                reply = self._client.eval(_SCRIPT, len(self._keys), *self._keys, *sent)
        if reply[0] == b"owner":
            raise CacheLost(f'label cache "{self._keys[0]}": another worker owns this task')
        if reply[0] == b"lost":
            raise CacheLost(f'label cache "{self._keys[0]}": Redis lost entries: expected labels up to {start}, holds {reply[1]!r}')


def _bound(value: bytes) -> int:
    """An offset or a version; `JournalError` for what is neither."""
    if not value.isdigit() or len(value) > _DIGITS_MAX:
        raise JournalError(f"label journal: expected an offset, got {value[:40]!r}")
    return int(value)
