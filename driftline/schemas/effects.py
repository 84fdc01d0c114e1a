"""What an edit of each configuration key does to the state of running tasks: the one table.

`settings` and `reset_by` take from it which columns and segment keys begin anew; docs/upgrades.md shows it; a test holds
that every key of the file stands in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape
from typing import Any, Final, Literal

from driftline.schemas.config import Config
from driftline.schemas.section import Section
from driftline.schemas.series import block_series

Kind = Literal["keeps", "partly", "resets", "elsewhere", "refused"]

MEANINGS: Final[Mapping[Kind, str]] = {
    "keeps": "state goes on as it is",
    "partly": "what is not edited goes on; what is edited begins, goes on or ends as the last column says",
    "resets": "these series mean something else from now on: they end and learn a reference of their own anew, the others go on",
    "elsewhere": "names another installation or other inputs, whose state is another",
    "refused": "the worker stops and says so; state stays untouched",
}


@dataclass(frozen=True, slots=True)
class Effect:
    """One row of the table.

    Attributes
    ----------
    key : as the file has it, `[]` for any of a list, NAME for any name; ``section.*`` for all of a section.
    columns : of "resets": globs over ``panel/column`` and ``segment/key``; NAME is the name in the key.
    """

    key: str
    kind: Kind
    what: str
    columns: tuple[str, ...] = ()


_PANELS: Final = ("features/*", "scores/*", "outcomes/*")
_SCORES: Final = ("scores/score", "scores/decision", "scores/class", "scores/confidence", "scores/entropy", "outcomes/outcome:*")
_OUTCOMES: Final = ("outcomes/outcome:*",)
_FEATURE: Final = ("features/NAME", "features/correlation:NAME~*", "features/correlation:*~NAME")
"""A feature, and the pairs that it is in; the blocks that it is in are told by `settings`."""
_EVENT_TIME: Final = "the time of events from now on"
_AFTER_CHANGE: Final = (
    "from now on, also of episodes that are open; values that were judged since the change count, rows of a series that is not followed "
    "do if there was a number before"
)
_DETECTOR: Final = (
    "that detector begins anew, the other detectors of the series go on; `delta` of adwin, `threshold` and "
    "`mode` of page_hinkley, cusum and ewma, and `min_instances` of page_hinkley are thresholds: the detector goes on"
)
_TOLERANCE: Final = (
    "a level from now on; under `false_alarms` it is also what an e-detector tolerates, and where that is another the e-detector "
    "of its series begins anew"
)

EFFECTS: Final[tuple[Effect, ...]] = (
    Effect("version", "refused", "a file of another format is not read"),
    Effect(
        "environment",
        "refused",
        "it is part of every event id, and other alerts would stay open for ever: give another `kafka.group_prefix` too",
    ),
    Effect("kafka.bootstrap", "keeps", "another cluster is refused by its id"),
    Effect("kafka.properties", "keeps", ""),
    Effect("kafka.guarantee", "keeps", "at_least_once writes no base checkpoints: without Redis the state is lost"),
    Effect("kafka.group_prefix", "elsewhere", "nothing is committed under it; `driftline state import --rebase` brings the state along"),
    Effect("kafka.group_protocol", "keeps", ""),
    Effect("kafka.commit_interval", "keeps", ""),
    Effect("kafka.commit_interval_behind", "keeps", ""),
    Effect("kafka.commit_rows", "keeps", ""),
    Effect("kafka.transaction_timeout", "keeps", ""),
    Effect("redis.key_prefix", "keeps", "read again from the base checkpoints in Kafka; alerts from their topic"),
    Effect("redis.*", "keeps", ""),
    Effect("topics.prefix", "elsewhere", "other topics; the default of `kafka.group_prefix` follows it"),
    Effect(
        "topics.partitions",
        "keeps",
        "for topics that are still to be made; a topic that was widened is refused: `driftline state rescale` brings state and what "
        "waits to other topics with more of them, or fewer",
    ),
    Effect("topics.replication", "keeps", "for topics that are still to be made"),
    Effect("http.*", "keeps", ""),
    Effect("start", "keeps", "for partitions that have no committed offset"),
    Effect("unknown_models", "keeps", ""),
    Effect(
        "hash_key",
        "resets",
        "sensitive features and segments: another reference, other hashes. A new value under the same reference "
        "is not seen: rename it with the value",
        ("features/NAME", "segment/NAME"),
    ),
    Effect("predictions[].topic", "keeps", "a topic that is gone no longer holds up time; a new one is read from `start`"),
    Effect("predictions[].fields.id", "keeps", "labels of predictions that wait are looked up by the old id"),
    Effect("predictions[].fields.time", "keeps", _EVENT_TIME),
    Effect("predictions[].fields.time_unit", "keeps", _EVENT_TIME),
    Effect("predictions[].fields.model", "keeps", "which model an event is of"),
    Effect("predictions[].fields.version", "keeps", "a version that is new has series of its own"),
    Effect("predictions[].fields.features", "resets", "all features", ("features/*",)),
    Effect("predictions[].fields.feature_names", "resets", "the features whose place has changed, their correlations and blocks", _FEATURE),
    Effect("predictions[].fields.score", "resets", "score, decision, class, confidence, entropy and outcomes", _SCORES),
    Effect(
        "predictions[].fields.class", "resets", "the answered class, and whether it was wrong", ("scores/class", "outcomes/outcome:wrong")
    ),
    Effect("predictions[].fields.latency_ms", "resets", "latency", ("scores/service:latency",)),
    Effect("predictions[].fields.error", "resets", "the share of failures", ("scores/service:error",)),
    Effect("predictions[].fields.weight", "keeps", ""),
    Effect("predictions[].max_skew", "keeps", _EVENT_TIME),
    Effect("predictions[].max_age", "keeps", _EVENT_TIME),
    Effect("labels[].topic", "keeps", "a topic that is gone no longer holds up the join; a new one is read from `start`. "
        "With none left, open episodes of outcomes end"),
    Effect("labels[].fields.id", "keeps", "which prediction a label is for, from now on"),
    Effect("labels[].fields.time", "keeps", "informative"),
    Effect("labels[].fields.time_unit", "keeps", "informative"),
    Effect("labels[].fields.model", "keeps", "which prediction a label is for, from now on"),
    Effect("labels[].fields.value", "resets", "outcomes", _OUTCOMES),
    Effect(
        "models.NAME",
        "partly",
        "a model that is new begins with its first row; one that is gone is kept as it stood, and goes on if it "
        "is put back; its open episodes end",
    ),
    Effect("models.NAME.owner", "keeps", ""),
    Effect("models.NAME.task", "resets", "score, decision, class, confidence, entropy and outcomes", _SCORES),
    Effect(
        "models.NAME.features",
        "partly",
        "a feature that is new learns a reference of its own from then on (or takes it from "
        "`baseline.file`); one that is gone is forgotten; `null` goes on with those that are known",
    ),
    Effect("models.NAME.features.NAME.kind", "resets", "that feature, its correlations and blocks", _FEATURE),
    Effect("models.NAME.features.NAME.length", "resets", "that vector, and its blocks", ("features/NAME",)),
    Effect(
        "models.NAME.features.NAME.path",
        "resets",
        "that feature, its correlations and blocks, and the segment key of its name",
        (*_FEATURE, "segment/NAME"),
    ),
    Effect(
        "models.NAME.features.NAME.sensitive",
        "resets",
        "that feature, and the segment key of its name",
        ("features/NAME", "segment/NAME"),
    ),
    Effect("models.NAME.features.NAME.accepted", "resets", "that feature, its correlations and blocks", _FEATURE),
    Effect("models.NAME.features.NAME.after_change.relearn_after", "keeps", _AFTER_CHANGE),
    Effect(
        "models.NAME.correlations",
        "partly",
        "a pair that is new learns a reference of its own from then on (or takes it from `baseline.file`); one that is gone is forgotten",
    ),
    Effect(
        "models.NAME.blocks",
        "partly",
        "a block that is new learns a reference of its own from then on (or takes it from `baseline.file`); one that is gone is forgotten",
    ),
    Effect("models.NAME.blocks.NAME.features", "resets", "that block", ("features/block:NAME",)),
    Effect("models.NAME.classes", "resets", "class and outcomes", ("scores/class", "outcomes/outcome:*")),
    Effect(
        "models.NAME.decision",
        "resets",
        "the share of decisions, misses and false alarms",
        ("scores/decision", "outcomes/outcome:miss", "outcomes/outcome:false_alarm"),
    ),
    Effect(
        "models.NAME.segments",
        "partly",
        "the values of a key that is new learn references of their own from then on; a key that is gone is forgotten",
    ),
    Effect("models.NAME.segments.NAME.path", "resets", "the series of that key's values", ("segment/NAME",)),
    Effect("models.NAME.segments.NAME.max", "keeps", "for the next reference that is learned: the values of one are fixed"),
    Effect("models.NAME.segments.NAME.sensitive", "resets", "the series of that key's values", ("segment/NAME",)),
    Effect("models.NAME.unit", "resets", "all series of the model: other rows are watched", _PANELS),
    Effect("models.NAME.unit_window", "resets", "all series of the model: other rows are watched", _PANELS),
    Effect(
        "models.NAME.labels.ages",
        "partly",
        "an age that is new is a join of its own, from the start of `waiting`; one that is gone is kept "
        "as it stood; its open episodes end",
    ),
    Effect("models.NAME.labels.absent", "resets", "outcomes", _OUTCOMES),
    Effect("models.NAME.labels.min_join", "keeps", "a limit; with 0 the open episode ends"),
    Effect(
        "models.NAME.baseline.file",
        "keeps",
        "a series keeps the reference it began with, and detect logs `baseline_unused`; features that are new take theirs from the file",
    ),
    Effect(
        "models.NAME.baseline.compare",
        "keeps",
        "for references of a file that are not compared yet; with false what was held begins with the next row",
    ),
    Effect("models.NAME.baseline.learn", "keeps", "for what still learns: where it has more rows already, the next one is the last"),
    Effect("models.NAME.baseline.season", "keeps", "for what still learns, and for the next `driftline baseline build`"),
    Effect(
        "models.NAME.baseline.accepted",
        "resets",
        "all series of the model; with another `baseline.file` beside it, which none of them was compared with, they take their "
        "references from that",
        _PANELS,
    ),
    Effect("models.NAME.baseline.settle", "keeps", ""),
    Effect("models.NAME.after_change.relearn_after", "keeps", _AFTER_CHANGE),
    Effect(
        "models.NAME.window",
        "partly",
        "counted again from the rows that are kept; a longer one than was kept fills up with new rows, and "
        "PSI is judged again once it is half full. ADWIN, Page-Hinkley and rates know no window and go on",
    ),
    Effect(
        "models.NAME.false_alarms",
        "partly",
        "how many is a threshold: evidence and episodes go on. Given for the first time, e-detectors begin and other detectors go on "
        "as evidence; with null the e-detectors are forgotten; from a time to events or back they begin anew",
    ),
    Effect("models.NAME.expected[].from", "keeps", "which rows are watched from now on"),
    Effect("models.NAME.expected[].to", "keeps", "which rows are watched from now on"),
    Effect("models.NAME.expected[].reason", "keeps", ""),
    Effect("models.NAME.series_max", "keeps", ""),
    Effect("models.NAME.snapshot_every", "keeps", ""),
    Effect("models.NAME.freshness", "keeps", "with null the open episode ends"),
    Effect("models.NAME.stale", "keeps", ""),
    Effect("models.NAME.gather", "keeps", "which incident an alert belongs to that opens from now on"),
    Effect(
        "models.NAME.monitors[].id",
        "partly",
        "open episodes of its series end; where the level still is off they open anew under the new id",
    ),
    Effect(
        "models.NAME.monitors[].series",
        "partly",
        "series that no monitor watches any more end; new ones begin with the window that is kept "
        "of their column; those that move to another monitor go on, their open episodes as for `id`",
    ),
    Effect("models.NAME.monitors[].detectors[].name", "partly", "a detector that is new begins, one that is gone is forgotten"),
    Effect("models.NAME.monitors[].detectors[].input", "partly", _DETECTOR),
    Effect("models.NAME.monitors[].detectors[].params", "partly", _DETECTOR),
    Effect("models.NAME.monitors[].detectors[].alert", "keeps", "who may open an episode from now on"),
    Effect("models.NAME.monitors[].window", "partly", "as `window`"),
    Effect("models.NAME.monitors[].run_length", "keeps", "thresholds are made anew at every start"),
    Effect("models.NAME.monitors[].severity.warning", "partly", _TOLERANCE),
    Effect("models.NAME.monitors[].severity.critical", "keeps", ""),
    Effect("models.NAME.monitors[].severity.rate_floor", "partly", _TOLERANCE),
    Effect(
        "models.NAME.monitors[].direction",
        "partly",
        "a side that was not watched has no evidence yet; under `false_alarms` the e-detector of its series begins anew",
    ),
    Effect("models.NAME.monitors[].enabled", "partly", "as `series`"),
)


NO_DEFAULT: Final = object()


@dataclass(frozen=True, slots=True)
class Setting:
    """A value that decides what columns and segments mean.

    Attributes
    ----------
    columns : globs over ``panel/column`` and ``segment/key``: what begins anew when it changes.
    owner : the place of the model, feature, segment or source that it is of.
    default : what it was before there was such a key; `NO_DEFAULT` where it always was one.
    """

    value: Any
    columns: tuple[str, ...]
    owner: str = ""
    default: Any = NO_DEFAULT


def settings(config: Config, model: str) -> dict[str, Setting]:
    """All that decides what the series of a model mean, by the key's place in the file; kept beside its state."""
    out: dict[str, Setting] = {}
    for effect in EFFECTS:
        if effect.kind == "resets":
            for place, name, value, owner, default in _values(config, model, effect.key):
                columns = [glob.replace("NAME", escape(name)) for glob in effect.columns]
                if "features/NAME" in effect.columns:
                    blocks = config.models[model].blocks.items()
                    columns += [f"features/{escape(block_series(block))}" for block, of in blocks if name in of.features]
                out[place] = Setting(value, tuple(columns), owner, default)
    return out


def reset_by(before: Mapping[str, Any], now: Mapping[str, Setting]) -> dict[str, str]:
    """What begins anew: glob to the place in the file that was edited.

    A topic, feature or segment that is named on one side only is new or gone, which is no edit of it. A key alone that
    is missing of one that was there before is of a later release: it had its default.
    """
    known = {setting.owner for place, setting in now.items() if place in before}

    def was(place: str, setting: Setting) -> Any:
        return before.get(place, setting.default if setting.owner in known else NO_DEFAULT)

    found = [(place, setting, was(place, setting)) for place, setting in now.items()]
    changed = [(place, setting) for place, setting, value in found if value is not NO_DEFAULT and value != setting.value]
    return {glob: place for place, setting in changed for glob in setting.columns}


def edited(reset: Mapping[str, str], what: str) -> str | None:
    """The edit that makes a ``panel/column`` or a ``segment/key`` begin anew; None = it goes on."""
    return next((place for glob, place in reset.items() if fnmatchcase(what, glob)), None)


def _values(config: Config, model: str, key: str) -> Iterator[tuple[str, str, Any, str, Any]]:
    """Place, innermost name, value, owner and default of a key, wherever it stands in the file for this model."""
    if key == "hash_key":
        for kind, held in (("features", config.models[model].features or {}), ("segments", config.models[model].segments)):
            for name, one in held.items():
                if one.sensitive:
                    yield f"hash_key of models.{model}.{kind}.{name}", name, _plain(config.hash_key), "", NO_DEFAULT
    elif key == "predictions[].fields.feature_names":
        for source in config.predictions:
            for index, name in enumerate(source.fields.feature_names or ()):
                yield f"predictions[{source.topic}].fields.feature_names.{name}", name, index, "", NO_DEFAULT
    else:
        yield from _walk(config, key.split("."), "", model, "", "")


def _walk(section: Any, parts: Sequence[str], place: str, model: str, name: str, owner: str) -> Iterator[tuple[str, str, Any, str, Any]]:
    part, rest = parts[0], parts[1:]
    if part == "NAME":
        # The first NAME of a key is the model; what stands below it has names of its own.
        chosen = [model] if place == "models" else list(section or {})
        for one in chosen:
            yield from _walk(section[one], rest, f"{place}.{one}", model, one, f"{place}.{one}")
        return
    here = f"{place}.{part}" if place else part
    if part.endswith("[]"):
        for one in getattr(section, part[:-2]):
            there = f"{here[:-2]}[{one.topic}]"
            yield from _walk(one, rest, there, model, name, there)
        return
    attribute = "class_" if part == "class" else part
    found = getattr(section, attribute)
    if rest:
        yield from _walk(found, rest, here, model, name, owner)
        return
    field = type(section).model_fields[attribute]
    default = NO_DEFAULT if field.is_required() else _plain(field.get_default(call_default_factory=True))
    yield here, name, _plain(found), owner, default


def _plain(value: Any) -> Any:
    """As JSON has it."""
    return value.model_dump() if isinstance(value, Section) else value
