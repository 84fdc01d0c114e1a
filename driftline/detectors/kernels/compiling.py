"""A word to whoever waits: a first run after an installation compiles for tens of seconds, and looks like one that hangs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

WORDS: Final = "compiling kernels, once after an installation: half a minute to two, as busy as the machine is"
_KIND: Final = "numba:compile"


@contextmanager
def compiling_told(say: Callable[[str], object]) -> Iterator[None]:
    """Within the block the first kernel that is compiled, and not loaded, is told of in one line."""
    from numba.core import event  # here: who only wants the words needs no compiler

    class First(event.Listener):
        told = False

        def on_start(self, event: Any) -> None:  # noqa: ARG002 - whichever function it is
            if not self.told:
                self.told = True
                say(WORDS)

        def on_end(self, event: Any) -> None:
            pass

    listener = First()
    event.register(_KIND, listener)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        event.unregister(_KIND, listener)  # type: ignore[no-untyped-call]
