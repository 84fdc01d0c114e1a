"""Nothing but load, for long: memory and lag must not grow."""

from __future__ import annotations

import statistics
import time
from typing import Final

from tests.chaos.fault import Fault
from tests.chaos.installation import Options
from tests.chaos.scene import Scene
from tests.chaos.workers import STAGES, Stage

MINUTES_SHORT, MINUTES_LONG = 6, 34
_SETTLED_SHORT, _SETTLED_LONG = 1.5, 20.0
"""Minutes until memory is looked at. The join remembers the ids of the 25,000 to 50,000 predictions it decided last on each partition,
labels that nobody asked for for ten minutes and a round of its sweep, and what a round of its journal has written again. At 220
predictions a second the first are full after eleven minutes, the others after fourteen, and all of them have been at their greatest
together after twenty: fed with the same input and no Kafka, the join's process holds 231 MiB at minute 12, 250 at 20 and at most 252
after that. The short size is over before, and has room for that."""
_EVERY_SECONDS: Final = 5.0
_PART: Final = 1 / 3
"""Of the samples since then at either end of what is compared."""
_GROWTH_BYTES_MAX: Final = 16 << 20
"""Allocators settle; a leak of 1 KB a row is 40 MB in the short size."""
_LAG_RECORDS_MAX: Final = 500


def soak(scene: Scene) -> None:
    """Steady load for 34 minutes, six in its short size; memory and lag are in the end what they were once all that is bounded was full."""
    rss: dict[Stage, list[int]] = {stage: [] for stage in STAGES}
    lag: dict[Stage, list[int]] = {stage: [] for stage in STAGES}
    began = time.monotonic()
    until = began + 60 * (MINUTES_SHORT if scene.short else MINUTES_LONG)
    settled = began + 60 * (_SETTLED_SHORT if scene.short else _SETTLED_LONG)
    while time.monotonic() < until:
        time.sleep(_EVERY_SECONDS)
        for stage in STAGES if time.monotonic() >= settled else ():
            rss[stage].append(scene.crew(stage).of("a").rss_bytes)
            lag[stage].append(scene.lag(stage))
    for stage in STAGES:
        hit = scene.hit(stage, f"soak {stage}")
        (held, most), (lagged, last) = _ends(rss[stage]), _ends(lag[stage])
        grown, behind = most - held, last - lagged
        figures = f"{most / 2**20:.0f} MiB ({grown / 2**20:+.1f}), {last:.0f} records behind ({behind:+.0f})"
        if grown <= _GROWTH_BYTES_MAX and behind <= _LAG_RECORDS_MAX:
            hit.witness = figures
        else:
            hit.what += f", {figures}"
        scene.recovered(hit)


def _ends(samples: list[int]) -> tuple[float, float]:
    """The medians of the first and of the last samples."""
    size = max(int(_PART * len(samples)), 1)
    return statistics.median(samples[:size]), statistics.median(samples[-size:])


FAULTS: Final = (Fault("soak", soak, Options(steady=True)),)
