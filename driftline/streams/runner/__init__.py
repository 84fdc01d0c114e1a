"""The one loop between Kafka, Redis and a processor's tasks."""

from __future__ import annotations

from driftline.streams.runner.runner import Runner

__all__ = ["Runner"]
