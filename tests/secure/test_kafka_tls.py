"""Kafka with SASL over TLS and with client certificates: what works, and what each wrong setting says."""

from __future__ import annotations

import re
from typing import Any

import pytest

from driftline.schemas.config import Kafka, SecretRef
from driftline.streams.errors import KafkaAwayError, SetupError
from driftline.streams.kafka import make_admin, make_consumer, make_producer, wait_for_broker
from driftline.streams.local.process import free_port
from tests.secure.broker import SecuredKafka
from tests.secure.certificates import Authority

PASSWORD = 'p;a"s=s#wörd, %'


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)
    monkeypatch.setenv("PLAIN_PASSWORD", "plain-password")
    monkeypatch.setenv("WRONG_PASSWORD", "hunter2")


@pytest.fixture(scope="module")
def secured(broker: SecuredKafka) -> SecuredKafka:
    broker.add_user("somebody", PASSWORD)
    return broker


@pytest.fixture
def sasl(ours: Authority) -> dict[str, Any]:
    """Properties as they are right."""
    return {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "somebody",
        "sasl.password": SecretRef(env="KAFKA_PASSWORD"),
        "ssl.ca.location": str(ours.file),
    }


def connect(bootstrap: str, properties: dict[str, Any], seconds: float = 20.0) -> None:
    kafka = Kafka(bootstrap=bootstrap, properties={name: value for name, value in properties.items() if value is not None})
    wait_for_broker(make_admin(kafka), seconds=seconds)


def refused(bootstrap: str, properties: dict[str, Any]) -> SetupError:
    """What a worker's start says: one line, a hint, the exit code of a wrong setting, no secret."""
    with pytest.raises(SetupError) as caught:
        connect(bootstrap, properties)
    error = caught.value
    assert error.exit_code == 2
    assert "\n" not in error.message
    assert error.hint
    assert not any(secret in str(error) for secret in (PASSWORD, "plain-password", "hunter2"))
    return error


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"])
def test_each_mechanism_connects(secured: SecuredKafka, sasl: dict[str, Any], mechanism: str) -> None:
    change: dict[str, Any] = {"sasl.mechanism": mechanism}
    if mechanism == "PLAIN":
        change |= {"sasl.username": "plain", "sasl.password": SecretRef(env="PLAIN_PASSWORD")}
    connect(secured.sasl, sasl | change)


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"sasl.password": SecretRef(env="WRONG_PASSWORD")}, "refuses the user or the password: .*invalid credentials", "sasl.password"),
        ({"sasl.username": "nobody"}, "refuses the user or the password: .*invalid credentials", "sasl.username"),
        ({"sasl.username": "plain", "sasl.mechanism": "PLAIN"}, "refuses the user or the password", "sasl.mechanism"),
        ({"ssl.ca.location": None}, "certificate is not trusted: unable to get local issuer", "ssl.ca.location"),
        ({"ssl.ca.location": "/no/such/file"}, "ssl.ca.location.*No such file|kafka.properties: .*ssl.ca.location", ""),
        ({"security.protocol": "PLAINTEXT"}, "speaks TLS and security.protocol is plaintext", "SASL_SSL"),
        ({"security.protocol": "SASL_PLAINTEXT"}, "speaks TLS and security.protocol is sasl_plaintext", "SASL_SSL"),
        ({"security.protocol": "SSL"}, "hangs up before the first answer: it asks for SASL", "SASL_SSL"),
    ],
)
def test_a_wrong_setting_is_named_with_what_to_do(
    secured: SecuredKafka, sasl: dict[str, Any], change: dict[str, Any], message: str, hint: str
) -> None:
    error = refused(secured.sasl, sasl | change)
    assert re.search(message, error.message), error.message
    assert hint in (error.hint or "")


def test_another_authority_an_expired_certificate_and_one_of_another_host_are_told_apart(
    secured: SecuredKafka, ours: Authority, strange: Authority
) -> None:
    tls = {"security.protocol": "SSL", "ssl.ca.location": str(ours.file)}
    stranger = refused(secured.others["expired"], tls | {"ssl.ca.location": str(strange.file)})
    expired = refused(secured.others["expired"], tls)
    elsewhere = refused(secured.others["elsewhere"], tls)
    assert "not trusted: unable to get local issuer certificate" in stranger.message
    assert "ssl.ca.location" in (stranger.hint or "")
    assert "certificate has expired" in expired.message
    assert "renew" in (expired.hint or "")
    assert "not valid for 'localhost'" in elsewhere.message


def test_client_certificates_are_sent_and_a_broker_that_asks_for_one_is_understood(
    secured: SecuredKafka, ours: Authority, strange: Authority
) -> None:
    def files(authority: Authority) -> dict[str, Any]:
        issued = authority.issue("client")
        return {"ssl.certificate.location": str(issued.certificate), "ssl.key.location": str(issued.key)}

    tls = {"security.protocol": "SSL", "ssl.ca.location": str(ours.file)}
    connect(secured.mutual, tls | files(ours))
    nothing, stranger = refused(secured.mutual, tls), refused(secured.mutual, tls | files(strange))
    assert "asks for a client certificate and none was sent" in nothing.message
    assert "refuses the client certificate" in stranger.message
    assert "ssl.certificate.location" in (nothing.hint or "")


def test_tls_to_a_listener_without_it_is_named(secured: SecuredKafka, sasl: dict[str, Any]) -> None:
    error = refused(secured.server.bootstrap, sasl)
    assert "does not speak TLS" in error.message
    assert "port with TLS" in (error.hint or "")


def test_a_broker_that_is_not_there_is_waited_for(sasl: dict[str, Any]) -> None:
    for properties in (sasl, {}):
        with pytest.raises(KafkaAwayError, match="no broker answered within 1 s"):
            connect(f"localhost:{free_port()}", properties, seconds=1.0)


@pytest.mark.parametrize("make", [make_admin, lambda kafka: make_consumer(kafka, "group"), make_producer])
def test_a_property_that_the_client_does_not_take_is_named_without_its_secret(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for properties in ({"ssl.key.pem": SecretRef(env="WRONG_PASSWORD")}, {"security.protocol": SecretRef(env="WRONG_PASSWORD")}):
        with pytest.raises(SetupError, match=r"kafka.properties: ") as caught:
            make(Kafka(properties={"security.protocol": "SSL", **properties}))
        assert "hunter2" not in str(caught.value)
