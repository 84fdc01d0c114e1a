"""librdkafka's in-process cluster, driven through C: the process behind `embedded.py`.

Reads one JSON command a line from standard input and answers each with one JSON line; ends when its input ends,
so it cannot outlive whoever started it. Imports the standard library only: it starts in a tenth of a second.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path

_PRODUCER = 0   # rd_kafka_type_t
_ERROR_BYTES = 512


class MockClusterError(RuntimeError):
    """librdkafka could not be found or refused."""


def find_librdkafka() -> Path:
    """The C library inside the installed confluent-kafka wheel.

    Raises
    ------
    MockClusterError : confluent-kafka is missing or was built against a system library.
    """
    package = importlib.util.find_spec("confluent_kafka")
    if package is None or package.origin is None:
        raise MockClusterError("the embedded broker needs the package confluent-kafka\nhint: pip install confluent-kafka")
    home = Path(package.origin).parent
    # Where the wheels of Linux and macOS carry their libraries.
    for folder in (home.with_name("confluent_kafka.libs"), home / ".dylibs"):
        for found in sorted(folder.glob("librdkafka*")):
            return found
    raise MockClusterError(f'no librdkafka beside "{home}": the embedded broker needs a binary wheel of confluent-kafka')


class MockCluster:
    """One cluster of `brokers` brokers; lives as long as the process."""

    def __init__(self, brokers: int) -> None:
        self._library = library = ctypes.CDLL(str(find_librdkafka()))
        pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
        signatures: dict[str, tuple[object, list[object]]] = {
            "rd_kafka_conf_new": (pointer, []),
            "rd_kafka_conf_set": (number, [pointer, text, text, text, ctypes.c_size_t]),
            "rd_kafka_new": (pointer, [number, pointer, text, ctypes.c_size_t]),
            "rd_kafka_mock_cluster_new": (pointer, [pointer, number]),
            "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
            "rd_kafka_mock_topic_create": (number, [pointer, text, number, number]),
            "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [pointer, ctypes.c_int32]),
            "rd_kafka_err2str": (text, [number]),
        }
        for name, (result, arguments) in signatures.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        error = ctypes.create_string_buffer(_ERROR_BYTES)
        settings = library.rd_kafka_conf_new()
        # It has no brokers of its own to reach, and would warn of that at every start.
        library.rd_kafka_conf_set(settings, b"log_level", b"2", error, _ERROR_BYTES)
        owner = library.rd_kafka_new(_PRODUCER, settings, error, _ERROR_BYTES)
        if not owner:
            raise MockClusterError(f"librdkafka refused a client: {error.value.decode()}")
        self._cluster = library.rd_kafka_mock_cluster_new(owner, brokers)
        # A group of one machine is complete at once; the default waits 3 s.
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)

    @property
    def bootstrap(self) -> str:
        return str(self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode())

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic with one replica a partition."""
        code = self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
        if code != 0:
            raise MockClusterError(f'topic "{name}": {self._library.rd_kafka_err2str(code).decode()}')


def serve(brokers: int) -> None:
    """Answer commands until the input ends."""
    cluster = MockCluster(brokers)
    _answer(bootstrap=cluster.bootstrap)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            cluster.create_topic(command["topic"], command["partitions"])
            _answer(ok=True)
        except MockClusterError as error:
            _answer(error=str(error))


def _answer(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # Ctrl-C in the terminal is for the parent; the end of the pipe is for us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with contextlib.suppress(BrokenPipeError):
            serve(int(sys.argv[1]))
    except MockClusterError as failure:
        _answer(error=str(failure))
    # Not through librdkafka's destructors: nothing here is worth a wait.
    os._exit(0)
