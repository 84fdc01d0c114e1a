"""Secrets are read by reference, and an error has their names only."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftline.schemas.config import SecretRef
from driftline.schemas.secret import SecretError, resolve_secret
from tests.schemas.configs import SHORTEST, only_problem


def test_secret_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "hunter2")
    assert resolve_secret(SecretRef(env="KAFKA_PASSWORD")) == "hunter2"


def test_secret_is_read_from_a_file_without_its_last_newline(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2 \n", "utf-8")
    assert resolve_secret(SecretRef(file=str(tmp_path / "secret"))) == "hunter2 "


@pytest.mark.parametrize("reference", [SecretRef(), SecretRef(env="A", file="b")])
def test_reference_must_name_exactly_one_place(reference: SecretRef) -> None:
    with pytest.raises(SecretError, match="exactly one"):
        resolve_secret(reference)


def test_secret_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.setenv("EMPTY", "")
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(SecretError, match='"NOT_SET" is not set'):
        resolve_secret(SecretRef(env="NOT_SET"))
    with pytest.raises(SecretError, match='"EMPTY" is empty'):
        resolve_secret(SecretRef(env="EMPTY"))
    with pytest.raises(SecretError, match="No such file"):
        resolve_secret(SecretRef(file=str(tmp_path / "none")))
    with pytest.raises(SecretError, match="not UTF-8"):
        resolve_secret(SecretRef(file=str(tmp_path / "bytes")))


@pytest.mark.parametrize(
    "line",
    [
        "redis: {password: hunter2}",
        "redis: {url: 'redis://user:hunter2@host:6379/0'}",
        "redis: {url: 'redis://:hunter2/x@host'}",
        "redis: {url: 'redis://:x#hunter2@host'}",
        "redis: {url: 'user:hunter2@host'}",
        "redis: {url: 'redis://host?password=hunter2'}",
        "hash_key: hunter2",
        "kafka: {properties: {sasl.password: hunter2}}",
        "kafka: {properties: {ssl.key.password: hunter2}}",
        "kafka: {properties: {sasl.oauthbearer.client.secret: hunter2}}",
        "kafka: {properties: {ssl.key.pem: hunter2}}",
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_shown(line: str) -> None:
    problem = only_problem(f"{SHORTEST}{line}\n")
    assert "hunter2" not in str(problem)
    assert "by reference" in problem.expected or "without a password" in problem.expected
    assert "{env: NAME}" in (problem.hint or "")


def test_a_password_of_digits_is_a_secret_too() -> None:
    assert "12345" not in str(only_problem(f"{SHORTEST}kafka: {{properties: {{sasl.password: 12345}}}}\n"))


@pytest.mark.parametrize(
    ("section", "path", "expected"),
    [
        ("{password: {}}", "redis.password", "exactly one of env and file"),
        ("{ca_file: ca.pem}", "redis.ca_file", "a URL that begins with rediss://"),
        ("{url: 'rediss://host', certificate_file: c.pem}", "redis.certificate_file", "key_file beside it"),
        ("{url: 'rediss://host', key_file: k.pem}", "redis.key_file", "certificate_file beside it"),
    ],
)
def test_settings_of_redis_that_do_not_go_together_are_named(section: str, path: str, expected: str) -> None:
    problem = only_problem(f"{SHORTEST}redis: {section}\n")
    assert (problem.path, problem.expected.startswith(expected)) == (path, True)
