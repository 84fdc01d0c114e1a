"""Waiting for Redis, for Kafka or for a rebalance; short of a minute, without losing the place in the group."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from confluent_kafka import KafkaError

from driftline.streams.errors import AwayError, FatalError, KafkaAwayError, OwnershipError, WriteRefused
from driftline.streams.http import Health
from driftline.streams.kafka import ErrorCallback, log_client_error
from driftline.streams.runner.membership import Membership
from driftline.streams.state.store import Store

_log = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
_POLL_SECONDS: Final = 0.2
# A little longer than the session timeout: by then Kafka has told a zombie that it is one.
SESSION_SECONDS: Final = 15.0
# Long enough for a restart or a fail-over of Redis, which then cost no rebalance. It may be away for this worker alone:
# after that time whoever reaches it shall have the partitions.
LEAVE_SECONDS: Final = 60.0
# A zombie takes what it had once, when it wakes; who does it again within this many sessions is at work.
_AGAIN_SESSIONS: Final = 20


def client_errors(health: Health) -> ErrorCallback:
    """What librdkafka reports goes to the log; that no broker can be reached, to the health too: an idle worker calls nothing."""

    def note(error: KafkaError) -> None:
        log_client_error(error)
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            health.kafka(error.str())

    return note


class Waiting:
    """Pauses in which rebalances are served, the process counts as alive and a stop ends everything."""

    def __init__(self, membership: Membership, store: Store, health: Health, stopping: threading.Event) -> None:
        self._membership = membership
        self._store = store
        self._health = health
        self._stopping = stopping
        self._taken_back = float("-inf")

    def away(self, error: AwayError) -> None:
        """Return when Redis and Kafka answer or the worker is stopped; says in the health which of them does not."""
        (self._health.kafka if isinstance(error, KafkaAwayError) else self._health.redis)(error.message)
        self.store_answers()
        if isinstance(error, KafkaAwayError):
            self._kafka_answers()
        # An answer to one question is not yet an answer to all.
        self.pause(_POLL_SECONDS)

    def _kafka_answers(self) -> None:
        attempt = 0
        while not self._stopping.is_set() and not self._membership.answers():
            pause = _PAUSE_SECONDS[min(attempt, len(_PAUSE_SECONDS) - 1)]
            attempt += 1
            _log.warning("kafka_away retry_in_seconds=%.1f", pause)
            self.pause(pause)

    def store_answers(self, seconds: float = float("inf")) -> None:
        """Return when the store answers or the worker is stopped; while it is away for long, others may have our partitions.

        Raises
        ------
        FatalError : it did not within `seconds`.
        """
        began, attempt, left = time.monotonic(), 0, False
        while not self._stopping.is_set():
            try:
                self._store.check()
                self._health.redis(None)
                if left:
                    _log.info("group_joined_again")
                    self._membership.join()
                return
            except AwayError as error:
                if not left and time.monotonic() - began > LEAVE_SECONDS:
                    left = True
                    _log.warning("group_left reason=%r seconds=%.0f", error.message, LEAVE_SECONDS)
                    self._membership.leave()
                if time.monotonic() - began > seconds:
                    raise FatalError(f"{error.message}, for {seconds:.0f} s", hint="is redis.url right and Redis up?") from error
                pause = _PAUSE_SECONDS[min(attempt, len(_PAUSE_SECONDS) - 1)]
                _log.warning("store_away error=%r retry_in_seconds=%.1f", error.message, pause)
                self._health.redis(error.message)
            attempt += 1
            self.pause(pause)

    def rebalance(self, refused: WriteRefused) -> None:
        """Another worker took our task; return when Kafka says so too, or when it never does and the task is to be taken back.

        Under the consumer protocol a zombie that woke and claimed may rejoin without anything changing for its successor.

        Raises
        ------
        OwnershipError : the second time, so two workers that Kafka does not know of each other claim one task.
        """
        before = self._membership.changes
        deadline = time.monotonic() + SESSION_SECONDS
        while self._membership.changes == before and not self._stopping.is_set():
            if (now := time.monotonic()) > deadline:
                if now - self._taken_back < _AGAIN_SESSIONS * SESSION_SECONDS:
                    hint = "does another installation use the same redis.key_prefix, environment and group?"
                    raise OwnershipError(refused.message, hint=hint)
                self._taken_back = now
                _log.warning("task_taken_back reason=%r", refused.message)
                return
            self.pause(_POLL_SECONDS)

    def before_retry(self, failures: int) -> None:
        """Hear what the group has to say before a commit is tried again, for longer each time it fails.

        Who is thrown out while it loads its tasks polls in no other place, and would try in vain until it had tried too often.
        """
        self.pause(_PAUSE_SECONDS[min(failures, len(_PAUSE_SECONDS)) - 1])

    def pause(self, seconds: float) -> None:
        """Let time pass; nothing is read, because nothing is assigned to the client now."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._stopping.is_set():
            self._health.beat()
            self._membership.poll(min(left, _POLL_SECONDS), 1)
