"""The life of a service on this machine: started and awaited, stopped, killed, restarted, cleaned up after."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from driftline.streams.local.process import LocalServiceError, ServiceProcess, free_port, port_taken


class LocalService:
    """A server to start, stop, kill and restart; as a context manager it cleans up after itself.

    A service says how it is launched and how it is asked whether it answers.

    Parameters
    ----------
    directory : data, configuration and log; kept when given, a temporary one (removed on exit) otherwise.
    port : loopback port; 0 takes a free one, which stays the same over restarts.
    detached : lives on when this process ends.
    timeout_seconds : how long a start may take.
    """

    NAME: ClassVar[str]
    POLL_SECONDS: ClassVar[float]
    """Between two questions to a service that is starting."""

    def __init__(self, directory: Path | None, *, port: int, detached: bool, timeout_seconds: float) -> None:
        self._temporary = directory is None
        name = self.NAME.lower()
        self.directory = Path(tempfile.mkdtemp(prefix=f"driftline-{name}-")) if directory is None else directory.resolve()
        self.port = port or free_port()
        self._timeout_seconds = timeout_seconds
        self.directory.mkdir(parents=True, exist_ok=True)
        self._process = ServiceProcess(self.directory / f"{name}.log", detached=detached)

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def log(self) -> Path:
        return self._process.log

    def start(self) -> Self:
        """Start the server on its port and wait until it answers.

        Raises
        ------
        LocalServiceError : a program is missing, the port is taken, or it did not answer in time.
        """
        if self._process.alive:
            return self
        if port_taken(self.port):
            raise LocalServiceError(f"port {self.port} is taken by another process; {self.NAME} was not started")
        self._process.start(self._command(), cwd=self.directory)
        self._wait_until_it_answers()
        return self

    def stop(self) -> None:
        """Shut down in order; the directory stays."""
        self._process.stop()

    def kill(self) -> None:
        """Kill as a crash would; the directory stays."""
        self._process.kill()

    def restart(self) -> None:
        """Stop in order and start again on the same port and directory."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self._clean()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._clean()

    def _command(self) -> list[str]:
        """The command that runs the server, once what it needs is in the directory."""
        raise NotImplementedError

    def _answers(self) -> bool:
        """Whether the server does what it is for."""
        raise NotImplementedError

    def _clean(self) -> None:
        if self._temporary:
            self.kill()  # nobody will read the data again
            shutil.rmtree(self.directory, ignore_errors=True)
        else:
            self.stop()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + self._timeout_seconds
        while not self._answers():
            if not self._process.alive:
                raise LocalServiceError(f"{self.NAME} ended while starting; the end of {self.log}:\n{self._process.tail()}")
            if time.monotonic() > deadline:
                tail = self._process.tail()
                self.kill()
                raise LocalServiceError(f"{self.NAME} did not answer within {self._timeout_seconds:g} s; the end of {self.log}:\n{tail}")
            time.sleep(self.POLL_SECONDS)
