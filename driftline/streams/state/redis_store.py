"""The store in Redis: one Lua script for every write, no retries, no silent reconnect to another server."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final

import redis

from driftline.schemas.config import Config, Redis
from driftline.streams.errors import StateError
from driftline.streams.redis_client import check_policy, connect, redis_errors, section_of
from driftline.streams.state.store import Claim, Write, refusal

_log = logging.getLogger(__name__)

_SCRIPT: Final = resources.files("driftline.streams.state").joinpath("write.lua").read_text("utf-8")
_SHA: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()

# Redis' scripts count in doubles.
_EPOCH_MAX: Final = 1 << 53
# A checkpoint with many large blobs is read in pieces: one reply of hundreds of megabytes stalls Redis for all.
_READ_KEYS: Final = 256


class RedisStore:
    """Checkpoints in Redis.

    Parameters
    ----------
    place : the configuration's section, or a URL.
    timeout_seconds : for one call. At most a third of the transaction timeout, so that the transaction can still be aborted.
    """

    def __init__(self, place: Redis | str, *, timeout_seconds: float = 5.0) -> None:
        self._run_id: str | None = None
        self._tokens: dict[str, str] = {}
        # It repeats nothing: a script may be applied late and out of order; the caller decides after reading the head again.
        self._client: Any = connect(section_of(place), timeout_seconds=timeout_seconds, on_connect=self._connected)

    def check(self) -> None:
        with redis_errors(self._client):
            memory: dict[str, Any] = self._client.info("memory")
        check_policy(memory.get("maxmemory_policy"))

    def claim(self, owner_key: str, head_key: str, token: str, epoch_floor: int) -> Claim:
        _, epoch, head = self._run([owner_key, head_key], ["claim", token, epoch_floor])
        self._tokens[owner_key] = token
        if not 0 < int(epoch) < _EPOCH_MAX:
            hint = "another program wrote there; delete the key: the count goes on from what the committed offsets say"
            raise StateError(f'redis: "{owner_key}" counts {int(epoch)} owners, which cannot be', hint=hint)
        return Claim(int(epoch), _text(head_key, head))

    def token_of(self, owner_key: str) -> str:
        """The token this worker claimed a task with, whoever owns it now; for others that write beside its state."""
        return self._tokens[owner_key]

    def head(self, head_key: str) -> str:
        return _text(head_key, self.read([head_key])[0] or b"")

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        found: list[bytes | None] = []
        with redis_errors(self._client):
            for start in range(0, len(keys), _READ_KEYS):
                found += self._client.mget(keys[start : start + _READ_KEYS])
        return found

    def write(self, writes: Sequence[Write]) -> None:
        calls = [_script_call(write) for write in writes]
        if len(calls) == 1:
            replies = [self._run(*calls[0])]
        else:
            with redis_errors(self._client):
                pipeline = self._client.pipeline(transaction=False)
                pipeline.script_load(_SCRIPT)
                for keys, arguments in calls:
                    pipeline.evalsha(_SHA, len(keys), *keys, *arguments)
                replies = pipeline.execute()[1:]
        for write, (status, found, _) in zip(writes, replies, strict=True):
            if status != b"ok":
                raise refusal(write, status.decode(), found.decode("utf-8", "replace"))

    def close(self) -> None:
        self._client.close()

    def _run(self, keys: list[str], arguments: list[Any]) -> list[bytes]:
        with redis_errors(self._client):
            try:
                reply: list[bytes] = self._client.evalsha(_SHA, len(keys), *keys, *arguments)
            except redis.exceptions.NoScriptError:
                reply = self._client.eval(_SCRIPT, len(keys), *keys, *arguments)
        return reply

    def _connected(self, connection: Any) -> None:
        """Every new connection must lead to the same server process: one that restarted may have lost writes.

        The error makes the worker abort and read everything again, which is when the loss shows.
        """
        connection.on_connect()
        connection.send_command("INFO", "server")
        lines = connection.read_response().decode().splitlines()
        run_id = next((line.partition(":")[2] for line in lines if line.startswith("run_id:")), "")
        known, self._run_id = self._run_id, run_id
        if known is not None and known != run_id:
            _log.warning("redis_restarted old_run_id=%s new_run_id=%s", known, run_id)
            raise redis.exceptions.ConnectionError("the server restarted; its state must be read again")


def open_store(config: Config) -> RedisStore:
    """The store that a configuration names."""
    return RedisStore(config.redis, timeout_seconds=deadline_seconds(config))


def deadline_seconds(config: Config) -> float:
    """How long a worker waits for Redis: so long that the transaction can still be aborted in time (PROTOCOL 10)."""
    return min(5.0, config.kafka.transaction_timeout / 3_000)


def _text(key: str, value: bytes) -> str:
    """The id of a checkpoint.

    Raises
    ------
    StateError : another program wrote there.
    """
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        raise StateError(f'redis: "{key}" holds no id of a checkpoint: {value[:40]!r}', hint="does another program write there?") from None


def _script_call(write: Write) -> tuple[list[str], list[Any]]:
    keys = [write.owner_key, write.head_key]
    arguments: list[Any] = ["write", write.token, write.expected_head, write.new_head, len(write.lengths)]
    for key, length in write.lengths:
        keys.append(key)
        arguments.append(length)
    arguments.append(len(write.copies))
    for copy in write.copies:
        keys += (copy.key, copy.source)
        arguments += (copy.head, len(copy.parts))
        for start, end in copy.parts:
            arguments += (start, end - 1)
        arguments.append(copy.tail)
    arguments.append(len(write.ranges))
    for key, offset, part in write.ranges:
        keys.append(key)
        arguments += (offset, part)
    arguments.append(len(write.values))
    for key, value in write.values:
        keys.append(key)
        arguments.append(value)
    arguments.append(len(write.deletes))
    keys += write.deletes
    return keys, arguments
