"""librdkafka's security properties as Faust's credentials: the alert app reads with aiokafka and writes with librdkafka."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import faust

from driftline.streams.errors import SetupError
from driftline.streams.kafka_refusal import tls_context

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_UNKNOWN = (
    "ssl.keystore.location", "ssl.key.pem", "ssl.certificate.pem", "ssl.ca.pem", "ssl.engine.location", "sasl.oauthbearer.method",
    "sasl.oauthbearer.config", "sasl.kerberos.keytab",
)


def faust_credentials(properties: Mapping[str, Any]) -> Any:
    """Credentials for a Faust app, None for an unprotected broker.

    Parameters
    ----------
    properties : librdkafka's, secrets resolved.

    Raises
    ------
    SetupError : a protocol, mechanism or property that aiokafka has no equal of.
    """
    protocol = str(properties.get("security.protocol", "plaintext")).upper()
    _refuse_unknown(properties)
    if protocol == "PLAINTEXT":
        return None
    if protocol == "SSL":
        return faust.SSLCredentials(context=tls_context(properties))
    if protocol not in ("SASL_PLAINTEXT", "SASL_SSL"):
        raise SetupError(f'kafka.properties: security.protocol: expected plaintext, ssl, sasl_plaintext or sasl_ssl, got "{protocol}"')
    mechanism = str(properties.get("sasl.mechanism", properties.get("sasl.mechanisms", "GSSAPI"))).upper()
    if mechanism not in MECHANISMS:
        raise SetupError(
            f'kafka.properties: sasl.mechanism: the alert processor supports {", ".join(MECHANISMS)}, got "{mechanism}"',
            hint="run it against a listener with one of them, or run --processors ingest,join,detect and read driftline.drift yourself",
        )
    return faust.SASLCredentials(
        username=_required(properties, "sasl.username"),
        password=_required(properties, "sasl.password"),
        ssl_context=tls_context(properties) if protocol == "SASL_SSL" else None,
        mechanism=mechanism,
    )


def _refuse_unknown(properties: Mapping[str, Any]) -> None:
    found = [name for name in _UNKNOWN if name in properties]
    if found:
        raise SetupError(
            f"kafka.properties: the alert processor cannot use {', '.join(found)}",
            hint="give PEM files: ssl.ca.location, ssl.certificate.location, ssl.key.location, ssl.key.password",
        )


def _required(properties: Mapping[str, Any], name: str) -> str:
    if name not in properties:
        raise SetupError(f"kafka.properties: {name}: expected a value beside sasl.mechanism, got nothing")
    return str(properties[name])
