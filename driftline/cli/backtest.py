"""`driftline backtest`: a configuration tried on rows of the past, before it goes live."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from driftline.cli.changes import ChangeOptions, change_options
from driftline.cli.columns import ColumnOptions, column_options
from driftline.cli.errors import Refusal
from driftline.cli.output import Progress, config_option, note, output_option, write_json, write_rows
from driftline.cli.times import iso, parse_time_ms

if TYPE_CHECKING:
    from driftline.backtest.alarms import Account, Quiet
    from driftline.backtest.changes import Change
    from driftline.backtest.recording import Recording
    from driftline.backtest.report import ModelReport
    from driftline.backtest.run import Found
    from driftline.backtest.suggest import Suggestion
    from driftline.backtest.trials import Asked, Trial
    from driftline.schemas.config import Config

_RUNS = ["change", "size", "feature", "start", "outcome", "series", "segment", "detector", "events", "time", "accused"]
_STEPS = ["false_alarms", "alarms", "quiet_alarms", "runs", "found", "delay_rows_median", "delay_rows_worst"]
_POINTS = 300
_SERIES_SHOWN = 25
_ALARMS = ["series", "segment", "alarms", "first", "last", "severity", "effect", "open"]


@click.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False))
@config_option
@click.option("--topic", "from_topic", is_flag=True, help="Read the observations topic instead of a file.")
@click.option("--from", "begin", default="earliest", show_default=True, metavar="TIME", help="Where to begin, with --topic.")
@click.option("--to", "end", metavar="TIME", help="Where to end, with --topic.  [default: the end]")
@click.option("--quiet", "quiet", multiple=True, metavar="FROM/TO|all", help="Times in which nothing changed; may repeat.")
@click.option("--suggest/--no-suggest", default=True, show_default=True, help="Run other budgets and levels too, and say which to try.")
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write the report with pictures, as one page.")
@change_options
@column_options
@output_option
def command(
    file: str | None, config_path: str, from_topic: bool, begin: str, end: str | None, quiet: tuple[str, ...], columns: ColumnOptions,
    changes: ChangeOptions, suggest: bool, page: Path | None, output: str,
) -> None:  # fmt: skip
    """Try a configuration on rows of the past: alarms against what was asked for, and changes put into the rows.

    The rows are read once as they are; then changes are put into their second part, one at a time, and the report
    says which were found and how late, and which budget and levels to try next.

    Takes what `replay` takes and runs what it runs; needs no Kafka and no Redis, and publishes nothing.

    \b
    driftline backtest bookings.csv.gz -c hotels.yml --time booked_at --label y --label-time label_at \\
        --score-from logistic:y:20000
    """  # noqa: D301
    from driftline.detectors.kernels.compiling import compiling_told
    from driftline.schemas.loading import load_config

    config = load_config(config_path)
    if (file is not None) == from_topic:
        raise Refusal("expected a FILE or --topic, not both" if from_topic else "expected a FILE, or --topic")
    if file is None and columns.model is not None and columns.model not in config.models:
        known = ", ".join(f'"{name}"' for name in config.models)
        raise Refusal(f'--model "{columns.model}": not a model of the configuration, which has {known}')
    ranges = [_range(text) for text in quiet]
    asked = changes.asked(columns.seed)
    with compiling_told(note):
        if file is None:
            config, recording = _from_topic(config, begin, end)
        else:
            recording = _from_file(config, file, columns)
        session = _Session(config, recording, ranges, suggest, points=None if page is None else _POINTS)
        reports = session.reports(_models(config, recording, columns.model), asked)
    if page is not None:
        from driftline.backtest.page import render

        page.write_text(render(f"Backtest of {file or 'a topic'} under {config_path}", reports, session.base), encoding="utf-8")
        note(f"{page}: the report with pictures")
    if output == "json":
        write_json({"seed": columns.seed, "models": {report.account.model: report.as_json() for report in reports}})
    else:
        for report in reports:
            _show(report)


class _Session:
    """The runs of one call, with what they need.

    Parameters
    ----------
    points : of a line in a picture; None = no pictures.
    """

    def __init__(self, config: Config, recording: Recording, quiet: Quiet, suggest: bool, *, points: int | None) -> None:
        from driftline.backtest.run import Detect

        self._config = config
        self._recording = recording
        self._quiet = quiet
        self._suggest = suggest
        most = max((rows.count for rows in recording.models.values()), default=0)
        self._detect = Detect(config, recording, snapshot_every=None if points is None else max(most // points, 10))
        self._seconds = 0.0
        self.base: Found

    def reports(self, names: list[str], asked: Asked) -> list[ModelReport]:
        """Run the rows as they are, then every change, then the settings to try."""
        from driftline.backtest.alarms import account
        from driftline.backtest.report import ModelReport
        from driftline.backtest.suggest import Suggestion
        from driftline.backtest.trials import changes_of, places, try_changes

        recording = self._recording
        where = {name: places(name, self._config.models[name], recording, asked) for name in names} if asked.kinds != () else {}
        stops = [stop for name, found in where.items() for stop in found.stops(name, recording.models[name])]
        begun = time.monotonic()
        with Progress("the rows as they are", len(recording.records)) as progress:
            whole = self._detect.whole(stops, progress.advance)
        self._seconds = time.monotonic() - begun
        self.base = whole.found
        changes = {name: changes_of(whole.models[name], recording, where[name], asked) for name in where}
        self._say_how_long(changes)
        reports = []
        for name in names:
            rows = recording.models[name]
            with Progress(f"changes in {name}", len(changes.get(name, ()))) as progress:
                trials = try_changes(self._detect, whole, recording, changes.get(name, ()), progress.advance)
            found = account(whole.models[name], rows, whole.found.events, self._quiet)
            suggestion = self._suggestion(found, trials) if self._suggest else Suggestion()
            reports.append(ModelReport(found, rows.times, tuple(trials), suggestion))
        return reports

    def _suggestion(self, found: Account, trials: list[Trial]) -> Suggestion:
        from driftline.backtest.suggest import Bench, step_of, suggest, to_find

        with Progress(f"settings for {found.model}") as progress:
            bench = Bench(self._config, self._recording, found.model, to_find(trials), self._quiet, lambda _: progress.advance(1))
            now = self._config.models[found.model].false_alarms
            judged = [trial for trial in trials if trial.change in bench.changes]
            step = step_of(now, found.count, len(found.quiet) if self._quiet else None, judged)
            return suggest(bench, step, found.alarms)

    def _say_how_long(self, changes: dict[str, list[Change]]) -> None:
        """A run costs what its records cost in the run over all of them."""
        from driftline.backtest.changes import span

        runs = [span(change, self._recording.models[name]) for name, group in changes.items() for change in group]
        if not runs:
            return
        share = sum(run[1] - run[0] for run in runs if run is not None) / max(len(self._recording.records), 1)
        about = self._seconds * share
        most = f", then up to four budgets: up to {4 * self._seconds * (1 + share):,.0f} s more" if self._suggest else ""
        note(f"{len(runs)} runs with a change each: about {about:,.0f} s{most}")


def _models(config: Config, recording: Recording, model: str | None) -> list[str]:
    """The models to report on: those of the configuration that have rows."""
    found = [name for name in config.models if name in recording.models and (model not in config.models or model == name)]
    if not found:
        raise Refusal(
            f"no rows of {model or ', '.join(config.models)} to try the configuration on",
            hint="does the file's `model` field, or --model, name a model of the configuration?",
        )
    return found


def _from_file(config: Config, file: str, columns: ColumnOptions) -> Recording:
    from driftline.backtest.recording import Recorder
    from driftline.cli.records import feed_file
    from driftline.streams.counters import MemoryCounters

    counters = MemoryCounters()
    recorder = Recorder(config, counters)
    return feed_file(config, file, columns, recorder.feed, lambda: recorder.finish(mature=True), counters=counters, what="read")


def _from_topic(config: Config, begin: str, end: str | None) -> tuple[Config, Recording]:
    """The recording, and the configuration under which it may be read."""
    from driftline.backtest.recording import record_topic
    from driftline.cli.kafka import admin, read_from, read_topic
    from driftline.schemas.topics import OBSERVATIONS
    from driftline.streams.kafka import read_cluster
    from driftline.streams.wiring import topics_of

    now_ms = int(time.time() * 1_000)
    from_ms = parse_time_ms(begin, option="--from", now_ms=now_ms)
    to_ms = None if end is None else parse_time_ms(end, option="--to", now_ms=now_ms)
    cluster = read_cluster(admin(config.kafka), topics_of("detect", config))
    topic = OBSERVATIONS.full_name(config.topics.prefix)
    with Progress(f"read {topic}") as progress:
        messages = _counted(read_topic(config.kafka, topic, from_ms=from_ms, to_ms=to_ms), progress)
        return read_from(config, from_ms), record_topic(cluster, messages)


def _counted(messages: Iterator[Any], progress: Progress) -> Iterator[Any]:
    for message in messages:
        yield message
        progress.advance(1)


def _range(text: str) -> tuple[int, int]:
    """``FROM/TO`` in ms; ``all`` is everything."""
    if text == "all":
        return 0, 1 << 62
    start, slash, stop = text.partition("/")
    if not slash:
        raise Refusal(f'--quiet "{text}": expected all, or FROM/TO such as 2026-01-01/2026-01-15')
    now_ms = int(time.time() * 1_000)
    first, last = (parse_time_ms(part, option="--quiet", now_ms=now_ms) for part in (start, stop))
    if first >= last:
        raise Refusal(f'--quiet "{text}": ends before it begins')
    return first, last


def _show(report: ModelReport) -> None:
    from driftline.backtest.alarms import by_series, sentence
    from driftline.backtest.report import change_sentences, run_json

    click.echo(sentence(report.account))
    rows = [_alarm_row(row) for row in by_series(report.account.alarms)]
    if rows:
        write_rows(rows[:_SERIES_SHOWN], _ALARMS, "table")
    if len(rows) > _SERIES_SHOWN:
        click.echo(f"and {len(rows) - _SERIES_SHOWN} series with fewer or quieter alarms: -o json and --html have all")
    if report.trials:
        click.echo("")
        write_rows([_run_row(run_json(trial)) for trial in report.trials], _RUNS, "table")
        click.echo("")
        for line in change_sentences(report.trials):
            click.echo(line)
    if report.suggestion.sentences:
        click.echo("")
        write_rows([step.as_json() for step in report.suggestion.steps], _STEPS, "table")
        for line in report.suggestion.sentences:
            click.echo(line)
    click.echo("")


def _alarm_row(row: dict[str, Any]) -> dict[str, Any]:
    from driftline.backtest.alarms import effect_words

    effect = None if row["effect"] is None else effect_words(row["effect_kind"], row["effect"])
    return row | {"first": iso(row["first_ms"]), "last": iso(row["last_ms"]), "effect": effect}


def _run_row(run: dict[str, Any]) -> dict[str, Any]:
    from driftline.backtest.alarms import duration_words

    delay = None if run["delay_ms"] is None else duration_words(run["delay_ms"])
    return run | {"events": run["delay_rows"], "time": delay, "start": run["start_row"]}
