"""The verifier of the chaos runs, itself: what was not tampered with is clean, and every way of tampering is caught."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import orjson
import pytest

from driftline.schemas.config import Config
from driftline.streams.cluster import Cluster
from driftline.streams.columns import decode_labels, decode_waiting, encode_labels, encode_waiting
from driftline.streams.counters import MemoryCounters
from driftline.streams.observation import decode, encode
from driftline.streams.partitioner import partition_for
from driftline.streams.replay import file_cluster
from driftline.streams.task import MemoryRecord, Output, PartitionId, RestoredState
from driftline.streams.wiring import make_ingest
from tests.chaos.inputs import PARTITIONS, Input, InputStream, missing_cases
from tests.chaos.installation import Installation, Options
from tests.chaos.reference import uninterrupted_detect, uninterrupted_join
from tests.chaos.verdict import Verdict
from tests.chaos.verify import compare, doubled_ids, observation_head, verify_detect, verify_join
from tests.chaos.verify_ingest import Ingested, Sent, sent, verify_ingest

T0 = 1_700_000_000_000
_CUT = 40


@dataclass
class Run:
    """All topics of an uninterrupted run in memory."""

    config: Config
    cluster: Cluster
    inputs: list[Sent]
    topics: dict[str, list[MemoryRecord]]
    joined: dict[str, list[Output]]
    detected: dict[int, list[Output]]

    def verdicts(self, topics: Mapping[str, list[MemoryRecord]]) -> dict[str, Verdict]:
        """What the verifier says of these topics."""
        out = Ingested(topics["observations"], topics["waiting"], topics["labels"], topics["dlq"])
        return {
            "ingest": verify_ingest(self.inputs, out),
            "join": verify_join(self.joined, topics["observations"]),
            "detect": verify_detect(self.detected, topics["drift"], topics["snapshots"]),
        }


class Logs:
    """Topics as lists; offsets have gaps, as those of transactions do."""

    def __init__(self) -> None:
        self.records: dict[PartitionId, list[MemoryRecord]] = defaultdict(list)
        self._next: dict[PartitionId, int] = defaultdict(int)

    def append(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            partition = output.partition if output.partition is not None else partition_for((output.key or b"").decode(), 1)
            key = (output.topic, partition)
            at = self._next[key]
            self.records[key].append(MemoryRecord(output.topic, partition, at, output.key, output.value, T0 + at, output.headers))
            self._next[key] = at + (2 if at % 7 == 6 else 1)

    def topic(self, name: str) -> list[MemoryRecord]:
        return [record for key in sorted(self.records) if key[0] == name for record in self.records[key]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Ingest partition by partition, join and detect by the reference: there is nothing to be found wrong with that."""
    installation = Installation("localhost:1", "redis://localhost:1", tmp_path_factory.mktemp("chaos"), Options(), 3)
    config = installation.config
    cluster = file_cluster(config, partitions=PARTITIONS)
    cluster = dataclasses.replace(cluster, partitions={**cluster.partitions, **dict.fromkeys(installation.sources.values(), PARTITIONS)})
    stream = InputStream(3, 200.0)
    truths: dict[PartitionId, list[Input]] = defaultdict(list)
    for item in itertools.islice(stream, 3_000):
        truths[installation.sources[item.stream], item.partition].append(item)
    assert missing_cases(stream.shares()) == []
    logs = Logs()
    sources: list[MemoryRecord] = []
    processor = make_ingest(config, cluster, MemoryCounters())
    for key, items in sorted(truths.items()):
        records = [MemoryRecord(*key, offset, None, item.value, T0 + item.at_ms) for offset, item in enumerate(items)]
        task = processor.open(processor.task_name(key), RestoredState())
        for start in range(0, len(records), _CUT):
            logs.append(task.process({key: records[start : start + _CUT]}))
        sources += records
    waiting, labels = logs.topic(installation.topic("waiting")), logs.topic(installation.topic("labels"))
    joined = uninterrupted_join(config, cluster, waiting, labels)
    for outputs in joined.values():
        logs.append(outputs)
    detected = uninterrupted_detect(config, cluster, logs.topic(installation.topic("observations")))
    for number in sorted(detected.outputs):
        logs.append(detected.outputs[number])
    topics = {name: logs.topic(installation.topic(name)) for name in ("observations", "waiting", "labels", "dlq", "drift", "snapshots")}
    return Run(config, cluster, sent(sources, truths), topics, joined, detected.outputs)


def test_what_nobody_tampered_with_is_clean_and_not_empty(run: Run) -> None:
    found = run.verdicts(run.topics)
    assert {stage: verdict.notes for stage, verdict in found.items() if not verdict.clean} == {}
    assert {stage: verdict.expected > 100 for stage, verdict in found.items()} == dict.fromkeys(found, True)
    assert len(run.topics["drift"]) > 100
    assert doubled_ids(run.topics["drift"]) == 0


def _is_of(kind: str) -> Callable[[MemoryRecord], bool]:
    return lambda record: observation_head(record.value())["kind"] == kind


def _any(_record: MemoryRecord) -> bool:
    return True


def _rows(decoder: Callable[[bytes], object]) -> Callable[[MemoryRecord], bool]:
    return lambda record: len(decoder(record.value() or b"")) > 0  # type: ignore[arg-type]


# The topic, which of its records are meant, and the stage that answers for them.
TOPICS = {
    "drift events": ("drift", _any, "detect"),
    "snapshots": ("snapshots", _any, "detect"),
    "outcomes": ("observations", _is_of("outcomes"), "join"),
    "predictions": ("observations", _is_of("predictions"), "ingest"),
    "waiting rows": ("waiting", _rows(decode_waiting), "ingest"),
    "labels": ("labels", _rows(decode_labels), "ingest"),
    "dead letters": ("dlq", _any, "ingest"),
}


def tampered(run: Run, what: str, change: Callable[[list[MemoryRecord]], list[MemoryRecord]]) -> Verdict:
    """The verdict of the stage that answers for some records, after a change of the middle two of one partition."""
    topic, meant, stage = TOPICS[what]
    records = list(run.topics[topic])
    places = [i for i, record in enumerate(records) if record.partition() == records[len(records) // 2].partition() and meant(record)]
    first, second = places[len(places) // 2 : len(places) // 2 + 2]
    changed = change([records[first], records[second]])
    del records[second], records[first]
    records[first:first] = changed
    found = run.verdicts({**run.topics, topic: records})
    assert all(verdict.clean for other, verdict in found.items() if other != stage)
    return found[stage]


@pytest.mark.parametrize("what", TOPICS)
def test_a_record_that_is_dropped_is_lost(run: Run, what: str) -> None:
    assert tampered(run, what, lambda pair: pair[1:]).lost > 0


@pytest.mark.parametrize("what", TOPICS)
def test_a_record_that_comes_twice_is_doubled(run: Run, what: str) -> None:
    assert tampered(run, what, lambda pair: [pair[0], *pair]).doubled > 0


@pytest.mark.parametrize("what", ["drift events", "snapshots", "outcomes", "predictions"])
def test_two_records_that_change_places_are_changed(run: Run, what: str) -> None:
    found = tampered(run, what, lambda pair: pair[::-1])
    assert (found.lost, found.doubled) == (0, 0)
    assert found.changed > 0


@pytest.mark.parametrize("what", TOPICS)
def test_one_bit_makes_a_record_a_changed_one(run: Run, what: str) -> None:
    found = tampered(run, what, lambda pair: [_with_one_bit_changed(what, pair[0]), pair[1]])
    assert (found.lost, found.doubled) == (0, 0)
    assert found.changed > 0


def _with_one_bit_changed(what: str, record: MemoryRecord) -> MemoryRecord:
    """The lowest bit of a value that says something, in a record that can still be read."""
    value = record.value() or b""
    if what in ("drift events", "snapshots"):
        digit = value.rindex(b'"n":') + 4
        # its last digit: another first one may be a leading zero, which JSON has not
        while value[digit + 1 : digit + 2].isdigit():
            digit += 1
        value = value[:digit] + bytes([value[digit] ^ 1]) + value[digit + 1 :]
        orjson.loads(value)
    elif what in ("outcomes", "predictions"):
        batch = decode(value)
        assert batch.score is not None
        batch.score = batch.score.copy()
        batch.score.view("i8")[0] ^= 1
        value = encode(batch)
    elif what == "waiting rows":
        rows = decode_waiting(value)
        rows.score = rows.score.copy()
        rows.score.view("i8")[0] ^= 1
        value = encode_waiting(rows)
    elif what == "labels":
        facts = decode_labels(value)
        facts.value = facts.value.copy()
        facts.value.view("i8")[0] ^= 1
        value = encode_labels(facts)
    else:
        value = bytes([(value or b"\0")[0] ^ 1]) + value[1:]
    return dataclasses.replace(record, value_=value)


def test_a_header_counts_as_much_as_a_value(run: Run) -> None:
    def rename(pair: list[MemoryRecord]) -> list[MemoryRecord]:
        headers = tuple((name, b"0" if name == "ce_time" else value) for name, value in pair[0].headers_)
        return [dataclasses.replace(pair[0], headers_=headers), pair[1]]

    assert tampered(run, "drift events", rename).changed > 0


def test_a_batch_of_ingest_with_another_number_is_found(run: Run) -> None:
    def renumber(pair: list[MemoryRecord]) -> list[MemoryRecord]:
        batch = decode(pair[0].value() or b"")
        batch.seq += 1_000
        return [dataclasses.replace(pair[0], value_=encode(batch)), pair[1]]

    assert not tampered(run, "predictions", renumber).clean


def test_a_source_that_is_not_what_was_sent_is_no_oracle(run: Run) -> None:
    records = [item.record for item in run.inputs]
    truths: dict[PartitionId, list[Input]] = defaultdict(list)
    for item in run.inputs:
        truths[item.record.topic(), item.record.partition()].append(item.truth)
    with pytest.raises(AssertionError, match="is not what was sent"):
        sent(records[:-1], truths)


@pytest.mark.parametrize(
    ("found", "lost", "doubled", "changed"),
    [("abc", 0, 0, 0), ("ac", 1, 0, 0), ("abbc", 0, 1, 0), ("acb", 0, 0, 2), ("abcd", 0, 0, 1), ("", 3, 0, 0), ("cc", 2, 1, 0)],
)
def test_counts_are_those_of_a_reader_with_a_pencil(found: str, lost: int, doubled: int, changed: int) -> None:
    verdict = compare([(letter, letter) for letter in "abc"], [(letter, letter) for letter in found], "letters")
    assert (verdict.lost, verdict.doubled, verdict.changed) == (lost, doubled, changed)


