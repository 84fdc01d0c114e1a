"""The short forms of a configuration file, spelled out before validation.

``features: {amount: numeric}``, ``blocks: {card: [a, b]}``, ``segments: [country]``, ``predictions: TOPIC``,
``detectors: [psi, {adwin: {delta: 0.002}}]``: each becomes the long form in place, and keeps the origin of what the user wrote.
What is neither form is left for the model to refuse.
"""

from __future__ import annotations

from typing import Any

from driftline.schemas.document import Items, Origin, Table

_DETECTOR_KEYS = frozenset({"name", "input", "params", "alert"})


def spell_out(root: Table) -> None:
    """Rewrite every short form under `root` in place."""
    for key in ("predictions", "labels"):
        _sources(root, key)
    models = _as_table(root, "models")
    for name in list(models or ()):
        model = _table_of(models, name)
        if model is not None:
            _model(model)


def _model(model: Table) -> None:
    for name in list(features := _child(model, "features") or ()):
        if isinstance(features, Table) and isinstance(features[name], str):
            _wrap(features, name, "kind")
    for name in list(blocks := _child(model, "blocks") or ()):
        if isinstance(blocks, Table) and isinstance(blocks[name], Items):
            _wrap(blocks, name, "features")
    segments = _as_table(model, "segments")
    for name in list(segments or ()):
        _table_of(segments, name)
    if isinstance(model.get("baseline"), str):
        _wrap(model, "baseline", "file")
    labels = _child(model, "labels")
    if isinstance(labels, Table):
        if isinstance(labels.get("ages"), str | int):
            _as_items(labels, "ages")
        if isinstance(labels.get("absent"), bool):
            labels["absent"] = float(labels["absent"])
    monitors = model.get("monitors")
    for monitor in monitors if isinstance(monitors, Items) else ():
        if isinstance(monitor, Table):
            _monitor(monitor)


def _monitor(monitor: Table) -> None:
    if isinstance(monitor.get("series"), str):
        _as_items(monitor, "series")
    if isinstance(monitor.get("detectors"), str):
        _as_items(monitor, "detectors")
    detectors = monitor.get("detectors")
    if isinstance(detectors, Items):
        for index, spec in enumerate(detectors):
            detectors[index] = _detector(spec, detectors.at[index])


def _detector(spec: Any, origin: Origin) -> Any:
    """``psi`` or ``{adwin: {delta: 0.002, input: raw}}`` or ``{name: adwin, delta: 0.002}`` in the long form."""
    long = Table(origin)
    if isinstance(spec, str):
        long.put("name", spec, origin)
        return long
    if not isinstance(spec, Table) or not spec:
        return spec
    given = spec
    if "name" not in spec:
        if len(spec) != 1:
            return spec
        (name,) = spec
        long.put("name", name, spec.at[name])
        if spec[name] is None:
            return long
        if not isinstance(spec[name], Table):
            long.put("params", spec[name], spec.at[name])
            return long
        given = spec[name]
    params = Table(given.origin)
    for key, value in given.items():
        if key == "params" and isinstance(value, Table):
            for inner, deep in value.items():
                params.put(inner, deep, value.at[inner])
        else:
            (long if key in _DETECTOR_KEYS else params).put(key, value, given.at[key])
    if params:
        long.put("params", params, params.origin)
    return long


def _sources(root: Table, key: str) -> None:
    """A topic, or a list of topics and mappings, as a list of mappings."""
    if isinstance(root.get(key), str | Table):
        _as_items(root, key)
    sources = root.get(key)
    if isinstance(sources, Items):
        for index, source in enumerate(sources):
            if isinstance(source, str):
                table = Table(sources.at[index])
                table.put("topic", source, sources.at[index])
                sources[index] = table


def _child(table: Table, key: str) -> Table | None:
    value = table.get(key)
    return value if isinstance(value, Table) else None


def _as_table(table: Table, key: str) -> Table | None:
    """The value at `key` as a mapping: a name, or a list of names, becomes a mapping to empty mappings."""
    value = table.get(key)
    if isinstance(value, str):
        value = _as_items(table, key)
    if isinstance(value, Items) and all(isinstance(name, str) for name in value):
        named = Table(value.origin)
        for name, origin in zip(value, value.at, strict=True):
            named.put(name, Table(origin), origin)
        table[key] = named
    return _child(table, key)


def _table_of(table: Table | None, key: str) -> Table | None:
    """The mapping at `key`, which may have been left empty."""
    if table is None:
        return None
    if table[key] is None:
        table[key] = Table(table.at[key])
    return _child(table, key)


def _as_items(table: Table, key: str) -> Items:
    items = Items(table.at[key])
    items.put(table[key], table.at[key])
    table[key] = items
    return items


def _wrap(table: Table, key: str, inner: str) -> None:
    wrapped = Table(table.at[key])
    wrapped.put(inner, table[key], table.at[key])
    table[key] = wrapped
