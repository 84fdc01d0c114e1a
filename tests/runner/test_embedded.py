"""At least once on the embedded broker, which throws transactional offsets away."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftline.streams.local.embedded import EmbeddedBroker
from tests.runner.conftest import Bench
from tests.runner.test_exactly_once import expected
from tests.runner.worker import make_runner


@pytest.fixture
def embedded(redis_url: str, redis_prefix: str, tmp_path: Path) -> Iterator[Bench]:
    with EmbeddedBroker() as broker:
        names = [f"{kind}-{secrets.token_hex(4)}" for kind in ("source", "output")]
        for name in names:
            broker.create_topic(name, 1)
        yield Bench(broker.bootstrap, redis_url, redis_prefix, names[0], names[1], tmp_path)


def test_restart_goes_on_where_the_last_commit_stands(embedded: Bench) -> None:
    for first in (0, 200):
        embedded.publish(200, first=first)
        make_runner(embedded.settings, instance="a", time="data", until_idle_s=0.4, transactional=False, start="-24h").run()
    assert embedded.outputs() == expected(list(range(400)), "toy/0")
