"""A processor small enough to see through: it numbers and echoes records, and keeps counts and a window."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from driftline.streams.task import Idle, Output, PartitionId, Record, RestoredState, RingWrite, StateDelta

WINDOW = 50


class ToyTask:
    """Output `i` holds the number of records so far, the record, and a digest of the window after it."""

    def __init__(self, name: str, output: str, state: RestoredState, poison: int | None) -> None:
        self._name, self._output, self._poison = name, output, poison
        self.generation = state.generation
        saved = json.loads(state.blobs.get("counts", b'{"n": 0, "sum": 0, "ticks": 0}'))
        self.n, self.sum, self.ticks = saved["n"], saved["sum"], saved["ticks"]
        self._window = bytearray(state.rings["window"].rows if "window" in state.rings else b"")
        if len(self._window) != min(self.n, WINDOW):
            raise AssertionError(f"window of {len(self._window)} rows after {self.n} records")
        self._new = bytearray()
        self._positions: dict[PartitionId, int] = {}

    def process(self, records: Mapping[PartitionId, Sequence[Record]]) -> list[Output]:
        outputs = []
        for key, rows in records.items():
            for record in rows:
                value = int(record.value() or b"0")
                if value == self._poison:
                    raise ValueError("poison")
                self.n += 1
                self.sum += value
                row = value % 256
                self._window.append(row)
                self._new.append(row)
                del self._window[:-WINDOW]
                outputs.append(self._echo({"n": self.n, "value": value, "window": sum(self._window)}))
            self._positions[key] = rows[-1].offset() + 1
        return outputs

    def opened(self) -> list[Output]:
        return []

    def tick(self, idle: Idle) -> list[Output]:
        self.ticks += 1
        return [self._echo({"tick": idle.time_ms, "n": self.n})] if self._positions else []

    def positions(self) -> Mapping[PartitionId, int]:
        return self._positions

    def paused(self) -> frozenset[PartitionId]:
        return frozenset()

    def checkpoint(self) -> StateDelta:
        rows, self._new = bytes(self._new), bytearray()
        blob = json.dumps({"n": self.n, "sum": self.sum, "ticks": self.ticks}).encode()
        return StateDelta({"counts": blob}, [RingWrite("window", 1, WINDOW, self.n, rows)] if rows else [])

    def committed(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _echo(self, what: dict[str, object]) -> Output:
        return Output(self._output, self._name.encode(), json.dumps(what).encode(), (("task", self._name.encode()),), partition=0)


class ToyProcessor:
    """One task for each partition of one topic."""

    name = "toy"

    def __init__(self, source: str, output: str, poison: int | None = None) -> None:
        self._source, self._output, self._poison = source, output, poison

    def input_topics(self) -> Sequence[str]:
        return [self._source]

    def task_name(self, partition: PartitionId) -> str:
        return f"toy/{partition[1]}"

    def task_inputs(self, task: str) -> frozenset[PartitionId]:
        return frozenset({(self._source, int(task.rpartition("/")[2]))})

    def open(self, task: str, state: RestoredState) -> ToyTask:
        return ToyTask(task, self._output, state, self._poison)
