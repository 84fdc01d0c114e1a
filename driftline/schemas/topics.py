"""The one table of our own topics: name, key, partitions, retention or compaction, event type.

Code, `driftline topics create` and docs/topics.md read it; nothing else knows a topic's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of ours; `retention_ms` -1 keeps for ever, `partitions` None takes the configured number."""

    name: str
    key: str
    event: str
    producer: str
    partitions: int | None
    cleanup: Literal["delete", "compact"]
    retention_ms: int
    max_message_bytes: int = 1_048_588

    def full_name(self, prefix: str) -> str:
        return f"{prefix}.{self.name}"


OBSERVATIONS = Topic("observations", "model", "observation batch (Arrow IPC)", "ingest, join", None, "delete", 7 * DAY_MS, 8 << 20)
WAITING = Topic("waiting", "hash of the prediction id", "waiting rows (columns)", "ingest", None, "delete", 60 * DAY_MS, 8 << 20)
LABELS = Topic("labels", "hash of the prediction id", "label rows (columns)", "ingest", None, "delete", 60 * DAY_MS, 8 << 20)
DRIFT = Topic("drift", "model", "drift event (CloudEvent, JSON)", "detect", None, "delete", 30 * DAY_MS)
SNAPSHOTS = Topic("snapshots", "model/panel/segment", "snapshot (JSON)", "detect", None, "delete", 7 * DAY_MS)
CHECKPOINTS = Topic("checkpoints", "task/blob", "base checkpoint (binary)", "join, detect", None, "compact", -1, 8 << 20)
DEAD_LETTERS = Topic(
    "dlq", "the source record's key", "dead letter (source bytes and headers)", "all", 1, "delete", 14 * DAY_MS, (1 << 20) + (64 << 10)
)
ALERTS = Topic("alerts", "fingerprint", "alert (CloudEvent, JSON)", "alert", None, "compact", -1)
INCIDENTS = Topic("incidents", "incident", "incident (CloudEvent, JSON)", "alert", None, "compact", -1)
TRANSITIONS = Topic("transitions", "fingerprint", "alert transition (CloudEvent, JSON)", "alert", None, "delete", -1)

TOPICS: tuple[Topic, ...] = (OBSERVATIONS, WAITING, LABELS, DRIFT, SNAPSHOTS, CHECKPOINTS, DEAD_LETTERS, ALERTS, INCIDENTS, TRANSITIONS)


def retention_ms(topic: Topic, greatest_age_ms: int) -> int:
    """How long a topic is to keep records: the table's time, or twice the greatest label age for those the join waits on."""
    return max(topic.retention_ms, 2 * greatest_age_ms) if topic in (WAITING, LABELS) else topic.retention_ms
