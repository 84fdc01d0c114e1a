"""A worker of a group in a thread of the test, with its health."""

from __future__ import annotations

import threading
from typing import Any, Self

from driftline.streams.http import Health
from tests.chaos.process import until
from tests.runner.conftest import Bench
from tests.runner.worker import make_runner


class Member:
    """A worker of the group, in a thread."""

    def __init__(self, bench: Bench, name: str, **places: str) -> None:
        self.health = Health()
        self.runner = make_runner(bench.settings | places, instance=name, time="data", health=self.health)
        self.errors: list[Exception] = []
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.runner.run()
        except Exception as error:  # noqa: BLE001 - looked at by the test
            self.errors.append(error)

    def owns(self, tasks: int) -> None:
        """Wait until it is ready and at work on so many tasks."""
        until(lambda: self.health.ready()[0] and self.health.ready()[1]["tasks"] == tasks, lambda: f"{self.health.ready()} {self.errors}")

    def misses(self, service: str) -> None:
        """Wait until it is not ready for want of a service."""
        until(lambda: any(reason.startswith(service) for reason in self.reasons), lambda: f"{self.health.ready()} {self.errors}")

    @property
    def reasons(self) -> list[str]:
        reasons: Any = self.health.ready()[1]["reasons"]
        return list(reasons)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.runner.stop()
        self._thread.join(60)
