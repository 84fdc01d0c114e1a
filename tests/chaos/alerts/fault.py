"""What a fault of the alert app is: a name and what it does to a running installation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.alerts.scene import Scene
from tests.chaos.command import Form


@dataclass(frozen=True, slots=True)
class AlertFault:
    """One fault.

    Attributes
    ----------
    inject : does it while events come; notes each hit with `Scene.hit`, gives it a witness, and waits until it is recovered from.
    short : whether the short form has it.
    """

    name: str
    inject: Callable[[Scene], None]
    short: bool = True

    @property
    def form(self) -> Form:
        """Which form of the campaign has it."""
        return "short" if self.short else "long"

    @property
    def about(self) -> str:
        """The first line of what `inject` says of itself."""
        return (self.inject.__doc__ or "").strip().partition("\n")[0]
