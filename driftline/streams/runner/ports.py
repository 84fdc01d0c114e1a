"""What the runner tells about itself: metrics and health, as small ports beside their user."""

from __future__ import annotations

from typing import Protocol


class RunnerMetrics(Protocol):
    """Counters and gauges of one processor; names without the common ``driftline_`` prefix."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Add to a histogram of durations."""


class RunnerHealth(Protocol):
    """Liveness and readiness of the process."""

    def ready(self, ready: bool, reason: str = "") -> None:
        """Whether records flow; `reason` when not."""

    def alive(self) -> None:
        """The loop went round once more."""


class NoMetrics:
    """For tests and tools."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Ignore."""

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Ignore."""

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Ignore."""


class NoHealth:
    """For tests and tools."""

    def ready(self, ready: bool, reason: str = "") -> None:
        """Ignore."""

    def alive(self) -> None:
        """Ignore."""
