"""The life of one run: an installation is opened, input flows, a fault happens, all is drained and compared."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.chaos.fault import Fault
from tests.chaos.inputs import missing_cases
from tests.chaos.reference import Detected, uninterrupted_detect, uninterrupted_join
from tests.chaos.report import Row
from tests.chaos.scene import Scene, Services
from tests.chaos.verify import doubled_ids, verify_detect, verify_join
from tests.chaos.verify_ingest import Ingested, sent, verify_ingest

_CONTROL_DRIFT_EVENTS: Final = 300
"""A control has to find one difference, not to count them."""
_WARM_DRIFT_EVENTS: Final = 100
_LONG: Final = 10
_DRIFT_SECONDS: Final = 600.0
_CONTROL_DRIFT_SECONDS: Final = 90.0


def perform(fault: Fault, services: Services, directory: Path, *, seed: int, short: bool) -> Row:
    """Do one fault in an installation of its own."""
    return perform_together([fault], services, directory, seed=seed, short=short)[0]


def perform_together(
    faults: Sequence[Fault], services: Services, directory: Path, *, seed: int, short: bool, without: str = "", rule: int | None = None
) -> list[Row]:
    """Do faults one after the other in one installation, a row each; whatever goes wrong stands in the rows.

    Parameters
    ----------
    faults : need the same circumstances. What is lost is then lost to one of them; run alone, each shows whether to it.
    """
    began = time.monotonic()
    first = faults[0]
    rows = [Row(fault.name, fault.options.protocol, seed, without, rule) for fault in faults]
    # In the long form hits fall into a full stream for longer.
    plenty = max(fault.drift_events for fault in faults) * (1 if short else _LONG)
    scene = Scene(services, directory, first.options, seed=seed, short=short, plenty=plenty, without=without)
    try:
        with _phase(rows, "open"):
            scene.open(first.failpoints, directory / "clock" if first.clocked else None)
        _run(faults, scene, rows)
        _verify(scene, rows)
    except Exception:  # noqa: BLE001 - one run that breaks does not end the others
        _fail(rows, traceback.format_exc())
    finally:
        scene.close()
    for row in rows:
        row.seconds = time.monotonic() - began
        row.together = [other.name for other in rows if other is not row]
    return rows


def _run(faults: Sequence[Fault], scene: Scene, rows: Sequence[Row]) -> None:
    """A worker that hangs or ends is a finding; what stands in the topics is compared all the same."""
    try:
        with _phase(rows, "warm"):
            # A worker without windows, baselines and a checkpoint too large for its offsets' metadata has nothing to lose.
            scene.until_drift(_WARM_DRIFT_EVENTS, _DRIFT_SECONDS)
        for fault, row in zip(faults, rows, strict=True):
            _inject(fault, scene, row)
        events = _CONTROL_DRIFT_EVENTS if rows[0].without else max(fault.drift_events for fault in faults)
        seconds = _CONTROL_DRIFT_SECONDS if rows[0].without else _DRIFT_SECONDS
        with _phase(rows, "drift"):
            scene.until_drift(events, seconds)
    except AssertionError as error:
        _fail(rows, str(error))
    try:
        # After a surprise nothing is waited for: that worker's work is lost, as it would be to a user.
        if not scene.surprises():
            with _phase(rows, "drain"):
                scene.end()
            for row in rows:
                row.drained = True
    except AssertionError as error:
        _fail(rows, str(error))
    scene.feeder.stop()
    for crew in scene.crews.values():
        crew.kill()


def _inject(fault: Fault, scene: Scene, row: Row) -> None:
    """One fault, from a worker a stage to a worker a stage."""
    before = len(scene.hits)
    launched = {stage: len(crew.all) for stage, crew in scene.crews.items()}
    scene.needs = {}
    try:
        with _phase([row], "inject"):
            fault.inject(scene)
        with _phase([row], "recover"):
            scene.until_recovered()
    finally:
        row.of_scene, row.needs = scene.hits[before:], scene.needs
    shrunk = []
    for crew in scene.crews.values():
        if crew.over:
            continue
        more = [worker for worker in crew.all[launched[crew.stage] :] if worker.launch.instance != "a"]
        for worker in more:
            if worker.code is None:
                worker.stop()
        if not crew.alive:
            crew.start()
        # Also those that the fault has stopped itself: one that was about to join has partitions after its end.
        if more:
            shrunk.append(crew.stage)
    scene.until_forgotten(shrunk)


def _fail(rows: Sequence[Row], text: str) -> None:
    for row in rows:
        row.failures.append(text)


@contextmanager
def _phase(rows: Sequence[Row], name: str) -> Iterator[None]:
    """Note in every row how long a part of the run took."""
    began = time.monotonic()
    try:
        yield
    finally:
        for row in rows:
            row.phases_s[name] = round(time.monotonic() - began, 1)


def _verify(scene: Scene, rows: Sequence[Row]) -> None:
    """Compare what stands with what should, and fill the rows."""
    watch, installation = scene.watch, scene.installation
    config, cluster = installation.config, installation.cluster()
    with _phase(rows, "read"):
        ours = {name: watch.read(installation.topic(name)) for name in ("observations", "waiting", "labels", "dlq", "drift", "snapshots")}
        inputs = sent([r for topic in installation.sources.values() for r in watch.read(topic)], scene.feeder.sent)
    out = Ingested(ours["observations"], ours["waiting"], ours["labels"], ours["dlq"])
    cuts = {n: [at for hit in scene.hits if n in hit.spans for at in hit.spans[n]] for n in range(config.topics.partitions)}
    with _phase(rows, "uninterrupted"):
        joined = uninterrupted_join(config, cluster, ours["waiting"], ours["labels"])
        detected = uninterrupted_detect(config, cluster, ours["observations"], cuts)
    with _phase(rows, "compare"):
        verdicts = {
            "ingest": verify_ingest(inputs, out, times=scene.times),
            "join": verify_join(joined, ours["observations"]),
            "detect": verify_detect(detected.outputs, ours["drift"], ours["snapshots"]),
        }
    every = watch.read(installation.topic("drift"), committed=False)
    shares = scene.stream.shares()
    for row in rows:
        row.surprises = scene.surprises()
        row.failures += row.surprises
        row.count(verdicts)
        row.events_in, row.drift_events, row.snapshots = len(inputs), len(ours["drift"]), len(ours["snapshots"])
        row.uncommitted_duplicates = doubled_ids(every)
        row.aborted = len(every) - len(ours["drift"])
        row.cases = {case: round(share, 3) for case, share in shares.items()}
        _witness(row, detected)
        if not row.without:
            row.failures += [f"the input had too few of case {case}" for case in missing_cases(shares)]


def _witness(row: Row, detected: Detected) -> None:
    """Who bit; what a finished transaction held is known from the uninterrupted run alone."""
    for hit in row.of_scene:
        if hit.witness is None and hit.spans:
            held = sum(first <= at < end for n, (first, end) in hit.spans.items() for at in detected.drift_at[n])
            hit.witness = f"{held} drift events in the transaction that had just been committed" if held else None
    row.injected = len(row.of_scene)
    row.witnessed = sum(hit.witness is not None for hit in row.of_scene)
    done, seen = Counter(hit.what for hit in row.of_scene), Counter(hit.what for hit in row.of_scene if hit.witness is not None)
    for what, needed in (dict(done) | row.needs).items():
        if seen[what] < needed:
            row.unwitnessed[what] = f"{seen[what]} of {needed} witnessed"
    if not row.of_scene:
        row.unwitnessed[row.name] = "nothing was injected"
    row.recoveries_s = [round(hit.recovery_s, 3) for hit in row.of_scene if hit.recovery_s is not None]
    row.hits = [
        {"stage": hit.stage, "what": hit.what, "witness": hit.witness, "recovery_s": hit.recovery_s and round(hit.recovery_s, 3)}
        for hit in row.of_scene
    ]
