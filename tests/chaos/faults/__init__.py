"""All faults, in the order in which they run."""

from __future__ import annotations

from typing import Final

from tests.chaos.fault import Fault
from tests.chaos.faults import broker, content, groups, kills, naps, operators, soak, store

_MODULES: Final = (kills, naps, groups, content, store, broker, operators, soak)

FAULTS: Final[tuple[Fault, ...]] = tuple(fault for module in _MODULES for fault in module.FAULTS)
