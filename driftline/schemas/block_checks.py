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
    globs = [glob for monitor in monitors_of(model) for glob in monitor.series]
    for name, block in model.blocks.items():
        here = (*place, "blocks", name)
        if not _NAME.fullmatch(name):
            yield Flaw(here, "a name of letters, digits, _, . and -", f'"{name}"', "it becomes the name of a series")
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
    elif model.features is not None and model.features[name].kind != "numeric":
        hint = "categories have no distance; a segment shows what belongs to each of their values"
        yield Flaw(place, "a numeric feature", f'"{name}", which is {model.features[name].kind}', hint)
