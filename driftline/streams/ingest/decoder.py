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
from driftline.streams.ingest.mapping import Path, name_values, parse_path, repair
from driftline.streams.ingest.names import LearnedNames
from driftline.streams.ingest.plan import RowPlan, compile_plan, from_record
from driftline.streams.ingest.values import load_loosely, not_text, numbers, registry_schema_id, scalar_text
from driftline.streams.task import Record

if TYPE_CHECKING:
    from driftline.streams.ingest.scan import FeatureScanner

Float64 = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

_NO_PLAN: Final = -1
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
    at : shape (n,), where they stand in the batch.
    faults : (row, leaf index) pairs.
    tops : whole events, only where undeclared features stand at their top level.
    learned, classes : names of undeclared features, and of classes, set by the task that keeps them.
    numbers : the numeric features, shape (n, numeric), where a scanner has read them.
    """

    plan: RowPlan
    rows: list[Any]
    records: list[Record]
    at: Places
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
            self.at[np.array(wanted, np.bool_)],
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
        self._place = source.fields.model
        self._path = parse_path(source.fields.model)
        self._tag_field = self._path.parts[0] if self._path.origin == "json" and len(self._path.parts) == 1 else None
        key = hash_key(config)
        self.plans = {
            name: compile_plan(name, model, source.fields, tag_field=self._tag_field, hash_key=key) for name, model in config.models.items()
        }
        self._codes = {name: code for code, name in enumerate(self.plans)}
        self._code_of: dict[type, int] = {plan.type: self._codes[plan.name] for plan in self.plans.values()}
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

        self._code_of |= {plan.light: self._codes[plan.name] for plan in self.plans.values() if plan.light is not None}
        return FeatureScanner(*found)

    def decode(self, records: Sequence[Record]) -> DecodedBatch:
        """Every record is a row, refused, or of an unknown model."""
        out = DecodedBatch()
        values = [record.value() for record in records]
        if self._scanner is not None and not self._pauses():
            numbers, rest = self._scanner.read([value or b"" for value in values])
            self._group(records, self._decode_scanned(values, rest), out, numbers)
        elif self._tag_field is not None:
            self._group(records, decode_all(self._decode, values), out)
        else:
            self._group(records, self._decode_by_name(records, values), out)
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

    def _decode_by_name(self, records: Sequence[Record], values: list[bytes | None]) -> list[Any]:
        """Rows of the models that the records name; None where that fails."""
        if self._path.origin in ("const", "topic") and records:
            names: list[str | None] = [from_record(self._path, records[0])] * len(records)
        else:
            names = [model_named(self._path, record) for record in records]
        rows: list[Any] = [None] * len(records)
        for name in dict.fromkeys(names):
            decoder = self._decoders.get(name) if name is not None else None
            if decoder is None:
                continue
            own = [i for i, other in enumerate(names) if other == name]
            for i, row in zip(own, decode_all(decoder, [values[i] for i in own]), strict=True):
                rows[i] = row
        return rows

    def _group(self, records: Sequence[Record], rows: list[Any], out: DecodedBatch, numbers: Float64 | None = None) -> None:
        """Rows by model; those that the fast pass did not take are looked at one by one."""
        codes = np.array([self._code_of.get(kind, _NO_PLAN) for kind in map(type, rows)], np.intp)
        faults: list[tuple[int, int]] = []
        for place in np.flatnonzero(codes == _NO_PLAN).tolist():
            found = self._slow(records[place], out)
            if found is not None:
                plan, rows[place], bad = found
                codes[place] = self._codes[plan.name]
                faults += [(place, leaf) for leaf in bad]
        for code, plan in enumerate(self.plans.values()):
            at = np.flatnonzero(codes == code)
            if len(at) == len(rows) > 0:
                out.models.append(ModelRows(plan, rows, list(records), at, faults, numbers=numbers))
            elif len(at):
                places = at.tolist()
                own = [(int(np.searchsorted(at, place)), leaf) for place, leaf in faults if codes[place] == code]
                group = ModelRows(plan, [rows[i] for i in places], [records[i] for i in places], at, own)
                group.numbers = None if numbers is None else numbers[at]
                out.models.append(group)

    def _slow(self, record: Record, out: DecodedBatch) -> tuple[RowPlan, Any, list[int]] | None:
        """One record that the fast pass did not take: its model, its row, and the leaves that are faulty."""
        value = record.value()
        if not value:
            out.refused.append(Refused(record, "empty", "a tombstone" if value is None else "an empty value"))
            return None
        found, refused = read_loosely(record, value)
        if refused is not None:
            out.refused.append(refused)
            return None
        name = _at(found, self._path.parts) if self._path.origin == "json" else from_record(self._path, record)
        if not name:
            out.refused.append(Refused(record, "model", f'no model: expected a name at "{self._place}"'))
            return None
        plan = self.plans.get(name)
        if plan is None:
            out.unknown.append((record, name))
            return None
        bad: list[int] = []
        return plan, plan.repair(found, bad), bad


def model_named(path: Path, record: Record) -> str | None:
    """The model that a record names, configured or not; None where it cannot be read or names none."""
    if path.origin != "json":
        return from_record(path, record)
    try:
        return _at(load_loosely(record.value() or b""), path.parts)
    except UNREADABLE:
        return None


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
    except UnicodeError:
        return None, Refused(record, "decode", f"not JSON: {not_text(value)}")
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
