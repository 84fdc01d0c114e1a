"""The three equalities: what stands in the topics against what an uninterrupted run makes of the same input.

- **ingest** may cut and interleave differently after a fault, so every input must be reflected exactly once, whole, and in
  the order of its source partition. The oracle is the list of inputs as they were sent, read with `json`, not our decoder.
- **join** gives the same outcomes in the same order, byte for byte, as an uninterrupted join over the same two topics.
- **detect** gives the same drift events and snapshots, byte for byte, as an uninterrupted detect over the same observations.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from driftline.streams.task import MemoryRecord, Output
from tests.chaos.verdict import Verdict

Item = tuple[Any, Any]
"""What a record is about, which an uninterrupted run has once, and what it says."""


def compare(expected: Sequence[Item], found: Sequence[Item], what: str, *, ordered: bool = True) -> Verdict:
    """Count what is lost, doubled and changed.

    Parameters
    ----------
    ordered : whether the order counts; a record that stands elsewhere is then a changed one.
    """
    verdict = Verdict(len(expected))
    contents: dict[Hashable, list[Any]] = defaultdict(list)
    for identity, content in expected:
        contents[identity].append(content)
    counts = Counter(identity for identity, _ in found)
    for identity, wanted in contents.items():
        surplus = counts[identity] - len(wanted)
        if surplus:
            verdict.note(f"{what}: {identity} {'lost' if surplus < 0 else 'doubled'}")
        verdict.lost += max(0, -surplus)
        verdict.doubled += max(0, surplus)
    kept: list[Hashable] = []
    for identity, content in found:
        wanted = contents.get(identity, [])
        if identity not in contents:
            verdict.changed += 1
            verdict.note(f"{what}: {identity} is not expected")
        elif wanted:
            kept.append(identity)
            if (right := wanted.pop(0)) != content:
                verdict.changed += 1
                verdict.note(f"{what}: {identity} says {_short(content)}, expected {_short(right)}")
    if ordered:
        verdict.changed += _displaced([identity for identity, _ in expected], kept, verdict, what)
    return verdict


def _displaced(expected: list[Hashable], kept: list[Hashable], verdict: Verdict, what: str) -> int:
    """How many of the records that are there stand in another place among each other."""
    there = Counter(kept)
    wanted = []
    for identity in expected:
        if there[identity] > 0:
            there[identity] -= 1
            wanted.append(identity)
    moved = [pair for pair in zip(wanted, kept, strict=True) if pair[0] != pair[1]]
    if moved:
        verdict.note(f"{what}: {moved[0][1]} stands where {moved[0][0]} belongs")
    return len(moved)


def _short(content: Any) -> str:
    text = repr(content)
    return text if len(text) <= 90 else f"{text[:60]}..{text[-25:]}"


# -- join


def verify_join(expected: Mapping[str, Sequence[Output]], observations: Iterable[MemoryRecord]) -> Verdict:
    """Outcomes of every join task against those of the uninterrupted join."""
    found: dict[str, list[Item]] = defaultdict(list)
    for record in observations:
        head = observation_head(record.value())
        if head["kind"] == "outcomes":
            found[f"{head['task']} to {record.partition()}"].append((_about(head, record.value()), record.value()))
    wanted: dict[str, list[Item]] = defaultdict(list)
    for task, outputs in expected.items():
        for output in outputs:
            wanted[f"{task} to {output.partition}"].append((_about(observation_head(output.value), output.value), output.value))
    return sum((compare(wanted[key], found[key], key) for key in sorted({*wanted, *found})), Verdict())


def observation_head(value: bytes | None) -> dict[str, Any]:
    """What an observation batch says of itself, read with Arrow alone."""
    with pa.ipc.open_stream(value) as reader:
        head: dict[str, Any] = orjson.loads(reader.schema.metadata[b"driftline"])
    return head


def _about(head: Mapping[str, Any], value: bytes | None) -> Hashable:
    """A batch by what it is about, without its sequence number: a batch that came twice is then a doubled one."""
    with pa.ipc.open_stream(value) as reader:
        columns = reader.read_all()
    first = (columns["source"][0].as_py(), columns["offset"][0].as_py()) if columns.num_rows else None
    source = None if first is None else (*head["sources"][first[0]], first[1])
    return (head["model"], head["age_ms"], head["tick_ms"] if source is None else None, source)


# -- detect


def verify_detect(expected: Mapping[int, Sequence[Output]], drift: Sequence[MemoryRecord], snapshots: Sequence[MemoryRecord]) -> Verdict:
    """Drift events and snapshots of every partition against those of the uninterrupted detect."""
    verdict = Verdict()
    for records, suffix in ((drift, ".drift"), (snapshots, ".snapshots")):
        wanted: dict[int | None, list[Item]] = defaultdict(list)
        for number in sorted(expected):
            for output in expected[number]:
                if output.topic.endswith(suffix):
                    wanted[output.partition].append(_published(output.key, output.value, output.headers))
        found: dict[int | None, list[Item]] = defaultdict(list)
        for record in records:
            found[record.partition()].append(_published(record.key(), record.value(), record.headers_))
        for key in sorted({*wanted, *found}, key=str):
            verdict += compare(wanted[key], found[key], f"{suffix[1:]}/{key}")
    return verdict


def _published(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> Item:
    """A drift event by its id, a snapshot by its key and the row it was made at; all bytes are its content."""
    event = orjson.loads(value or b"{}")
    identity = event.get("id") or (key, orjson.dumps(event["position"]), event["rows"])
    return identity, (key, value, tuple(headers))


def doubled_ids(drift: Iterable[MemoryRecord]) -> int:
    """How many drift events stand there a second time."""
    counts = Counter(orjson.loads(record.value() or b"{}")["id"] for record in drift)
    return sum(n - 1 for n in counts.values())
