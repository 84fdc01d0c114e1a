"""Negative controls: a rule is taken out of the workers' code, and the run that needs it must be found lossy."""

from __future__ import annotations

from typing import Final

from tests.chaos.controls import Control

ALERT_RULE: Final = 18
"""The outbox; the parts of it have no numbers of their own."""

CONTROLS: Final = (
    Control(ALERT_RULE, "there_is_no_outbox", "kills_at_steps", short=True),
    Control(ALERT_RULE, "rows_are_deleted_before_delivery", "kills_at_steps"),
    Control(ALERT_RULE, "nobody_seeks_back", "redis_rolled_back", short=True),
    Control(ALERT_RULE, "offsets_are_not_compared", "zombies", short=True),
    Control(ALERT_RULE, "repeats_are_not_known", "many_workers"),
    Control(ALERT_RULE, "uncommitted_events_are_read", "many_workers", short=True),
    Control(ALERT_RULE, "errors_are_acknowledged", "handler_raises", short=True),
)
