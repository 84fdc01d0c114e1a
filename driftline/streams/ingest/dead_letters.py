"""Dead letters: the record as it came, and headers that say where it stood and why it was refused."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from driftline.schemas import dead_letter as contract
from driftline.schemas.topics import DEAD_LETTERS
from driftline.streams.ingest.decoder import Refused
from driftline.streams.task import Output

_log = logging.getLogger(__name__)

# Room for the batch's own framing within the topic's limit.
_LIMIT_BYTES: Final = DEAD_LETTERS.max_message_bytes - 4_096


def dead_letter(refused: Refused, *, topic: str, stage: str, payload: bool) -> Output:
    """The dead letter of a refused record; without `payload` (sensitive fields) only its position, reason and hash."""
    key, value, headers = contract.dead_letter(
        refused.record, stage=stage, reason=refused.reason, error=refused.detail, limit_bytes=_LIMIT_BYTES, payload=payload
    )
    return Output(topic, key, value, headers)


def report(refused: Sequence[Refused], *, payload: bool) -> None:
    """One warning for each reason in a batch, with the first record of it; without `payload` the error, which quotes values, stays out."""
    by_reason: dict[str, list[Refused]] = {}
    for item in refused:
        by_reason.setdefault(item.reason, []).append(item)
    for reason, items in by_reason.items():
        record, error = items[0].record, items[0].detail if payload else "(withheld: a field is sensitive)"
        _log.warning(
            "dead_lettered reason=%s records=%d first=%s/%d:%d error=%r",
            *(reason, len(items), record.topic(), record.partition(), record.offset(), error),
            # One reason that floods must not hide another.
            extra={"repeats": reason},
        )
