"""One secured Kafka for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from driftline.streams.local.process import LocalServiceError
from tests.secure.broker import SecuredKafka
from tests.secure.certificates import Authority


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="session")
def ours(folder: Path) -> Authority:
    return Authority(folder, "ours")


@pytest.fixture(scope="session")
def strange(folder: Path) -> Authority:
    return Authority(folder, "strange")


@pytest.fixture(scope="session")
def broker(ours: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    others = {"expired": ours.issue("expired", expired=True), "elsewhere": ours.issue("elsewhere", hosts=("elsewhere.example",))}
    secured = SecuredKafka(tmp_path_factory.mktemp("kafka"), ours, ours.issue("kafka"), others)
    try:
        secured.server.__enter__()
    except LocalServiceError as error:
        pytest.skip(f"no real Kafka: {error}")
    try:
        yield secured
    finally:
        secured.server.__exit__(None, None, None)
