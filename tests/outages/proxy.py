"""A proxy before a real service that makes it slow, late or unreachable; what it holds back is delivered in the end."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Final, Literal, Self

from driftline.streams.local.process import LOOPBACK

Way = Literal["request", "reply"]
_CHUNK: Final = 64 * 1024


class Proxy:
    """Forwards bytes between clients and a server on loopback, one thread a direction.

    Attributes
    ----------
    delay_seconds : before each reply is passed on.
    bytes_per_second : of each direction of each connection; 0 = no limit.
    held : how many requests or replies were held back since `hold`.
    seen : how many requests had the marker since then.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._marker = b""
        self._armed = False
        self._way: Way = "request"
        self._free = threading.Event()
        self._free.set()
        self._open = True
        self._running = True
        self.delay_seconds = 0.0
        self.bytes_per_second = 0
        self.held = self.seen = 0
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}/0"

    def hold(self, marker: bytes, way: Way) -> None:
        """Hold back the next request that contains `marker`, or the reply to it; whatever comes on other connections passes."""
        with self._lock:
            self._marker, self._way, self.held, self.seen = marker, way, 0, 0
            self._armed = True
            self._free.clear()

    def release(self) -> None:
        """Deliver what is held back, to whoever still listens."""
        self._free.set()

    def cut(self) -> None:
        """Close every connection and refuse new ones."""
        self._open = False
        self._close_all()

    def mend(self) -> None:
        """Take connections again."""
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._running = False
        self._free.set()
        self._listener.close()
        self._close_all()

    def _close_all(self) -> None:
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while self._running:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._open:
                client.close()
                continue
            try:
                server = socket.create_connection((LOOPBACK, self._server_port), timeout=5)
            except OSError:
                client.close()   # the server is away, and so it looks
                continue
            server.settimeout(None)
            with self._lock:
                self._sockets += [client, server]
            marked = threading.Event()
            for source, target, way in ((client, server, "request"), (server, client, "reply")):
                threading.Thread(target=self._pump, args=(source, target, way, marked), name=f"proxy-{way}", daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, way: Way, marked: threading.Event) -> None:
        """One direction; the other end learns of an end of stream only when everything before it was delivered."""
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                if way == "request":
                    self._mark(data, marked)
                if marked.is_set() and way == self._way:
                    self._wait(marked)
                if way == "reply" and self.delay_seconds:
                    time.sleep(self.delay_seconds)
                self._send(target, data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _mark(self, data: bytes, marked: threading.Event) -> None:
        with self._lock:
            if not self._marker or self._marker not in data:
                return
            self.seen += 1
            if self._armed:
                self._armed = False
                marked.set()

    def _wait(self, marked: threading.Event) -> None:
        self.held += 1
        self._free.wait()
        marked.clear()

    def _send(self, target: socket.socket, data: bytes) -> None:
        rate = self.bytes_per_second
        if not rate:
            target.sendall(data)
            return
        step = max(1, rate // 20)
        for start in range(0, len(data), step):
            target.sendall(data[start : start + step])
            time.sleep(min(len(data), step) / rate)
