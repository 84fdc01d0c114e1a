"""The options that say which column of a file is what, shared by `publish` and `replay`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from driftline.cli.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from driftline.schemas.config import Config, Model
    from driftline.streams.source_rows import Message, RowMapping, RowMessages

F = TypeVar("F", bound=Callable[..., Any])

REPLAY_START_MS = 1_704_067_200_000  # 2024-01-01: rows without a time column are dated from here, the same every time

_OPTIONS: tuple[tuple[str, str, str], ...] = (
    ("--id", "COLUMN", "Event id.  [default: the row's number]"),
    ("--time", "COLUMN", "Event time: ISO, or seconds, ms or us since 1970.  [default: --row-start plus --interval a row]"),
    ("--label", "COLUMN", "The truth; empty cells send no label."),
    ("--label-time", "COLUMN", "When the label came."),
    ("--label-delay", "DIST", "Or how late it comes: fixed:1d, exp:2h, uniform:1h,3h, lognormal:2h,1.0."),
    ("--model", "NAME", "Model: a column, or else a fixed name.  [default: the configuration's, if it has one]"),
    ("--version", "NAME", "Version of the model: a column, or else a fixed one."),
    ("--score", "COLUMN", "The model's score."),
    ("--score-from", "SPEC", "logistic:LABEL:ROWS fits a small model on the first rows and sends the rest with its score."),
    ("--class", "COLUMN", "The model's answer."),
    ("--latency", "COLUMN", "Latency of the call in milliseconds."),
    ("--weight", "COLUMN", "The producer's sampling weight."),
    ("--features", "A,B,C", "Feature columns.  [default: the configuration's, else all the rest]"),
    ("--drop", "A,B,C", "Columns to leave out of the features."),
)


@dataclass(frozen=True, slots=True)
class ColumnOptions:
    """The options as given."""

    id: str | None
    time: str | None
    label: str | None
    label_time: str | None
    label_delay: str | None
    model: str | None
    version: str | None
    score: str | None
    score_from: str | None
    class_: str | None
    latency: str | None
    weight: str | None
    features: str | None
    drop: str | None
    segments: tuple[str, ...]
    start: str | None
    interval: str
    seed: int
    rows: int | None


def column_options(function: F) -> F:
    """Add the options to a command; their values arrive as one `columns` argument."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        names = {"class_": "class_name", "start": "row_start"}
        values = {name: kwargs.pop(names.get(name, name)) for name in ColumnOptions.__slots__}
        return function(*args, columns=ColumnOptions(**values), **kwargs)

    options = [click.option(*_declaration(flag), metavar=metavar, help=text) for flag, metavar, text in _OPTIONS]
    options += [
        click.option("--segment", "segments", multiple=True, metavar="NAME[=COLUMN]", help="A segment (or unit) that is no feature."),
        click.option("--row-start", metavar="TIME", help="Time of the first row when there is no --time."),
        click.option("--interval", default="1s", show_default=True, metavar="DURATION", help="Time between rows when there is no --time."),
        click.option("--seed", default=0, show_default=True, help="Of --label-delay, and of what `backtest` injects."),
        click.option("--rows", type=click.IntRange(min=1), metavar="N", help="Stop after this many rows."),
    ]
    decorated: Any = wrapped
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def _declaration(flag: str) -> tuple[str, ...]:
    return (flag, "class_name") if flag == "--class" else (flag,)


@dataclass(frozen=True, slots=True)
class FileMessages:
    """A file ready to be read: its messages, and the span and count where they are known."""

    path: str
    messages: RowMessages
    options: ColumnOptions
    as_text: frozenset[str]

    def __iter__(self) -> Iterator[list[Message]]:
        from driftline.streams.source_rows import file_messages
        from driftline.streams.source_score import parse_score_from

        score_from = parse_score_from(self.options.score_from) if self.options.score_from else None
        return file_messages(self.path, self.messages, score_from=score_from, rows=self.options.rows, as_text=self.as_text)

    def total(self) -> int | None:
        """How many rows there are, where the file says so."""
        from driftline.streams.source_file import count_rows

        known = count_rows(self.path)
        return known if self.options.rows is None else min(known or self.options.rows, self.options.rows)


def open_file(path: str, options: ColumnOptions, config: Config | None, *, start_ms: int) -> FileMessages:
    """The messages of a file, laid out as the configuration reads them.

    Raises
    ------
    Refusal : an option contradicts another.
    SourceFileError : the file cannot be read, or an option names no column of it.
    """
    from driftline.streams.source_file import column_names
    from driftline.streams.source_rows import RowMessages

    columns = column_names(path)
    mapping = _mapping(columns, options, config, start_ms)
    paths: dict[str, str] = {}
    as_text: frozenset[str] = frozenset()
    layout: dict[str, Any] = {}
    if config is not None:
        layout["fields"] = config.predictions[0].fields
        if config.labels:
            layout["label_fields"] = config.labels[0].fields
        features = {name: feature for model in config.models.values() for name, feature in (model.features or {}).items()}
        paths = {name: feature.path for name, feature in features.items() if feature.path is not None}
        as_text = frozenset(name for name, feature in features.items() if feature.kind == "categorical")
    return FileMessages(path, RowMessages(mapping, columns, feature_paths=paths, **layout), options, as_text)


def _mapping(columns: list[str], options: ColumnOptions, config: Config | None, start_ms: int) -> RowMapping:
    from driftline.schemas.durations import parse_duration_ms
    from driftline.streams.delay import parse_delay
    from driftline.streams.source_rows import RowMapping
    from driftline.streams.source_score import parse_score_from

    if options.label_time and options.label_delay:
        raise Refusal("--label-time and --label-delay: expected one of them")
    if options.score and options.score_from:
        raise Refusal("--score and --score-from: expected one of them")
    if (options.label_time or options.label_delay) and not options.label:
        raise Refusal("--label-time and --label-delay need --label COLUMN")
    try:
        delay = parse_delay(options.label_delay) if options.label_delay else None
        interval_ms = parse_duration_ms(options.interval)
        if options.score_from:
            parse_score_from(options.score_from)
    except ValueError as error:
        raise Refusal(str(error)) from error
    model = _model(options, config, columns)
    specs = _specs(model, config)
    features = _features(columns, options, specs)
    return RowMapping(
        features=features,
        model=model,
        id=options.id,
        time=options.time,
        start_ms=start_ms,
        interval_ms=interval_ms,
        label=options.label,
        label_time=options.label_time,
        label_delay=delay,
        seed=options.seed,
        version=options.version,
        score=options.score,
        class_=options.class_,
        latency_ms=options.latency,
        weight=options.weight,
        segments=_segments(columns, features, options, specs),
        model_fixed=options.model is None,
    )


def _model(options: ColumnOptions, config: Config | None, columns: list[str]) -> str:
    if options.model is not None:
        if config is not None and options.model not in columns and options.model not in config.models:
            known = ", ".join(f'"{name}"' for name in config.models)
            raise Refusal(f'--model "{options.model}": neither a column nor a model of the configuration, which has {known}')
        return options.model
    if config is None:
        raise Refusal("--model NAME is needed", hint="or -c CONFIG, when it has one model")
    if len(config.models) > 1:
        known = ", ".join(f'"{name}"' for name in config.models)
        raise Refusal(f"--model is needed: the configuration has {known}")
    return next(iter(config.models))


def _specs(model: str, config: Config | None) -> list[Model]:
    """What the configuration says of the model, or of each one where a column tells them apart."""
    if config is None:
        return []
    return [config.models[model]] if model in config.models else list(config.models.values())


def _features(columns: list[str], options: ColumnOptions, specs: list[Model]) -> tuple[str, ...]:
    dropped = set(_names(options.drop))
    unknown = sorted(dropped - set(columns))
    if unknown:
        raise Refusal(f'--drop "{unknown[0]}": no such column')
    if options.features is not None:
        return tuple(name for name in _names(options.features) if name not in dropped)
    declared = [spec.features for spec in specs if spec.features is not None]
    if specs and len(declared) == len(specs):
        names = dict.fromkeys(name for features in declared for name in features)
        return tuple(name for name in names if name in columns and name not in dropped)
    used = {options.id, options.time, options.label, options.label_time, options.score, options.class_, options.latency, options.weight}
    used |= {options.model, options.version, *(column for _, column in _pairs(options.segments))}
    for spec in specs:
        used |= set(_unit(columns, options, spec)[1:])
    return tuple(name for name in columns if name not in used and name not in dropped)


def _segments(columns: list[str], features: tuple[str, ...], options: ColumnOptions, specs: list[Model]) -> tuple[tuple[str, str], ...]:
    """(path, column) of the segments, and of the units, to send beside the features."""
    given = dict(_pairs(options.segments))
    rest = dict(given)
    out: dict[str, str] = {}
    for spec in specs:
        for name, segment in spec.segments.items():
            column = given.get(name, name)
            rest.pop(name, None)
            if column in columns and (name not in features or segment.path is not None):
                out.setdefault(segment.path or name, column)
    for spec in specs:
        path_of_unit, name_of_unit, column_of_unit = _unit(columns, options, spec)
        if column_of_unit in columns and path_of_unit not in features and path_of_unit not in out:
            out[path_of_unit] = column_of_unit
            rest.pop(name_of_unit, None)
    return (*out.items(), *((name, column) for name, column in rest.items() if name not in features))


def _unit(columns: list[str], options: ColumnOptions, spec: Model) -> tuple[str, str, str]:
    """Path, name and column of the unit; "" where there is none.

    The name is what `--segment` and the file call it: its path, or the last part of that, `card_id` of `segments.card_id`.
    """
    path = spec.unit or ""
    given = dict(_pairs(options.segments))
    name = path if path in columns or path in given else path.rpartition(".")[2]
    return path, name, given.get(name, name)


def _pairs(segments: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = [segment.partition("=") for segment in segments]
    return [(name, column or name) for name, _, column in pairs]


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()] if text else []
