"""Measure detection quality: false alarms against promises, delays, and the peers on the same streams.

    python -m benchmarks.quality [--seed N] [--long] [--with-peers] [--docs docs/quality.md] [--json FILE] [--only NAME ...]
    python -m benchmarks.quality --long --with-peers --docs docs/quality.md --from PART.json ...

The short form takes some ten minutes of one core, the long one two hours. `--with-peers` adds detectors of frouros and
alibi-detect to `rivals` and `defaults`, ten minutes more in the long form: neither is a dependency of the project, so they go into
an environment of their own at .services/bench-peers, which the first such run makes (pip, 750 MB). alibi-detect's licence, the
Business Source License 1.1, is for uses that are no production. `--from` makes the page from the figures of runs of one seed
that had a part of the tables each. The exit code is 1 where a gate fails.
"""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.quality import (
    again,
    blocks,
    budgets,
    categories,
    category_memory,
    incidents,
    memory,
    pairs,
    public_nulls,
    relearned,
    season,
    single,
    units,
    window_dates,
)
from benchmarks.quality.apart import ENVIRONMENT, Apart, peers
from benchmarks.quality.pictures import draw
from benchmarks.quality.report import Section, Size, figures, page, runs_of

SECTIONS: dict[str, Callable[[Size], Section]] = {
    "nulls": single.nulls,
    "slope": single.slope,
    "tolerance": single.tolerance,
    "weekly": budgets.weekly,
    "delays": single.delays,
    "rivals": single.rivals,
    "defaults": single.defaults,
    "spread": budgets.spread,
    "dating": single.dating,
    "window_dates": window_dates.window_dates,
    "memory": memory.whitened,
    "suspended": memory.unseen,
    "price": memory.price,
    "seasons": season.seasons,
    "uncovered": season.uncovered,
    "season_price": season.price,
    "pairs": pairs.pairs,
    "blocks": blocks.blocks,
    "categories": categories.categories,
    "category_delays": categories.category_delays,
    "category_memory": category_memory.category_memory,
    "public": public_nulls.public_nulls,
    "units": units.units,
    "incidents": incidents.incidents,
    "again": again.again,
    "relearned": relearned.relearned,
    "broken": single.broken,
}

BESIDE_PEERS: dict[str, Callable[..., Section]] = {"rivals": single.rivals, "defaults": single.defaults}
"""Those to which `--with-peers` adds rows."""


def run(names: Sequence[str], size: Size, *, with_peers: bool) -> tuple[list[Section], float]:
    """Sections, printed as they come, and the seconds of processor time that they took, the peers' process with them."""
    sections, found = dict(SECTIONS), []
    with ExitStack() as stack:
        if with_peers and any(name in BESIDE_PEERS for name in names):
            apart = peers(stack.enter_context(Apart.made()))
            sections |= {name: functools.partial(section, apart=apart) for name, section in BESIDE_PEERS.items()}
        before = os.times()[:4]
        for name in names:
            section = sections[name](size)
            found.append(section)
            print(section.markdown(), flush=True)
    return found, sum(os.times()[:4]) - sum(before)


def main() -> int:
    """Run the sections, print them, and say which gates failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--long", action="store_true", help="the form that docs/quality.md shows")
    parser.add_argument("--with-peers", action="store_true", help=f"also frouros and alibi-detect, in an environment at {ENVIRONMENT}")
    parser.add_argument("--docs", type=Path, help="write the page")
    parser.add_argument("--json", type=Path, help="write the figures")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), help="some of the tables")
    parser.add_argument("--from", dest="parts", nargs="+", type=Path, help="figures of earlier runs, instead of a new one")
    options = parser.parse_args()
    size = Size.long(options.seed) if options.long else Size(options.seed)
    if options.parts:
        found, size, seconds = runs_of([json.loads(part.read_text()) for part in options.parts])
    else:
        found, seconds = run(options.only or list(SECTIONS), size, with_peers=options.with_peers)
    forms = [f"--{form}" for form in ("long", "with-peers") if getattr(options, form.replace("-", "_"))]
    command = " ".join(["python -m benchmarks.quality", f"--seed {size.seed}", *forms])
    today = dt.datetime.now(dt.UTC).date().isoformat()
    if options.docs:
        options.docs.write_text(page(found, size, command, today, seconds), encoding="utf-8")
        draw(options.docs)
    if options.json:
        options.json.write_text(json.dumps(figures(found, size, seconds), indent=2) + "\n", encoding="utf-8")
    gates = [gate for section in found for gate in section.gates]
    failed = [gate for gate in gates if not gate.holds]
    for gate in failed:
        print(f"FAILED {gate.name}: {gate.found:.4g}, target {gate.target:g} (95 % end {gate.bound:.4g})")
    print(f"{len(gates) - len(failed)} of {len(gates)} gates hold, {seconds:.0f} s of processor time")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
