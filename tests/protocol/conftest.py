"""What a world puts in the place of the runner's ports is gone after each test: two worlds need not close in order."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.protocol.world import give_back

_LOG = logging.getLogger("driftline")


@pytest.fixture(autouse=True)
def _ports_are_given_back() -> Iterator[None]:
    level = _LOG.level
    yield
    _LOG.setLevel(level)
    give_back()
