"""`python -m driftline.streams.local up|down|status`: a real Kafka and Redis under ./.services (`make services`)."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TypedDict

import psutil

from driftline.streams.local.kafka import LocalKafka, kafka_answers
from driftline.streams.local.process import LocalServiceError, port_taken
from driftline.streams.local.redis import LocalRedis, redis_answers

KAFKA_PORT = 9092
REDIS_PORT = 6379
_STOP_SECONDS = 30


class Entry(TypedDict):
    """A running service in `state.json`; process id and start time together name a process for good."""

    address: str
    pid: int
    created: float
    log: str


def main(arguments: list[str] | None = None) -> int:
    """Start, stop or describe the services; 0 when they run (for `down`: when they are gone)."""
    parser = argparse.ArgumentParser(prog="python -m driftline.streams.local", description="A real Kafka and Redis on this machine.")
    parser.add_argument("action", choices=["up", "down", "status"])
    parser.add_argument("--directory", type=Path, default=Path(".services"), help="data, logs and process ids (default: ./.services)")
    parser.add_argument("--kafka-port", type=int, default=KAFKA_PORT)
    parser.add_argument("--redis-port", type=int, default=REDIS_PORT)
    options = parser.parse_args(arguments)
    services = Services(options.directory.resolve(), kafka_port=options.kafka_port, redis_port=options.redis_port)
    try:
        code = {"up": services.up, "down": services.down, "status": services.status}[options.action]()
        sys.stdout.flush()
        return code
    except LocalServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader, such as head, has what it wanted; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class Services:
    """The two services of one directory; `state.json` says which processes are ours."""

    def __init__(self, directory: Path, *, kafka_port: int, redis_port: int) -> None:
        self._directory = directory
        self._state_path = directory / "state.json"
        self._ports = {"kafka": kafka_port, "redis": redis_port}

    def up(self) -> int:
        """Start what does not run yet."""
        self._directory.mkdir(parents=True, exist_ok=True)
        state = self._state()
        wanted = [name for name in ("redis", "kafka") if self._ours(state.get(name)) is None]
        for name in wanted:   # both before either starts, so that a refusal leaves nothing behind
            self._refuse_taken(name)
        for name in wanted:
            state[name] = self._start(name)
            self._state_path.write_text(json.dumps(state, indent=2) + "\n")
        return self.status()

    def down(self) -> int:
        """Stop what `up` started; the data stays."""
        for name, entry in self._state().items():
            process = self._ours(entry)
            if process is not None:
                process.terminate()
                try:
                    process.wait(_STOP_SECONDS)
                except psutil.TimeoutExpired:
                    process.kill()
            print(f"{name}: {'stopped' if process else 'was not running'}")
        self._state_path.unlink(missing_ok=True)
        return 0

    def status(self) -> int:
        """Print each service's address; 1 when one does not answer."""
        state, all_answer = self._state(), True
        for name in ("kafka", "redis"):
            entry = state.get(name)
            if entry is None or self._ours(entry) is None:
                print(f"{name}: not running")
                all_answer = False
                continue
            answers = kafka_answers(entry["address"]) if name == "kafka" else redis_answers(entry["address"])
            all_answer &= answers
            print(f"{name}: {entry['address']}{'' if answers else ' (does not answer)'} pid {entry['pid']} log {entry['log']}")
        return 0 if all_answer else 1

    def _state(self) -> dict[str, Entry]:
        entries: dict[str, Entry] = json.loads(self._state_path.read_text()) if self._state_path.exists() else {}
        return entries

    @staticmethod
    def _ours(entry: Entry | None) -> psutil.Process | None:
        """The running process of an entry; a process id that the system gave to another is not ours."""
        if entry is None:
            return None
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(entry["pid"])
            if process.create_time() == entry["created"] and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None

    def _start(self, name: str) -> Entry:
        directory = self._directory / name
        if name == "kafka":
            kafka = LocalKafka(directory, port=self._ports[name], detached=True).start()
            address, pid, log = kafka.bootstrap, kafka.pid, str(kafka.log)
        else:
            redis = LocalRedis(directory, port=self._ports[name], append_only=True, detached=True).start()
            address, pid, log = redis.url, redis.pid, str(redis.log)
        assert pid is not None
        return {"address": address, "pid": pid, "created": psutil.Process(pid).create_time(), "log": log}

    def _refuse_taken(self, name: str) -> None:
        port = self._ports[name]
        if not port_taken(port):
            return
        holder = _holder(port)
        hint = f"stop it, or choose another port: --{name}-port (make services {name.upper()}_PORT=...)"
        if name == "redis" and holder is not None and holder.username() == "redis":
            # Debian's package starts a server of its own on the same port as soon as it is installed.
            hint = f"it is the one Debian's package started: service redis-server stop; or {hint}"
        what = f'"{holder.name()}" (pid {holder.pid})' if holder else "a process of another user"
        raise LocalServiceError(f"{name}: port {port} is taken by {what}, which Driftline did not start\nhint: {hint}")


def _holder(port: int) -> psutil.Process | None:
    """Who listens on the port, where the system tells."""
    with contextlib.suppress(psutil.AccessDenied, psutil.NoSuchProcess):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return psutil.Process(connection.pid)
    return None


if __name__ == "__main__":
    sys.exit(main())
