"""Where an event keeps a feature and the value of a segment key, and so which of them are one and the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from driftline.schemas.config import Fields, Model

PUBLISHED_SEGMENTS: Final = "segments"
"""Where `driftline.publish` sends what is a segment and no feature."""


def prefix_of(fields: Fields) -> str:
    """What stands before a feature's name in its path."""
    return f"{fields.features}." if fields.features else ""


def place_of_feature(model: Model, fields: Fields, name: str) -> str:
    """The path of a feature; one that the configuration does not name is where features are."""
    declared = (model.features or {}).get(name)
    return (declared.path if declared is not None else None) or prefix_of(fields) + name


def places_of_segment(model: Model, fields: Fields, key: str) -> set[str]:
    """The paths that a segment key's value may come from."""
    path = model.segments[key].path
    if path is not None:
        return {path}
    if key in (model.features or {}):
        return {place_of_feature(model, fields, key)}
    return {prefix_of(fields) + key, key, f"{PUBLISHED_SEGMENTS}.{key}"}


def keys_of_feature(model: Model, sources: Iterable[Fields], name: str) -> tuple[str, ...]:
    """The segment keys that have a feature's own values: those of its name, and those that read the same path of an event."""
    every = tuple(sources)
    return tuple(
        key
        for key in model.segments
        if key == name or any(place_of_feature(model, fields, name) in places_of_segment(model, fields, key) for fields in every)
    )
