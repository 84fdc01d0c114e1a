"""What a person says of the columns of a sample: which is the id, the time, the label; `init` guesses the others."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

from driftline.cli.errors import Refusal

F = TypeVar("F", bound=Callable[..., Any])

_ROLES: Final[tuple[tuple[str, str], ...]] = (
    ("id", "Id of the prediction; labels name it."),
    ("time", "Event time."),
    ("label", "The truth; never a feature. With --labels-topic a field of its events."),
    ("label_time", "When the label came."),
    ("score", "The model's score."),
    ("class", "The model's answer."),
    ("version", "Version of the model."),
    ("latency", "Latency of the call in milliseconds."),
    ("weight", "The producer's sampling weight."),
)
_NEAR_MAX: Final = 3
_SHOWN_MAX: Final = 12
OF_LABELS: Final = frozenset({"label", "label_time"})
"""Roles that stand in the events of a labels topic, where there is one."""


@dataclass(frozen=True, slots=True)
class Given:
    """The options: role to column as typed, columns to leave out, and the score from which the answer is yes."""

    roles: Mapping[str, str]
    drop: tuple[str, ...]
    decision: float | None


def role_options(function: F) -> F:
    """Add the options to a command; their values arrive as one `given` argument."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        named = {role: kwargs.pop(f"{role}_column") for role, _ in _ROLES}
        dropped = tuple(name.strip() for name in (kwargs.pop("drop") or "").split(",") if name.strip())
        given = Given({role: name for role, name in named.items() if name is not None}, dropped, kwargs.pop("decision"))
        return function(*args, given=given, **kwargs)

    options = [click.option("--" + role.replace("_", "-"), f"{role}_column", metavar="COLUMN", help=text) for role, text in _ROLES]
    options += [
        click.option("--drop", metavar="A,B,C", help="Columns to leave out of the features."),
        click.option("--decision", type=float, metavar="SCORE", help="Score from which the answer is yes.  [default: 0.5]"),
    ]
    decorated: Any = wrapped
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def resolve(given: Given, columns: Collection[str], *, source: str, without: Collection[str] = ()) -> Given:
    """The same with whole names: of an event's field the last part of its path is enough where only one field ends so.

    Parameters
    ----------
    without : roles that are not looked for here.

    Raises
    ------
    Refusal : there is no such column, or two roles have the same one.
    """
    roles: dict[str, str] = {}
    for role, name in given.roles.items():
        if role in without:
            continue
        found = _found(name, columns, option="--" + role.replace("_", "-"), source=source)
        rival = next((other for other, column in roles.items() if column == found), None)
        if rival is not None:
            raise Refusal(f'--{rival.replace("_", "-")} and --{role.replace("_", "-")}: both are "{found}"')
        roles[role] = found
    drop = tuple(_found(name, columns, option="--drop", source=source) for name in given.drop)
    return Given(roles, drop, given.decision)


def _found(name: str, columns: Collection[str], *, option: str, source: str) -> str:
    if name in columns:
        return name
    ending = [column for column in columns if column.rsplit(".", 1)[-1] == name]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise Refusal(f'{option} "{name}": {source} has ' + " and ".join(f'"{column}"' for column in ending), hint="give the whole path")
    lower = {column.rsplit(".", 1)[-1].lower(): column for column in columns} | {column.lower(): column for column in columns}
    near = list(dict.fromkeys(lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=_NEAR_MAX, cutoff=0.6)))
    if near:
        raise Refusal(f'{option} "{name}": no such column in {source}; the nearest: ' + ", ".join(f'"{column}"' for column in near))
    shown = ", ".join(f'"{column}"' for column in list(columns)[:_SHOWN_MAX])
    more = f" and {len(columns) - _SHOWN_MAX} more" if len(columns) > _SHOWN_MAX else ""
    raise Refusal(f'{option} "{name}": no such column in {source}, which has {shown}{more}')
