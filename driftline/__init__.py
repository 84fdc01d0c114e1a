"""Driftline: a streaming drift detector on Kafka."""

__version__ = "0.1.0"
