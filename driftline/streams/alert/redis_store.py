"""Alerts in Redis: one Lua script writes, everything under one hash tag."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from typing import Any, cast

import msgspec
import redis

from driftline.streams.alert.state import REPAIR, AlertState, Book, IncidentState, decode_book, decode_incident, decode_state, encode_state
from driftline.streams.alert.store import RECENT_MAX, Applied, Loaded, OutboxRow, Published
from driftline.streams.errors import StateError
from driftline.streams.redis_client import redis_errors

_ROW_DECODER = msgspec.json.Decoder(OutboxRow)
_SCRIPT = "alert_apply.lua"
_OFFSET_DIGITS_MAX = 19
_ORDER_DIGITS = 4
SEED_ROWS = 200
"""States in one call while seeding: a script stops every other client of the server."""


class RedisAlertStore:
    """The store of a running alert app.

    Parameters
    ----------
    client : with `decode_responses=False` and its retries off (a repeated script would land out of order).
    namespace : key prefix, environment and cluster id; staging and production may share a Redis.
    """

    def __init__(self, client: redis.Redis, namespace: str, *, recent_max: int = RECENT_MAX) -> None:
        self._client = client
        self._recent_max = recent_max
        tag = f"{{{namespace}:alert}}"
        self._applied, self._states = f"{tag}:applied", f"{tag}:states"
        self._open, self._recent, self._outbox = f"{tag}:open", f"{tag}:recent", f"{tag}:outbox"
        self._books, self._ended, self._ended_at = f"{tag}:books", f"{tag}:incidents", f"{tag}:incidents_recent"
        self._book_names = f"{tag}:book_names"
        source = files("driftline.streams.alert").joinpath(_SCRIPT).read_text(encoding="utf-8")
        self._script = client.register_script(source)

    def load(self, partition: str, fingerprint: str, book: str = "") -> Loaded:
        with redis_errors(self._client), self._client.pipeline(transaction=True) as pipe:
            pipe.hget(self._applied, partition)
            pipe.hget(self._states, fingerprint)
            pipe.hget(self._books, book)
            applied, raw, incidents = pipe.execute()
        state = decode_state(raw) if raw is not None else None
        return Loaded(_offset(applied), state, decode_book(incidents) if incidents is not None else None)

    def apply(self, change: Applied) -> bool:
        rows: list[Any] = []
        for row in change.outbox:
            rows += (row.order[0], _encode_row(row))
        expected = "" if change.expected is None else change.expected
        written = Published(change.states, change.books, change.ended)
        return self._run(change.partition, expected, change.next_offset, 0, written, rows)

    def next_offset(self, partition: str) -> int | None:
        with redis_errors(self._client):
            return _offset(cast("bytes | None", self._client.hget(self._applied, partition)))

    def outbox(self, partition: str, limit: int) -> list[OutboxRow]:
        with redis_errors(self._client):
            raw = cast("list[bytes]", self._client.zrange(self._outbox_key(partition), 0, limit - 1))
        return sorted(map(_decode_row, raw), key=lambda row: row.order)

    def published(self, partition: str, rows: Iterable[OutboxRow]) -> None:
        members = [_encode_row(row) for row in rows]
        if not members:
            return
        with redis_errors(self._client):
            self._client.zrem(self._outbox_key(partition), *members)

    def seed(self, published: Published) -> None:
        states, books, ended = list(published.states.items()), list(published.books.items()), list(published.ended)
        for start in range(0, max(len(states), len(books), len(ended)), SEED_ROWS):
            part = slice(start, start + SEED_ROWS)
            self._run("", "", "", 1, Published(dict(states[part]), dict(books[part]), ended[part]), [])

    def open_alerts(self) -> list[AlertState]:
        with redis_errors(self._client):
            fingerprints = sorted(cast("set[bytes]", self._client.smembers(self._open)))
        return self._alerts(fingerprints)

    def recent_alerts(self, limit: int) -> list[AlertState]:
        with redis_errors(self._client):
            fingerprints = cast("list[bytes]", self._client.zrevrange(self._recent, 0, limit - 1))
        return self._alerts(fingerprints)

    def books(self) -> dict[str, Book]:
        with redis_errors(self._client):
            names = sorted(cast("set[bytes]", self._client.smembers(self._book_names)))
            found = cast("list[bytes | None]", self._client.hmget(self._books, cast("list[str]", names))) if names else []
        books = zip(names, found, strict=True)
        return {name.decode("utf-8", "replace"): decode_book(raw) for name, raw in books if raw is not None}

    def recent_incidents(self, limit: int) -> list[IncidentState]:
        with redis_errors(self._client):
            ids = cast("list[bytes]", self._client.zrevrange(self._ended_at, 0, limit - 1))
            found = cast("list[bytes | None]", self._client.hmget(self._ended, cast("list[str]", ids))) if ids else []
        return [decode_incident(raw) for raw in found if raw is not None]

    def _alerts(self, fingerprints: list[bytes]) -> list[AlertState]:
        if not fingerprints:
            return []
        with redis_errors(self._client):
            found = cast("list[bytes | None]", self._client.hmget(self._states, cast("list[str]", fingerprints)))
        return [decode_state(raw) for raw in found if raw is not None]

    def _outbox_key(self, partition: str) -> str:
        return f"{self._outbox}:{partition}"

    def _run(
        self, partition: str, expected: int | str, next_offset: int | str, seed: int, written: Published, rows: list[Any]
    ) -> bool:
        arguments: list[Any] = [partition, expected, next_offset, self._recent_max, seed]
        arguments += (len(written.states), len(written.books), len(written.ended))
        for fingerprint, state in written.states.items():
            arguments += (fingerprint, state.alert.condition, state.alert.ends_at_ms or 0, encode_state(state))
        for key, book in written.books.items():
            arguments += (key, encode_state(book))
        for one in written.ended:
            arguments += (one.incident.id, one.incident.ends_at_ms or 0, encode_state(one))
        keys = [self._applied, self._states, self._open, self._recent, self._books, self._ended, self._ended_at]
        keys += (self._book_names, self._outbox_key(partition))
        with redis_errors(self._client):
            return bool(self._script(keys=keys, args=[*arguments, *rows]))


def _offset(raw: bytes | None) -> int | None:
    """An applied offset; StateError for what is none."""
    if raw is None:
        return None
    if not raw.isdigit() or len(raw) > _OFFSET_DIGITS_MAX:
        raise StateError(f"alert store: expected an applied offset, got {raw[:40]!r}", hint=REPAIR)
    return int(raw)


def _decode_row(member: bytes) -> OutboxRow:
    """A row of the outbox; StateError for what is none."""
    try:
        return _ROW_DECODER.decode(member[_ORDER_DIGITS:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StateError(f"alert store: a row of the outbox is damaged: {error}", hint=REPAIR) from error


def _encode_row(row: OutboxRow) -> bytes:
    # members of one score sort by their bytes: the place within the event comes first
    return b"%04d" % row.order[1] + msgspec.json.encode(row)
