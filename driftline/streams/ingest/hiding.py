"""Sensitive values leave ingest as keyed hashes: nothing raw stands in our topics or in anything made from them."""

from __future__ import annotations

from typing import Any

import xxhash

from driftline.detectors.scopes import Texts, hide
from driftline.schemas.config import Config, Fields, Model
from driftline.schemas.secret import resolve_secret
from driftline.schemas.sensitive import has_sensitive, sensitive_parts
from driftline.streams.ingest.mapping import Invalid
from driftline.streams.ingest.values import scalar_text
from driftline.streams.observation import NO_UNIT, Coded


def hash_key(config: Config) -> bytes:
    """The key of the hashes; empty where nothing is sensitive.

    Raises
    ------
    ValueError : it is needed and cannot be had.
    """
    if not has_sensitive(config):
        return b""
    if config.hash_key is None:
        raise ValueError("hash_key: expected a secret by reference, as a feature or segment is sensitive")
    return resolve_secret(config.hash_key).encode()


class Hiding:
    """The sensitive columns of one model as one source sends it."""

    def __init__(self, model: Model, fields: Fields, key: bytes) -> None:
        parts = sensitive_parts(model, fields)
        self._key = key
        self._texts = Texts(sensitive=True, key=key)
        self._nothing = {"", hide("", key)}
        self.features = sorted(parts.features)
        self.segments = parts.segments

    def column(self, column: Coded) -> Coded:
        """A text column with hashes in place of its values."""
        return Coded(column.codes, self._texts.shown(column.values))

    def number(self, text: str) -> int:
        """64 bits that stand for a text, keyed where there is a key; `NO_UNIT` for an empty one, sensitive or not."""
        if text in self._nothing:
            return NO_UNIT
        shown = hide(text, self._key) if self._key else text
        return int.from_bytes(xxhash.xxh3_64_digest(shown.encode("utf-8", "replace")), "little", signed=True) or 1

    def in_maps(self, maps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Undeclared features; sensitive numbers become texts, too."""
        return [self._in_map(features) for features in maps] if self.features else maps

    def _in_map(self, features: dict[str, Any]) -> dict[str, Any]:
        # What has no text (NaN, a number beyond all sense) is missing, or its raw value would stand; Invalid says nothing.
        found = {name: scalar_text(features[name]) for name in self.features if name in features and features[name] is not Invalid}
        hashes = iter(self._texts.shown([text for text in found.values() if text is not None]))
        return {**features, **{name: None if text is None else next(hashes) for name, text in found.items()}} if found else features
