"""What blocks of features that are watched jointly must be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

from driftline.schemas.config import Model
from driftline.schemas.document import Path
from driftline.schemas.problems import Flaw, did_you_mean
from driftline.schemas.series import block_series, monitors_of

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def check_blocks(model: Model, place: Path) -> Iterator[Flaw]:
    """Flaws of a model's blocks."""
    declared = model.features or {}
    for name, spec in declared.items():
        if (spec.length is None) == (spec.kind == "vector"):
            found = "nothing" if spec.length is None else f"a {spec.kind} feature"
            hint = "write {kind: vector, length: 384}"
            yield Flaw((*place, "features", name), "a length for a vector, and for nothing else", found, hint)
        elif spec.kind == "vector" and not any(name in block.features for block in model.blocks.values()):
            hint = f"write blocks: {{{name}: [{name}]}}"
            yield Flaw((*place, "features", name), "a block that watches the vector", "none", hint)
    globs = [glob for monitor in monitors_of(model) for glob in monitor.series]
    for name, block in model.blocks.items():
        here = (*place, "blocks", name)
        flaws = list(_block(model, name, block.features, here))
        yield from flaws
        # A block that cannot be is no series that a monitor could watch.
        if not flaws and not any(fnmatchcase(block_series(name), glob) for glob in globs):
            hint = 'add "block:*" to the series of a monitor'
            yield Flaw(here, "a monitor that watches it", f'none with a glob for "{block_series(name)}"', hint)


def _block(model: Model, name: str, features: list[str], place: Path) -> Iterator[Flaw]:
    if not _NAME.fullmatch(name):
        yield Flaw(place, "a name of letters, digits, _, . and -", f'"{name}"', "it becomes the name of a series")
    wrong = [flaw for i, one in enumerate(features) for flaw in _feature(model, features[:i], one, (*place, "features", i))]
    yield from wrong
    declared = model.features or {}
    vectors = [one for one in features if one in declared and declared[one].kind == "vector"]
    if len(features) < 2 and not vectors and not wrong:
        yield Flaw((*place, "features"), "two or more numeric features, or one vector", f'"{features[0]}"', "one is watched by itself")
    if vectors and len(features) > 1:
        yield Flaw((*place, "features"), "a vector by itself", f"{len(features)} features", "give the others a block of their own")


def _feature(model: Model, earlier: list[str], name: str, place: Path) -> Iterator[Flaw]:
    if name in earlier:
        yield Flaw(place, "each feature once", f'"{name}" again', "what stands twice is told nothing more")
    elif model.features is not None and name not in model.features:
        hint = did_you_mean(name, model.features) or f"features of this model: {', '.join(model.features)}"
        yield Flaw(place, "a feature of this model", f'"{name}"', hint)
    elif model.features is not None and model.features[name].kind == "categorical":
        hint = "categories have no distance; a segment shows what belongs to each of their values"
        yield Flaw(place, "a numeric feature or a vector", f'"{name}", which is {model.features[name].kind}', hint)
