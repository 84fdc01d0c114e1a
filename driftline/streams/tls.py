"""TLS as seen from outside the clients: contexts from files, and why a handshake fails, in words a person can act on.

librdkafka and redis-py say "certificate verify failed" for a wrong authority, an expired certificate and a wrong name
alike, and nothing at all where one side speaks TLS and the other does not. One handshake of our own tells them apart.
"""

from __future__ import annotations

import socket
import ssl
from typing import Final

from driftline.streams.errors import SetupError

_PROBE_SECONDS: Final = 3.0
# With TLS 1.3 a server judges the client's certificate after the client's side of the handshake is done.
_VERDICT_SECONDS: Final = 0.5

_PEM_BYTES_MAX: Final = 1 << 20

NOT_TLS: Final = "it does not speak TLS"
NO_CERTIFICATE: Final = "it asks for a client certificate and none was sent"
_ALERTS: Final = {
    "CERTIFICATE_REQUIRED": NO_CERTIFICATE,
    "HANDSHAKE_FAILURE": "it refuses the handshake; it may ask for a client certificate",
    "UNKNOWN_CA": "it does not know the authority of the client certificate",
    "BAD_CERTIFICATE": "it refuses the client certificate",
    "CERTIFICATE_EXPIRED": "it says that the client certificate has expired",
    "CERTIFICATE_UNKNOWN": "it refuses the client certificate",
    "PROTOCOL_VERSION": "it speaks no version of TLS that this machine does",
}


def client_context(
    *, ca_file: str | None, certificate_file: str | None = None, key_file: str | None = None, key_password: str | None = None,
    verify: bool = True, check_hostname: bool = True, setting: str,
) -> ssl.SSLContext:  # fmt: skip
    """A client's context.

    Parameters
    ----------
    ca_file : authorities in PEM; they replace the system's.
    key_password : of an encrypted key; without one an encrypted key is an error, never a question on the terminal.
    setting : where the files are named in the configuration; for messages.

    Raises
    ------
    SetupError : a file is missing or not what it should be.
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca_file)
        if certificate_file:
            context.load_cert_chain(certificate_file, key_file, key_password or "")
    except OSError as error:
        files = ", ".join(f'"{name}"' for name in (ca_file, certificate_file, key_file) if name)
        raise SetupError(f"{setting}: a certificate or key cannot be used: {_file_fault(error, key_file)} ({files})") from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif not check_hostname:
        context.check_hostname = False
    return context


def handshake_refusal(host: str, port: int, context: ssl.SSLContext) -> str | None:
    """Why a handshake fails; None when it does not, or when nobody listens."""
    try:
        with socket.create_connection((host, port), _PROBE_SECONDS) as plain, context.wrap_socket(plain, server_hostname=host) as secured:
            secured.settimeout(_VERDICT_SECONDS)
            secured.recv(1)
    except TimeoutError:
        return None
    except OSError as error:
        return refusal_of(error)
    return None


def speaks_tls(host: str, port: int) -> bool:
    """Whether what listens there answers a TLS greeting with one."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), _PROBE_SECONDS) as plain, context.wrap_socket(plain, server_hostname=host):
            return True
    except ssl.SSLError as error:
        return any(alert in (error.reason or "") for alert in _ALERTS)
    except OSError:
        return False


def refusal_of(error: BaseException) -> str | None:
    """What a TLS error behind this one says, in words; None where there is none that a person must act on."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message.rstrip('.')}"
        if isinstance(cause, ssl.SSLError):
            reason = cause.reason or ""
            if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
                return NOT_TLS
            if (known := next((text for alert, text in _ALERTS.items() if alert in reason), None)) is not None:
                return known
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return None


def _file_fault(error: OSError, key_file: str | None) -> str:
    if not isinstance(error, ssl.SSLError):
        return error.strerror or type(error).__name__
    if "MISMATCH" in (error.reason or ""):
        return "the key is not the certificate's"
    try:
        with open(key_file or "", "rb") as file:
            locked = b"ENCRYPTED" in file.read(_PEM_BYTES_MAX)
    except OSError:
        locked = False
    return "the key is under another password, or under one and none was given" if locked else "not PEM"


def certificate_hint(reason: str, *, ca: str, own: str) -> str:
    """What to do about a refusal.

    Parameters
    ----------
    ca, own : settings with the authorities to trust and the client's certificate.
    """
    if reason == NOT_TLS:
        return "is this the port with TLS? else take TLS out of the configuration"
    if "expired" in reason and "client" not in reason:
        return "renew the server's certificate; is this machine's clock right?"
    if "match" in reason.lower():
        return "connect by a name that stands in the certificate, or issue one that has this name (subjectAltName)"
    if "client certificate" in reason:
        return f"set {own} to a certificate that the server trusts"
    return f"set {ca} to the authority that signed the server's certificate"
