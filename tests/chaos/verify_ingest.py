"""Whether every input is reflected exactly once, whole and in order: waiting rows, labels, observations, dead letters.

The oracle is what was sent. Values are read from the JSON that was sent with `json`, observations with Arrow; only the
compact blocks of waiting rows and labels need our decoder, for they are a format of ours.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import xxhash

from driftline.streams.columns import decode_labels, decode_waiting
from driftline.streams.task import MemoryRecord, PartitionId
from tests.chaos.inputs import FEATURES, Input
from tests.chaos.verdict import Verdict
from tests.chaos.verify import Item, compare, observation_head

_WHOLE_BYTES: Final = 1 << 20
"""What a dead letter of any source record up to the usual limit must hold, byte for byte; of a larger one it names the hash."""

Place = tuple[str, int, int]
"""Topic, partition and offset of a source record."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A source record as the broker has it, and the truth about it."""

    record: MemoryRecord
    truth: Input

    @property
    def place(self) -> Place:
        return self.record.topic(), self.record.partition(), self.record.offset()


@dataclass(frozen=True, slots=True)
class Ingested:
    """What ingest has written, as committed readers see it."""

    observations: Sequence[MemoryRecord]
    waiting: Sequence[MemoryRecord]
    labels: Sequence[MemoryRecord]
    dead_letters: Sequence[MemoryRecord]


def sent(records: Iterable[MemoryRecord], truths: Mapping[PartitionId, Sequence[Input]]) -> list[Sent]:
    """The inputs with their places; what was sent must be what the broker has, or there is nothing to compare with."""
    by_partition: dict[PartitionId, list[MemoryRecord]] = defaultdict(list)
    for record in records:
        by_partition[record.topic(), record.partition()].append(record)
    found: list[Sent] = []
    for key, inputs in sorted(truths.items()):
        stored = by_partition.pop(key, [])
        assert [item.value for item in inputs] == [record.value() for record in stored], f"{key}: the source topic is not what was sent"
        found += [Sent(record, truth) for record, truth in zip(stored, inputs, strict=True)]
    assert not by_partition, f"records that nobody sent: {sorted(by_partition)}"
    return found


def verify_ingest(inputs: Sequence[Sent], out: Ingested, *, times: bool = True) -> Verdict:
    """All four outputs against the inputs.

    Parameters
    ----------
    times : whether record times must come through as they are; a clock that jumps back clips those ahead of it.
    """
    predictions = [item for item in inputs if item.truth.good and item.truth.stream == "predictions"]
    labels = [item for item in inputs if item.truth.good and item.truth.stream == "labels"]
    verdict = _observations(predictions, out.observations, times=times) + _sequences(out.observations)
    verdict += _compact(predictions, list(_waiting_rows(out.waiting)), "waiting", times=times)
    verdict += _compact(labels, list(_label_rows(out.labels)), "labels", times=times)
    return verdict + _dead_letters([item for item in inputs if not item.truth.good], out.dead_letters)


def _observations(predictions: Sequence[Sent], records: Iterable[MemoryRecord], *, times: bool) -> Verdict:
    wanted: dict[Hashable, list[Item]] = defaultdict(list)
    for item in predictions:
        event = json.loads(item.truth.value)
        numbers = tuple(event["features"][name] for name in FEATURES)
        time_ms = item.record.timestamp_ms if times else None
        content = (numbers, event["features"]["country"], event["score"], event["latency_ms"], event["version"], time_ms)
        wanted[event["model"], item.place[:2]].append((item.place, content))
    found: dict[Hashable, list[Item]] = defaultdict(list)
    for record in records:
        with pa.ipc.open_stream(record.value()) as reader:
            table = reader.read_all()
        head = observation_head(record.value())
        if head["kind"] == "predictions":
            topic, partition = head["sources"][0]
            found[head["model"], (topic, partition)] += _rows(table, head, (topic, partition), times=times)
    return sum((compare(wanted[key], found[key], f"observations of {key}") for key in sorted({*wanted, *found}, key=str)), Verdict())


def _rows(table: Any, head: Mapping[str, Any], source: tuple[str, int], *, times: bool) -> list[Item]:
    columns = {name: table[name].to_pylist() for name in table.column_names}
    items: list[Item] = []
    for row, offset in enumerate(columns["offset"]):
        values = dict(zip(head["numeric"], columns["numeric"][row], strict=True))
        numbers = tuple(None if math.isnan(values[name]) else values[name] for name in FEATURES)
        texts = (columns["categorical:country"][row], columns["score"][row], columns["latency_ms"][row], columns["version"][row])
        items.append(((*source, offset), (numbers, *texts, columns["record_ms"][row] if times else None)))
    return items


def _sequences(records: Iterable[MemoryRecord]) -> Verdict:
    """The numbers that ingest gives its batches have no gap and no repeat, task by task and partition by partition."""
    found: dict[str, list[Item]] = defaultdict(list)
    for record in records:
        head = observation_head(record.value())
        if head["kind"] != "outcomes":
            found[f"{head['task']} to {record.partition()}"].append((head["seq"], None))
    verdict = Verdict()
    for key, items in sorted(found.items()):
        verdict += compare([(n, None) for n in range(1, max(n for n, _ in items) + 1)], items, f"batches of {key}")
    verdict.expected = 0
    return verdict


def _waiting_rows(records: Iterable[MemoryRecord]) -> Iterable[tuple[int, Item]]:
    for record in records:
        block = decode_waiting(record.value() or b"")
        for row in range(len(block)):
            content = (block.ids[row].tobytes(), block.score[row], block.model.values[block.model.codes[row]], int(block.record_ms[row]))
            yield record.partition(), ((*block.source, int(block.offset[row])), content)


def _label_rows(records: Iterable[MemoryRecord]) -> Iterable[tuple[int, Item]]:
    for record in records:
        block = decode_labels(record.value() or b"")
        for row in range(len(block)):
            content = (block.ids[row].tobytes(), float(block.value[row]), None, int(block.record_ms[row]))
            yield record.partition(), ((*block.source, int(block.offset[row])), content)


def _compact(inputs: Sequence[Sent], rows: Sequence[tuple[int, Item]], what: str, *, times: bool) -> Verdict:
    """Waiting rows or labels: each input once, in order within its target partition, an id always in the same one."""
    wanted: list[Item] = []
    for item in inputs:
        event = json.loads(item.truth.value)
        value = event["score"] if what == "waiting" else event["label"]
        time_ms = item.record.timestamp_ms if times else None
        wanted.append((item.place, (xxhash.xxh3_128_digest(event["id"].encode()), value, event.get("model"), time_ms)))
    found = [(place, content if times else (*content[:3], None)) for _, (place, content) in rows]
    verdict = compare(wanted, found, what, ordered=False)
    homes: dict[bytes, int] = {}
    last: dict[Hashable, int] = {}
    for target, (place, content) in rows:
        topic, partition, offset = place
        key = (target, topic, partition)
        if homes.setdefault(content[0], target) != target or last.get(key, -1) > offset:
            verdict.changed += 1
            verdict.note(f"{what}: {place} stands in the wrong place of partition {target}")
        last[key] = offset
    return verdict


def _dead_letters(bad: Sequence[Sent], records: Iterable[MemoryRecord]) -> Verdict:
    wanted: dict[Hashable, list[Item]] = defaultdict(list)
    for item in bad:
        digest = hashlib.sha256(item.truth.value).hexdigest()
        wanted[item.place[:2]].append((item.place, (digest, item.truth.value if len(item.truth.value) <= _WHOLE_BYTES else None)))
    found: dict[Hashable, list[Item]] = defaultdict(list)
    for record in records:
        headers = dict(record.headers_)
        source = (headers["driftline.source.topic"].decode(), int(headers["driftline.source.partition"]))
        value = None if headers["driftline.truncated"] == b"true" else record.value() or b""
        found[source].append(((*source, int(headers["driftline.source.offset"])), (headers["driftline.sha256"].decode(), value)))
    return sum((compare(wanted[key], found[key], f"dead letters of {key}") for key in sorted({*wanted, *found}, key=str)), Verdict())
