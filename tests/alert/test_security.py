"""librdkafka's security properties reach aiokafka, or are refused by name."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from driftline.streams.alert.security import faust_credentials
from driftline.streams.errors import SetupError

SASL = {"sasl.username": "u", "sasl.password": "p"}


def auth(properties: dict[str, Any]) -> dict[str, Any]:
    """What Faust hands to aiokafka."""
    return dict(credentials_to_aiokafka_auth(faust_credentials(properties)))


def test_unprotected_broker_needs_no_credentials() -> None:
    assert auth({"bootstrap.servers": "b:9092"}) == {"security_protocol": "PLAINTEXT"}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("name", ["sasl.mechanism", "sasl.mechanisms"])
def test_sasl_mechanism_user_and_password_are_passed_on(mechanism: str, name: str) -> None:
    found = auth({"security.protocol": "sasl_plaintext", name: mechanism, **SASL})
    assert found == {
        "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": mechanism, "sasl_plain_username": "u", "sasl_plain_password": "p",
        "ssl_context": None,
    }


@pytest.mark.parametrize(("extra", "hostname", "verify"), [
    ({}, True, ssl.CERT_REQUIRED),
    ({"ssl.endpoint.identification.algorithm": "none"}, False, ssl.CERT_REQUIRED),
    ({"enable.ssl.certificate.verification": False}, False, ssl.CERT_NONE),
])
def test_tls_verifies_as_librdkafka_would(extra: dict[str, Any], hostname: bool, verify: ssl.VerifyMode) -> None:
    found = auth({"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", **SASL, **extra})
    context = found["ssl_context"]
    assert (found["security_protocol"], context.check_hostname, context.verify_mode) == ("SASL_SSL", hostname, verify)


def test_tls_without_sasl_is_passed_on() -> None:
    assert auth({"security.protocol": "ssl"})["security_protocol"] == "SSL"


@pytest.mark.parametrize(("properties", "named"), [
    ({"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER"}, "OAUTHBEARER"),
    ({"security.protocol": "SASL_SSL"}, "GSSAPI"),
    ({"security.protocol": "SSL", "ssl.keystore.location": "a.p12"}, "ssl.keystore.location"),
    ({"security.protocol": "SSL", "ssl.ca.location": "/no/such/file"}, "No such file"),
    ({"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "u"}, "sasl.password"),
    ({"security.protocol": "telnet"}, "TELNET"),
])
def test_what_aiokafka_cannot_do_is_refused_by_name(properties: dict[str, Any], named: str) -> None:
    with pytest.raises(SetupError, match=named):
        faust_credentials(properties)


def test_secrets_stay_out_of_the_errors() -> None:
    with pytest.raises(SetupError) as refused:
        faust_credentials({"security.protocol": "SASL_SSL", "sasl.mechanism": "GSSAPI", "sasl.password": "hunter2"})
    assert "hunter2" not in str(refused.value)
