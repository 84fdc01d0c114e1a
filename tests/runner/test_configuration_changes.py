"""A restart under another configuration: the first commit carries a base, and no replay begins before the change if it can be helped."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from msgspec import structs
from msgspec.structs import replace as replace_struct

from driftline.schemas.loading import parse_config
from driftline.streams.cluster import Cluster
from driftline.streams.errors import ForeignStateError, NewerStateError, StateError
from driftline.streams.runner.restore import OnLostState, Restorer, RunningTask
from driftline.streams.state.base import FoundBase
from driftline.streams.state.checkpoints import Checkpoints, Scope
from driftline.streams.state.manifest import (
    MANIFEST_VERSION,
    CommitReference,
    Manifest,
    checksum,
    decode_manifest,
    encode_reference,
)
from driftline.streams.state.origin import Loaded
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

    def changed(self, task: str) -> None:
        self.told = [name for name in self.told if name != task]

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


def restored(life: Life, scope: Scope, bases: Bases, former: Any = None) -> RunningTask:
    log: Any = Log(0, 100)
    base: Any = bases
    processor = ToyProcessor("source", "out")
    restorer = Restorer(
        processor, lambda: log, life.store, scope, base, start="now", by_time=True, on_lost_state="fail",
        now_ms=lambda: NOW_MS, former=former,
    )  # fmt: skip
    return restorer.restore("toy/0", INPUTS, life.committed)


@pytest.mark.parametrize(("scope", "known", "dirty"), [(BEFORE, ["toy/0"], False), (AFTER, [], True)])
def test_a_base_is_due_at_once_after_a_change_and_only_then(scope: Scope, known: list[str], *, dirty: bool) -> None:
    bases = Bases()
    running = restored(Life.of(BEFORE), scope, bases)
    assert (running.source, running.replay_to, running.dirty) == ("redis", None, dirty)
    assert bases.told == known


def commit(running: RunningTask, store: MemoryStore) -> Manifest:
    write, reference = running.checkpoints.prepare(running.task.checkpoint(), running.positions())
    store.write([write])
    running.checkpoints.written()
    running.checkpoints.confirm()
    return Checkpoints(store, AFTER, "toy/0", INPUTS).load(reference).manifest


def test_a_checkpoint_names_what_was_active_and_from_which_offset_on() -> None:
    life = Life.of(BEFORE)
    manifest = commit(restored(life, AFTER, Bases()), life.store)
    assert [(one.config, one.offsets) for one in manifest.history] == [("before", [("source", 0, 10)]), ("after", [("source", 0, 30)])]
    # Another commit under the same one changes nothing; back to the first is a change too.
    committed = {PART: (30, encode_reference(reference_of(manifest, life.store)))}
    again = replace(life, committed=committed)
    assert commit(restored(again, AFTER, Bases()), life.store).history == manifest.history


def reference_of(manifest: Manifest, store: MemoryStore) -> CommitReference:
    (data,) = [value for key, value in store.data.items() if f":m:{manifest.id}" in key]
    return CommitReference(MANIFEST_VERSION, manifest.id, checksum(data), manifest.epoch)


def test_what_an_older_release_made_has_a_configuration_and_no_offset_from_which_it_was_active() -> None:
    life = Life.of(BEFORE)
    for key, value in list(life.store.data.items()):
        if ":m:" in key:
            older = json.loads(value)
            del older["history"], older["environment"]
            life.store.data[key] = json.dumps({**older, "v": 1}).encode()
    newest = decode_manifest(next(value for key, value in life.store.data.items() if f":m:{life.newest}" in key), "toy/0")
    reference = replace_struct(reference_of(newest, life.store), v=1)
    running = restored(replace(life, committed={PART: (30, encode_reference(reference))}), AFTER, Bases())
    manifest = commit(running, life.store)
    assert (manifest.v, manifest.environment) == (MANIFEST_VERSION, "e")
    assert [(one.config, one.offsets) for one in manifest.history] == [("before", []), ("after", [("source", 0, 30)])]


def test_another_environment_over_the_same_groups_is_refused_by_name() -> None:
    life = Life.of(BEFORE)
    with pytest.raises(StateError, match='belongs to environment "e", the worker runs with "f"'):
        Checkpoints(MemoryStore(), replace(BEFORE, environment="f"), "toy/0", INPUTS).adopt(life.base)


@pytest.mark.parametrize("choice", ["fail", "rebuild-from-earliest"])
def test_an_older_worker_leaves_a_newer_checkpoint_alone_whatever_it_was_told(choice: OnLostState) -> None:
    life = Life.of(BEFORE)
    before = {key: value for key, value in life.store.data.items() if ":owner" not in key}
    newer = replace(life, committed={PART: (30, '[3, "9-9-z", "0", 9, "", "", "and more"]')})
    log: Any = Log(0, 100)
    restorer = Restorer(
        ToyProcessor("source", "out"), lambda: log, life.store, BEFORE, None, start="now", by_time=True, on_lost_state=choice,
        now_ms=lambda: NOW_MS,
    )  # fmt: skip
    with pytest.raises(NewerStateError, match="names a checkpoint of version 3: this worker reads versions 1 to 2"):
        restorer.restore("toy/0", INPUTS, newer.committed)
    assert {key: value for key, value in life.store.data.items() if ":owner" not in key} == before


def decisive(topic: str, model: str) -> bytes:
    return parse_config(f"predictions: {topic}\nmodels: {{{model}: {{}}}}\n", name="m.yml").decisive


@pytest.mark.parametrize("choice", ["fail", "rebuild-from-earliest"])
def test_state_of_another_installation_is_refused_whatever_the_worker_was_told(choice: OnLostState) -> None:
    life = Life.of(replace(BEFORE, config_text=decisive("hotels.predictions", "hotels")))
    before = {key: value for key, value in life.store.data.items() if ":owner" not in key}
    log: Any = Log(0, 100)
    restorer = Restorer(
        ToyProcessor("source", "out"), lambda: log, life.store, replace(AFTER, config_text=decisive("ads.clicks", "ctr")), None,
        start="now", by_time=True, on_lost_state=choice, now_ms=lambda: NOW_MS,
    )  # fmt: skip
    with pytest.raises(ForeignStateError, match=r'(?s)"hotels\.predictions".*"ads\.clicks".*topics\.prefix of its own'):
        restorer.restore("toy/0", INPUTS, life.committed)
    assert {key: value for key, value in life.store.data.items() if ":owner" not in key} == before


@pytest.mark.parametrize(
    ("topic", "model"), [("hotels.predictions", "renamed"), ("moved.predictions", "hotels"), ("hotels.predictions", "hotels")]
)
def test_a_topic_that_moves_and_a_model_that_is_renamed_are_edits(topic: str, model: str) -> None:
    life = Life.of(replace(BEFORE, config_text=decisive("hotels.predictions", "hotels")))
    assert restored(life, replace(AFTER, config_text=decisive(topic, model)), Bases()).source == "redis"


def texts(store: MemoryStore) -> list[bytes]:
    return [value for key, value in store.data.items() if "b:~config" in key]


def test_the_configuration_is_kept_once_beside_the_state_and_is_no_part_of_it() -> None:
    life = Life.of(replace(BEFORE, config_text=b"one"), commits=2)
    assert texts(life.store) == [b"one"]
    assert life.base.config_text == b"one"
    assert set(life.base.state.blobs) == {"counts"}
    commit(restored(life, replace(AFTER, config_text=b"two"), Bases()), life.store)
    assert sorted(texts(life.store)) == [b"one", b"two"]


@dataclass
class Formers:
    """Makes processors of former configurations, and remembers of which."""

    made: list[bytes] = field(default_factory=list)

    def __call__(self, text: bytes) -> ToyProcessor:
        self.made.append(text)
        if text == b"of another release":
            raise ValueError("models: extra inputs are not permitted")
        return ToyProcessor("source", "former")


@pytest.mark.parametrize(("text", "former"), [(b"one", True), (b"of another release", False), (b"", False)])
def test_a_replay_across_an_edit_runs_under_what_was_active_where_that_is_known(
    text: bytes, caplog: pytest.LogCaptureFixture, *, former: bool
) -> None:
    life = Life.of(replace(BEFORE, config_text=text))
    life.lose_newest()
    formers = Formers()
    running = restored(life, replace(AFTER, config_text=b"two"), Bases(life.base), formers)
    assert formers.made == ([text] if text else [])
    assert (running.source, running.former, running.replay_to) == ("base", former, {PART: 30})
    (output,) = running.task.process({PART: [MemoryRecord("source", 0, 10, None, b"7", 0)]})
    assert output.topic == ("former" if former else "out")
    said = [record.getMessage().split()[0] for record in caplog.records]
    assert ("replay_under_another_configuration" in said) == (not former)
    if former:
        # What it commits at the end of its replay is of that configuration still.
        running.replayed({PART: 30})
        manifest = commit(running, life.store)
        assert manifest.config == "before"
        assert [one.config for one in manifest.history] == ["before"]


def test_a_replay_under_the_same_configuration_asks_for_no_other() -> None:
    life = Life.of(replace(BEFORE, config_text=b"one"))
    life.lose_newest()
    formers = Formers()
    assert not restored(life, replace(BEFORE, config_text=b"one"), Bases(life.base), formers).former
    assert formers.made == []


def test_what_decides_events_can_be_read_back_into_another_file() -> None:
    text = TEXT.replace("{id: a,", "{id: a, severity: {warning: 0.1},") + "labels: {topic: l, fields: {value: y}}\n"
    one = parse_config(text, name="m.yml")
    other = parse_config("predictions: q\nmodels: {z: {}}\nkafka: {bootstrap: 'c:1'}\n", name="n.yml").under(one.decisive)
    assert (other.digest, other.models, other.predictions) == (one.digest, one.models, one.predictions)
    assert other.kafka.bootstrap == "c:1"
    # Whether a level was set is not the same as its value: rates have defaults of their own.
    assert [m.severity.of_rates for m in other.models["m"].monitors or ()] == [(0.1, 1.0)]
    assert one.digest != parse_config(text.replace("severity: {warning: 0.1},", ""), name="m.yml").digest
    with pytest.raises(ValueError, match="Extra inputs"):
        other.under(b'{"predictions": [{"topic": "p"}], "models": {"m": {"later": 1}}}')


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
