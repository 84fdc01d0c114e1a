"""What a fault is: a name, what it does to a running installation, and the circumstances it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.chaos.command import Form
from tests.chaos.installation import Options
from tests.chaos.scene import DRIFT_EVENTS, Scene
from tests.chaos.workers import Stage


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes
    ----------
    inject : does it, once or many times, while the input flows; notes each with `Scene.hit`, gives it a witness, and waits
        until the stage has recovered. Every choice comes from `Scene.draw`, by stage.
    short : whether the short form has it.
    beyond : whether it breaks what Kafka itself promises, and with it what we do: it is run by its name only.
    failpoints : of the first worker of a stage.
    clocked : whether workers read their clock through a file, `Scene.directory / "clock"`, of seconds to add.
    drift_events : how many the run must have.
    shares : whether the short form may do it in one installation with others of the same options; it leaves a worker a stage.
    """

    name: str
    inject: Callable[[Scene], None]
    options: Options = field(default_factory=Options)
    short: bool = False
    beyond: bool = False
    failpoints: Mapping[Stage, str] = field(default_factory=dict)
    clocked: bool = False
    drift_events: int = DRIFT_EVENTS
    shares: bool = False

    @property
    def circumstances(self) -> tuple[object, ...]:
        """What faults must have in common to happen in one installation."""
        return (self.options, tuple(sorted(self.failpoints.items())), self.clocked)

    @property
    def form(self) -> Form:
        """Which form of the campaign has it."""
        if self.beyond:
            return "named"
        return "short" if self.short else "long"

    @property
    def about(self) -> str:
        """The first line of what `inject` says of itself."""
        return (self.inject.__doc__ or "").strip().partition("\n")[0]
