"""The life of one run: an installation is opened, input flows, a fault happens, all is drained and compared."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.chaos.fault import Fault
from tests.chaos.inputs import missing_cases
from tests.chaos.reference import Detected, uninterrupted_detect, uninterrupted_join
from tests.chaos.report import Row
from tests.chaos.scene import Scene, Services
from tests.chaos.verify import Verdict, doubled_ids, verify_detect, verify_join
from tests.chaos.verify_ingest import Ingested, sent, verify_ingest

_CONTROL_DRIFT_EVENTS: Final = 300
"""A control has to find one difference, not to count them."""
_LONG: Final = 10
_DRIFT_SECONDS: Final = 600.0
_CONTROL_DRIFT_SECONDS: Final = 90.0


def perform(
    fault: Fault, services: Services, directory: Path, *, seed: int, short: bool, without: str = "", rule: int | None = None
) -> Row:
    """Do it; whatever goes wrong stands in the row."""
    row = Row(fault.name, fault.options.protocol, seed, without, rule)
    began = time.monotonic()
    # In the long form hits fall into a full stream for longer.
    plenty = fault.drift_events * (1 if short else _LONG)
    scene = Scene(services, directory, fault.options, seed=seed, short=short, plenty=plenty, without=without)
    try:
        _timed(row, "open", lambda: scene.open(fault.failpoints, directory / "clock" if fault.clocked else None))
        _run(fault, scene, row)
        _timed(row, "verify", lambda: _verify(scene, row))
    except Exception:  # noqa: BLE001 - one run that breaks does not end the others
        row.failures.append(traceback.format_exc())
    finally:
        scene.close()
    row.seconds = time.monotonic() - began
    return row


def _run(fault: Fault, scene: Scene, row: Row) -> None:
    """A worker that hangs or ends is a finding; what stands in the topics is compared all the same."""
    events, seconds = (_CONTROL_DRIFT_EVENTS, _CONTROL_DRIFT_SECONDS) if row.without else (fault.drift_events, _DRIFT_SECONDS)
    steps: dict[str, Callable[[], None]] = {
        "inject": lambda: fault.inject(scene),
        "drift": lambda: scene.until_drift(events, seconds),
        "recover": scene.until_recovered,
    }
    for name, step in steps.items():
        try:
            _timed(row, name, step)
        except AssertionError as error:
            row.failures.append(str(error))
            break
    row.surprises = scene.surprises()
    try:
        # After a surprise nothing is waited for: that worker's work is lost, as it would be to a user.
        if not row.surprises:
            _timed(row, "drain", scene.end)
            row.drained = True
    except AssertionError as error:
        row.failures.append(str(error))
    scene.feeder.stop()
    for crew in scene.crews.values():
        crew.kill()
    row.surprises = scene.surprises()


def _timed(row: Row, name: str, step: Callable[[], None]) -> None:
    began = time.monotonic()
    try:
        step()
    finally:
        row.phases_s[name] = round(time.monotonic() - began, 1)


def _verify(scene: Scene, row: Row) -> None:
    """Compare what stands with what should, and fill the row."""
    row.failures += row.surprises
    watch, installation = scene.watch, scene.installation
    config, cluster = installation.config, installation.cluster()
    ours = {name: watch.read(installation.topic(name)) for name in ("observations", "waiting", "labels", "dlq", "drift", "snapshots")}
    inputs = sent([r for topic in installation.sources.values() for r in watch.read(topic)], scene.feeder.sent)
    out = Ingested(ours["observations"], ours["waiting"], ours["labels"], ours["dlq"])
    cuts = {n: [at for hit in scene.hits if n in hit.spans for at in hit.spans[n]] for n in range(config.topics.partitions)}
    detected = uninterrupted_detect(config, cluster, ours["observations"], cuts)
    verdicts = {
        "ingest": verify_ingest(inputs, out, times=scene.times),
        "join": verify_join(uninterrupted_join(config, cluster, ours["waiting"], ours["labels"]), ours["observations"]),
        "detect": verify_detect(detected.outputs, ours["drift"], ours["snapshots"]),
    }
    _count(row, verdicts)
    every = watch.read(installation.topic("drift"), committed=False)
    row.events_in, row.drift_events, row.snapshots = len(inputs), len(ours["drift"]), len(ours["snapshots"])
    row.uncommitted_duplicates = doubled_ids(every)
    row.aborted = len(every) - len(ours["drift"])
    row.cases = {case: round(share, 3) for case, share in scene.stream.shares().items()}
    _witness(scene, row, detected)
    if not row.without:
        row.failures += [f"the input had too few of case {case}" for case in missing_cases(scene.stream.shares())]


def _count(row: Row, verdicts: Mapping[str, Verdict]) -> None:
    for stage, verdict in verdicts.items():
        row.by_stage[stage] = {name: getattr(verdict, name) for name in ("expected", "lost", "doubled", "changed")}
        row.lost += verdict.lost
        row.doubled += verdict.doubled
        row.changed += verdict.changed
        row.notes += [f"{stage}: {note}" for note in verdict.notes]


def _witness(scene: Scene, row: Row, detected: Detected) -> None:
    """Who bit; what a finished transaction held is known from the uninterrupted run alone."""
    for hit in scene.hits:
        if hit.witness is None and hit.spans:
            held = sum(first <= at < end for n, (first, end) in hit.spans.items() for at in detected.drift_at[n])
            hit.witness = f"{held} drift events in the transaction that had just been committed" if held else None
    row.injected = len(scene.hits)
    row.witnessed = sum(hit.witness is not None for hit in scene.hits)
    done, seen = Counter(hit.what for hit in scene.hits), Counter(hit.what for hit in scene.hits if hit.witness is not None)
    for what, needed in (dict(done) | scene.needs).items():
        if seen[what] < needed:
            row.unwitnessed[what] = f"{seen[what]} of {needed} witnessed"
    if not scene.hits:
        row.unwitnessed[row.name] = "nothing was injected"
    row.recoveries_s = [round(hit.recovery_s, 3) for hit in scene.hits if hit.recovery_s is not None]
    row.hits = [
        {"stage": hit.stage, "what": hit.what, "witness": hit.witness, "recovery_s": hit.recovery_s and round(hit.recovery_s, 3)}
        for hit in scene.hits
    ]
