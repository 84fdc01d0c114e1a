"""A running installation under one fault: input flows, workers run, and what was done to them is written down."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException

from driftline.streams.local.kafka import LocalKafka
from driftline.streams.local.redis import LocalRedis
from driftline.streams.task import PartitionId
from driftline.streams.wiring import TaskPlace, tasks_of
from tests.chaos.feeder import Feeder
from tests.chaos.inputs import InputStream
from tests.chaos.installation import SESSION_MS, Installation, Options
from tests.chaos.process import PATIENCE_SECONDS, Stuck, until
from tests.chaos.watch import Watch
from tests.chaos.workers import STAGES, Crew, Launch, Stage, Worker

DRIFT_EVENTS: Final = 1_000
"""A run with fewer proves little."""
_LOOK_SECONDS: Final = 1.0
_CLOCK_SECONDS: Final = 0.05
_PACE_SECONDS: Final = 2.0
_BEHIND_RECORDS: Final = 800
"""Observation batches: ten seconds of input. A machine too busy for the usual rate is not drowned in it."""
_TRICKLE: Final = 4.0
_FORGOTTEN_SECONDS: Final = 3.0
"""For the group's coordinator to notice that a session has ended, and for what was on its way when a worker was stopped."""


@dataclass(slots=True)
class Services:
    """A real Kafka, of one broker or of three, and a real Redis, for faults that happen to them."""

    brokers: Sequence[LocalKafka]
    redis: LocalRedis

    @property
    def kafka(self) -> LocalKafka:
        """The lone broker, or the first."""
        return self.brokers[0]

    @property
    def bootstrap(self) -> str:
        return ",".join(broker.bootstrap for broker in self.brokers)


@dataclass(slots=True)
class Hit:
    """One fault, as it happened.

    Attributes
    ----------
    what : its kind, for counting: ``kill detect produced``.
    at : when, by the monotonic clock.
    before : offsets that the stage had committed.
    witness : what shows that it bit; None when nothing does.
    spans : by partition of observations, the offsets [first, end) of a transaction; the verifier makes it a witness if drift
        events follow from them.
    recovery_s : from the fault to the first commit on every partition of the stage.
    final : what must follow is a stop with a reason, not a recovery.
    """

    stage: Stage
    what: str
    at: float
    before: Mapping[PartitionId, int]
    witness: str | None = None
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)
    recovery_s: float | None = None
    final: bool = False


class Scene:
    """What a fault gets into its hands.

    Attributes
    ----------
    crews : the workers, by stage.
    feeder : sends the input.
    watch : asks the broker.
    services : the broker and the store themselves.
    draw : the seeded choices of this run, by stage, because stages are hit at the same time.
    short : whether this is the short form, which CI runs.
    hits : everything that was done.
    needs : how many hits of a kind must be witnessed; without an entry, all.
    times : whether record times must come through ingest unchanged.

    Parameters
    ----------
    plenty : drift events from which on the input is a trickle.
    """

    def __init__(
        self, services: Services, directory: Path, options: Options, *, seed: int, short: bool, plenty: int, without: str = ""
    ) -> None:
        self.services, self.short, self.directory = services, short, directory
        self.draw = {stage: random.Random(f"{seed} {stage}") for stage in STAGES}
        self.installation = Installation(services.bootstrap, services.redis.url, directory, options, seed)
        self.stream = InputStream(seed, options.rate, options.poison)
        self.feeder = Feeder(services.bootstrap, self.installation.sources, self.stream)
        self.watch = Watch(services.bootstrap)
        self._done = threading.Event()
        self._clock = threading.Thread(target=self._time_recoveries, name="recoveries", daemon=True)
        defaults = Launch(without=without)
        self.crews = {stage: Crew(stage, self.installation.path, directory, defaults) for stage in STAGES}
        self.hits: list[Hit] = []
        self.needs: dict[str, int] = {}
        self.times = True
        self._places: list[TaskPlace] = []
        self._paced_at = 0.0
        self._plenty = plenty

    # -- the run

    def open(self, failpoints: Mapping[Stage, str], clock: Path | None = None) -> None:
        """Create everything, start a worker a stage, and let the input flow once they all work."""
        self.installation.create()
        for crew in self.crews.values():
            if clock is not None:
                crew.defaults = replace(crew.defaults, clock=clock)
            crew.start(failpoint=failpoints.get(crew.stage, ""))
        self._places = tasks_of(self.installation.config, self.installation.cluster())
        for stage in STAGES:
            self.until(lambda stage=stage: self.committed(stage).keys() >= self.inputs(stage), f"{stage} begins")  # type: ignore[misc]
        self.installation.cluster()  # to be remembered, before any fault
        self._clock.start()
        self.feeder.start()

    def until_drift(self, events: int, seconds: float) -> None:
        """Let the input flow until so many drift events stand in the topic."""
        topic = self.installation.topic("drift")
        self.until(lambda: self._pause() or self.watch.count(topic) >= events, f"{events} drift events", seconds)

    def until_recovered(self) -> None:
        """Let the input flow until every hit is recovered from."""
        self.until(lambda: not self._open_hits(), "all stages recover")

    def until_forgotten(self, stages: Sequence[Stage]) -> None:
        """Let the input flow until the workers that are left do the work of those that were stopped.

        A static member keeps its partitions until its session ends, and one that was joining when it was stopped gets them
        after its end: whoever drained before would miss them.
        """
        until_s = time.monotonic() + SESSION_MS / 1000 + _FORGOTTEN_SECONDS
        for stage in stages:
            while True:
                over = time.monotonic() > until_s
                before = self.committed(stage)
                self.until(lambda: self._moved_on(stage, before, self.committed(stage)), f"{stage} commits on every partition")  # noqa: B023
                if over:
                    break

    def until_fed(self) -> None:
        """Let the input flow until ingest works: who gets nothing has nothing in its hands."""
        before = self.committed("ingest")
        self.until(lambda: self._moved_on("ingest", before, self.committed("ingest")), "ingest commits on every partition")

    def end(self) -> None:
        """Stop the input, then each stage once it has read everything."""
        self.feeder.stop()
        for stage in STAGES:
            crew = self.crews[stage]
            if crew.over:
                continue
            if not crew.alive:
                crew.start()
            crew.drain()

    def close(self) -> None:
        """Leave nothing behind but the logs."""
        self._done.set()
        if self._clock.is_alive():
            self._clock.join()
        for crew in self.crews.values():
            crew.kill()
        self.watch.close()
        self.installation.delete()

    # -- what faults use

    def crew(self, stage: Stage) -> Crew:
        return self.crews[stage]

    def group(self, stage: Stage) -> str:
        """The consumer group of a stage."""
        return next(place.group for place in self._places if _stage(place) == stage)

    def inputs(self, stage: Stage) -> frozenset[PartitionId]:
        """Every partition that a stage reads."""
        return frozenset().union(*(place.inputs for place in self._places if _stage(place) == stage))

    def committed(self, stage: Stage) -> dict[PartitionId, int]:
        """The offsets that a stage has committed."""
        if not self._places:
            return {}
        return {key: offset for key, (offset, _) in self.watch.committed(self.group(stage), self.inputs(stage)).items()}

    def lag(self, stage: Stage) -> int:
        """Records that a stage has yet to commit, as far as committed readers see them."""
        committed = self.committed(stage)
        topics = {topic for topic, _ in self.inputs(stage)}
        ends = {key: end.stable for topic in topics for key, end in self.watch.ends(topic).items()}
        return sum(max(0, ends[key] - offset) for key, offset in committed.items())

    def hit(self, stage: Stage, what: str, at: float | None = None) -> Hit:
        """Write down a fault; `at` by the monotonic clock, where it was not this moment."""
        hit = Hit(stage, what, time.monotonic() if at is None else at, self.committed(stage))
        self.hits.append(hit)
        return hit

    def recovered(self, hit: Hit, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until the stage has committed on every partition after a hit."""
        self.until(lambda: hit.recovery_s is not None, f"{hit.stage} recovers from {hit.what}", seconds)

    def until(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for something to become true.

        Raises
        ------
        Stuck : it did not, or a worker has ended by itself, after which it hardly will.
        """

        def met() -> bool:
            if condition():
                return True
            if self.surprises():
                raise Stuck(f"a worker ended by itself; not so: {what}")
            return False

        until(met, lambda: f"not so: {what}\n{self._tails()}", seconds)

    def check(self) -> None:
        """For whoever tries until it bites.

        Raises
        ------
        Stuck : a worker has ended by itself: there is nothing left to hurt.
        """
        self.until(lambda: not self.surprises(), "all workers are there")

    def surprises(self) -> list[str]:
        """Workers that ended by themselves, with the end of what they said."""
        return [text for crew in self.crews.values() for text in crew.surprises()]

    def each_stage(self, act: Callable[[Stage], None], stages: Iterable[Stage] = STAGES) -> None:
        """Do the same to several stages at once."""
        failures: list[BaseException] = []

        def run(stage: Stage) -> None:
            try:
                act(stage)
            except BaseException as error:  # noqa: BLE001 - raised again below
                failures.append(error)

        threads = [threading.Thread(target=run, args=(stage,), name=f"chaos-{stage}") for stage in stages]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def task_inputs(self, worker: Worker) -> frozenset[PartitionId]:
        """The partitions of the tasks that a worker has started."""
        names = worker.tasks
        return frozenset().union(*(place.inputs for place in self._places if place.name in names))

    def _open_hits(self) -> list[Hit]:
        return [hit for hit in self.hits if hit.recovery_s is None and not hit.final]

    def _pace(self) -> None:
        """Feed no faster than detect takes it, and once there are drift events enough, a trickle: who is hit must go on, not catch up."""
        if self.installation.options.steady or time.monotonic() - self._paced_at < _PACE_SECONDS:
            return
        self._paced_at = time.monotonic()
        self.feeder.held = self.lag("detect") > _BEHIND_RECORDS
        if self.feeder.slower == 1.0 and self.watch.count(self.installation.topic("drift")) >= self._plenty:
            self.feeder.slower = _TRICKLE

    def _time_recoveries(self) -> None:
        """Note when each hit was recovered from; some are still open when the next ones come."""
        while not self._done.wait(_CLOCK_SECONDS):
            with contextlib.suppress(KafkaException):
                self._pace()
            for stage in {hit.stage for hit in self._open_hits()}:
                try:
                    now = self.committed(stage)
                except KafkaException:
                    continue  # the broker is away, which is what some faults are
                for hit in self._open_hits():
                    if hit.stage == stage and self._moved_on(stage, hit.before, now):
                        hit.recovery_s = time.monotonic() - hit.at

    def _moved_on(self, stage: Stage, before: Mapping[PartitionId, int], now: Mapping[PartitionId, int]) -> bool:
        return all(now.get(key, -1) > before.get(key, -1) for key in self.inputs(stage))

    def _pause(self) -> bool:
        time.sleep(_LOOK_SECONDS)
        return False

    def _tails(self) -> str:
        return "\n".join(f"-- {worker.name}\n{worker.tail(10)}" for crew in self.crews.values() for worker in crew.all[-2:])


def _stage(place: TaskPlace) -> Stage:
    return next(stage for stage in STAGES if place.processor.startswith(stage))
