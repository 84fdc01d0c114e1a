"""Dead letters: the record as it came, and headers that say where it stood and why it was refused."""

from __future__ import annotations

from typing import Final

from driftline.schemas import dead_letter as contract
from driftline.schemas.topics import DEAD_LETTERS
from driftline.streams.ingest.decoder import Refused
from driftline.streams.task import Output

# Room for the batch's own framing within the topic's limit.
_LIMIT_BYTES: Final = DEAD_LETTERS.max_message_bytes - 4_096


def dead_letter(refused: Refused, *, topic: str, stage: str, payload: bool) -> Output:
    """The dead letter of a refused record; without `payload` (sensitive fields) only its position, reason and hash."""
    key, value, headers = contract.dead_letter(
        refused.record, stage=stage, reason=refused.reason, error=refused.detail, limit_bytes=_LIMIT_BYTES, payload=payload
    )
    return Output(topic, key, value, headers)
