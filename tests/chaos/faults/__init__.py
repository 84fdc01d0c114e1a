"""All faults, in the order in which they run."""

from __future__ import annotations

from typing import Final

from tests.chaos.fault import Fault
from tests.chaos.faults import content, groups, kills, naps, soak

FAULTS: Final[tuple[Fault, ...]] = (*kills.FAULTS, *naps.FAULTS, *groups.FAULTS, *content.FAULTS, *soak.FAULTS)
