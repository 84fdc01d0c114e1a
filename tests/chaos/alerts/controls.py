"""Negative controls: a rule is taken out of the workers' code, and the run that needs it must be found lossy.

What the alert app rests on, and where that alone decides:

- *State, applied offset and outbox are one write* (`there_is_no_outbox`, `states_are_written_apart`).
- *What is published is delivered, then deleted* (`rows_are_deleted_before_delivery`, `deliveries_are_not_awaited`), *then
  acknowledged*: behind the last one stands the seek back, so `tests/alert/test_app.py` shows it on the app's own agent.
- *An event is applied once*: the applied offset says so when it is read again, and behind it each alert remembers its last
  offset; both have to go. Detect's own repeats have other offsets, there the ids decide alone (`repeats_are_not_known`).
- *Whoever writes has seen the applied offset before* (`offsets_are_not_compared`); there is no owner's token beside it. The sleeper
  dies with its write, because otherwise its place in the group is asked for, and who is assigned then seeks back to where it has
  put the store, and may put right what it did.
- *The worker begins where the store stands* (`nobody_seeks_back`), *sees a store go back under it* (`losses_are_not_seen`), *and
  fills an empty one from the alerts topic* (`an_empty_store_stays_empty`; nobody needs it while the drift topic has all events).
- *Open and recent alerts are published again on assignment*: a sleeper may have sent an older one (`nothing_is_published_again`).
- *Transitions are delivered before alerts, events of an earlier assignment are left out*: both matter only where Redis is lost at
  that very moment; `tests/alert/test_worker.py` and `test_app.py` show them on the real code.
"""

from __future__ import annotations

from typing import Final

from tests.chaos.controls import Control

ALERT_RULE: Final = 18
"""The outbox; the parts of it have no numbers of their own."""

CONTROLS: Final = (
    Control(ALERT_RULE, "there_is_no_outbox", "kills_at_steps", short=True),
    Control(ALERT_RULE, "states_are_written_apart", "kills_at_steps"),
    Control(ALERT_RULE, "rows_are_deleted_before_delivery", "kills_at_steps"),
    Control(ALERT_RULE, "applied_events_are_taken_again,repeats_are_not_known", "kills_at_steps"),
    Control(ALERT_RULE, "deliveries_are_not_awaited", "killed_unanswered"),
    Control(ALERT_RULE, "offsets_are_not_compared", "zombies_die", short=True),
    Control(ALERT_RULE, "nothing_is_published_again", "zombies"),
    Control(ALERT_RULE, "errors_are_acknowledged", "handler_raises", short=True),
    Control(ALERT_RULE, "repeats_are_not_known", "many_workers"),
    Control(ALERT_RULE, "uncommitted_events_are_read", "many_workers", short=True),
    Control(ALERT_RULE, "nobody_seeks_back", "redis_rolled_back", short=True),
    Control(ALERT_RULE, "losses_are_not_seen", "redis_rolled_back"),
    Control(ALERT_RULE, "an_empty_store_stays_empty", "wiped_when_events_are_gone"),
)
