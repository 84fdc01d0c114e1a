"""Ingest: source records to observations, waiting rows, label rows and dead letters."""

from driftline.streams.counters import Counters, MemoryCounters
from driftline.streams.ingest.processor import IngestProcessor

__all__ = ["Counters", "IngestProcessor", "MemoryCounters"]
