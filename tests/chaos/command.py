"""The command line that campaigns share: what to run, in which form, and where to keep what comes of it."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rich.console import Console

from tests.chaos.controls import Control


class Named(Protocol):
    """What the choice of a fault asks of it."""

    @property
    def name(self) -> str: ...

    @property
    def short(self) -> bool: ...

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
    listed: bool
    json: Path | None
    logs: Path | None

    def takes(self, thing: Named) -> bool:
        """Whether a fault is part of the run, for itself or for its controls."""
        return thing.name in self.only if self.only else thing.short or not self.short

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
    parser.add_argument("--only", nargs="+", default=[], metavar="FAULT", help="these, and their controls, whichever form has them")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--no-controls", action="store_true", help="the faults alone")
    which.add_argument("--no-faults", action="store_true", help="the controls alone")
    parser.add_argument("--list", dest="listed", action="store_true", help="print what would run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there, after each run anew")
    parser.add_argument("--logs", type=Path, metavar="DIRECTORY", help="keep configurations and logs of workers there")
    given: dict[str, Any] = vars(parser.parse_args(arguments))
    if unknown := sorted(set(given["only"]) - {fault.name for fault in faults}):
        parser.error(f"no such fault: {', '.join(unknown)}; --list names them")
    return Options(**given)


def show_job(console: Console, number: int, faults: Sequence[Named], without: str, rule: int | None) -> None:
    """A line for each fault of a run that `--list` shows."""
    control = f" without {without} (rule {rule})" if without else ""
    for fault in faults:
        form = "short" if fault.short else "long"
        console.print(f"{number:3} {form:6}{fault.name}{control}: {fault.about}", markup=False, highlight=False)
