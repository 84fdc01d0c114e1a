"""What pairs of features whose correlation is watched must be."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from typing import Final

from driftline.schemas.config import Model
from driftline.schemas.document import Path
from driftline.schemas.problems import Flaw, did_you_mean
from driftline.schemas.series import PAIR, correlation_series, monitors_of

_OTHERS: Final = {
    "categorical": "of categories no correlation is watched; a segment shows what belongs to each of their values",
    "vector": "a vector is watched as a whole, by a block",
}


def check_correlations(model: Model, place: Path) -> Iterator[Flaw]:
    """Flaws of a model's pairs."""
    seen: set[str] = set()
    globs = [glob for monitor in monitors_of(model) for glob in monitor.series]
    for index, (first, second) in enumerate(model.correlations):
        here = (*place, "correlations", index)
        flaws = list(_pair(model, first, second, seen, here))
        yield from flaws
        series = correlation_series(first, second)
        seen.add(series)
        # A pair that cannot be is no series that a monitor could watch.
        if not flaws and not any(fnmatchcase(series, glob) for glob in globs):
            hint = 'add "correlation:*" to the series of a monitor'
            yield Flaw(here, "a monitor that watches it", f'none with a glob for "{series}"', hint)


def _pair(model: Model, first: str, second: str, seen: Collection[str], place: Path) -> Iterator[Flaw]:
    if first == second:
        yield Flaw(place, "two different features", f'"{first}" twice', "how a feature is spread is watched without a pair")
        return
    if correlation_series(first, second) in seen:
        yield Flaw(place, "each pair once", f'"{first}" and "{second}" again', "the order of the two does not matter")
    for position, name in enumerate((first, second)):
        yield from _feature(model, name, (*place, position))


def _feature(model: Model, name: str, place: Path) -> Iterator[Flaw]:
    if PAIR in name or not name:
        hint = f'"{PAIR}" stands between the two names of a pair: give the feature another name, and its "path"'
        yield Flaw(place, f'a name without "{PAIR}"', f'"{name}"', hint)
    elif model.features is not None and name not in model.features:
        hint = did_you_mean(name, model.features) or f"features of this model: {', '.join(model.features)}"
        yield Flaw(place, "a feature of this model", f'"{name}"', hint)
    elif model.features is not None and model.features[name].kind != "numeric":
        hint = _OTHERS[model.features[name].kind]
        yield Flaw(place, "a numeric feature", f'"{name}", which is {model.features[name].kind}', hint)
