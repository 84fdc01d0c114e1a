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
        if not _NAME.fullmatch(name):
            yield Flaw(here, "a name of letters, digits, _, . and -", f'"{name}"', "it becomes the name of a series")
        vectors = [one for one in block.features if one in declared and declared[one].kind == "vector"]
        if len(block.features) < 2 and not vectors:
            hint = "one is watched by itself"
            yield Flaw((*here, "features"), "two or more numeric features, or one vector", f'"{block.features[0]}"', hint)
        if vectors and len(block.features) > 1:
            yield Flaw((*here, "features"), "a vector by itself", f"{len(block.features)} features", "give the others a block of their own")
        for index, feature in enumerate(block.features):
            yield from _feature(model, block.features[:index], feature, (*here, "features", index))
        if not any(fnmatchcase(block_series(name), glob) for glob in globs):
            hint = 'add "block:*" to the series of a monitor'
            yield Flaw(here, "a monitor that watches it", f'none with a glob for "{block_series(name)}"', hint)


def _feature(model: Model, earlier: list[str], name: str, place: Path) -> Iterator[Flaw]:
    if name in earlier:
        yield Flaw(place, "each feature once", f'"{name}" again', "what stands twice is told nothing more")
    elif model.features is not None and name not in model.features:
        hint = did_you_mean(name, model.features) or f"features of this model: {', '.join(model.features)}"
        yield Flaw(place, "a feature of this model", f'"{name}"', hint)
    elif model.features is not None and model.features[name].kind == "categorical":
        hint = "categories have no distance; a segment shows what belongs to each of their values"
        yield Flaw(place, "a numeric feature or a vector", f'"{name}", which is {model.features[name].kind}', hint)
