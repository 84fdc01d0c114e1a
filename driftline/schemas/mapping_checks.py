"""Paths into events that cannot be read, or that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from driftline.schemas.config import Config, Fields, Model
from driftline.schemas.document import Path, describe
from driftline.schemas.problems import Flaw, did_you_mean

_VALUES: Final = ("id", "time", "model", "version", "score", "class_", "latency_ms", "error", "weight")
_ELSEWHERE: Final = ("header:", "const:")

Found = list[tuple[tuple[str, ...], Path]]
"""Keys from the top of an event, and the place in the file that names them."""


def check_mapping(config: Config) -> Iterator[Flaw]:
    """Flaws of every path in the file."""
    for index, source in enumerate(config.predictions):
        place: Path = ("predictions", index, "fields")
        yield from _source(source.fields, place)
        yield from _conflicts(_values(source.fields, place))
    for index, label in enumerate(config.labels):
        place = ("labels", index, "fields")
        for key in ("id", "time", "model", "value"):
            yield from _readable(getattr(label.fields, key), (*place, key))
        yield from _identity(label.fields.id, place)
    for name, model in config.models.items():
        yield from _vectors(config, name, model)
        own = [(("features", key), feature.path) for key, feature in (model.features or {}).items()]
        own += [(("segments", key), segment.path) for key, segment in model.segments.items()]
        for loc, path in own:
            yield from _readable(path, ("models", name, *loc, "path"))
        yield from _unit(model.unit, ("models", name, "unit"))


def _unit(text: str | None, loc: Path) -> Iterator[Flaw]:
    yield from _readable(text, loc)
    if text == "topic" or (text is not None and text.startswith("const:")):
        yield Flaw(loc, "a value that differs between units", describe(text), "all rows would be of one unit")


def _source(fields: Fields, place: Path) -> Iterator[Flaw]:
    for key in _VALUES:
        yield from _readable(getattr(fields, key), (*place, key.rstrip("_")))
    yield from _identity(fields.id, place)
    if fields.features and _keys(fields.features) is None:
        hint = "features are an object, a list or a vector in the event's value"
        yield Flaw((*place, "features"), "a path into the event", describe(fields.features), hint)
    elif fields.features:
        yield from _readable(fields.features, (*place, "features"))
    names = fields.feature_names
    if names is not None and (not names or len(set(names)) < len(names)):
        yield Flaw((*place, "feature_names"), "one or more different names", describe(names), "one for each entry of the vector, in order")


def _readable(text: str | None, loc: Path) -> Iterator[Flaw]:
    if text is None:
        return
    keys = _keys(text)
    if text == "header:" or (keys is not None and not all(keys)):
        yield Flaw(loc, "a path such as payload.id, header:NAME, key, topic or const:VALUE", describe(text))


def _identity(text: str, place: Path) -> Iterator[Flaw]:
    if text == "topic" or text.startswith("const:"):
        yield Flaw((*place, "id"), "an id that differs between events", describe(text), "every event but the first would be a duplicate")


def _vectors(config: Config, name: str, model: Model) -> Iterator[Flaw]:
    """Features that no source sends: every source of the model has a vector, and none of them names the feature."""
    sources = [source.fields for source in config.predictions if source.fields.model == f"const:{name}" or not _constant(source.fields)]
    if not sources or any(fields.feature_names is None for fields in sources):
        return
    known = {key: None for fields in sources for key in fields.feature_names or ()}
    for key, feature in (model.features or {}).items():
        if feature.path is None and key not in known:
            hint = did_you_mean(key, known) or "add it to feature_names, or give it a path"
            yield Flaw(("models", name, "features", key), "a name of feature_names", describe(key), hint)


def _constant(fields: Fields) -> bool:
    return fields.model.startswith("const:")


def _values(fields: Fields, place: Path) -> Found:
    texts = [(key.rstrip("_"), getattr(fields, key)) for key in _VALUES]
    paths = [(_keys(text), (*place, key)) for key, text in texts if text is not None]
    return [(keys, loc) for keys, loc in paths if keys is not None]


def _conflicts(values: Found) -> Iterator[Flaw]:
    """A value cannot also be the object that holds another value."""
    for keys, loc in values:
        inner = next((other for other, _ in values if len(other) > len(keys) and other[: len(keys)] == keys), None)
        if inner is not None:
            got = f'"{".".join(keys)}", which holds "{".".join(inner)}"'
            yield Flaw(loc, "a path to a value", got, "a value is no object: one path is wrong")


def _keys(text: str) -> tuple[str, ...] | None:
    """The keys from the top of the event, or None where the path leads elsewhere."""
    return None if text in ("key", "topic") or text.startswith(_ELSEWHERE) else tuple(text.split("."))
