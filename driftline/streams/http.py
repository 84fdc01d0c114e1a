"""Health, readiness and metrics of a worker over HTTP: GET /livez, /readyz, /metrics.

Loopback unless the configuration says otherwise: the pages name topics and models and ask for no password.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from driftline.streams.progress import STALL_SECONDS, Progress

_JSON = "application/json"
# A client that connects and says nothing holds one thread this long.
_REQUEST_SECONDS_MAX = 10
# The broker takes a consumer for dead after max.poll.interval.ms, 300 s by default; so do we.
BEAT_SECONDS_MAX = 300.0
# With hundreds of partitions one page shall still be read.
_STALLS_SHOWN = 5


class Health:
    """What the runner knows of itself; written by its loop, read by the HTTP threads.

    Parameters
    ----------
    clock : seconds that never go back.
    stall_seconds : how long a partition may stand still while records wait.

    Attributes
    ----------
    progress : where each partition stands.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, stall_seconds: float = STALL_SECONDS) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._beat = clock()
        self._committed = clock()
        self._lag = 0
        self._assigned: int | None = None
        self._kafka: str | None = None
        self._redis: str | None = "not connected yet"
        self._stopping = False
        self._failure: str | None = None
        self.progress = Progress(stall_seconds=stall_seconds, clock=clock)

    def beat(self) -> None:
        """The loop goes round."""
        with self._lock:
            self._beat = self._clock()

    def assigned(self, tasks: int | None) -> None:
        """The group has given this worker `tasks` tasks; None while a rebalance is under way."""
        with self._lock:
            self._assigned = tasks

    def redis(self, problem: str | None) -> None:
        """Redis answers (None), or why it does not."""
        with self._lock:
            self._redis = problem

    def kafka(self, problem: str | None) -> None:
        """Kafka answers (None), or why it does not."""
        with self._lock:
            self._kafka = problem

    @property
    def kafka_away(self) -> bool:
        """Whether Kafka did not answer when it was last asked."""
        with self._lock:
            return self._kafka is not None

    def committed(self, *, lag_records: int) -> None:
        """A commit stands and leaves `lag_records` to do; also called, with 0, when there was nothing to commit."""
        with self._lock:
            self._committed = self._clock()
            self._lag = lag_records

    def lagging(self, records: int) -> None:
        """Records wait, whether or not a commit comes through."""
        with self._lock:
            self._lag = records

    def stopping(self) -> None:
        """No more work is taken; readiness ends before the process does."""
        with self._lock:
            self._stopping = True

    def failed(self, reason: str) -> None:
        """It cannot go on, and leaves the group: another worker, or a person, has to."""
        with self._lock:
            self._failure = reason

    def live(self) -> tuple[bool, dict[str, object]]:
        """Whether the loop still goes round; a process that is not live is worth a restart."""
        with self._lock:
            age = self._clock() - self._beat
        return age <= BEAT_SECONDS_MAX, {"live": age <= BEAT_SECONDS_MAX, "loop_age_seconds": round(age, 3)}

    def ready(self) -> tuple[bool, dict[str, object]]:
        """Whether it does its work, and the reasons why not."""
        stalls = self.progress.stalls()
        with self._lock:
            commit_age = self._clock() - self._committed
            reasons = self._troubles()
            reasons += [str(stall) for stall in stalls[:_STALLS_SHOWN]]
            if len(stalls) > _STALLS_SHOWN:
                reasons.append(f"{len(stalls) - _STALLS_SHOWN} more partitions stand still")
            state = {
                "ready": not reasons,
                "reasons": reasons,
                "tasks": self._assigned,
                "lag_records": self._lag,
                "commit_age_seconds": round(commit_age, 3),
            }
        return not reasons, state

    def hint(self) -> str:
        """Why a partition may stand still, as far as this worker knows: for a log line."""
        with self._lock:
            troubles, age = self._troubles(), self._clock() - self._beat
        if troubles:
            return "; ".join(troubles)
        if age > self.progress.stall_seconds / 2:
            return f"the worker's loop has not come round for {age:.0f} s: a call does not return; a restart goes on from the last commit"
        return "commits do not come through or records cannot be read: see commit_aborted and kafka_* in this log"

    def _troubles(self) -> list[str]:
        reasons = []
        if self._failure is not None:
            reasons.append(f"stopped: {self._failure}")
        elif self._stopping:
            reasons.append("stopping")
        if self._kafka is not None:
            reasons.append(f"kafka: {self._kafka.removeprefix('kafka: ')}")
        if self._redis is not None:
            reasons.append(f"redis: {self._redis.removeprefix('redis: ')}")
        if self._assigned is None:
            reasons.append("waiting for the group to assign partitions")
        return reasons


class HttpServer:
    """The server in a thread of its own; a context manager.

    Parameters
    ----------
    port : 0 takes a free one; `port` then says which.

    Raises
    ------
    OSError : the port is taken; the message names it.
    """

    def __init__(self, registry: CollectorRegistry, health: Health, *, host: str = "127.0.0.1", port: int = 0) -> None:
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(registry, health))
        except OSError as error:
            raise OSError(error.errno, f"http: cannot listen on {host}:{port} (see http.port): {error.strerror}") from error
        # A scrape under way must not hold up the end of the process.
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True, kwargs={"poll_interval": 0.1})

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def start(self) -> HttpServer:
        """Answer from now on."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Close the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> HttpServer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def _handler(registry: CollectorRegistry, health: Health) -> type[BaseHTTPRequestHandler]:
    """A request handler bound to what it shows (the library makes one object a request from the class)."""

    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_SECONDS_MAX
        server_version = "driftline"
        sys_version = ""

        def do_GET(self) -> None:
            path = self.path.split("?", 1)[0]
            if path == "/livez":
                self._checked(health.live())
            elif path == "/readyz":
                self._checked(health.ready())
            elif path == "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._send(200, content_type, encode(registry))
            else:
                self._send(404, _JSON, _json({"error": "no such page", "pages": ["/livez", "/readyz", "/metrics"]}))

        do_HEAD = do_GET   # noqa: N815 - the library finds methods by these names

        def log_message(self, format: str, *args: object) -> None:   # noqa: A002 - the name of the method it overrides
            """Keep a line per scrape out of the log."""

        def _checked(self, result: tuple[bool, dict[str, object]]) -> None:
            good, state = result
            self._send(200 if good else 503, _JSON, _json(state))

        def _send(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return Handler


def _json(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"
