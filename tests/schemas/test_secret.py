"""Secrets are read by reference, and an error has their names only."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftline.schemas.config import SecretRef
from driftline.schemas.secret import SecretError, resolve_secret


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
