"""At least once on the embedded broker, which throws transactional offsets away."""

from __future__ import annotations

from tests.runner.conftest import Bench
from tests.runner.test_exactly_once import expected
from tests.runner.worker import make_runner


def test_restart_goes_on_where_the_last_commit_stands(embedded: Bench) -> None:
    for first in (0, 200):
        embedded.publish(200, first=first)
        make_runner(embedded.settings, instance="a", time="data", until_idle_s=0.4, transactional=False, start="-24h").run()
    assert embedded.outputs() == expected(list(range(400)), "toy/0")
