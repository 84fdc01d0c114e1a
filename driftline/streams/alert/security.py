"""librdkafka's security properties as Faust's credentials: the alert app reads with aiokafka and writes with librdkafka."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import faust

from driftline.streams.errors import SetupError

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
        return faust.SSLCredentials(context=_ssl_context(properties))
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
        ssl_context=_ssl_context(properties) if protocol == "SASL_SSL" else None,
        mechanism=mechanism,
    )


def _ssl_context(properties: Mapping[str, Any]) -> ssl.SSLContext:
    location = properties.get("ssl.ca.location")
    cafile = str(location) if location and str(location) != "probe" else None
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=cafile)   # a file given replaces the system's
        certificate = properties.get("ssl.certificate.location")
        if certificate:
            context.load_cert_chain(str(certificate), properties.get("ssl.key.location"), properties.get("ssl.key.password"))
    except OSError as error:
        raise SetupError(f"kafka.properties: ssl: a certificate or key cannot be used: {error}") from error
    if str(properties.get("enable.ssl.certificate.verification", "true")).lower() == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif str(properties.get("ssl.endpoint.identification.algorithm", "https")).lower() == "none":
        context.check_hostname = False
    return context


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
