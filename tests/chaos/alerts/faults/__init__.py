"""All faults of the alert app, in the order in which they run."""

from __future__ import annotations

from typing import Final

from tests.chaos.alerts.fault import AlertFault
from tests.chaos.alerts.faults import services, workers

_MODULES: Final = (workers, services)

FAULTS: Final[tuple[AlertFault, ...]] = tuple(fault for module in _MODULES for fault in module.FAULTS)
