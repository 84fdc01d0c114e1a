"""A real Apache Kafka: one KRaft node on loopback ports, as a child process."""

from __future__ import annotations

import base64
import os
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from driftline.streams.local.jars import LOGGING, find_java, kafka_jars
from driftline.streams.local.process import LOOPBACK, LocalServiceError, free_port
from driftline.streams.local.service import LocalService

_ONE_NODE: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # A group of one machine is complete at once; the default waits 3 s for more members.
    "group.initial.rebalance.delay.ms": "0",
    # A misspelt topic is an error, as in production.
    "auto.create.topics.enable": "false",
    # One file set each instead of 50: a start in seconds.
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
    "group.min.session.timeout.ms": "1000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # Index files are preallocated sparse; hundreds of small topics need no 10 MiB each.
    "log.index.size.max.bytes": "1048576",
    # 128 MiB at the start by default: half of a small heap, and with what a restarted broker reads first all of it.
    "log.cleaner.dedupe.buffer.size": str(16 << 20),
    "message.max.bytes": str(8 << 20),
    "replica.fetch.max.bytes": str(8 << 20),
}


class LocalKafka(LocalService):
    """A broker to start, stop, kill and restart; as a context manager it cleans up after itself.

    Parameters
    ----------
    directory : data, configuration and log; kept when given, a temporary one (removed on exit) otherwise.
    port, controller_port : loopback ports; 0 takes free ones, which stay the same over restarts.
    properties : more or other broker properties.
    cluster_id : of a cluster that has other nodes; a new one by default.
    heap : of the JVM, as in ``-Xmx``.
    detached : lives on when this process ends.
    timeout_seconds : how long a start may take.
    """

    NAME = "Kafka"
    POLL_SECONDS = 0.1

    def __init__(
        self,
        directory: Path | None = None,
        *,
        port: int = 0,
        controller_port: int = 0,
        properties: Mapping[str, str] | None = None,
        cluster_id: str = "",
        heap: str = "512m",
        detached: bool = False,
        timeout_seconds: float = 180,   # 5 s on an idle machine; 40 s were seen with eight busy processes on two cores
    ) -> None:
        super().__init__(directory, port=port, detached=detached, timeout_seconds=timeout_seconds)
        self._controller_port = controller_port or free_port()
        self._properties = dict(properties or {})
        self._cluster_id = cluster_id or new_cluster_id()
        self._heap = heap

    @property
    def bootstrap(self) -> str:
        """The address for clients, ``127.0.0.1:<port>``."""
        return f"{LOOPBACK}:{self.port}"

    def _command(self) -> list[str]:
        """Java with the jars; the data directory is formatted if it is new."""
        java, classpath = find_java(), f"{kafka_jars()}/*"
        configuration = self.directory / "server.properties"
        configuration.write_text(self._server_properties())
        if not (self.directory / "data" / "meta.properties").exists():
            self._format(java, classpath, configuration)
        logging = f"-Dlog4j2.configurationFile={LOGGING}"
        heap = [f"-Xmx{self._heap}", f"-Xms{self._heap}", "-Djava.awt.headless=true"]
        return [java, *heap, logging, "-cp", classpath, "kafka.Kafka", str(configuration)]

    def _answers(self) -> bool:
        return kafka_answers(self.bootstrap, timeout_seconds=1)

    def _server_properties(self) -> str:
        values = {
            **_ONE_NODE,
            "listeners": f"PLAINTEXT://{LOOPBACK}:{self.port},CONTROLLER://{LOOPBACK}:{self._controller_port}",
            "controller.quorum.voters": f"1@{LOOPBACK}:{self._controller_port}",
            "log.dirs": str(self.directory / "data"),
            **self._properties,
        }
        return "".join(f"{key}={value}\n" for key, value in values.items())

    def _format(self, java: str, classpath: str, configuration: Path) -> None:
        tool = [java, "-Xmx128m", f"-Dlog4j2.configurationFile={LOGGING}", "-cp", classpath, "kafka.tools.StorageTool"]
        command = [*tool, "format", "-t", self._cluster_id, "-c", str(configuration)]
        done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
        if done.returncode != 0:
            raise LocalServiceError(f"Kafka's data directory could not be formatted:\n{(done.stdout + done.stderr)[-1500:]}")


def new_cluster_id() -> str:
    """A random id in the form that Kafka gives clusters."""
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    return "A" + cluster_id[1:] if cluster_id.startswith("-") else cluster_id  # the storage tool would read it as an option


def kafka_answers(bootstrap: str, *, timeout_seconds: float = 5) -> bool:
    """Whether a broker at the address tells its metadata in time."""
    # Without both, librdkafka writes "connection refused" to the terminal for as long as we wait.
    quiet: dict[str, Any] = {"log_level": 0, "error_cb": _ignore}
    client = AdminClient({"bootstrap.servers": bootstrap, **quiet})
    try:
        return bool(client.list_topics(timeout=timeout_seconds).brokers)
    except KafkaException:
        return False


def _ignore(_error: object) -> None:
    pass
