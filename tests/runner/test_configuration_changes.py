"""A restart under another configuration: the first commit carries a base, and no replay begins before the change if it can be helped."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from msgspec import structs

from driftline.schemas.loading import parse_config
from driftline.streams.cluster import Cluster
from driftline.streams.runner.restore import Restorer, RunningTask
from driftline.streams.state.base import FoundBase
from driftline.streams.state.checkpoints import Checkpoints, Loaded, Scope
from driftline.streams.state.manifest import encode_reference
from driftline.streams.state.store import MemoryStore
from driftline.streams.task import MemoryRecord, PartitionId, RestoredState
from tests.runner.test_restore import INPUTS, NOW_MS, PART, Log
from tests.runner.toy import ToyProcessor

BEFORE = Scope("k", "e", "g", Cluster("c", {"source": "t"}, {"source": 1}), config="before")
AFTER = replace(BEFORE, config="after")
TEXT = "predictions: p\nmodels: {m: {monitors: [{id: a, series: ['*'], run_length: 1.0e+6}]}}\n"


@dataclass
class Bases:
    """The base checkpoints of Kafka: one, or none."""

    kept: Loaded | None = None
    told: list[str] = field(default_factory=list)

    def known(self, task: str, _rows: int) -> None:
        self.told.append(task)

    def find(self, _task: str) -> FoundBase | None:
        return None if self.kept is None else FoundBase(self.kept, 0)


@dataclass
class Life:
    """What a worker under one configuration leaves: a checkpoint every ten records, the first of them a base too."""

    store: MemoryStore
    base: Loaded
    committed: dict[PartitionId, tuple[int, str]]
    newest: str

    @classmethod
    def of(cls, scope: Scope, commits: int = 3) -> Life:
        store = MemoryStore()
        task = ToyProcessor("source", "out").open("toy/0", RestoredState())
        checkpoints = Checkpoints(store, scope, "toy/0", INPUTS)
        checkpoints.claim()
        checkpoints.begin()
        references = []
        for number in range(commits):
            task.process({PART: [MemoryRecord("source", 0, i, None, b"7", 0) for i in range(10 * number, 10 * number + 10)]})
            write, reference = checkpoints.prepare(task.checkpoint(), task.positions(), base=number == 0)
            store.write([write])
            checkpoints.written()
            checkpoints.confirm()
            references.append(reference)
        base = Checkpoints(store, scope, "toy/0", INPUTS).load(references[0])
        newest = references[-1]
        return cls(store, base, {PART: (10 * commits, encode_reference(newest))}, newest.id)

    def lose_newest(self) -> None:
        for key in list(self.store.data):
            if f":m:{self.newest}" in key:
                del self.store.data[key]


def restored(life: Life, scope: Scope, bases: Bases) -> RunningTask:
    log: Any = Log(0, 100)
    base: Any = bases
    processor = ToyProcessor("source", "out")
    restorer = Restorer(processor, log, life.store, scope, base, start="now", by_time=True, on_lost_state="fail", now_ms=lambda: NOW_MS)
    return restorer.restore("toy/0", INPUTS, life.committed)


@pytest.mark.parametrize(("scope", "known"), [(BEFORE, ["toy/0"]), (AFTER, [])])
def test_a_base_is_due_at_once_after_a_change_and_only_then(scope: Scope, known: list[str]) -> None:
    bases = Bases()
    running = restored(Life.of(BEFORE), scope, bases)
    assert (running.source, running.replay_to) == ("redis", None)
    assert bases.told == known


def test_a_replay_begins_at_the_base_of_this_configuration_rather_than_at_an_older_checkpoint_of_another() -> None:
    life = Life.of(BEFORE)
    life.lose_newest()
    after = Loaded(structs.replace(life.base.manifest, config="after"), life.base.state)
    assert restored(life, BEFORE, Bases(life.base)).source == "older"
    assert restored(life, AFTER, Bases(after)).source == "base"


def test_a_replay_across_a_change_says_so(caplog: pytest.LogCaptureFixture) -> None:
    life = Life.of(BEFORE)
    life.lose_newest()
    assert restored(life, AFTER, Bases(life.base)).source == "base"
    assert [r for r in caplog.records if r.getMessage().startswith("replay_under_another_configuration task=toy/0")]


def test_the_digest_is_of_what_decides_events() -> None:
    digest = parse_config(TEXT, name="m.yml").digest
    for same in ("kafka: {bootstrap: 'a:1'}\n", "redis: {url: 'redis://b'}\n", "http: {port: 0}\n", "hash_key: {env: K}\n"):
        assert parse_config(TEXT + same, name="m.yml").digest == digest
    for other in (TEXT.replace("1.0e+6", "1.0e+7"), TEXT.replace("'*'", "score"), TEXT + "environment: b\n", TEXT.replace("{m:", "{n:")):
        assert parse_config(other, name="m.yml").digest != digest
