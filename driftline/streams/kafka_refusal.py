"""Why no broker takes us, where waiting does not help: password, certificate, or two sides that speak different protocols.

librdkafka tries for ever and says "transport failure"; what it heard meanwhile, and a greeting of our own, tell more.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError

from driftline.streams.errors import SetupError
from driftline.streams.tls import NO_CERTIFICATE, NOT_TLS, certificate_hint, client_context, handshake_refusal, speaks_tls

_PROBE_SECONDS: Final = 3.0
_HEARD_MAX: Final = 200
_DEFAULT_PORT: Final = 9092
# Version 0 of both, which every broker speaks: correlation id 1, no client id; metadata of no topic.
_API_VERSIONS: Final = struct.pack(">ihhih", 10, 18, 0, 1, -1)
_METADATA: Final = struct.pack(">ihhihi", 14, 3, 1, 2, -1, 0)
# Settings whose certificates only librdkafka can read; then its own words must do.
_OPAQUE: Final = ("ssl.keystore.location", "ssl.key.pem", "ssl.certificate.pem", "ssl.ca.pem", "ssl.engine.location")
_PLACE: Final = re.compile(r"^[\w+]+://([^/]+)/\w+: ")
_AFTER: Final = re.compile(r"\s*\(after \d+ms in state \w+.*$")


class Heard:
    """Errors of a client's connections, as its `error_cb`; served by its `poll`."""

    def __init__(self) -> None:
        self.errors: list[KafkaError] = []

    def __call__(self, error: KafkaError) -> None:
        if len(self.errors) < _HEARD_MAX:
            self.errors.append(error)


def tls_context(properties: Mapping[str, Any]) -> ssl.SSLContext:
    """The properties of librdkafka as a context of Python's.

    Raises
    ------
    SetupError : a file cannot be used.
    """
    location = properties.get("ssl.ca.location")
    return client_context(
        ca_file=str(location) if location and str(location) != "probe" else None,
        certificate_file=_text(properties, "ssl.certificate.location"),
        key_file=_text(properties, "ssl.key.location"),
        key_password=_text(properties, "ssl.key.password"),
        verify=str(properties.get("enable.ssl.certificate.verification", "true")).lower() != "false",
        check_hostname=str(properties.get("ssl.endpoint.identification.algorithm", "https")).lower() != "none",
        setting="kafka.properties: ssl.ca.location, ssl.certificate.location, ssl.key.location",
    )


def refusal(properties: Mapping[str, Any], heard: Sequence[KafkaError]) -> SetupError | None:
    """What a person must mend; None where the brokers are merely away.

    Parameters
    ----------
    properties : librdkafka's, secrets resolved; none of them comes into the message.
    """
    for error in heard:
        if error.code() in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
            return _authentication(error)
    protocol = str(properties.get("security.protocol", "plaintext")).lower()
    opaque = any(name in properties for name in _OPAQUE)
    for host, port in _addresses(str(properties["bootstrap.servers"])):
        encrypted = protocol in ("ssl", "sasl_ssl")
        found = _of_tls(host, port, properties) if encrypted and not opaque else None
        if not encrypted and speaks_tls(host, port):
            protocols = "SSL or SASL_SSL"
            found = SetupError(f"kafka: {host}:{port} speaks TLS and security.protocol is {protocol}", hint=_protocol_hint(protocols))
        nameless = found is None and protocol in ("plaintext", "ssl") and not opaque
        if nameless and _asks_for_sasl(host, port, properties if encrypted else None):
            protocols = "SASL_SSL" if encrypted else "SASL_PLAINTEXT"
            found = SetupError(f"kafka: {host}:{port} hangs up before the first answer: it asks for SASL", hint=_protocol_hint(protocols))
        if found is not None:
            return found
    for error in heard:
        if error.code() == KafkaError._SSL:
            place, text = _told(error)
            return SetupError(f"kafka: {place}: {text}", hint="check the ssl.* settings of kafka.properties")
    return None


def _authentication(error: KafkaError) -> SetupError:
    place, text = _told(error)
    text = text.removeprefix("SASL authentication error: ")
    hint = "check sasl.username, sasl.password and sasl.mechanism of kafka.properties; is the user made on the cluster, for this mechanism?"
    return SetupError(f"kafka: {place} refuses the user or the password: {text}", hint=hint)


def _of_tls(host: str, port: int, properties: Mapping[str, Any]) -> SetupError | None:
    reason = handshake_refusal(host, port, tls_context(properties))
    if reason is None and _answers_plainly(host, port):
        reason = NOT_TLS
    if reason is None:
        return None
    if "client certificate" in reason and "ssl.certificate.location" not in properties:
        reason = NO_CERTIFICATE
    hint = certificate_hint(reason, ca="ssl.ca.location", own="ssl.certificate.location and ssl.key.location")
    return SetupError(f"kafka: {host}:{port}: {reason}", hint=hint)


def _protocol_hint(protocols: str) -> str:
    return f"set security.protocol of kafka.properties to {protocols}; docs/configuration.md, \"Secured clusters\", has an example"


def _answers_plainly(host: str, port: int) -> bool:
    """Whether a broker answers there without TLS; only asked where a handshake came to nothing."""
    try:
        with socket.create_connection((host, port), _PROBE_SECONDS) as plain:
            return _answer(plain, _API_VERSIONS) is not None
    except OSError:
        return False


def _asks_for_sasl(host: str, port: int, secured: Mapping[str, Any] | None) -> bool:
    """Whether the listener says what it speaks, then hangs up on a request of somebody who has not told who he is."""
    try:
        with socket.create_connection((host, port), _PROBE_SECONDS) as plain:
            channel: socket.socket = plain if secured is None else tls_context(secured).wrap_socket(plain, server_hostname=host)
            with channel:
                return _answer(channel, _API_VERSIONS) is not None and _answer(channel, _METADATA) == b""
    except OSError:
        return False


def _answer(channel: socket.socket, request: bytes) -> bytes | None:
    """The first answer to a request: empty when the other side hung up, None when none came in time or it was none."""
    channel.settimeout(_PROBE_SECONDS)
    channel.sendall(request)
    try:
        head = _received(channel, 4)
        if not head:
            return b""
        size = int.from_bytes(head, "big")
        return _received(channel, size) if 4 <= size < 1 << 20 else None
    except TimeoutError:
        return None


def _received(channel: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := channel.recv(size - len(data))):
        data += part
    return data if len(data) == size else b""


def _addresses(bootstrap: str) -> Iterator[tuple[str, int]]:
    for place in filter(None, map(str.strip, bootstrap.split(","))):
        host, _, port = place.rpartition("://")[2].rpartition(":")
        yield (host, int(port)) if host and port.isdigit() else (place, _DEFAULT_PORT)


def _told(error: KafkaError) -> tuple[str, str]:
    """Place and reason of what librdkafka says: ``sasl_ssl://host:9093/bootstrap: reason (after 3ms in state X)``."""
    text = error.str()
    place = _PLACE.match(text)
    reason = _AFTER.sub("", _PLACE.sub("", text))
    return (place[1] if place else "the broker"), " ".join(reason.split())


def _text(properties: Mapping[str, Any], name: str) -> str | None:
    return str(properties[name]) if name in properties else None
