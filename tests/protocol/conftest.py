"""What a world puts in the place of the runner's ports is gone after each test: two worlds need not close in order."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator

import pytest

_PORTS = [
    ("runner.runner", "make_consumer"), ("runner.runner", "clocks"), ("runner.publisher", "make_producer"),
    ("runner.runner", "make_admin"), ("runner.runner", "member_named"),
    ("runner.publisher", "threading"), ("runner.publisher", "time"), ("runner.commit", "Failpoints"), ("runner.commit", "time"),
    ("runner.waiting", "time"), ("state.base", "Consumer"), ("state.base", "BASE_SECONDS"), ("state.base", "time"),
]  # fmt: skip
_REAL = [(importlib.import_module(f"driftline.streams.{module}"), name) for module, name in _PORTS]
_LOG = logging.getLogger("driftline")
_VALUES = [getattr(module, name) for module, name in _REAL]


@pytest.fixture(autouse=True)
def _ports_are_given_back() -> Iterator[None]:
    level = _LOG.level
    yield
    _LOG.setLevel(level)
    for (module, name), value in zip(_REAL, _VALUES, strict=True):
        setattr(module, name, value)
