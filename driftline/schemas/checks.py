"""What the model of one field cannot see: rules between parts of a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath
from typing import Final

from driftline.schemas.after_change_checks import check_after_change
from driftline.schemas.block_checks import check_blocks
from driftline.schemas.budget_checks import check_budget
from driftline.schemas.config import Config, Model, Redis, SecretRef
from driftline.schemas.correlation_checks import check_correlations
from driftline.schemas.detector_checks import check_detectors
from driftline.schemas.document import Path, describe
from driftline.schemas.estimate import series_count
from driftline.schemas.mapping_checks import check_mapping
from driftline.schemas.problems import Flaw, did_you_mean, secret_itself
from driftline.schemas.sensitive import check_sensitive
from driftline.schemas.series import Series, matches, model_series
from driftline.schemas.stream_series import JOIN_RATE

_OURS: Final = {
    "bootstrap.servers": 'set "kafka.bootstrap"',
    "group.id": 'set "kafka.group_prefix"',
    "transactional.id": 'set "kafka.group_prefix"',
    "enable.auto.commit": "Driftline commits offsets with its state",
    "enable.idempotence": 'set "kafka.guarantee"',
    "isolation.level": 'set "kafka.guarantee"',
    "partition.assignment.strategy": "the join needs range assignment",
    "partitioner": "one partitioner for all producers is what makes keys meet",
}
_SECRET_PROPERTY: Final = re.compile(r"password|secret|ssl\.key\.pem|token")


def check(config: Config, directory: FilePath | None) -> Iterator[Flaw]:
    """Every flaw between the parts of a valid configuration; files are looked up from `directory` when it is given."""
    yield from _topics(config)
    yield from _kafka(config)
    yield from _redis(config.redis)
    if config.hash_key is not None:
        yield from _secret(config.hash_key, ("hash_key",))
    yield from check_sensitive(config)
    yield from _model_names(config)
    yield from check_mapping(config)
    for name, model in config.models.items():
        place = ("models", name)
        yield from _labels(config, model, place)
        yield from _baseline(model, place, directory)
        yield from _task(config, model, place)
        yield from _segments(model, place)
        yield from check_correlations(model, place)
        yield from check_blocks(model, place)
        yield from _unit(model, place)
        yield from _expected(model, place)
        yield from check_after_change(model, place)
        yield from _monitors(config, model, place)
        yield from check_budget(model, place)
        if model.features is not None and (count := series_count(config, name)) > model.series_max:
            hint = "lower segments.*.max, drop a segment, or raise series_max if Redis and CPU allow it (driftline validate prints both)"
            yield Flaw((*place, "series_max"), f"at most {model.series_max} series", f"{count} implied by this file", hint)


def _topics(config: Config) -> Iterator[Flaw]:
    seen: dict[str, str] = {}
    sources = [("predictions", index, source.topic) for index, source in enumerate(config.predictions)]
    sources += [("labels", index, source.topic) for index, source in enumerate(config.labels)]
    for side, index, topic in sources:
        place = (side, index, "topic")
        if topic in seen:
            hint = "send predictions and labels to topics of their own" if seen[topic] != side else None
            yield Flaw(place, "each topic once", f'"{topic}" again', hint)
        seen.setdefault(topic, side)
        if topic in (".", "..") or topic.startswith(config.topics.prefix + "."):
            hint = "reading what Driftline writes would feed it its own output; choose another topics.prefix"
            yield Flaw(place, "a topic of yours", f'"{topic}"', hint)


def _kafka(config: Config) -> Iterator[Flaw]:
    kafka = config.kafka
    for name, value in kafka.properties.items():
        place: Path = ("kafka", "properties", name)
        if name in _OURS:
            yield Flaw(place, "a property that Driftline does not set itself", f'"{name}"', _OURS[name])
        if isinstance(value, SecretRef):
            yield from _secret(value, place)
        elif _SECRET_PROPERTY.search(name) and not isinstance(value, bool) and not name.endswith((".location", ".url", ".method")):
            yield secret_itself(place)
    if kafka.commit_interval * 3 > kafka.transaction_timeout:
        place = ("kafka", "transaction_timeout")
        hint = "a commit that takes long must not outlive its transaction"
        yield Flaw(place, f"at least three times commit_interval ({kafka.commit_interval}ms)", f"{kafka.transaction_timeout}ms", hint)


def _redis(redis: Redis) -> Iterator[Flaw]:
    if isinstance(redis.url, SecretRef):
        yield from _secret(redis.url, ("redis", "url"))
    elif _holds_password(redis.url):
        hint = "take user and password out of it: redis.username, and redis.password as {env: NAME} or {file: PATH}"
        yield Flaw(("redis", "url"), "a URL without a password", "one with a password", hint)
    elif not re.match(r"(rediss?|unix)://", redis.url):
        yield Flaw(("redis", "url"), "a URL such as redis://host:6379/0", describe(redis.url))
    elif not redis.url.startswith("rediss://"):
        for name in ("ca_file", "certificate_file", "key_file"):
            if getattr(redis, name) is not None:
                hint = "rediss:// is redis:// with TLS"
                yield Flaw(("redis", name), "a URL that begins with rediss:// beside it", describe(redis.url), hint)
    if redis.password is not None:
        yield from _secret(redis.password, ("redis", "password"))
    if (redis.certificate_file is None) != (redis.key_file is None):
        given, absent = ("certificate_file", "key_file") if redis.key_file is None else ("key_file", "certificate_file")
        yield Flaw(("redis", given), f"{absent} beside it", "only this one")


def _holds_password(url: str) -> bool:
    """Whether a text that should be a URL has a password in it; also where the rest is no URL, as it is not to be shown then either."""
    place = url.partition("://")[2] or url
    return ":" in place.rpartition("@")[0] or "password=" in place


def _secret(reference: SecretRef, place: Path) -> Iterator[Flaw]:
    if (reference.env is None) == (reference.file is None):
        got = "neither" if reference.env is None else "both"
        yield Flaw(place, "exactly one of env and file", got, "write {env: NAME} or {file: PATH}")


def _model_names(config: Config) -> Iterator[Flaw]:
    folded: dict[str, str] = {}
    for name in config.models:
        place = ("models", name)
        if not name or name != name.strip() or not name.isprintable() or len(name) > 200:
            yield Flaw(place, "a name of 1 to 200 printable characters without spaces around it", describe(name))
        twin = folded.setdefault(name.strip().casefold(), name)
        if twin != name:
            yield Flaw(place, "names that differ by more than case and spaces", f'"{twin}" and "{name}"', "one model, one spelling")
    for index, source in enumerate(config.predictions):
        kind, _, constant = source.fields.model.partition(":")
        if kind == "const" and constant not in config.models:
            hint = did_you_mean(constant, config.models) or f"models in this file: {', '.join(config.models)}"
            yield Flaw(("predictions", index, "fields", "model"), "a model of this file", f'"{constant}"', hint)


def _labels(config: Config, model: Model, place: Path) -> Iterator[Flaw]:
    ages, place = model.labels.ages, (*place, "labels")
    for index, age in enumerate(ages):
        if age in ages[:index]:
            yield Flaw((*place, "ages", index), 'each age once, "auto" at most once', f"{_age(age)} again")
        if age == 0:
            yield Flaw((*place, "ages", index), "an age above 0", "0", 'how old a prediction is when its label counts, for example "1h"')
    if not config.labels and model.labels.model_fields_set:
        yield Flaw(place, 'a topic under the top-level "labels"', "no label topic", 'add "labels: TOPIC", or remove this')


def _baseline(model: Model, place: Path, directory: FilePath | None) -> Iterator[Flaw]:
    source = model.baseline
    if source.file is not None:
        if directory is not None and not (directory / source.file).is_file():
            hint = f"looked for {directory / source.file}; make it with: driftline baseline build"
            yield Flaw((*place, "baseline", "file"), "a file that exists", describe(source.file), hint)
        return
    if "compare" in source.model_fields_set:
        yield Flaw((*place, "baseline", "compare"), "a file to compare", "none", "name baseline.file, or remove compare")
    for loc, window in _windows(model):
        if window > 10 * source.learn:
            hint = f"raise baseline.learn to {window} or shorten the window: the reference would be noisier than the window"
            yield Flaw((*place, *loc), f"at most ten times baseline.learn ({source.learn} events)", f"{window}", hint)


def _windows(model: Model) -> Iterator[tuple[Path, int]]:
    yield ("window",), model.window
    for index, monitor in enumerate(model.monitors or ()):
        if monitor.window is not None:
            yield ("monitors", index, "window"), monitor.window


def _task(config: Config, model: Model, place: Path) -> Iterator[Flaw]:
    if model.task != "binary" and "decision" in model.model_fields_set and model.decision is not None:
        hint = "only a binary score has a threshold"
        yield Flaw((*place, "decision"), f"no decision for task {model.task}", describe(model.decision), hint)
    if model.classes is not None:
        if model.task != "multiclass":
            yield Flaw((*place, "classes"), f"no classes for task {model.task}", describe(model.classes), 'set "task: multiclass"')
        elif len(model.classes) < 2 or len(set(model.classes)) != len(model.classes):
            hint = "one name for each entry of the score vector"
            yield Flaw((*place, "classes"), "two or more different names", describe(model.classes), hint)
    fields = [source.fields for source in config.predictions]
    if model.task == "multiclass" and all(f.score is None and f.class_ is None for f in fields):
        hint = "map predictions[].fields.class, or predictions[].fields.score to the vector of probabilities"
        yield Flaw((*place, "task"), "a class or a score for task multiclass", "neither is mapped", hint)


def _segments(model: Model, place: Path) -> Iterator[Flaw]:
    for key, segment in model.segments.items():
        if segment.path is not None or model.features is None or key in model.features:
            continue
        if (hint := did_you_mean(key, model.features)) is not None:
            hint += f' else say where it is: "path: {key}"'
            yield Flaw((*place, "segments", key), "a feature's name, or a path", f'"{key}" without a path', hint)


def _unit(model: Model, place: Path) -> Iterator[Flaw]:
    if model.unit is None:
        if "unit_window" in model.model_fields_set:
            yield Flaw((*place, "unit_window"), "a unit to go with it", "none", 'name what a row is of, for example "unit: card_id"')
    elif model.unit not in (known := model.features or {}) and (hint := did_you_mean(model.unit, known)) is not None:
        yield Flaw((*place, "unit"), "a feature's name, or a path", f'"{model.unit}", which is no feature', hint)


def _expected(model: Model, place: Path) -> Iterator[Flaw]:
    for index, span in enumerate(model.expected):
        if span.to <= span.from_:
            yield Flaw((*place, "expected", index, "to"), "a time after from", "one that is not", "it is the first time after the span")


def _monitors(config: Config, model: Model, place: Path) -> Iterator[Flaw]:
    series = model_series(config, model)
    first: dict[str, int] = {}
    for index, monitor in enumerate(model.monitors or ()):
        here = (*place, "monitors", index)
        if monitor.id in first:
            hint = "the id is part of every alert's fingerprint"
            yield Flaw((*here, "id"), "ids that differ within a model", f'"{monitor.id}" again', hint)
        first.setdefault(monitor.id, index)
        if monitor.severity.warning > monitor.severity.critical:
            got = f"warning {monitor.severity.warning:g} > critical {monitor.severity.critical:g}"
            yield Flaw((*here, "severity"), "warning at most critical", got, "critical is the larger effect")
        window = monitor.window or model.window
        if monitor.run_length < window:
            hint = "a false alarm more often than the window turns over is noise; 1e6 to 1e9 is usual"
            yield Flaw((*here, "run_length"), f"at least the window ({window} events)", f"{monitor.run_length:g}", hint)
        yield from _globs(config, series, model, index, here)
        yield from check_detectors(monitor, here)


def _globs(config: Config, series: Sequence[Series], model: Model, index: int, here: Path) -> Iterator[Flaw]:
    monitors = model.monitors or []
    earlier = [(m.id, glob) for m in monitors[:index] for glob in m.series]
    for position, glob in enumerate(monitors[index].series):
        matched = [one for one in series if matches(glob, one)]
        place = (*here, "series", position)
        if not matched:
            yield Flaw(place, "a glob that matches a series", describe(glob), _glob_hint(config, series, glob))
            continue
        if all(one.unknown for one in matched):
            continue
        taken = [next((who for who, other in earlier if matches(other, one)), None) for one in matched]
        if None not in taken:
            hint = f'monitor "{taken[0]}" comes first and owns them; move this monitor above it'
            yield Flaw(place, "a series that no earlier monitor owns", describe(glob), hint)


def _glob_hint(config: Config, series: Sequence[Series], glob: str) -> str:
    if glob.startswith(("outcome:", "stream:label", "stream:join")) and not config.labels:
        return 'these series need labels, and there is no "labels: TOPIC"'
    if glob.startswith("correlation:"):
        return 'they are watched of the pairs that the file names: "correlations: [[FEATURE, FEATURE]]"'
    if glob.startswith("block:"):
        return 'they are watched of the groups that the file names: "blocks: {NAME: [FEATURE, FEATURE]}"'
    if glob == JOIN_RATE:
        return "with labels.absent it is watched when labels.min_join is given, and never with min_join 0"
    if glob.startswith(("class_share:", "outcome:class:")):
        return 'shares are watched of the classes that the file names: "task: multiclass" and "classes: [...]"'
    names = [one.name for one in series if not one.unknown]
    near = did_you_mean(glob, [*names, *(f"{name.split(':')[0]}:*" for name in names if ":" in name)])
    return near or "series begin with feature:, correlation:, block:, quality:, score, decision, class, service:, outcome: or stream:"


def _age(age: int | str) -> str:
    return f'"{age}"' if isinstance(age, str) else f"{age}ms"
