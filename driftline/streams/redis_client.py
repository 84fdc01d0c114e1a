"""How Redis is reached: the one place where a client is made, and where its errors become ours.

Every client verifies the server's certificate and name where TLS is on, repeats nothing by itself (PROTOCOL 4) and holds
the password in its connection alone: the address that messages name never has one.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from driftline.schemas.config import Redis
from driftline.schemas.secret import SecretError, resolve_secret
from driftline.streams.errors import AwayError, SetupError, StateError
from driftline.streams.tls import NOT_TLS, certificate_hint, client_context, handshake_refusal, refusal_of, speaks_tls

_log = logging.getLogger(__name__)

COMMANDS: Final = (
    *("info", "ping", "get", "mget", "set", "strlen", "getrange", "setrange", "unlink", "eval", "evalsha", "script|load"),
    *("hget", "hset", "hmget", "hexists", "hdel", "hincrby", "lrange", "rpush", "ltrim", "multi", "exec"),
    *("sadd", "srem", "smembers", "zadd", "zrem", "zrange", "zrevrange", "zcard"),
)
"""Every command that Driftline sends, from its scripts too: what an ACL user needs, on keys that begin with `key_pattern`."""

START_SECONDS: Final = 60.0
_START_PAUSE_SECONDS: Final = 1.0
_PROBE_SECONDS: Final = 2.0
_ADVICE: Final = "is redis.url right and Redis up?"
_RIGHTS: Final = "docs/configuration.md, \"Secured clusters\", has the ACL line that Driftline's user needs"
_WHO: Final = "check redis.username and redis.password; the user must exist on the server and be on"


def key_patterns(settings: Redis) -> tuple[str, str]:
    """The key patterns of an ACL user: keys of tasks stand under a hash tag, the others do not."""
    return f"{settings.key_prefix}:*", "{" + f"{settings.key_prefix}:*"


def connect(settings: Redis, *, timeout_seconds: float, on_connect: Callable[[Any], None] | None = None) -> redis.Redis:
    """A client; it connects at its first command.

    Parameters
    ----------
    timeout_seconds : for one call. A script that was not answered in time may have run.
    on_connect : called with every new connection, in place of the usual greeting.

    Raises
    ------
    SetupError : the address is none, a secret is missing, or a certificate cannot be read. No message has a part of a secret.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "retry_on_error": [],
        "decode_responses": False,
    }
    if on_connect is not None:
        options["redis_connect_func"] = on_connect
    try:
        url = settings.url if isinstance(settings.url, str) else resolve_secret(settings.url)
        if settings.username is not None:
            options["username"] = settings.username
        if settings.password is not None:
            options["password"] = resolve_secret(settings.password)
    except SecretError as error:
        raise SetupError(str(error)) from None
    if url.startswith("rediss://"):
        # Made here once for its errors: redis-py would call an unreadable file a lost connection.
        client_context(
            ca_file=settings.ca_file, certificate_file=settings.certificate_file, key_file=settings.key_file,
            setting="redis.ca_file, certificate_file, key_file",
        )  # fmt: skip
        options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": settings.ca_file}
        options |= {"ssl_certfile": settings.certificate_file, "ssl_keyfile": settings.key_file}
        # OpenSSL would ask the terminal for the password of an encrypted key.
        options["ssl_password"] = ""
    elif settings.ca_file or settings.certificate_file or settings.key_file:
        raise SetupError("redis: certificates are given and redis.url is not rediss://", hint="write rediss:// for a server with TLS")
    try:
        return redis.Redis.from_url(url, **options)
    except ValueError:
        # Its text quotes what follows the last colon, which is a part of the password where that has a "/" or a "#".
        raise SetupError(
            "redis.url: expected redis://, rediss:// or unix:// with host and port, got something else",
            hint="a password with special characters belongs in redis.password, or must be percent-encoded in the URL",
        ) from None


def wait_for_redis(client: redis.Redis, *, seconds: float = START_SECONDS) -> None:
    """Return as soon as Redis answers.

    Raises
    ------
    AwayError : it did not within `seconds`.
    SetupError : it never will.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            with redis_errors(client):
                client.ping()
            return
        except AwayError as error:
            if time.monotonic() >= deadline:
                raise AwayError(f"{error.message}, for {seconds:.0f} s", hint=error.hint) from error
            _log.warning("store_away at=start error=%r retry_in_seconds=%.0f", error.message, _START_PAUSE_SECONDS)
            time.sleep(_START_PAUSE_SECONDS)


def check_policy(policy: object) -> None:
    """Refuse a server that drops keys by itself when its memory is full.

    Raises
    ------
    SetupError : its `maxmemory-policy` is another than noeviction.
    """
    found = policy.decode() if isinstance(policy, bytes) else policy
    if found not in (None, "noeviction"):
        raise SetupError(
            f'redis: maxmemory-policy is "{found}", expected "noeviction": windows, checkpoints and alerts would vanish under load',
            hint="CONFIG SET maxmemory-policy noeviction, or give Driftline a Redis of its own",
        )


def address(client: redis.Redis) -> str:
    """Where a client leads, without user and password; for messages."""
    given: dict[str, Any] = client.connection_pool.connection_kwargs
    return str(given["path"]) if "path" in given else f"{given.get('host', 'localhost')}:{given.get('port', 6379)}"


@contextmanager
def redis_errors(client: redis.Redis) -> Iterator[None]:
    """Errors of Redis as ours: what a person must mend, what will pass, and what is no state of ours.

    Raises
    ------
    AwayError : it does not answer, is loading, read-only or full; waiting helps.
    SetupError : password, right, certificate or protocol; waiting does not help.
    StateError : a key of ours holds something that is not ours.
    """
    try:
        yield
    except redis.RedisError as error:
        raise _translated(error, client) from error


def _translated(error: redis.RedisError, client: redis.Redis) -> Exception:
    known = redis.exceptions
    place, text = address(client), _one_line(error)
    # Before the connection errors: redis-py counts a wrong password among them.
    if isinstance(error, known.NoPermissionError):
        return SetupError(f"redis: {place}: the user lacks a right: {text}", hint=_RIGHTS)
    if isinstance(error, known.AuthenticationError | known.AuthorizationError) or text.startswith(("NOAUTH", "WRONGPASS")):
        # Its own words are an essay on HELLO.
        text = "it asks for them and none were sent" if text.startswith("HELLO must be called") else text
        return SetupError(f"redis: {place} refuses the user or the password: {text}", hint=_WHO)
    if isinstance(error, known.OutOfMemoryError):
        return AwayError(f"redis: out of memory: {text}", hint="raise maxmemory; nothing is lost, the worker waits")
    if isinstance(error, known.ConnectionError | known.TimeoutError | known.ReadOnlyError | known.BusyLoadingError):
        return _of_connection(error, client, place, text)
    if isinstance(error, known.ResponseError):
        return StateError(
            f"redis: {place}: a key of this installation cannot be used: {text}",
            hint="does another program write under redis.key_prefix? Remove what it wrote, or choose another prefix",
        )
    return AwayError(f"redis: {place}: {text}", hint=_ADVICE)


def _of_connection(error: redis.RedisError, client: redis.Redis, place: str, text: str) -> Exception:
    pool = client.connection_pool
    given: dict[str, Any] = pool.connection_kwargs
    hung_up = not isinstance(error, redis.exceptions.TimeoutError)
    if issubclass(pool.connection_class, redis.SSLConnection):
        reason = refusal_of(error) or _handshake(given, hung_up=hung_up)
        if reason is not None:
            return SetupError(f"redis: {place}: {reason}", hint=certificate_hint(reason, ca="redis.ca_file", own="redis.certificate_file"))
    elif "path" not in given and hung_up and speaks_tls(str(given["host"]), int(given["port"])):
        # A plain greeting to a port with TLS is only hung up on, as a server that shuts down does.
        hint = "write rediss:// and, where its certificate is from an authority of your own, redis.ca_file"
        return SetupError(f"redis: {place} speaks TLS and redis.url does not", hint=hint)
    return AwayError(f"redis: {text}", hint=_ADVICE)


def _handshake(given: dict[str, Any], *, hung_up: bool) -> str | None:
    """Why the server and we do not come to terms, where the error does not tell; None when it is merely away."""
    if not hung_up:
        # A server without TLS waits for the end of the line that it takes our greeting for.
        return NOT_TLS if _speaks_plainly(given) else None
    # A server that refuses our certificate says so after our side of the handshake is done, and may hang up before it is read.
    context = client_context(
        ca_file=given["ssl_ca_certs"], certificate_file=given["ssl_certfile"], key_file=given["ssl_keyfile"], setting="redis"
    )
    return handshake_refusal(str(given["host"]), int(given["port"]), context)


def _speaks_plainly(given: dict[str, Any]) -> bool:
    """Whether a Redis without TLS answers there."""
    try:
        with socket.create_connection((given["host"], given["port"]), _PROBE_SECONDS) as plain:
            plain.settimeout(_PROBE_SECONDS)
            plain.sendall(b"PING\r\n")
            return plain.recv(1) in (b"+", b"-")
    except OSError:
        return False


def section_of(place: Redis | str) -> Redis:
    """The section of a configuration, or one made of a URL."""
    return place if isinstance(place, Redis) else Redis(url=place)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
