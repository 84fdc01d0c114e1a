"""Redis behind TLS, an ACL user and client certificates: what works, and what each wrong setting says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from driftline.schemas.config import Redis, SecretRef
from driftline.streams.errors import AwayError, SetupError
from driftline.streams.local.process import free_port
from driftline.streams.local.redis import LocalRedis
from driftline.streams.redis_client import COMMANDS, connect, key_patterns
from driftline.streams.state.redis_store import RedisStore
from tests.secure.certificates import Authority, Certificate, encrypted_key

PASSWORD = "pa:ss/wo#rd@%41 !"
"""Every character that means something in a URL."""


@contextmanager
def server(certificate: Certificate, authority: Authority, *, client_certificates: bool = False) -> Iterator[tuple[LocalRedis, int]]:
    """A server and its port with TLS; the plain one is the test's own."""
    port = free_port()
    properties = {
        "tls-port": str(port),
        "tls-cert-file": str(certificate.certificate),
        "tls-key-file": str(certificate.key),
        "tls-ca-cert-file": str(authority.file),
        "tls-auth-clients": "yes" if client_certificates else "no",
    }
    with LocalRedis(properties=properties) as running:
        yield running, port


@pytest.fixture(scope="module")
def secured(ours: Authority) -> Iterator[int]:
    """The port of a server with a user for Driftline, one without rights, and no default user."""
    with server(ours.issue("redis"), ours) as (running, port):
        admin = connect(Redis(url=running.url), timeout_seconds=5)
        patterns = [f"~{pattern}" for pattern in key_patterns(Redis(key_prefix="mine"))]
        commands = [f"+{command}" for command in COMMANDS]
        admin.execute_command("ACL", "SETUSER", "driftline", "on", f">{PASSWORD}", "resetkeys", *patterns, "-@all", *commands)
        admin.execute_command("ACL", "SETUSER", "nothing", "on", f">{PASSWORD}", "allkeys", "-@all", "+ping")
        admin.execute_command("ACL", "SETUSER", "default", "off")
        admin.close()
        yield port


@pytest.fixture
def place(ours: Authority, monkeypatch: pytest.MonkeyPatch, secured: int) -> dict[str, Any]:
    """The section as it is right."""
    monkeypatch.setenv("REDIS_PASSWORD", PASSWORD)
    password = SecretRef(env="REDIS_PASSWORD")
    url = f"rediss://localhost:{secured}/0"
    return {"url": url, "key_prefix": "mine", "ca_file": str(ours.file), "username": "driftline", "password": password}


def refused(**section: Any) -> SetupError:
    """What a worker's start says: one line, a hint, the exit code of a wrong setting, nothing of the password."""
    with pytest.raises(SetupError) as caught:
        RedisStore(Redis(**section)).check()
    error = caught.value
    assert error.exit_code == 2
    assert "\n" not in error.message
    assert not {PASSWORD, "pa:ss", "wo#rd"} & set(str(error).split())
    return error


def test_a_user_with_the_documented_rights_works_over_tls(place: dict[str, Any]) -> None:
    store = RedisStore(Redis(**place))
    store.check()
    claim = store.claim("{mine:task}:owner", "{mine:task}:head", "token", 4)
    assert (claim.epoch, claim.head) == (5, "")
    store.close()


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"username": None, "password": None}, "refuses the user or the password: it asks for them and none were sent", "redis.password"),
        ({"username": "nobody"}, "refuses the user or the password: invalid", "redis.username"),
        ({"username": "nothing"}, "lacks a right: .*'info'", "Secured clusters"),
        ({"ca_file": None}, "certificate is not trusted: self-signed", "redis.ca_file"),
        ({"ca_file": "/no/such/file"}, 'redis.ca_file.*No such file or directory \\("/no/such/file"\\)', ""),
        ({"ca_file": __file__}, "not PEM", ""),
        ({"url": "redis://{place}", "ca_file": None}, "speaks TLS and redis.url does not", "rediss://"),
        ({"url": "redis://:pa:ss/wo#rd@host/0", "ca_file": None}, "expected redis://, rediss:// or unix://", "redis.password"),
        ({"url": "http://{place}", "ca_file": None}, "expected redis://, rediss:// or unix://", ""),
        ({"url": "redis://{place}"}, "certificates are given and redis.url is not rediss://", "rediss://"),
    ],
)
def test_a_wrong_setting_is_named_with_what_to_do(place: dict[str, Any], change: dict[str, Any], message: str, hint: str) -> None:
    if "url" in change:
        change = {**change, "url": change["url"].replace("{place}", place["url"].partition("://")[2])}
    error = refused(**place | change)
    assert re.search(message, error.message)
    assert hint in (error.hint or "")


def test_a_wrong_password_and_a_foreign_key_are_told_apart(place: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    store = RedisStore(Redis(**place))
    with pytest.raises(SetupError, match=r"lacks a right: .*access one of the keys"):
        store.claim("{other:task}:owner", "{other:task}:head", "token", 1)
    monkeypatch.setenv("REDIS_PASSWORD", "wrong")
    assert "refuses the user or the password" in refused(**place).message


def test_an_expired_certificate_and_one_of_another_host_are_told_apart(ours: Authority) -> None:
    section = {"ca_file": str(ours.file), "key_prefix": "mine"}
    with server(ours.issue("expired", expired=True), ours) as (_, port):
        expired = refused(url=f"rediss://localhost:{port}/0", **section)
    with server(ours.issue("elsewhere", hosts=("elsewhere.example",)), ours) as (_, port):
        elsewhere = refused(url=f"rediss://localhost:{port}/0", **section)
    assert "certificate has expired" in expired.message
    assert "renew" in (expired.hint or "")
    assert "not valid for 'localhost'" in elsewhere.message
    assert "name" in (elsewhere.hint or "")


def test_client_certificates_are_sent_and_a_server_that_asks_for_one_is_understood(ours: Authority, strange: Authority) -> None:
    own, other = ours.issue("client"), strange.issue("client")
    with server(ours.issue("redis"), ours, client_certificates=True) as (_, port):
        section: dict[str, Any] = {"url": f"rediss://localhost:{port}/0", "ca_file": str(ours.file)}
        RedisStore(Redis(**section, certificate_file=str(own.certificate), key_file=str(own.key))).check()
        # Several times: whether our greeting or their refusal is first on the wire is a matter of luck.
        nothing = [refused(**section) for _ in range(10)][-1]
        strangers = refused(**section, certificate_file=str(other.certificate), key_file=str(other.key))
        mixed = refused(**section, certificate_file=str(own.certificate), key_file=str(other.key))
        locked = refused(**section, certificate_file=str(own.certificate), key_file=str(encrypted_key(own, PASSWORD)))
    assert "asks for a client certificate and none was sent" in nothing.message
    assert "redis.certificate_file" in (nothing.hint or "")
    assert "does not know the authority of the client certificate" in strangers.message
    assert "the key is not the certificate's" in mixed.message
    assert "under another password" in locked.message


def test_tls_to_a_port_without_it_is_no_lost_server(ours: Authority, redis_url: str) -> None:
    url = redis_url.replace("redis://", "rediss://")
    store = RedisStore(Redis(url=url, ca_file=str(ours.file)), timeout_seconds=0.5)
    with pytest.raises(SetupError, match="does not speak TLS"):
        store.check()


def test_a_server_that_is_not_there_is_waited_for(ours: Authority) -> None:
    for scheme, ca_file in (("redis", None), ("rediss", str(ours.file))):
        with pytest.raises(AwayError, match="Connection refused"):
            RedisStore(Redis(url=f"{scheme}://localhost:{free_port()}/0", ca_file=ca_file)).check()
