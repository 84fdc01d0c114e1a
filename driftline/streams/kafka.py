"""Kafka clients with the settings the protocol needs, and what we ask of a cluster at start.

What a user may change stands in `kafka.properties`; what exactly-once depends on is set after them and refused by
name when it is given differently.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AdminClient

from driftline.schemas.config import Kafka, SecretRef
from driftline.schemas.secret import SecretError, resolve_secret
from driftline.schemas.topics import TOPICS
from driftline.streams.cluster import Cluster
from driftline.streams.errors import KafkaAwayError, SetupError
from driftline.streams.kafka_refusal import Heard, refusal

_log = logging.getLogger(__name__)

_Client = TypeVar("_Client")
ErrorCallback = Callable[[KafkaError], None]

# Metadata of a large cluster behind TLS takes seconds; a wrong address shall not take a minute.
CALL_SECONDS: Final = 10.0
START_SECONDS: Final = 60.0
_FIRST_CALL_SECONDS: Final = 3.0
_START_PAUSE_SECONDS: Final = 2.0
# Of a topic that was created a moment ago the broker that was asked may not have heard yet.
_NEW_TOPIC_SECONDS: Final = 2.0
_NEW_TOPIC_PAUSE_SECONDS: Final = 0.2

# Our binary topics are columns already; lz4 costs least of what still halves them.
COMPRESSION: Final = "lz4"
LARGEST_MESSAGE_BYTES: Final = 8 << 20

MOCK_CLUSTER_PREFIX: Final = "mockCluster"
"""How librdkafka's in-process cluster names itself; it knows no times, topic ids or transactions."""

_CONSUMER_OWNED: Final[Mapping[str, Any]] = {
    # Offsets are committed with the checkpoint that belongs to them, by the runner alone.
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # An aborted batch is not input.
    "isolation.level": "read_committed",
    # A committed offset below the log's start means lost records: an incident, not a new beginning.
    "auto.offset.reset": "error",
    # The runner learns from it that a position is the end, which offsets alone cannot say (transaction markers).
    "enable.partition.eof": True,
}
_CONSUMER_DEFAULTS: Final[Mapping[str, Any]] = {
    # The default of 1 s stutters whenever the local queue was full for a moment.
    "fetch.queue.backoff.ms": 10,
    "fetch.wait.max.ms": 50,
    # Fetches that fit a processor's cache; a larger message comes whole all the same (KIP-74).
    "queued.max.messages.kbytes": 16 * 1024,
    "fetch.message.max.bytes": 512 * 1024,
    # 10 s: a killed worker's partitions move soon; a garbage collection or a slow disk is no death.
    "session.timeout.ms": 10_000,
    "heartbeat.interval.ms": 2_000,
    "max.poll.interval.ms": 300_000,
    # The join needs partition i of two topics on one worker, which only range gives; one strategy for all is simpler.
    "partition.assignment.strategy": "range",
}
_PRODUCER_OWNED: Final[Mapping[str, Any]] = {
    "enable.idempotence": True,
    "acks": "all",
    # aiokafka, Java and we must agree, or compaction never meets (PROTOCOL 13).
    "partitioner": "murmur2_random",
}
_PRODUCER_DEFAULTS: Final[Mapping[str, Any]] = {
    "linger.ms": 5,
    "compression.type": COMPRESSION,
    "message.max.bytes": LARGEST_MESSAGE_BYTES,
    "queue.buffering.max.messages": 500_000,
    "queue.buffering.max.kbytes": 256 * 1024,
}
# With group.protocol=consumer the broker sets these; librdkafka refuses them.
_CLASSIC_ONLY: Final = ("session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy")


def secret_text(value: str | SecretRef) -> str:
    """A setting as it stands, or the secret behind a reference.

    Raises
    ------
    SetupError : the secret cannot be read; it is in no message.
    """
    try:
        return value if isinstance(value, str) else resolve_secret(value)
    except SecretError as error:
        raise SetupError(str(error)) from None


def client_properties(kafka: Kafka) -> dict[str, Any]:
    """The librdkafka properties every client of ours starts from, secrets resolved; not for logs."""
    own: dict[str, Any] = {"bootstrap.servers": kafka.bootstrap, "client.id": "driftline"}
    return own | {name: secret_text(value) if isinstance(value, SecretRef) else value for name, value in kafka.properties.items()}


def _with_owned(properties: dict[str, Any], owned: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in owned.items():
        given = properties.get(name, value)
        if str(given).lower() != str(value).lower() and not (name == "acks" and str(given) == "-1"):
            raise SetupError(f'kafka.properties: "{name}" is not "{value}", which Driftline needs', hint="remove the property")
        properties[name] = value
    return properties


# Properties of one kind of client only: given to the other, librdkafka logs a warning each.
_PRODUCER_ONLY: Final = (
    *("linger.ms", "compression.", "acks", "batch.", "queue.buffering.", "partitioner"),
    *("enable.idempotence", "delivery.", "transaction"),
)
_CONSUMER_ONLY: Final = (
    *("fetch.", "queued.", "session.", "heartbeat.", "max.poll.", "group.", "auto.offset.", "isolation."),
    *("enable.auto.", "check.crcs", "partition.assignment.", "enable.partition.eof"),
)


def _without(properties: dict[str, Any], prefixes: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if not name.startswith(prefixes)}


def consumer_properties(kafka: Kafka, group: str, *, instance: str | None = None) -> dict[str, Any]:
    """Properties of a group's consumer.

    Parameters
    ----------
    instance : static membership under this name: a restart within the session timeout gets its partitions back at once.
    """
    properties = {**_CONSUMER_DEFAULTS, **_without(client_properties(kafka), _PRODUCER_ONLY)}
    if kafka.group_protocol == "consumer":
        for name in _CLASSIC_ONLY:
            properties.pop(name, None)
        properties |= {"group.protocol": "consumer", "group.remote.assignor": "range"}
    properties["group.id"] = group
    if instance is not None:
        properties["group.instance.id"] = instance
    return _with_owned(properties, _CONSUMER_OWNED)


def producer_properties(kafka: Kafka, *, transactional_id: str | None = None) -> dict[str, Any]:
    """Properties of a producer; transactional when it has an id."""
    properties = {**_PRODUCER_DEFAULTS, **_without(client_properties(kafka), _CONSUMER_ONLY)}
    if transactional_id is not None:
        # A killed worker's open transaction blocks every reader of its outputs until this has passed.
        properties |= {"transactional.id": transactional_id, "transaction.timeout.ms": kafka.transaction_timeout}
        # A delivery that outlives its transaction is of no use.
        properties.setdefault("delivery.timeout.ms", kafka.transaction_timeout)
        # librdkafka refuses a producer whose requests may outlive its transaction.
        properties["socket.timeout.ms"] = min(int(properties.get("socket.timeout.ms", 60_000)), kafka.transaction_timeout)
    return _with_owned(properties, _PRODUCER_OWNED)


def make_consumer(kafka: Kafka, group: str, *, instance: str | None = None, error_cb: ErrorCallback | None = None) -> Consumer:
    """A consumer for `Runner`; errors of the connection go to `error_cb` and the log."""
    properties = consumer_properties(kafka, group, instance=instance)
    return _made(lambda: Consumer({**properties, "error_cb": error_cb or log_client_error, "logger": _log}), kafka)


def make_producer(kafka: Kafka, *, transactional_id: str | None = None, error_cb: ErrorCallback | None = None) -> Producer:
    """A producer for `Runner`."""
    properties = producer_properties(kafka, transactional_id=transactional_id)
    return _made(lambda: Producer({**properties, "error_cb": error_cb or log_client_error, "logger": _log}), kafka)


class Admin(AdminClient):
    """A client for topics and offsets, which can say why no broker takes it."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self._properties = dict(properties)
        self._heard = Heard()
        # What fails comes back from the call, with its reason: on the terminal it would stand a dozen times before.
        settings: dict[str, Any] = {**properties, "error_cb": self._heard, "log_level": 2}
        super().__init__(settings)

    def refusal(self) -> SetupError | None:
        """What a person must mend, after a call has failed; None where waiting may help."""
        self.poll(0)
        return refusal(self._properties, self._heard.errors)


def make_admin(kafka: Kafka) -> Admin:
    """A client for topics and offsets.

    Raises
    ------
    SetupError : a property is unknown, or has a value that the client does not take.
    """
    properties = _without(client_properties(kafka), _PRODUCER_ONLY + _CONSUMER_ONLY)
    return _made(lambda: Admin(properties), kafka)


def _made(make: Callable[[], _Client], kafka: Kafka) -> _Client:
    """A client; its complaints quote values, which may be secrets where a reference was given."""
    try:
        return make()
    except KafkaException as error:
        text = error.args[0].str()
        for value in kafka.properties.values():
            if isinstance(value, SecretRef):
                text = text.replace(secret_text(value), "(secret)")
        raise SetupError(f"kafka.properties: {text}", hint="docs/configuration.md says where librdkafka's properties are listed") from None


def log_client_error(error: KafkaError) -> None:
    """One line for what librdkafka reports; it retries by itself."""
    _log.warning("kafka_client_error code=%s error=%r", error.name(), error.str())


_RIGHTS_CODES: Final = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
    # Not "unknown topic or partition": topics were there at the start, and a client whose broker is away says so too.
)


RIGHTS_HINT: Final = "`driftline topics create CONFIG --print` lists topics and rights"


def needs_a_person(error: KafkaError) -> bool:
    """Whether no retry will help: a right or a password is missing."""
    return error.code() in _RIGHTS_CODES


def from_kafka(error: KafkaException) -> KafkaAwayError:
    """What to wait for after an error of a client's call.

    Raises
    ------
    SetupError : waiting will not help.
    """
    cause = error.args[0]
    if needs_a_person(cause):
        raise SetupError(f"kafka: {cause.str()}", hint=RIGHTS_HINT) from error
    return KafkaAwayError(f"kafka: {cause.str()}")


def wait_for_broker(admin: AdminClient, *, seconds: float = START_SECONDS) -> None:
    """Return as soon as a broker answers.

    Raises
    ------
    KafkaAwayError : none did within `seconds`.
    SetupError : none ever will: password, certificate or protocol.
    """
    deadline = time.monotonic() + seconds
    # The first one is short: a wrong password is known by then, and a large cluster is asked again.
    patience = _FIRST_CALL_SECONDS
    while True:
        try:
            admin.list_topics(timeout=min(patience, max(1.0, deadline - time.monotonic())))
            return
        except KafkaException as error:
            reason = error.args[0].str()
        if isinstance(admin, Admin) and (refused := admin.refusal()) is not None:
            raise refused
        if time.monotonic() >= deadline:
            message = f"kafka: no broker answered within {seconds:.0f} s: {reason}"
            raise KafkaAwayError(message, hint="is kafka.bootstrap right and the broker up?")
        patience = CALL_SECONDS
        _log.warning("kafka_away at=start error=%r retry_in_seconds=%.0f", reason, _START_PAUSE_SECONDS)
        time.sleep(_START_PAUSE_SECONDS)


def read_cluster(admin: AdminClient, topics: Sequence[str], *, live_since_ms: int = 0, seconds: float = START_SECONDS) -> Cluster:
    """Cluster id, topic ids and partition counts.

    Raises
    ------
    KafkaAwayError : no broker answered within `seconds`.
    SetupError : topics are missing; names them all and the command that creates them.
    """
    wait_for_broker(admin, seconds=seconds)
    deadline = time.monotonic() + _NEW_TOPIC_SECONDS
    while True:
        metadata = admin.list_topics(timeout=CALL_SECONDS)
        missing = sorted(name for name in topics if name not in metadata.topics or metadata.topics[name].error is not None)
        if not missing:
            break
        if time.monotonic() >= deadline:
            raise no_such_topic(missing)
        time.sleep(_NEW_TOPIC_PAUSE_SECONDS)
    cluster_id = metadata.cluster_id or "unknown"
    ids = dict.fromkeys(topics, "") if cluster_id.startswith(MOCK_CLUSTER_PREFIX) else _topic_ids(admin, topics)
    return Cluster(cluster_id, ids, {name: len(metadata.topics[name].partitions) for name in topics}, live_since_ms)


def member_named(admin: AdminClient, group: str, instance: str) -> str | None:
    """Who a group has under an instance name, in words; None where it has nobody, or does not say."""
    try:
        described = admin.describe_consumer_groups([group], request_timeout=CALL_SECONDS)[group].result(CALL_SECONDS)
    except (KafkaException, TimeoutError):
        return None
    named = [member for member in described.members if member.group_instance_id == instance]
    return f"client {named[0].client_id} on {named[0].host.lstrip('/')}, member {named[0].member_id}" if named else None


def no_such_topic(missing: Sequence[str], sources: Sequence[str] = ()) -> SetupError:
    """The error that names topics, and the command that creates them.

    Parameters
    ----------
    sources : the users' topics, where they are known; they may end as ours do.
    """
    names = ", ".join(f'"{name}"' for name in missing)
    ours = [name for name in missing if name not in sources and name.endswith(tuple(f".{topic.name}" for topic in TOPICS))]
    hints = []
    if ours:
        hints.append("`driftline topics create CONFIG` creates Driftline's own topics; a user without the right to see one finds none")
    if yours := [name for name in missing if name not in ours]:
        also = f"of your own, {', '.join(yours)}: " if ours else ""
        hints.append(f"{also}is the name right? publish to it first; for a trial `driftline topics create CONFIG --sources` creates it too")
    return SetupError(f"kafka: no such topic: {names}", hint="; ".join(hints))


def _topic_ids(admin: AdminClient, topics: Sequence[str]) -> dict[str, str]:
    if not topics:
        return {}
    try:
        described = admin.describe_topics(TopicCollection(list(topics)), request_timeout=CALL_SECONDS)
        return {name: str(future.result(CALL_SECONDS).topic_id) for name, future in described.items()}
    except KafkaException as error:
        if error.args[0].code() not in (KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION):
            raise
        _log.warning("topic_ids_unknown error=%r note=%r", error.args[0].str(), "a recreated topic will not be noticed")
        return dict.fromkeys(topics, "")
