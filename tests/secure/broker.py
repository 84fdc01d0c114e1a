"""A real Kafka with the listeners that a company's cluster has: SASL over TLS, client certificates, and an authorizer."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from driftline.streams.local.kafka import LocalKafka
from driftline.streams.local.process import LOOPBACK, free_port
from tests.secure.certificates import Authority, Certificate

_CALL_SECONDS = 60.0


class SecuredKafka:
    """A broker with a plain port for the test itself, who may do all, and others for the program, which may do what it is given.

    Parameters
    ----------
    certificates : of the listener with SASL; more listeners with other certificates by name.
    """

    def __init__(self, directory: Path, authority: Authority, certificate: Certificate, others: dict[str, Certificate]) -> None:
        self.sasl = f"localhost:{free_port()}"
        self.mutual = f"localhost:{free_port()}"
        self.others = {name: f"localhost:{free_port()}" for name in others}
        plain, controller = free_port(), free_port()
        ports = {"SASL_SSL": self.sasl, "MUTUAL": self.mutual, **{name.upper(): place for name, place in self.others.items()}}
        listeners = [f"PLAINTEXT://{LOOPBACK}:{plain}", *(f"{name}://{place}" for name, place in ports.items())]
        protocols = ["PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT", "SASL_SSL:SASL_SSL", *(f"{n}:SSL" for n in ports if n != "SASL_SSL")]
        sasl = "listener.name.sasl_ssl"
        properties = {
            "listeners": ",".join([*listeners, f"CONTROLLER://{LOOPBACK}:{controller}"]),
            "advertised.listeners": ",".join(listeners),
            "listener.security.protocol.map": ",".join(protocols),
            f"{sasl}.sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN",
            f"{sasl}.scram-sha-256.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
            f"{sasl}.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
            f"{sasl}.plain.sasl.jaas.config": (
                'org.apache.kafka.common.security.plain.PlainLoginModule required user_plain="plain-password";'
            ),
            "ssl.keystore.type": "PEM",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(authority.file),
            "ssl.keystore.location": str(certificate.store),
            **{f"listener.name.{name}.ssl.keystore.location": str(other.store) for name, other in others.items()},
            **{f"listener.name.{name}.ssl.keystore.type": "PEM" for name in others},
            "listener.name.mutual.ssl.client.auth": "required",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }
        self.server = LocalKafka(directory, port=plain, controller_port=controller, properties=properties)
        self.authority = authority

    @cached_property
    def admin(self) -> AdminClient:
        """Who may do all."""
        return AdminClient({"bootstrap.servers": self.server.bootstrap, "log_level": 2})

    def create_topics(self, *names: str) -> None:
        """Topics as a company has them: kept for ever, with the producer's times."""
        config = {"retention.ms": "-1", "message.timestamp.type": "CreateTime"}
        wanted = [NewTopic(name, num_partitions=1, replication_factor=1, config=config) for name in names]
        for future in self.admin.create_topics(wanted, operation_timeout=_CALL_SECONDS).values():
            future.result(_CALL_SECONDS)

    def add_user(self, name: str, password: str) -> None:
        """A SCRAM user without any right."""
        secret = password.encode()
        kinds = (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)
        changes = [UserScramCredentialUpsertion(name, ScramCredentialInfo(kind, 4096), secret) for kind in kinds]
        for change in changes:
            for future in self.admin.alter_user_scram_credentials([change]).values():
                future.result(_CALL_SECONDS)

    def allow(self, user: str, resource: str, name: str, pattern: str, operations: list[str]) -> None:
        """Rights as `topics create --print` lists them."""
        kind = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "cluster": ResourceType.BROKER}.get(resource)
        kind = kind if kind is not None else ResourceType.TRANSACTIONAL_ID
        how = ResourcePatternType.PREFIXED if pattern == "prefixed" else ResourcePatternType.LITERAL
        wanted = [
            AclBinding(kind, name, how, f"User:{user}", "*", _operation(operation), AclPermissionType.ALLOW) for operation in operations
        ]
        for future in self.admin.create_acls(wanted).values():
            future.result(_CALL_SECONDS)

    def forbid_all(self, user: str) -> None:
        """Take every right of a user back."""
        anything: Any = None
        every = AclBindingFilter(
            ResourceType.ANY, anything, ResourcePatternType.ANY, f"User:{user}", anything, AclOperation.ANY, AclPermissionType.ANY
        )
        for future in self.admin.delete_acls([every]).values():
            future.result(_CALL_SECONDS)


def _operation(name: str) -> AclOperation:
    words = "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in name).strip("_").upper()
    return AclOperation[words]
