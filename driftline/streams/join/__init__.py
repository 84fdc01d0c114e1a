"""Join: waiting predictions and labels to outcomes at a fixed age, in prediction order."""

from driftline.streams.join.age import join_ages
from driftline.streams.join.cache import CacheLost, LabelCache, MemoryLabelCache
from driftline.streams.join.processor import JoinProcessor

__all__ = ["CacheLost", "JoinProcessor", "LabelCache", "MemoryLabelCache", "join_ages"]
