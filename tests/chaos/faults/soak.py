"""Nothing but load, for long: memory and lag must not grow."""

from __future__ import annotations

import statistics
import time
from typing import Final

from tests.chaos.fault import Fault
from tests.chaos.installation import Options
from tests.chaos.scene import Scene
from tests.chaos.workers import STAGES, Stage

MINUTES_SHORT, MINUTES_LONG = 6, 20
_EVERY_SECONDS: Final = 5.0
_GROWTH_BYTES_MAX: Final = 16 << 20
"""From the second quarter to the last: allocators and caches settle, a leak of 1 KB a row is 40 MB in the short size."""
_LAG_RECORDS_MAX: Final = 500


def soak(scene: Scene) -> None:
    """Steady load for twenty minutes, six in its short size; memory and lag of the last quarter are those of the second."""
    rss: dict[Stage, list[int]] = {stage: [] for stage in STAGES}
    lag: dict[Stage, list[int]] = {stage: [] for stage in STAGES}
    until = time.monotonic() + 60 * (MINUTES_SHORT if scene.short else MINUTES_LONG)
    while time.monotonic() < until:
        time.sleep(_EVERY_SECONDS)
        for stage in STAGES:
            rss[stage].append(scene.crew(stage).of("a").rss_bytes)
            lag[stage].append(scene.lag(stage))
    for stage in STAGES:
        hit = scene.hit(stage, f"soak {stage}")
        grown = _quarter(rss[stage], 3) - _quarter(rss[stage], 1)
        behind = _quarter(lag[stage], 3) - _quarter(lag[stage], 1)
        memory = f"{_quarter(rss[stage], 3) / 2**20:.0f} MiB ({grown / 2**20:+.1f})"
        figures = f"{memory}, {_quarter(lag[stage], 3):.0f} records behind ({behind:+.0f})"
        if grown <= _GROWTH_BYTES_MAX and behind <= _LAG_RECORDS_MAX:
            hit.witness = figures
        else:
            hit.what += f", {figures}"
        scene.recovered(hit)


def _quarter(samples: list[int], number: int) -> float:
    size = len(samples) // 4
    return statistics.median(samples[number * size : (number + 1) * size])


FAULTS: Final = (Fault("soak", soak, Options(steady=True)),)
