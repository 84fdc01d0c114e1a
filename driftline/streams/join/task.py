"""One join task: waiting rows and labels of one partition number in, outcomes out, in the order of the waiting log.

A waiting block is decided whole, when every label source partition has passed the age of its last row; so any cut or
interleaving of the two logs gives the same outcomes. Blocks not yet of age are not state: the committed position of the
waiting partition stays before them, and they are read again after a restart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from driftline.streams.columns import LabelBlock, WaitingBlock, decode_labels, decode_waiting
from driftline.streams.counters import Counters
from driftline.streams.join.age import NO_LABEL, AgeMeasure
from driftline.streams.join.before import DecidedBefore, written_ms
from driftline.streams.join.cache import LabelCache
from driftline.streams.join.clock import NEVER_MS, SourceClock
from driftline.streams.join.decide import Matches, Window, match
from driftline.streams.join.decided import RING, DecidedIds, keys_by_model
from driftline.streams.join.facts import after_decision, after_decisions, facts_of, first_ms, model_hash, read_facts
from driftline.streams.join.held import HeldJoin
from driftline.streams.join.outcomes import outcomes
from driftline.streams.join.pending import Pending
from driftline.streams.join.rebuild import RebuildMarks
from driftline.streams.join.setting import JoinSetting
from driftline.streams.join.silence import OutcomeTicks
from driftline.streams.observation import IMPLICIT, LABELLED, UNLABELLED, Observations, encode
from driftline.streams.partitioner import partition_for
from driftline.streams.state.blob import check_width, read_state
from driftline.streams.task import FINAL_MS, Idle, Output, PartitionId, Record, RestoredRing, RestoredState, StateDelta

STATE_VERSION: Final = 2
"""2 while rows wait that had other partitions; otherwise 1 is written, which older workers read too."""
OLDEST_READ: Final = 1
STATE: Final = "join"
# A label may come before its prediction by the age, and by at least this: producers and ingest workers are not in step.
EARLY_MS: Final = 600_000


class JoinTask:
    """State: label and waiting ticks, the label cache's bounds, ids decided last, sequence numbers, the measured age."""

    def __init__(
        self, name: str, waiting: PartitionId, labels: PartitionId, setting: JoinSetting, cache: LabelCache, counters: Counters,
        state: RestoredState,
    ) -> None:  # fmt: skip
        self.name = name
        self._waiting, self._labels = waiting, labels
        self._setting = setting
        self._cache = cache
        self._counters = counters
        self._gauge = {"stream": name.rsplit("/", 1)[0], "partition": str(waiting[1])}
        self._pending = Pending()
        self._before = DecidedBefore()
        self._waiting_next: int | None = None
        self._labels_next: int | None = None
        self._cached_next = 0
        self._label_clock = SourceClock(setting.label_sources)
        self._waiting_clock = SourceClock(setting.prediction_sources)
        self._read_clock = SourceClock(setting.prediction_sources)
        self._marks = RebuildMarks()
        self._ticks = OutcomeTicks(setting.models)
        self._decided = DecidedIds(setting.generation, setting.block_rows)
        self._seq: dict[str, int] = {}
        self._age_ms: int | None = None if setting.age == "auto" else setting.age
        self._measure = AgeMeasure()
        self._hashes = {model: model_hash(model) for model in setting.models}
        self._alone = len(setting.models) == 1
        self._settled: dict[bytes, bytes] = {}
        self._settle_head = 0
        self._inserted = 0
        self._rest_counted = False
        self._rebuild_until: int | None = None
        self._rebuild_goal = 0
        self._generation = state.generation
        self._dirty = state.generation > 0
        self._open(state)

    def process(self, records: Mapping[PartitionId, Sequence[Record]]) -> list[Output]:
        for record in records.get(self._waiting, ()):
            self._read_waiting(record)
        self._read_labels(records.get(self._labels, ()))
        return self._decide_due()

    def opened(self) -> list[Output]:
        """Nothing: no output follows of the state alone."""
        return []

    def tick(self, idle: Idle) -> list[Output]:
        """Time reaches the join in its logs; only the end of a rebuild is seen here, when labels it needed are gone."""
        if self._rebuild_until is not None and self._labels in idle.at_end:
            self._labels_next, self._rebuild_until = self._rebuild_until, None
            return self._decide_due()
        return []

    def positions(self) -> Mapping[PartitionId, int]:
        waiting = self._waiting_next if self._pending.offset is None else self._pending.offset
        found = ((self._waiting, waiting), (self._labels, self._labels_next))
        return {partition: offset for partition, offset in found if offset is not None}

    def paused(self) -> frozenset[PartitionId]:
        return frozenset({self._waiting} if self._pending.rows > self._setting.pending_rows_max else ())

    def checkpoint(self) -> StateDelta:
        if not self._dirty:
            return StateDelta()
        self._dirty = False
        ring = self._decided.ring()
        waiting_next = self.positions().get(self._waiting)
        before = self._before.export(waiting_next)
        blob = orjson.dumps(
            {
                "v": OLDEST_READ if before is None else STATE_VERSION,
                "waiting_next": waiting_next,
                "labels_next": self._rebuild_until if self._rebuild_until is not None else self._labels_next,
                # Half a rebuild is none: until it is done, the checkpoint asks for all that was there.
                "cached_next": self._cached_next if self._rebuild_until is None else self._rebuild_goal,
                "label_ticks": self._label_clock.export(),
                "waiting_ticks": self._waiting_clock.export(),
                "marks": self._marks.export(),
                "decided": self._decided.sizes(),
                "settle_head": self._settle_head,
                "seq": self._seq,
                "age_ms": self._age_ms,
                "generation": self._generation,
                "ticks": self._ticks.export(),
                "partitions": [self._setting.observations_partitions],
                **({} if before is None else {"before": msgspec.to_builtins(before)}),
            }
        )
        return StateDelta({STATE: blob}, () if ring is None else (ring,))

    def committed(self) -> None:
        """Remove the labels that found their predictions, and a part of those that never will."""
        self._remove_settled()
        self._counters.set("waiting_labels", self._gauge, len(self._cache))
        self._settle_head = self._decided.head
        before_ms = self._swept_before_ms()
        # Orphans are few: looking at one entry for eight new ones finds them in time, and costs next to nothing.
        orphans = self._cache.sweep(before_ms, max(100, self._inserted // 8)) if before_ms > NEVER_MS else 0
        if self._waiting_clock.ended() and (self._inserted or not self._rest_counted):
            # They stay: a later run may bring their predictions.
            orphans += self._cache.count_rest()
            self._rest_counted = True
        self._inserted = 0
        if orphans:
            self._counters.increment("label_join", {"model": "", "case": "orphan"}, orphans)

    def close(self) -> None:
        self._counters.forget("waiting_labels", self._gauge)

    def _open(self, state: RestoredState) -> None:
        blob = state.blobs.get(STATE)
        if blob is None:
            self._cache.reset(0)
            return
        held = read_state(blob, STATE_VERSION, HeldJoin, oldest=OLDEST_READ)
        check_width(held.partitions, {self._setting.observations: self._setting.observations_partitions})
        self._waiting_next, self._labels_next, self._cached_next = held.waiting_next, held.labels_next, held.cached_next
        self._label_clock.restore(held.label_ticks)
        self._waiting_clock.restore(held.waiting_ticks)
        self._read_clock.restore(held.waiting_ticks)
        self._marks.restore(*held.marks)
        self._generation, self._before = held.generation, DecidedBefore(held.before)
        self._ticks.restore(held.ticks)
        self._seq, self._age_ms = held.seq, held.age_ms if self._setting.age == "auto" else self._setting.age
        covered = self._cache.covered()
        if RING in state.rings:
            self._reopen_decided(state.rings[RING], held)
        if covered is None or covered[1] < self._cached_next:
            self._begin_rebuild()

    def _reopen_decided(self, ring: RestoredRing, held: HeldJoin) -> None:
        """A crash between a commit and the removal of what it decided left labels behind: they would be found again."""
        rows = self._decided.restore(ring, held.decided)
        self._settle_head = max(0, held.settle_head + self._decided.head - ring.head)
        last = rows[max(0, len(rows) - (self._decided.head - self._settle_head)) :]
        if not len(last):
            return
        limits = last["limit_ms"].tolist()
        for model in self._hashes.values():
            ids = last["id"].tolist() if self._alone else keys_by_model(last["id"], np.full(len(last), model, np.uint32))
            for key, limit, value in zip(ids, limits, self._cache.lookup(ids), strict=True):
                if value is None:
                    continue
                if self._alone:
                    late = [f for f in read_facts(value) if f.time_ms > limit]
                    self._settled[key] = b"".join(f.encode(counted=True) for f in reversed(late))
                else:
                    before = self._settled.get(key, value)
                    if (after := after_decision(before, model, limit)) != before:
                        self._settled[key] = after
        self._remove_settled()

    def _remove_settled(self) -> None:
        if self._settled:
            self._cache.settle(list(self._settled), list(self._settled.values()))
            self._settled = {}

    def _begin_rebuild(self) -> None:
        offset = self._marks.first()
        self._cache.reset(offset)
        self._rebuild_until, self._rebuild_goal = self._labels_next, self._cached_next
        self._labels_next = offset
        self._cached_next = offset

    def _read_waiting(self, record: Record) -> None:
        self._waiting_next = record.offset() + 1
        self._dirty = True
        if (value := record.value()) is not None:
            block = decode_waiting(value)
            self._read_clock.advance(block.source, block.tick_ms)
            self._pending.add(record.offset(), self._before.rest(record.offset(), block), written_ms(record))

    def _read_labels(self, records: Sequence[Record]) -> None:
        ids: list[bytes] = []
        facts: list[bytes] = []
        start = self._cached_next
        for record in records:
            rebuilding = self._rebuild_until is not None and record.offset() < self._rebuild_until
            value = record.value()
            if value is not None:
                self._read_label_block(decode_labels(value), record, rebuilding, ids, facts)
            if self._rebuild_until is None or rebuilding:
                self._labels_next = record.offset() + 1
            if self._rebuild_until is not None and record.offset() + 1 >= self._rebuild_until:
                self._rebuild_until = None
                self._labels_next = record.offset() + 1
            self._dirty = True
        if ids:
            self._cached_next = records[-1].offset() + 1
            self._inserted += len(ids)
            if over := self._cache.insert(ids, facts, start=start, next_offset=self._cached_next):
                self._counters.increment("label_join", {"model": "", "case": "excess"}, over)

    def _read_label_block(self, block: LabelBlock, record: Record, rebuilding: bool, ids: list[bytes], facts: list[bytes]) -> None:
        offset = record.offset()
        if not rebuilding:
            self._marks.add(offset, self._label_clock)
            self._label_clock.advance(block.source, block.tick_ms, written_ms(record))
        if not len(block):
            return
        keys: list[bytes] = block.ids.tolist()
        counted = self._count_late(block, keys, rebuilding=rebuilding)
        packed = facts_of(block, offset, counted)
        ids += keys
        facts += packed
        for row, key in enumerate(keys if self._settled else ()):
            # Decided, not yet committed: the removal that is due then must leave this label where it is.
            if key in self._settled:
                self._settled[key] = packed[row] + self._settled[key]

    def _count_late(self, block: LabelBlock, keys: list[bytes], *, rebuilding: bool) -> npt.NDArray[np.bool_]:
        """Which labels are of predictions decided lately; where several models share ids, only a label that names one can be."""
        none = np.zeros(len(keys), np.bool_)
        names = list(self._setting.models)
        codes = np.zeros(len(keys), np.int32)
        if not self._alone:
            if block.model is None:
                return none
            names, codes = block.model.values, block.model.codes
            keys = keys_by_model(block.ids, np.array([*(self._hashes.get(name, 0) for name in names), 0], np.uint32)[codes])
        if self._decided.isdisjoint(keys):
            return none
        counted = np.fromiter(map(self._decided.__contains__, keys), np.bool_, len(keys)) & (codes >= 0)
        for code, late in enumerate([] if rebuilding else np.bincount(codes[counted]).tolist()):
            if late:
                self._counters.increment("label_join", {"model": names[code], "case": "late"}, late)
        return counted

    def _decide_due(self) -> list[Output]:
        if self._rebuild_until is not None:
            return []
        if self._age_ms is None:
            self._age_ms = self._measured_age()
            if self._age_ms is None:
                return []
            self._dirty = True
        due = self._pending.take_due(self._age_ms, self._label_clock)
        if not due:
            return []
        self._dirty = True
        packed = self._cache.lookup([key for item in due for key in item.block.ids.tolist()]) if any(len(i.block) for i in due) else []
        outputs: list[Output] = []
        at = 0
        for item in due:
            n = len(item.block)
            self._waiting_clock.advance(item.block.source, item.block.tick_ms)
            if n:
                outputs += self._decide(item.block, packed[at : at + n])
            for model, tick_ms in self._ticks.due(self._waiting_clock.minimum()):
                outputs.append(self._publish(Observations("outcomes", model, self.name, 0, [], tick_ms, self._setting.stated_age)))
            at += n
        self._marks.drop(self._swept_before_ms())
        return outputs

    def _measured_age(self) -> int | None:
        rows = list(self._pending.with_rows())
        if not rows:
            return None
        own = [np.flatnonzero(self._setting.own(item.block)) for item in rows]
        seen = np.concatenate([item.block.seen_ms[mine] for item, mine in zip(rows, own, strict=True)])
        keys = [key for item, mine in zip(rows, own, strict=True) for key in item.block.ids[mine].tolist()]
        first = [NO_LABEL if value is None else first_ms(value) for value in self._cache.lookup(keys)]
        ticks = {"waiting_tick": self._read_clock.minimum(), "label_tick": self._label_clock.minimum_for(rows[-1].written_ms)}
        if self.paused():
            # Nothing more is read until there is an age: what is here is the cohort.
            ticks["waiting_tick"] = FINAL_MS
        return self._measure.measure(seen, np.array(first, np.int64), **ticks)

    def _decide(self, block: WaitingBlock, packed: list[bytes | None]) -> list[Output]:
        assert self._age_ms is not None
        own = self._setting.own(block)
        if not own.any():
            return []
        hashes = np.array([*(self._hashes.get(name, 0) for name in block.model.values), 0], np.uint32)[block.model.codes]
        keys: list[bytes] = block.ids.tolist()
        if not self._settled.keys().isdisjoint(keys):
            # Taken by an earlier prediction of this commit: gone, as it would be had the commit come between.
            packed = [self._settled.get(key, value) or None for key, value in zip(keys, packed, strict=True)]
        if not self._alone:
            keys = keys_by_model(block.ids, hashes)
        cases: Counter[tuple[str, int]] = Counter()
        if not own.all():
            rows = np.flatnonzero(own)
            mine = [keys[row] for row in rows.tolist()]
            repeats = np.zeros(len(block), np.bool_)
            repeats[rows] = self._decided.repeats(mine)
        else:
            mine, repeats = keys, self._decided.repeats(keys)
        self._decided.add(mine, (block.record_ms + self._age_ms)[own])
        # Row by row, not by the block's tick: a block may span days when history is read.
        from_ms = block.seen_ms - max(self._age_ms, EARLY_MS)
        matches = match(packed, Window(block.record_ms, self._age_ms, from_ms, self._labels_next or 0, hashes))
        outputs: list[Output] = []
        for code, name in enumerate(block.model.values):
            rows = np.flatnonzero((block.model.codes == code) & own)
            if not len(rows):
                continue
            cases["duplicate_prediction", self._hashes[name]] += int(np.count_nonzero(repeats[rows]))
            rows = rows[~repeats[rows]]
            if len(rows):
                outputs.append(self._outcome(block, name, rows, matches, cases))
        self._settle(block, packed, matches, own & ~repeats, hashes)
        self._count(cases + matches.cases)
        return outputs

    def _outcome(
        self, block: WaitingBlock, name: str, rows: npt.NDArray[np.int64], matches: Matches, cases: Counter[tuple[str, int]]
    ) -> Output:
        model = self._setting.models[name]
        batch = outcomes(block, (name, model), rows, matches, task=self.name, age_ms=self._setting.stated_age)
        assert batch.label_state is not None
        assert batch.delay_ms is not None
        for case, state in (("joined", LABELLED), ("implicit", IMPLICIT), ("unlabelled", UNLABELLED)):
            cases[case, self._hashes[name]] += int(np.count_nonzero(batch.label_state == state))
        self._counters.observe("label_delay", {"model": name}, batch.delay_ms[batch.label_state == LABELLED] / 1000)
        cases["early", self._hashes[name]] += int(np.count_nonzero(batch.delay_ms < 0))
        return self._publish(batch)

    def _publish(self, batch: Observations) -> Output:
        partition = partition_for(batch.model, self._setting.observations_partitions)
        batch.seq = self._seq[str(partition)] = self._seq.get(str(partition), 0) + 1
        batch.generation = self._generation
        return Output(self._setting.observations, batch.model.encode(), encode(batch), partition=partition)

    def _settle(
        self, block: WaitingBlock, packed: list[bytes | None], matches: Matches, own: npt.NDArray[np.bool_], hashes: npt.NDArray[np.uint32]
    ) -> None:
        """Note what to remove once this stands."""
        ids: list[bytes] = block.ids.tolist()
        if not self._alone:
            assert self._age_ms is not None
            self._settled.update(after_decisions(ids, packed, hashes, block.record_ms + self._age_ms, own))
            return
        if own.all() and None not in packed:
            self._settled.update(dict.fromkeys(ids, b""))
        else:
            found = zip(ids, packed, own.tolist(), strict=True)
            self._settled.update((key, b"") for key, value, mine in found if mine and value is not None)
        self._settled.update((ids[row], value) for row, value in matches.remains.items() if own[row])

    def _count(self, cases: Counter[tuple[str, int]]) -> None:
        names = {code: name for name, code in self._hashes.items()}
        for (case, code), n in sorted((+cases).items()):
            self._counters.increment("label_join", {"model": names.get(code, ""), "case": case}, n)

    def _swept_before_ms(self) -> int:
        """Labels before this are no one's any more: every prediction source is beyond them by the age, and ten minutes."""
        if self._age_ms is None:
            return NEVER_MS
        reached = self._waiting_clock.reached()
        return NEVER_MS if reached <= NEVER_MS else reached - max(self._age_ms, EARLY_MS)
