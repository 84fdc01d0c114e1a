"""What a budget does on real streams: alarms inside and outside of suspension, and how much is suspended how long.

    python -m benchmarks.quality.real FOLDER [--only NAME ...] [--json FILE]

FOLDER holds the data sets that docs/real-streams.md names; they are not part of this project. Each goes the public way: a
configuration with a budget, `driftline replay` for its drift events, and once more for its snapshots. A few minutes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.quality.public import replayed
from driftline.detectors.openers import E_DETECTOR

WEEK_MS: Final = 7 * 24 * 3_600_000
EVENTS: Final = 20_000
"""The period of streams without a time of their own."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A data set and how it is read; `timed`: its budget is by the week."""

    file: str
    options: tuple[str, ...]
    learn: int
    timed: bool = True
    labels: str = ""
    segments: str = ""
    window: int = 1_000


STREAMS: Final[dict[str, Stream]] = {
    "elec2": Stream(
        "elec2.csv.gz",
        ("--time", "ts_derived", "--label", "y", "--label-delay", "fixed:1h", "--score-from", "logistic:y:5000", "--drop", "date_norm,day"),
        3_000, labels="24h",
    ),
    "hotels": Stream(
        "hotel_bookings.csv.gz",
        ("--time", "booked_at", "--label", "y", "--label-time", "label_at", "--score-from", "logistic:y:20000", "--segment", "hotel",
         "--drop", "arrival_at,label_at,label_status,assigned_room_type,booking_changes,days_in_waiting_list,country,hotel"),
        5_000, labels="60d", segments="hotel", window=2_000,
    ),
    "acs (no change)": Stream(
        "acs_employment_ma.csv.gz", ("--score", "y_prob", "--label", "y", "--label-delay", "fixed:1s", "--drop", "id,period,year,y_pred"),
        20_000, timed=False, labels="1m",
    ),
    "bank": Stream(
        "bank_marketing.csv.gz",
        ("--label", "y", "--label-delay", "fixed:1s", "--score-from", "logistic:y:5000", "--drop", "year_month,duration"),
        5_000, timed=False, labels="1m",
    ),
    "insects": Stream("insects_gradual.csv.gz", ("--score", "att1", "--drop", "y,att1"), 3_000, timed=False),
    "skab": Stream(
        "skab_valve1.csv.gz", ("--score", "current", "--time", "ts", "--drop", "segment,anomaly,changepoint"), 1_600, timed=False
    ),
    "obd": Stream("obd_clicks.csv.gz", ("--score", "propensity_score", "--time", "ts", "--drop", "y"), 5_000),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figures:
    """One stream.

    Attributes
    ----------
    periods : weeks, or 20,000 events, that were watched.
    ever : share of the monitors that were suspended at some snapshot; `share` of monitors and snapshots together.
    inside, outside : alarms of a budget's e-detectors at which the series was suspended, and the others.
    """

    stream: str
    periods: float
    monitors: int
    ever: float
    share: float
    inside: int
    outside: int


def configuration(stream: Stream) -> str:
    """The file that a user would write."""
    period = "week" if stream.timed else f"{EVENTS} events"
    lines = [
        "version: 1", 'kafka: {bootstrap: "localhost:9092"}', 'redis: {url: "redis://localhost:6379/0"}', "predictions: p",
        *(["labels: l"] if stream.labels else []), "models:", "  m:", f"    false_alarms: 1 per {period}",
        f"    window: {stream.window}", "    snapshot_every: 500", f"    baseline: {{learn: {stream.learn}}}",
        *([f"    labels: {{ages: [{stream.labels}]}}"] if stream.labels else []),
        *([f"    segments: [{stream.segments}]"] if stream.segments else []),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def measure(name: str, stream: Stream, folder: Path) -> Figures:
    """Run a stream."""
    rows, text = folder / stream.file, configuration(stream)
    events, shots = replayed(rows, text, *stream.options), replayed(rows, text, *stream.options, what="snapshots")
    alarms: dict[tuple[Any, ...], bool] = {}
    for event in events:
        if event["kind"] == "drift" and event["detector"] == E_DETECTOR:
            place = (event["position"]["topic"], event["position"]["offset"], event["age_ms"])
            alarms[place] = alarms.get(place, False) or bool(event.get("suspended"))
    watched = [shot for shot in shots if shot["state"] == "watching"]
    seen: dict[tuple[Any, ...], list[bool]] = {}
    for shot in watched:
        for level in shot["series"]:
            if level["n"] and not level["series"].endswith(":constant"):
                key = (shot["panel"], shot["version"], shot["age_ms"], str(shot["segment"]), level["series"])
                seen.setdefault(key, []).append(bool(level.get("suspended")))
    flat = [one for states in seen.values() for one in states]
    times = [shot["time_ms"] for shot in watched if shot["panel"] == "features"]
    rows = max(shot["rows"] for shot in watched if shot["panel"] == "features" and shot["segment"] is None)
    periods = (max(times) - min(times)) / WEEK_MS if stream.timed else rows / EVENTS
    ever = sum(any(states) for states in seen.values()) / len(seen)
    inside = sum(alarms.values())
    return Figures(name, periods, len(seen), ever, sum(flat) / len(flat), inside, len(alarms) - inside)


def table(found: Sequence[Figures]) -> str:
    """The rows of docs/real-streams.md."""
    lines = [
        "| stream | period of the budget | periods | monitors | suspended at some time | of all time | alarms a period: inside | outside |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        period = "week" if STREAMS[one.stream].timed else f"{EVENTS:,} events"
        lines.append(
            f"| {one.stream} | {period} | {one.periods:.1f} | {one.monitors} | {one.ever:.0%} | {one.share:.0%} | "
            f"{one.inside / one.periods:.2f} | {one.outside / one.periods:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the streams and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(STREAMS))
    parser.add_argument("--json", type=Path, help="write the figures")
    options = parser.parse_args()
    found = []
    for name in options.only or STREAMS:
        found.append(measure(name, STREAMS[name], options.folder))
        print(table(found[-1:]).splitlines()[-1], flush=True)
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
