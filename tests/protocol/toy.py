"""A processor whose state shows in its outputs: two inputs a task, each with a window, counts and rarely touched blobs.

Inputs do not mix, so the outputs of each depend on its records alone, however they were cut and interleaved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from driftline.streams.task import Idle, Output, PartitionId, Record, RestoredState, RingWrite, StateDelta

TOPICS = ("a", "b")
OUT = "out"
WINDOW = 6
"""Two rows a commit fit in its slack; three go to a new value."""
_SEGMENTS = 3


class _Input:
    """The state of one input: rows so far, their sum, the last rows and their sum, and how often each segment came.

    The window's sum is kept by adding the row that comes and taking off the one that goes, as detectors keep counts: one
    wrong row in a restored window is seen for ever.
    """

    def __init__(self, topic: str, state: RestoredState) -> None:
        self.topic = topic
        self.n, self.sum, self.within = json.loads(state.blobs.get(f"counts.{topic}", b"[0, 0, 0]"))
        ring = state.rings.get(f"window.{topic}")
        self.window = bytearray(b"" if ring is None else ring.rows)
        self.segments = [int(state.blobs.get(f"segment.{topic}.{i}", b"0")) for i in range(_SEGMENTS)]
        self._new = bytearray()
        self._changed: set[int] = set()

    def take(self, value: int) -> bytes:
        row = 1 + value % 255
        self.n += 1
        self.sum += value
        self.within += row - (self.window[0] if len(self.window) == WINDOW else 0)
        self.window.append(row)
        self._new.append(row)
        del self.window[:-WINDOW]
        segment = value % _SEGMENTS
        self.segments[segment] += 1
        self._changed.add(segment)
        return json.dumps([self.n, value, self.sum, self.window.hex(), self.within, self.segments[segment]]).encode()

    def delta(self) -> tuple[dict[str, bytes | None], list[RingWrite]]:
        if not self._new:
            return {}, []
        blobs: dict[str, bytes | None] = {f"counts.{self.topic}": json.dumps([self.n, self.sum, self.within]).encode()}
        blobs |= {f"segment.{self.topic}.{i}": b"%d" % self.segments[i] for i in sorted(self._changed)}
        ring = RingWrite(f"window.{self.topic}", 1, WINDOW, self.n, bytes(self._new))
        self._new.clear()
        self._changed.clear()
        return blobs, [ring]


class ToyTask:
    """Reads partition `i` of both topics and writes partition `i` of the output; the output's key names the input."""

    def __init__(self, number: int, state: RestoredState, *, pausing: bool) -> None:
        self._number, self._pausing = number, pausing
        self._inputs = {topic: _Input(topic, state) for topic in TOPICS}
        self._positions: dict[PartitionId, int] = {}
        self._full: set[PartitionId] = set()

    def process(self, records: Mapping[PartitionId, Sequence[Record]]) -> list[Output]:
        outputs = []
        for (topic, partition), rows in records.items():
            for record in rows:
                value = self._inputs[topic].take(int(record.value() or b"0"))
                outputs.append(Output(OUT, topic.encode(), value, partition=self._number))
            self._positions[(topic, partition)] = rows[-1].offset() + 1
            if topic == "a":
                self._full.clear()
        if self._pausing:
            self._full |= {key for key, rows in records.items() if key[0] == "b" and len(rows) > 2}
        return outputs

    def opened(self) -> list[Output]:
        return []

    def tick(self, idle: Idle) -> list[Output]:
        return []

    def positions(self) -> Mapping[PartitionId, int]:
        return self._positions

    def paused(self) -> frozenset[PartitionId]:
        """After three records of `b` at once no more of it before some of `a` come, as a join waits for labels."""
        return frozenset(self._full)

    def checkpoint(self) -> StateDelta:
        blobs: dict[str, bytes | None] = {}
        rings: list[RingWrite] = []
        for one in self._inputs.values():
            changed, windows = one.delta()
            blobs |= changed
            rings += windows
        return StateDelta(blobs, rings)

    def committed(self) -> None:
        pass

    def close(self) -> None:
        pass


class ToyProcessor:
    """One task for each partition number.

    Parameters
    ----------
    pausing : tasks pause `b`. Not for replays: what pauses here depends on the cut, and what resumes may be beyond the target.
    """

    name = "toy"

    def __init__(self, *, pausing: bool = False) -> None:
        self._pausing = pausing

    def input_topics(self) -> Sequence[str]:
        return list(TOPICS)

    def task_name(self, partition: PartitionId) -> str:
        return f"toy/{partition[1]}"

    def task_inputs(self, task: str) -> frozenset[PartitionId]:
        return frozenset((topic, int(task.rpartition("/")[2])) for topic in TOPICS)

    def open(self, task: str, state: RestoredState) -> ToyTask:
        return ToyTask(int(task.rpartition("/")[2]), state, pausing=self._pausing)
