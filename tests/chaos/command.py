"""The command line that campaigns share: what to run, in which form, and where to keep what comes of it."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from rich.console import Console

from tests.chaos.controls import Control
from tests.chaos.report import Row

Form = Literal["short", "long", "named"]
"""Of both forms, of the long one alone, or of neither: run when it is asked for by name."""


class Named(Protocol):
    """What the choice of a fault asks of it."""

    @property
    def name(self) -> str: ...

    @property
    def form(self) -> Form: ...

    @property
    def about(self) -> str: ...


_F = TypeVar("_F", bound=Named)


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for; the help of `parse` says what each is."""

    short: bool
    seed: int
    only: Sequence[str]
    no_controls: bool
    no_faults: bool
    again: bool
    listed: bool
    json: Path | None
    logs: Path | None

    def takes(self, thing: Named) -> bool:
        """Whether a fault is part of the run, for itself or for its controls."""
        if self.only:
            return thing.name in self.only
        return thing.form in (("short",) if self.short else ("short", "long"))

    def faults(self, every: Sequence[_F]) -> list[_F]:
        """Those to run as they are."""
        return [] if self.no_faults else [fault for fault in every if self.takes(fault)]

    def controls(self, every: Sequence[Control], faults: Sequence[_F]) -> list[tuple[_F, Control]]:
        """Those to run, each with its fault; a control of a fault that was asked for by name is run whichever form has it."""
        if self.no_controls:
            return []
        by_name = {fault.name: fault for fault in faults if self.takes(fault)}
        chosen = [c for c in every if c.fault in by_name and (c.short or not self.short or self.only)]
        return [(by_name[control.fault], control) for control in chosen]


def parse(program: str, about: str, faults: Sequence[Named], arguments: Sequence[str] | None = None) -> Options:
    """The options; an unknown fault, or nothing at all to run, ends the program with what is wrong."""
    parser = ArgumentParser(prog=program, description=about)
    parser.add_argument("--short", action="store_true", help="fewer hits, the most telling faults and controls")
    parser.add_argument("--seed", type=int, default=1, help="of inputs and of all choices")
    parser.add_argument("--only", nargs="+", default=[], metavar="FAULT", help="these, and their controls, whichever form has them or none")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--no-controls", action="store_true", help="the faults alone")
    which.add_argument("--no-faults", action="store_true", help="the controls alone")
    parser.add_argument("--again", action="store_true", help="what only lacked time or a witness is tried once more")
    parser.add_argument("--list", dest="listed", action="store_true", help="print what would run, and the faults of no form")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there, after each run anew")
    parser.add_argument("--logs", type=Path, metavar="DIRECTORY", help="keep configurations and logs of workers there")
    given: dict[str, Any] = vars(parser.parse_args(arguments))
    if unknown := sorted(set(given["only"]) - {fault.name for fault in faults}):
        parser.error(f"no such fault: {', '.join(unknown)}; --list names them")
    return Options(**given)


def tried(run: Callable[[int], list[Row]], *, again: bool) -> list[Row]:
    """The rows of a run, told as they come; with `again`, of a second one for those that were inconclusive.

    Faults that share an installation are all done once more. What passed the first time and lacks time or a witness the second
    has passed; what is lost, doubled or changed in either has not.

    Parameters
    ----------
    run : takes the number of the attempt, 1 or 2.
    """
    first = _told(run(1))
    failed = [row for row in first if not row.passed]
    if not again or not failed or not all(row.inconclusive for row in failed):
        return first
    for row in failed:
        print(f"{row.label} is tried once more: {'; '.join(row.reasons)}", file=sys.stderr, flush=True)
    second = _told(run(2))
    for row in second:
        row.attempt = 2
    return [one if one.passed and other.inconclusive else other for one, other in zip(first, second, strict=True)]


def directory_name(number: int, fault: str, without: str, attempt: int) -> str:
    """Where a run keeps its configuration and logs."""
    return "-".join([f"{number:02}", fault, *(["without", without] if without else []), *(["again"] if attempt > 1 else [])])


def _told(rows: list[Row]) -> list[Row]:
    said = ", ".join(f"{row.label}: {row.result}" for row in rows)
    print(f"{said} in {rows[0].seconds:.0f} s", file=sys.stderr, flush=True)
    return rows


def show_job(console: Console, number: int | str, faults: Sequence[Named], without: str, rule: int | None) -> None:
    """A line for each fault of a run that `--list` shows."""
    control = f" without {without} (rule {rule})" if without else ""
    for fault in faults:
        console.print(f"{number:>3} {fault.form:6}{fault.name}{control}: {fault.about}", markup=False, highlight=False)
