"""Secrets are read by reference and never printed."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from driftline.schemas.config import SecretRef
from driftline.schemas.loading import parse_config
from driftline.schemas.secret import SecretError, redact, redact_url, resolve_secret


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


def test_printed_configuration_holds_no_secret() -> None:
    text = """
predictions: p
models: m
kafka: {properties: {sasl.username: alice, sasl.password: {env: TOP_SECRET_NAME}, client.id: x}}
redis: {url: "rediss://user:hunter2@host:6379/0"}
"""
    shown = redact(parse_config(text, name="x"))
    assert shown["kafka"]["properties"] == {"sasl.username": "***", "sasl.password": "***", "client.id": "x"}
    assert shown["redis"]["url"] == "rediss://user:***@host:6379/0"
    assert b"hunter2" not in orjson.dumps(shown)
    assert b"TOP_SECRET_NAME" not in orjson.dumps(shown)
    assert shown["predictions"][0]["fields"]["class"] == "class"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:p@ss@host/0", "redis://:***@host/0"),
        ("redis://host?password=x&db=1", "redis://host?password=***&db=1"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert redact_url(url) == shown
