"""The options that say which changes `backtest` puts into the rows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from driftline.cli.errors import Refusal

if TYPE_CHECKING:
    from driftline.backtest.trials import Asked

F = TypeVar("F", bound=Callable[..., Any])

_KINDS = ("shift", "scale", "nulls", "unseen", "correlation", "labels")
_SHARE = click.FloatRange(0.0, 1.0, min_open=True)

_OPTIONS = (
    click.option("--changes", metavar="A,B|none", help=f"Of {', '.join(_KINDS)}.  [default: all that the rows allow]"),
    click.option("--starts", type=click.IntRange(1, 1_000), default=3, show_default=True, help="Runs of each kind, from so many rows."),
    click.option("--within", metavar="N|DURATION", help="Events or time in which a change counts as found.  [default: 1/8 of the rows]"),
    click.option("--into", metavar="A,B", help="Features to change, each at every start.  [default: one drawn at each start]"),
    click.option("--shift", type=float, default=1.0, show_default=True, help="Size of a shift in reference standard deviations."),
    click.option("--scale", type=float, default=2.0, show_default=True, help="Factor of a change of scale."),
    click.option("--nulls", type=_SHARE, default=0.1, show_default=True, help="Share of rows that lose their value."),
    click.option("--unseen", type=_SHARE, default=0.05, show_default=True, help="Share of rows that get a category never seen."),
    click.option("--errors", type=_SHARE, default=0.1, show_default=True, help="Share of rows that get another label."),
)


@dataclass(frozen=True, slots=True)
class ChangeOptions:
    """The options as given."""

    changes: str | None
    starts: int
    within: str | None
    into: str | None
    shift: float
    scale: float
    nulls: float
    unseen: float
    errors: float

    def asked(self, seed: int) -> Asked:
        """What they ask for.

        Raises
        ------
        Refusal : a kind or a length that there is not.
        """
        from driftline.backtest.changes import KINDS
        from driftline.backtest.trials import Asked

        kinds = None
        if self.changes is not None:
            named = [name.strip() for name in self.changes.split(",") if name.strip() and name.strip() != "none"]
            unknown = [name for name in named if name not in KINDS]
            if unknown:
                raise Refusal(f'--changes "{unknown[0]}": expected some of {", ".join(KINDS)}, or none')
            kinds = tuple(kind for kind in KINDS if kind in named)
        within_rows, within_ms = self._within()
        sizes: dict[Any, float] = {
            "shift": self.shift, "scale": self.scale, "nulls": self.nulls, "unseen": self.unseen, "correlation": 0.0, "labels": self.errors,
        }  # fmt: skip
        into = tuple(name.strip() for name in (self.into or "").split(",") if name.strip())
        return Asked(kinds, sizes, self.starts, within_rows, within_ms, into, seed)

    def _within(self) -> tuple[int | None, int | None]:
        from driftline.schemas.durations import parse_duration_ms

        if self.within is None:
            return None, None
        if self.within.isdigit() and int(self.within) > 0:
            return int(self.within), None
        try:
            return None, parse_duration_ms(self.within)
        except ValueError as error:
            raise Refusal(f'--within "{self.within}": a number of events, or {error}') from error


def change_options(function: F) -> F:
    """Add the options to a command; their values arrive as one `changes` argument."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        values = {name: kwargs.pop(name) for name in ChangeOptions.__slots__}
        return function(*args, changes=ChangeOptions(**values), **kwargs)

    decorated: Any = wrapped
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]
