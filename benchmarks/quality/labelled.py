"""Labelled changes of real streams: caught, how late, and how many alarms where nothing was labelled, beside the peers.

    python -m benchmarks.quality.labelled FOLDER [--only NAME ...]

FOLDER holds the data sets that docs/real-streams.md names. Every contender gets the same columns and the same first rows to learn
from, and watches every column; an alarm of any column is one of the stream. Ours goes the public way, configuration and `driftline
replay`; the peers are given the mean and the standard deviation of the first rows, once with their own defaults, once with the
most sensitive setting that raises no more alarms on those first rows than the budget allows there.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.quality.contenders import KSWIN, PEERS, Contender
from benchmarks.quality.public import replayed
from benchmarks.quality.streams import Law, Values
from driftline.detectors.openers import E_DETECTOR

EVENTS: Final = 20_000
"""The budget: one false alarm in so many rows."""

KSWIN_VALUES: Final = 200_000
"""river's KSWIN takes a tenth of a millisecond a value; where there are more it is left out."""

NAB_WINDOWS: Final = {
    "exchange-2_cpc": [(244, 406)],
    "exchange-2_cpm": [(565, 645), (934, 1014)],
    "exchange-3_cpc": [(271, 321), (413, 463), (952, 1002)],
    "exchange-3_cpm": [(1045, 1197)],
    "exchange-4_cpc": [(340, 394), (749, 803), (1249, 1303)],
    "exchange-4_cpm": [(347, 387), (729, 769), (1256, 1296), (1381, 1421)],
}
"""Anomaly windows of NAB's combined_windows.json, in rows of each series, both ends inside."""
_NAB_PROBATION: Final = 230
"""NAB's own: 15 % of a series, which none of its windows reaches into, is there to learn from."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A stretch of a stream.

    Attributes
    ----------
    values : shape (rows, columns), the rows to learn from first.
    learn : how many those are.
    changes : labelled, each from its first row to the last at which an alarm is about it.
    """

    values: Values
    names: tuple[str, ...]
    learn: int
    changes: tuple[tuple[int, int], ...]


@dataclass(slots=True)
class Tally:
    """What a contender made of a stream's trials; `unlabelled` alarms are outside of all labelled changes, in `rows` rows."""

    caught: int = 0
    changes: int = 0
    delays: list[int] = field(default_factory=list)
    unlabelled: int = 0
    rows: int = 0

    def add(self, trial: Trial, alarms: Sequence[int]) -> None:
        """Count the alarms of a trial, in rows from its beginning."""
        inside = np.zeros(len(trial.values), bool)
        for first, last in trial.changes:
            inside[first : last + 1] = True
            found = [alarm for alarm in alarms if first <= alarm <= last]
            self.changes += 1
            self.caught += bool(found)
            self.delays += [min(found) - first + 1] if found else []
        self.unlabelled += sum(not inside[alarm] for alarm in alarms)
        self.rows += int((~inside[trial.learn :]).sum())

    def cells(self) -> list[str]:
        """Of the table's row."""
        delay = f"{np.median(self.delays):.0f}" if self.delays else ""
        caught = f"{self.caught} of {self.changes}" if self.changes else ""
        return [caught, delay, str(self.unlabelled), f"{self.unlabelled / self.rows * EVENTS:.1f}"]


def _columns(path: Path, leave_out: str) -> tuple[tuple[str, ...], Values, dict[str, list[str]]]:
    """Names and values of the numeric columns, and the others as text."""
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    others = set(leave_out.split(","))
    names = tuple(name for name in rows[0] if name not in others)
    values = np.array([[float(row[name]) for name in names] for row in rows])
    return names, values, {name: [row[name] for row in rows] for name in others}


def skab(folder: Path) -> Iterator[Trial]:
    """Sixteen runs of a valve that is closed for a while; each begins with a normal half, of which two thirds are to learn from."""
    names, values, text = _columns(folder / "skab_valve1.csv.gz", "ts,segment,anomaly,changepoint")
    starts = [i for i, name in enumerate(text["segment"]) if i == 0 or name != text["segment"][i - 1]]
    for first, end in zip(starts, [*starts[1:], len(values)], strict=True):
        marked = [i - first for i in range(first, end) if float(text["changepoint"][i]) == 1]
        yield Trial(values[first:end], names, 2 * marked[0] // 3, ((marked[0], marked[-1]),))


def nab(folder: Path) -> Iterator[Trial]:
    """Six hourly series of prices for advertising."""
    _, values, text = _columns(folder / "nab_ad_exchange.csv.gz", "ts,series,in_window,label_point")
    for name, windows in NAB_WINDOWS.items():
        mine = values[[series.startswith(name) for series in text["series"]]]
        yield Trial(mine, ("value",), _NAB_PROBATION, tuple(windows))


def elec2(folder: Path) -> Iterator[Trial]:
    """The three columns of the market that Victoria joined at row 17,424: constant before, and never again."""
    _, values, _ = _columns(folder / "elec2.csv.gz", "ts_derived")
    with gzip.open(folder / "elec2.csv.gz", "rt") as file:
        header = [name for name in next(csv.reader(file)) if name != "ts_derived"]
    names = ("vicprice", "vicdemand", "transfer")
    yield Trial(values[:20_000, [header.index(name) for name in names]], names, 5_000, ((17_424, 19_999),))


def insects(folder: Path) -> Iterator[Trial]:
    """A temperature that changes; the authors date the change to row 14,028, and classes come in sorted stretches elsewhere."""
    names, values, _ = _columns(folder / "insects_gradual.csv.gz", "y")
    yield Trial(values[:17_028], names, 3_000, ((14_028, 17_027),))


def acs(folder: Path) -> Iterator[Trial]:
    """The control: a survey in hashed order, in which nothing changes."""
    names, values, _ = _columns(folder / "acs_employment_ma.csv.gz", "id,period,year,y_pred,y")
    yield Trial(values, names, 20_000, ())


STREAMS: Final[dict[str, Callable[[Path], Iterator[Trial]]]] = {"skab": skab, "nab": nab, "elec2": elec2, "insects": insects, "acs": acs}


def ours(trial: Trial) -> list[int]:
    """Rows at which `driftline replay` opens an episode under the budget."""
    # What so few rows can tell at all, which `driftline validate` asks for by name.
    warning = max(0.1, math.ceil(400 / math.sqrt(trial.learn)) / 100)
    lines = [
        "version: 1", 'kafka: {bootstrap: "localhost:9092"}', 'redis: {url: "redis://localhost:6379/0"}', "predictions: p",
        "models:", "  m:", f"    false_alarms: 1 per {EVENTS} events", f"    window: {min(1_000, trial.learn)}",
        f"    baseline: {{learn: {trial.learn}, settle: 0s}}",
        f'    monitors: [{{id: all, series: ["*"], severity: {{warning: {warning}, critical: {2 * warning:.2f}}}}}]',
        "    features:", *(f"      {name}: numeric" for name in trial.names),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        rows = Path(name) / "rows.csv"
        with rows.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(trial.names)
            writer.writerows(trial.values.tolist())
        events = replayed(rows, "\n".join(lines) + "\n")
    opened = {int(e["position"]["offset"]) for e in events if e["kind"] == "drift" and e["detector"] == E_DETECTOR}
    return sorted(opened)


def peer(contender: Contender, setting: float, trial: Trial, rows: slice) -> list[int]:
    """Rows at which a detector of any column alarms; columns that do not vary in the first rows are scaled by what they do later."""
    found: set[int] = set()
    for column in trial.values.T:
        sd = float(np.std(column[: trial.learn])) or float(np.std(column)) or 1.0
        law = Law(draw=lambda g, n: g.normal(size=n), mean=float(np.mean(column[: trial.learn])), sd=sd)
        found.update(int(i) + (rows.start or 0) for i in contender.run(law, setting, column[: trial.learn], column[rows]))
    return sorted(found)


def tuned(contender: Contender, trials: Sequence[Trial]) -> float:
    """The most sensitive setting that keeps to the budget on the rows to learn from; settings go from fewest to most false alarms."""
    allowed = sum(trial.learn for trial in trials) / EVENTS
    low, high, best = 0, len(contender.settings) - 1, contender.settings[0]
    while low <= high:
        middle = (low + high) // 2
        alarms = sum(len(peer(contender, contender.settings[middle], trial, slice(0, trial.learn))) for trial in trials)
        if alarms <= allowed:
            best, low = contender.settings[middle], middle + 1
        else:
            high = middle - 1
    return best


def compared(trials: Sequence[Trial], *, slow: bool) -> Iterator[list[str]]:
    """A row of the table for every contender."""
    runs: list[tuple[str, Callable[[Trial], list[int]]]] = [(f"Driftline, 1 per {EVENTS:,} events", ours)]
    for contender in (*PEERS, *([KSWIN] if slow else [])):
        if contender.binary:
            continue
        settings = [("default", contender.default)] if contender.stock else []
        settings += [("tuned", tuned(contender, trials))] if contender.settings else []
        for how, setting in settings:
            after = lambda trial, contender=contender, setting=setting: peer(  # noqa: E731
                contender, setting, trial, slice(trial.learn, len(trial.values))
            )
            runs.append((f"{contender.name}, {how} ({setting:g})", after))
    for name, run in runs:
        tally = Tally()
        for trial in trials:
            tally.add(trial, run(trial))
        yield [name, *tally.cells()]


def main() -> None:
    """Run the streams and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(STREAMS))
    options = parser.parse_args()
    for name in options.only or STREAMS:
        trials = list(STREAMS[name](options.folder))
        print(f"\n{name}: {(STREAMS[name].__doc__ or '').strip()}\n")
        print(f"| contender | caught | delay, median rows | other alarms | of these in {EVENTS:,} rows |\n|---|---|---|---|---|")
        for cells in compared(trials, slow=sum(trial.values.size for trial in trials) <= KSWIN_VALUES):
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
