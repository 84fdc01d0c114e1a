"""`driftline baseline build|ls`: reference distributions from a file or a topic, without a single raw row in them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from driftline.cli.columns import ColumnOptions, column_options
from driftline.cli.errors import Refusal
from driftline.cli.output import Progress, note, output_option, write_json, write_rows
from driftline.cli.times import parse_time_ms

if TYPE_CHECKING:
    from driftline.detectors.baseline import Baseline
    from driftline.schemas.config import Config
    from driftline.streams.task import Output, Record

_COLUMNS = ["file", "model", "panel", "id", "rows", "columns", "by_hour", "segments", "source"]
_FROM_FILE = "Rows: CSV, .csv.gz or Parquet; or .jsonl(.gz) of raw messages, as `publish --print` writes."


@click.group()
def command() -> None:
    """Reference distributions: immutable files, named by their hash."""


@command.command()
@click.argument("config_path", metavar="CONFIG", type=click.Path(dir_okay=False))
@click.option("--from-file", type=click.Path(exists=True, dir_okay=False), help=_FROM_FILE)
@click.option("--from-topic", is_flag=True, help="The topics of the configuration, a range of them.")
@click.option("--from", "begin", default="earliest", show_default=True, metavar="TIME|OFFSET", help="With --from-topic.")
@click.option("--to", "end", metavar="TIME", help="With --from-topic; labels are read to the end.  [default: the end]")
@click.option(
    "--target",
    "-o",
    "target",
    type=click.Path(dir_okay=False),
    help="The file to write; how the result is shown is --format.  [default: MODEL.baseline.json]",
)
@click.option("--force", is_flag=True, help="Overwrite the file.")
@click.option(
    "--format",
    "output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to show what was built; other commands call it -o, which is the file here.",
)
@column_options
def build(
    config_path: str,
    from_file: str | None,
    from_topic: bool,
    begin: str,
    end: str | None,
    target: str | None,
    force: bool,
    output: str,
    columns: ColumnOptions,
) -> None:
    """Build the baseline of a model: bins, categories, counts and means of every feature, score and outcome.

    \b
    driftline baseline build hotels.yml --from-file train.csv.gz --time booked_at --label y --label-time label_at \\
        -o hotels.baseline.json
    """  # noqa: D301
    if (from_file is not None) == from_topic:
        raise Refusal("expected one of --from-file and --from-topic")
    config = _without_files(config_path)
    model, column = _model(config, columns.model)
    path = Path(target or f"{model}.baseline.json")
    if path.exists() and not force:
        raise Refusal(f'"{path}" exists', hint="a baseline is immutable: write another file, or --force")
    if from_file is not None:
        if not column:
            _check_not_mixed(config, model, from_file)
        source, batches = os.path.basename(from_file), _file_batches(config, from_file, replace(columns, model=column or columns.model))
    else:
        source, batches = f"topic {config.predictions[0].topic} {begin} to {end or 'end'}", _topic_batches(config, begin, end)
    from driftline.detectors.kernels.compiling import compiling_told

    with compiling_told(note):
        baselines = _learn(config, model, batches, source)
    from driftline.streams.detect.reference import save_baselines, unit_of

    save_baselines(path, model=model, source=source, baselines=baselines, unit=unit_of(config.models[model]))
    _show([_row(path, model, source, panel, baseline) for panel, baseline in baselines.items()], output)
    note(f"use it with `baseline: {{file: {path.name}}}` under models.{model}")


@command.command(name="ls")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True))
@output_option
def list_files(paths: tuple[str, ...], output: str) -> None:
    """List the baselines in files or folders; a damaged file is an error."""
    from driftline.detectors.spec import BaselineError
    from driftline.streams.detect.reference import read_baselines

    rows = []
    for path in _files(paths):
        try:
            content = read_baselines(path)
        except BaselineError as error:
            raise Refusal(str(error)) from error
        rows += [_row(path, content["model"], content["source"], panel, baseline) for panel, baseline in content["panels"].items()]
    if not rows:
        raise Refusal(f"no baseline files in {', '.join(paths)}", hint="`driftline baseline build` makes one")
    _show(rows, output)


def _show(rows: list[dict[str, Any]], output: str) -> None:
    if output == "json":
        for row in rows:
            write_json(row)
    else:
        write_rows(rows, _COLUMNS, output)


def _row(path: Path, model: str, source: str, panel: str, baseline: Baseline) -> dict[str, Any]:
    segments = {key: len(values) for key, values in baseline.segments.items()}
    return {
        "file": str(path),
        "model": model,
        "panel": panel,
        "id": baseline.id,
        "rows": baseline.rows,
        "columns": len(baseline.columns),
        "by_hour": baseline.grouping(),
        "segments": segments,
        "source": source,
    }


def _files(paths: Iterable[str]) -> Iterator[Path]:
    """The paths themselves, and the baseline files directly in folders."""
    for text in paths:
        path = Path(text)
        if not path.is_dir():
            yield path
            continue
        for candidate in sorted(path.glob("*.json")):
            try:
                content = json.loads(candidate.read_bytes())
            except (OSError, ValueError):
                continue
            if isinstance(content, dict) and content.get("format") == "driftline-baselines":
                yield candidate


def _without_files(config_path: str) -> Config:
    """The configuration with every baseline learned: the file that it names may be the one to build."""
    from driftline.schemas.loading import parse_config
    from driftline.schemas.problems import ConfigError, Problem

    try:
        text = Path(config_path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError([Problem(config_path, 1, "", "", "a readable file", error.strerror or "")]) from None
    config = parse_config(text, name=config_path)
    models = {}
    for name, model in config.models.items():
        learned = model.baseline.model_copy(update={"file": None})
        models[name] = model.model_copy(update={"baseline": learned})
    return config.model_copy(update={"models": models})


def _model(config: Config, given: str | None) -> tuple[str, str]:
    """The model, and the column that tells its rows from those of others; "" = all rows are its own."""
    if given is not None and given in config.models:
        return given, ""
    if given is None and len(config.models) == 1:
        return next(iter(config.models)), ""
    column, _, name = (given or "").rpartition("=")
    if column and name in config.models:
        return name, column
    known = ", ".join(f'"{name}"' for name in config.models)
    hint = "--model NAME takes every row of a file for the model's, --model COLUMN=NAME those whose column says so"
    raise Refusal(f"--model: expected one of {known}" + (f', got "{given}"' if given else ""), hint=hint)


def _check_not_mixed(config: Config, model: str, path: str) -> None:
    """Refuse a file whose column of models nobody looks at: the baseline would be of all of them."""
    from driftline.streams.source_file import column_names, is_messages

    column = config.predictions[0].fields.model.rpartition(".")[2]
    if len(config.models) > 1 and not is_messages(path) and column in column_names(path):
        hint = f"--model {column}={model} takes the rows of this model; rename the column if it says something else"
        raise Refusal(f'"{path}" has a column "{column}", and --model {model} would take every row', hint=hint)


def _file_batches(config: Config, path: str, columns: ColumnOptions) -> Iterator[list[Any]]:
    from driftline.cli.records import record_batches

    return record_batches(config, path, columns)[1]


def _topic_batches(config: Config, begin: str, end: str | None) -> Iterator[list[Any]]:
    """Predictions of the range, then labels from its beginning on: the join matches them at the end."""
    from itertools import islice

    from driftline.cli.kafka import read_topic

    now_ms = int(time.time() * 1_000)
    offset = int(begin) if begin.isdigit() else None
    from_ms = 0 if offset is not None else parse_time_ms(begin, option="--from", now_ms=now_ms)
    to_ms = parse_time_ms(end, option="--to", now_ms=now_ms) if end else None
    for source in config.predictions:
        records = read_topic(config.kafka, source.topic, from_ms=from_ms, to_ms=to_ms, offset=offset)
        while batch := list(islice(records, 10_000)):
            yield batch
    for labels in config.labels:
        records = read_topic(config.kafka, labels.topic, from_ms=from_ms)
        while batch := list(islice(records, 10_000)):
            yield batch


def _learn(config: Config, model: str, batches: Iterator[list[Record]], source: str) -> dict[str, Baseline]:
    from driftline.detectors.spec import BaselineError
    from driftline.streams.counters import MemoryCounters
    from driftline.streams.detect.plan import ModelPlan
    from driftline.streams.detect.reference import ReferenceLearner
    from driftline.streams.observation import decode
    from driftline.streams.replay import Replay, file_cluster
    from driftline.streams.wiring import make_ingest, make_joins

    cluster = file_cluster(config)
    counters = MemoryCounters()
    learner = ReferenceLearner(ModelPlan.of(model, config.models[model]))
    observations = f"{config.topics.prefix}.observations"

    def learn(output: Output) -> None:
        if output.topic == observations and output.value is not None:
            learner.add(decode(output.value))

    replay = Replay([make_ingest(config, cluster, counters), *make_joins(config, cluster, counters)], cluster, learn)
    with Progress(f"baseline from {source}") as progress:
        for batch in batches:
            replay.feed(batch)
            progress.advance(len(batch))
        replay.finish(mature=True)
    refused = counters.value("records", outcome="invalid")
    if refused:
        note(f"warning: {refused:,} records were refused")
    try:
        return learner.finish()
    except BaselineError as error:
        raise Refusal(str(error)) from error
