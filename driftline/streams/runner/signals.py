"""Signals of a worker: SIGTERM and SIGINT stop it, SIGUSR1 drains it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def handled(stop: Callable[[], None], drain: Callable[[], None]) -> Iterator[None]:
    """Handle them while inside; does nothing outside the main thread, where Python allows no handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    actions = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGUSR1: drain}
    before = {number: signal.signal(number, lambda *_, act=act: act()) for number, act in actions.items()}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
