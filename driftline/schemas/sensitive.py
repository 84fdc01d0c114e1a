"""What `sensitive` covers: whatever reads a value that somebody called sensitive, under any name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from driftline.schemas.config import Config, Fields, Model
from driftline.schemas.document import Path
from driftline.schemas.places import place_of_feature, places_of_segment, prefix_of
from driftline.schemas.problems import Flaw


@dataclass(frozen=True, slots=True)
class Sensitive:
    """Names of sensitive features and segments of one model as one source sends it."""

    features: frozenset[str]
    segments: frozenset[str]


def has_sensitive(config: Config) -> bool:
    """Whether any feature or segment of any model is sensitive."""
    features = any(feature.sensitive for model in config.models.values() for feature in (model.features or {}).values())
    return features or any(segment.sensitive for model in config.models.values() for segment in model.segments.values())


def sensitive_parts(model: Model, fields: Fields) -> Sensitive:
    """The sensitive features and segments: those called so, and those that read the same value."""
    declared, prefix = model.features or {}, prefix_of(fields)
    of_feature = {name: place_of_feature(model, fields, name) for name in declared}
    of_segment = {key: places_of_segment(model, fields, key) for key in model.segments}
    places = {of_feature[name] for name, feature in declared.items() if feature.sensitive}
    places |= {place for key, segment in model.segments.items() if segment.sensitive for place in of_segment[key]}
    features = {name for name, place in of_feature.items() if place in places}
    if model.features is None:
        features |= {place.removeprefix(prefix) for place in places if place.startswith(prefix)}
    return Sensitive(frozenset(features), frozenset(key for key, own in of_segment.items() if own & places))


def check_sensitive(config: Config) -> Iterator[Flaw]:
    """A key is needed, and a number cannot be hashed."""
    if not has_sensitive(config):
        return
    if config.hash_key is None:
        hint = 'write "hash_key: {env: NAME}": the values of sensitive features and segments leave ingest only as keyed hashes'
        yield Flaw(("hash_key",), "a secret by reference, as a feature or segment is sensitive", "nothing", hint)
    for name, model in config.models.items():
        sensitive = {feature for source in config.predictions for feature in sensitive_parts(model, source.fields).features}
        for feature, spec in (model.features or {}).items():
            if spec.kind != "categorical" and feature in sensitive:
                place: Path = ("models", name, "features", feature)
                hint = "hashes have no order and no mean: make it categorical, or leave it out"
                yield Flaw((*place, "kind"), "a categorical feature, as it (or a segment that reads it) is sensitive", spec.kind, hint)
