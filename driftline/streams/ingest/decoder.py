"""Prediction records to typed rows: a fast pass over the batch, a slow look at what fails it.

A record's meaning never depends on its neighbours, so any cut of the stream gives the same rows. Fast and slow pass
agree on every record that both can read; what the fast one refuses is read loosely (NaN and Infinity literals, wrong
types) and either repaired, with the faulty leaves named, or refused with a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, compress
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from driftline.schemas.config import Config, PredictionSource
from driftline.streams.ingest.hiding import hash_key
from driftline.streams.ingest.mapping import name_values, parse_path, repair
from driftline.streams.ingest.names import LearnedNames
from driftline.streams.ingest.plan import RowPlan, compile_plan, from_record
from driftline.streams.ingest.values import load_loosely, numbers, registry_schema_id, scalar_text
from driftline.streams.task import Record

if TYPE_CHECKING:
    from driftline.streams.ingest.scan import FeatureScanner

Float64 = npt.NDArray[np.float64]

_PAUSED_BATCHES: Final = 50

# What a decoder may raise on bytes from outside: bad JSON, a wrong type, bad UTF-8, too deep.
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError, OverflowError)


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that becomes a dead letter; `reason` is one of a few words, `detail` says what was found."""

    record: Record
    reason: str
    detail: str


@dataclass(slots=True)
class ModelRows:
    """The rows of one model in a batch, in offset order.

    Attributes
    ----------
    faults : (row, leaf index) pairs.
    tops : whole events, only where undeclared features stand at their top level.
    learned, classes : names of undeclared features, and of classes, set by the task that keeps them.
    numbers : the numeric features, shape (n, numeric), where a scanner has read them.
    """

    plan: RowPlan
    rows: list[Any] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    faults: list[tuple[int, int]] = field(default_factory=list)
    tops: list[dict[str, Any]] = field(default_factory=list)
    learned: LearnedNames = field(default_factory=LearnedNames)
    classes: LearnedNames = field(default_factory=LearnedNames)
    numbers: Float64 | None = None

    def keep(self, wanted: Sequence[bool]) -> ModelRows:
        """The rows wanted."""
        place = [position - 1 for position in accumulate(map(int, wanted))]
        return ModelRows(
            self.plan,
            list(compress(self.rows, wanted)),
            list(compress(self.records, wanted)),
            [(place[row], leaf) for row, leaf in self.faults if wanted[row]],
            list(compress(self.tops, wanted)),
            self.learned,
            self.classes,
            None if self.numbers is None else self.numbers[np.array(wanted, np.bool_)],
        )


@dataclass(slots=True)
class DecodedBatch:
    models: list[ModelRows] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    unknown: list[tuple[Record, str]] = field(default_factory=list)


class PredictionDecoder:
    """Decodes one prediction topic; compiled once."""

    def __init__(self, source: PredictionSource, config: Config) -> None:
        self._path = parse_path(source.fields.model)
        self._tag_field = self._path.parts[0] if self._path.origin == "json" and len(self._path.parts) == 1 else None
        key = hash_key(config)
        self.plans = {
            name: compile_plan(name, model, source.fields, tag_field=self._tag_field, hash_key=key) for name, model in config.models.items()
        }
        self._by_type: dict[type, RowPlan] = {plan.type: plan for plan in self.plans.values()}
        self._scanner = self._shared_scanner()
        self._pause = 0
        if self._tag_field is not None:
            # A lone struct accepts events without its tag; in a union the tag must be there.
            nobody = msgspec.defstruct("Nobody", [], tag_field=self._tag_field, tag="\x00")
            union: Any = nobody
            light: Any = nobody
            for plan in self.plans.values():
                union = union | plan.type
                light = light | plan.light
            self._decode = msgspec.json.Decoder(union).decode
            self._decode_light = msgspec.json.Decoder(light).decode if self._scanner is not None else self._decode
        else:
            self._decoders = {name: msgspec.json.Decoder(plan.type).decode for name, plan in self.plans.items()}

    def _shared_scanner(self) -> FeatureScanner | None:
        """One for all models of the topic, where they are told apart in the event and their features have the same names."""
        wanted = {plan.scanned() for plan in self.plans.values()}
        found = next(iter(wanted)) if len(wanted) == 1 else None
        if found is None or self._tag_field is None or self._tag_field == found[0][0]:
            return None
        # Here and not above: the join imports this package too, and needs no compiler in its memory.
        from driftline.streams.ingest.scan import FeatureScanner

        self._by_type |= {plan.light: plan for plan in self.plans.values() if plan.light is not None}
        return FeatureScanner(*found)

    def decode(self, records: Sequence[Record]) -> DecodedBatch:
        """Every record is a row, refused, or of an unknown model."""
        out = DecodedBatch()
        values = [record.value() for record in records]
        if self._scanner is not None and not self._pauses():
            numbers, rest = self._scanner.read([value or b"" for value in values])
            rows = self._decode_scanned(values, rest)
            self._group_by_type(records, rows, out, numbers)
        elif self._tag_field is not None:
            self._group_by_type(records, decode_all(self._decode, values), out)
        else:
            self._group_by_name(records, values, out)
        out.models = [group for found in out.models if (group := _with_tops(found, out.refused)).rows]
        for group in out.models:
            _unfold_lists(group)
            _fill_numbers(group)
        return out

    def _decode_scanned(self, values: list[bytes | None], rest: list[bytes]) -> list[Any]:
        """Rows without the features that were read, and whole rows of the events the scanner did not read."""
        rows = decode_all(self._decode_light, rest)
        if b"" in rest:
            unread = [row for row, text in enumerate(rest) if not text]
            for row in unread:
                (rows[row],) = decode_all(self._decode, [values[row]])
            if 2 * len(unread) > len(rest):
                self._pause = _PAUSED_BATCHES
        return rows

    def _pauses(self) -> bool:
        """Whether to leave a batch to the typed decoder: most of a recent one was not plain, and cost twice."""
        self._pause -= self._pause > 0
        return self._pause > 0

    def _group_by_type(self, records: Sequence[Record], rows: list[Any], out: DecodedBatch, numbers: Float64 | None = None) -> None:
        types = set(map(type, rows))
        if len(types) == 1 and (plan := self._by_type.get(next(iter(types)))) is not None:
            out.models.append(ModelRows(plan, rows, list(records), numbers=numbers))
            return
        groups: dict[str, ModelRows] = {}
        by_type = {kind: self._group(groups, plan) for kind, plan in self._by_type.items() if kind in types}
        for record, row in zip(records, rows, strict=True):
            group = by_type.get(type(row))
            if group is None:
                self._slow(record, groups, out)
            else:
                group.rows.append(row)
                group.records.append(record)
        found = [group for group in groups.values() if group.rows]
        if numbers is not None:
            place = {record.offset(): i for i, record in enumerate(records)}
            for group in found:
                group.numbers = numbers[[place[record.offset()] for record in group.records]]
        out.models += found

    def _group_by_name(self, records: Sequence[Record], values: list[bytes | None], out: DecodedBatch) -> None:
        groups: dict[str, ModelRows] = {}
        if self._path.origin in ("const", "topic") and records:
            names: list[str | None] = [from_record(self._path, records[0])] * len(records)
        elif self._path.origin == "json":
            names = [self._name_in(record) for record in records]
        else:
            names = [from_record(self._path, record) for record in records]
        for name in dict.fromkeys(names):
            decoder = self._decoders.get(name) if name is not None else None
            if decoder is None:
                continue
            own = [i for i, other in enumerate(names) if other == name]
            rows = decode_all(decoder, [values[i] for i in own])
            for i, row in zip(own, rows, strict=True):
                values[i] = row
        for record, row in zip(records, values, strict=True):
            plan = self._by_type.get(type(row))
            if plan is None:
                self._slow(record, groups, out)
            else:
                group = self._group(groups, plan)
                group.rows.append(row)
                group.records.append(record)
        out.models += [group for group in groups.values() if group.rows]

    def _name_in(self, record: Record) -> str | None:
        try:
            return _at(load_loosely(record.value() or b""), self._path.parts)
        except UNREADABLE:
            return None

    def _group(self, groups: dict[str, ModelRows], plan: RowPlan) -> ModelRows:
        return groups.setdefault(plan.name, ModelRows(plan))

    def _slow(self, record: Record, groups: dict[str, ModelRows], out: DecodedBatch) -> None:
        """One record that the fast pass did not take."""
        value = record.value()
        if not value:
            out.refused.append(Refused(record, "empty", "a tombstone" if value is None else "an empty value"))
            return
        found, refused = read_loosely(record, value)
        if refused is not None:
            out.refused.append(refused)
            return
        name = _at(found, self._path.parts) if self._path.origin == "json" else from_record(self._path, record)
        if not name:
            out.refused.append(Refused(record, "model", "no model: expected a name where the mapping says"))
            return
        plan = self.plans.get(name)
        if plan is None:
            out.unknown.append((record, name))
            return
        group = self._group(groups, plan)
        bad: list[int] = []
        group.rows.append(plan.repair(found, bad))
        group.records.append(record)
        group.faults += [(len(group.rows) - 1, leaf) for leaf in bad]


def read_loosely(record: Record, value: bytes) -> tuple[Any, Refused | None]:
    """The JSON object of a value, or why there is none."""
    schema_id = registry_schema_id(value)
    if schema_id is not None:
        detail = f"framed for a schema registry (schema id {schema_id}): publish plain JSON, or configure a registry for this topic"
        return None, Refused(record, "schema_framing", detail)
    try:
        found = load_loosely(value)
    except RecursionError:
        return None, Refused(record, "decode", "nested too deeply")
    except UNREADABLE as error:
        return None, Refused(record, "decode", f"not JSON: {str(error)[:200]}")
    if not isinstance(found, dict):
        return None, Refused(record, "decode", f"expected a JSON object, got {type(found).__name__}")
    return found, None


def decode_all(decode: Any, values: Sequence[bytes | None]) -> list[Any]:
    """Each value decoded, None where that fails; `extend` keeps what came before a failure, so good batches pay no loop."""
    rows: list[Any] = []
    rest = iter(values)
    while True:
        try:
            rows.extend(map(decode, rest))
            return rows
        except (*UNREADABLE, TypeError):
            rows.append(None)


def _with_tops(group: ModelRows, refused: list[Refused]) -> ModelRows:
    """Undeclared features at the top level need the event whole; the typed decoder passes over damage it does not read."""
    if group.plan.features.mode != "root":
        return group
    readable: list[bool] = []
    for record in group.records:
        found, why = read_loosely(record, record.value() or b"")
        readable.append(why is None)
        group.tops.append(found)
        if why is not None:
            refused.append(why)
    return group if all(readable) else group.keep(readable)


def _unfold_lists(group: ModelRows) -> None:
    """Rows whose features came as a list of names and values get them as an object."""
    node = group.plan.features.node
    if node is None or not node.name_values:
        return
    get = attrgetter(node.attr)
    whole: Sequence[int] = range(len(group.rows))
    if group.numbers is not None:
        # Only a few rows were decoded whole where a scanner has read the features, most often none.
        some = group.plan.type in set(map(type, group.rows))
        whole = [i for i, row in enumerate(group.rows) if type(row) is group.plan.type] if some else ()
    parents = [get(group.rows[i]) for i in whole]
    if list not in set(map(type, parents)):
        return
    holder, _, name = node.attr.rpartition(".")
    for index, parent in zip(whole, parents, strict=True):
        if isinstance(parent, list):
            bad: list[int] = []
            row = group.rows[index]
            setattr(attrgetter(holder)(row) if holder else row, name, repair(node, name_values(parent), bad))
            group.faults += [(index, leaf) for leaf in bad]


def _fill_numbers(group: ModelRows) -> None:
    """The numbers of rows that were decoded whole, among those that a scanner has read."""
    if group.numbers is None or group.plan.type not in set(map(type, group.rows)):
        return
    features = group.plan.features
    assert features.node is not None
    parent = attrgetter(features.node.attr)
    get = attrgetter(*(features.leaves[name].name for name in features.numeric))
    for index, row in enumerate(group.rows):
        if type(row) is group.plan.type:
            found = get(parent(row))
            group.numbers[index] = numbers(list(found) if len(features.numeric) > 1 else [found])


def _at(found: object, parts: tuple[str, ...]) -> str | None:
    for part in parts:
        if not isinstance(found, dict):
            return None
        found = found.get(part)
    return scalar_text(found) if not isinstance(found, bool) else None
