"""The life of one run: events flow, a fault happens, all is drained and compared."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Final

from driftline.streams.local.kafka import LocalKafka
from driftline.streams.local.redis import LocalRedis
from tests.chaos.alerts.fault import AlertFault
from tests.chaos.alerts.reference import uninterrupted
from tests.chaos.alerts.scene import Scene, Services
from tests.chaos.alerts.verify import duplicates, verify
from tests.chaos.process import until
from tests.chaos.report import Row

EVENTS_SHORT: Final = 400
EVENTS_LONG: Final = 1_000
_ABORTED_MIN: Final = 5


def services() -> Services:
    """A broker and a store, not started: `with` starts them. What Redis holds outlives its restart."""
    return Services(LocalKafka(), LocalRedis(append_only=True, properties={"appendfsync": "everysec"}))


def perform(
    fault: AlertFault, running: Services, directory: Path, *, seed: int, short: bool, without: str = "", rule: int | None = None
) -> Row:
    """Do it; whatever goes wrong stands in the row."""
    row = Row(f"alert {fault.name}", "classic", seed, without, rule)
    began = time.monotonic()
    scene = Scene(running, directory, seed=seed, short=short, without=without)
    try:
        scene.feeder.start()
        try:
            fault.inject(scene)
            if not without:
                _until_enough(scene, EVENTS_SHORT if short else EVENTS_LONG)
        except AssertionError as error:
            row.failures.append(str(error))
        scene.end()
        row.drained = True
    except Exception as error:  # noqa: BLE001 - one run that breaks does not end the others
        row.failures.append(f"{type(error).__name__}: {error}" if str(error) else traceback.format_exc())
    try:
        _verify(scene, row)
    except Exception:  # noqa: BLE001
        row.failures.append(traceback.format_exc())
    finally:
        scene.close()
    row.seconds = time.monotonic() - began
    return row


def _until_enough(scene: Scene, events: int) -> None:
    if all(worker.code is not None or worker.asleep for worker in scene.workers):
        scene.start()
    until(lambda: scene.feeder.committed >= events, lambda: f"{scene.feeder.committed} of {events} events were sent")


def _verify(scene: Scene, row: Row) -> None:
    row.failures += scene.surprises()
    drift, found = scene.drift(), scene.found()
    expected = uninterrupted(drift, scene.names)
    row.count(verify(expected, found))
    row.events_in = row.drift_events = len(drift)
    row.uncommitted_duplicates = duplicates(found.transitions)
    row.aborted = len(scene.watch.read(scene.topic("drift"), committed=False)) - len(drift)
    repeated = len(drift) - len({(record.value(), record.partition()) for record in drift})
    row.cases = {"repeated": repeated, "poison": len(expected.poison), "aborted_transactions": scene.feeder.aborted}
    if not row.without:
        row.failures += [f"the input had only {count} {case}" for case, count in row.cases.items() if count < _ABORTED_MIN]
    _witness(scene, row)


def _witness(scene: Scene, row: Row) -> None:
    row.injected = len(scene.hits)
    row.witnessed = sum(hit.witness is not None for hit in scene.hits)
    seen = Counter(hit.what for hit in scene.hits if hit.witness is not None)
    for what in {hit.what for hit in scene.hits}:
        if not seen[what]:
            row.unwitnessed[what] = "none witnessed"
    if not scene.hits:
        row.unwitnessed[row.name] = "nothing was injected"
    row.recoveries_s = [round(hit.recovery_s, 3) for hit in scene.hits if hit.recovery_s is not None]
    row.hits = [{"stage": "alert", "what": hit.what, "witness": hit.witness, "recovery_s": hit.recovery_s} for hit in scene.hits]
