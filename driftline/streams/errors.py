"""What can go wrong between Kafka, Redis and a task; retry or stop is decided by type.

StreamError
  FatalError            the worker stops with `exit_code`
    SetupError          a topic, right or setting is missing; a person acts, exit code 2
    StateError          state is missing, damaged or another's; going on would be silently wrong
      NewerStateError   a newer release made it: this worker has to be upgraded, and must not give it up for a rebuild
      ForeignStateError another installation's, under the same names: neither may give it up for a rebuild
    OffsetError         records that were promised are gone (retention, truncation)
    SequenceError       observation batches of a task are missing, repeated or torn between two workers
    OutputError         a record of ours that Kafka will never take
    OwnershipError      another process holds our task although Kafka says it is ours
    SavepointError      a file that is no whole savepoint, or not one for this installation, exit code 2
  RecoverableError      the transaction is aborted and memory is loaded again
    AssignmentChanged   a rebalance came between two steps
    WriteRefused        the state store found another owner, head or ring length than expected
    UncertainError      the outcome of a call is not known: a new producer, committed offsets read again
    AwayError           Kafka or Redis does not answer: wait, then recover
      KafkaAwayError    it is Kafka
"""

from __future__ import annotations

from typing import Final

UPGRADE_HINT: Final = "upgrade this worker: a newer one has already run here"


class StreamError(Exception):
    """Root of the tree; `hint` says what to do, on a line of its own."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}\n  hint: {hint}")
        self.message = message
        self.hint = hint


class FatalError(StreamError):
    """The worker stops."""


class SetupError(FatalError):
    """A topic, right or setting is missing."""

    exit_code = 2


class StateError(FatalError):
    """State is missing, damaged or another's."""


class LostStateError(StateError):
    """Gone or damaged: an older checkpoint and replay may bring it back."""


class NewerStateError(StateError):
    """A newer release made it (PROTOCOL 21)."""


class ForeignStateError(StateError):
    """Another installation made it, over other topics and models, under the same prefix."""


class OffsetError(FatalError):
    """Records between the committed offset and the log are gone."""


class SequenceError(FatalError):
    """Observation batches of a task are missing, repeated or torn between two workers."""


class OutputError(FatalError):
    """A record of ours that Kafka will never take."""


class OwnershipError(FatalError):
    """Another process holds our task although Kafka says it is ours."""


class SavepointError(FatalError):
    """A file that is no whole savepoint, or not one for this installation."""

    exit_code = 2


class RecoverableError(StreamError):
    """The transaction is aborted and memory is loaded again."""


class AssignmentChanged(RecoverableError):
    """A rebalance came between two steps."""


class WriteRefused(RecoverableError):
    """The state store wrote nothing; `reason` is ``owner``, ``lost``, ``head`` or ``length``."""

    def __init__(self, task: str, reason: str, detail: str) -> None:
        super().__init__(f'task "{task}": state store refused to write: {detail}')
        self.task = task
        self.reason = reason


class UncertainError(RecoverableError):
    """The outcome of a call is not known."""


class AwayError(RecoverableError):
    """Kafka or Redis does not answer."""


class KafkaAwayError(AwayError):
    """Kafka does not answer."""
