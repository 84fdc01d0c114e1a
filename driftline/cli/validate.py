"""`driftline validate FILE...`: every mistake at once, else what the file will cost."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from driftline.cli.errors import EXIT_BAD_INPUT
from driftline.cli.output import note, output_option, write_json, write_rows

if TYPE_CHECKING:
    from driftline.schemas.config import Config
    from driftline.schemas.estimate import Estimate, KnownBaseline
    from driftline.schemas.problems import Problem


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False))
@click.option("--rate", type=float, default=100.0, show_default=True, metavar="N", help="Predictions a second, for the bytes a day.")
@output_option
def command(files: tuple[str, ...], rate: float, output: str) -> None:
    """Check configurations and print the series, Redis bytes, topic bytes a day and CPU per event they imply.

    Exit code 2 when any file has a mistake; all mistakes of all files are listed.
    """
    from driftline.schemas.loading import ConfigError, load_config

    failed = False
    for path in files:
        try:
            config = load_config(path)
            known = _baselines(config, path)
        except ConfigError as error:
            failed = True
            _show_problems(error, path, output)
            continue
        _show_cost(config, known, path, rate, output)
    if failed:
        sys.exit(EXIT_BAD_INPUT)


def _show_problems(error: Any, path: str, output: str) -> None:
    from driftline.schemas.problems import told

    if output == "json":
        for problem in error.problems:
            fields = ("line", "path", "expected", "got", "hint")
            write_json({"file": path, "valid": False, **{name: getattr(problem, name) for name in fields}})
        return
    for line in told(error.problems):
        note(f"error: {line}")
    count = len(error.problems)
    note(f"{path}: {count} mistake{'s' if count > 1 else ''}")


def _show_cost(config: Config, known: dict[str, KnownBaseline], path: str, rate: float, output: str) -> None:
    from driftline.schemas.estimate import estimate

    found = estimate(config, known, events_per_second=rate)
    totals = {
        "events_per_second": rate,
        "series": found.series,
        "redis_bytes": found.redis_bytes,
        "topic_bytes_per_day": found.topic_bytes_per_day,
        "cpu_us_per_event": round(found.cpu_us_per_event, 2),
        "cores": round(found.cores, 4),
    }
    models = [
        {
            "model": m.model,
            "features": m.features,
            "features_known": m.features_known,
            "scopes": m.scopes,
            "series": m.series,
            "series_by_group": dict(m.series_by_group),
            "redis_bytes": m.redis_bytes,
            "cpu_us_per_event": round(m.cpu_us, 2),
            "relearn_after": _relearn_after(config, m.model),
        }
        for m in found.models
    ]
    budgets = _budgets(config)
    topics = [{"topic": t.topic, "bytes_per_day": t.bytes_per_day, "bytes_kept": t.bytes_kept} for t in found.topics]
    if output == "json":
        write_json({"file": path, "valid": True, **totals, "models": models, "budgets": budgets, "topics": topics})
        return
    click.echo(f"{path}: valid")
    click.echo(f"at {rate:,.0f} predictions a second, to within a factor of two:")
    shown = [{**row, "redis": _bytes(m.redis_bytes), "cpu us": m.cpu_us} for row, m in zip(models, found.models, strict=True)]
    write_rows(shown, ["model", "features", "scopes", "series", "redis", "cpu us"], output)
    if not all(m["features_known"] for m in models):
        click.echo("features are learned from the data; 20 are assumed")
    grouped = {name: dict(baseline.grouping) for name, baseline in known.items() if baseline.grouping and config.models[name].false_alarms}
    for name, columns in grouped.items():
        own = ", ".join(f"{column} ({way})" for column, way in sorted(columns.items()))
        click.echo(f"{name}: judged against the values of their hour, as the baseline was built: {own}")
    for name in config.models:
        for words in _relearn_words(config, name):
            click.echo(words)
    without = [name for name, model in config.models.items() if model.false_alarms is None]
    if without:
        names = ", ".join(without)
        click.echo(f"{names}: no false_alarms, so each detector alarms by its own setting; `false_alarms: 1 per week` bounds all")
    if budgets:
        click.echo()
        click.echo("budget of false alarms, all series of a part together:")
        write_rows(budgets, ["model", "series", "age", "at most"], output)
    click.echo()
    sizes = [{"topic": t.topic, "a day": _bytes(t.bytes_per_day), "kept": _bytes(t.bytes_kept)} for t in found.topics]
    write_rows(sizes, ["topic", "a day", "kept"], output)
    click.echo()
    click.echo(_summary(found))


def _relearn_after(config: Config, name: str) -> dict[str, int | None]:
    """Values from which a reference is learned anew: of the model's series, under "*", and of features that say otherwise; null = never."""
    model = config.models[name]
    said = {"*": model.after_change}
    said |= {feature: one.after_change for feature, one in (model.features or {}).items() if one.after_change is not None}
    return {series: None if one == "keep" else one.relearn_after for series, one in said.items()}


def _relearn_words(config: Config, name: str) -> Iterator[str]:
    """What a person is told of it; nothing where every reference is kept."""
    after = _relearn_after(config, name)
    own = ", ".join(f"{feature} {'never' if n is None else f'{n:,}'}" for feature, n in after.items() if feature != "*")
    if all(n is None for n in after.values()):
        return
    whole = "references are kept" if after["*"] is None else f"a change that stays for {after['*']:,} values is learned as what is normal"
    yield f"{name}: {whole}{f' (features: {own})' if own else ''}; what is watched to one side, as losses and missing values, never is"
    if config.models[name].false_alarms is None:
        yield f"{name}: without false_alarms nothing is followed after its change: so many rows without another alarm count instead"


def _budgets(config: Config) -> list[dict[str, str]]:
    """How each model's budget is split; a part is one of `driftline.schemas.budget`."""
    from driftline.schemas.budget import parse_false_alarms, parts
    from driftline.schemas.durations import duration_text

    rows = []
    for name, model in config.models.items():
        if model.false_alarms is None:
            continue
        allowed = parse_false_alarms(model.false_alarms)
        period = model.false_alarms.split(" per ", 1)[1].strip()
        for part in parts(model.labels.ages if config.labels else ()):
            age = "" if part.age is None else "auto" if part.age == "auto" else duration_text(int(part.age))
            rows.append({"model": name, "series": part.panel, "age": age, "at most": f"{allowed.count * part.share:.3g} per {period}"})
    return rows


def _summary(found: Estimate) -> str:
    parts = [
        f"series {found.series:,}",
        f"redis {_bytes(found.redis_bytes - found.waiting_label_bytes)} of state"
        + (f" and at most {_bytes(found.waiting_label_bytes)} of waiting labels" if found.waiting_label_bytes else ""),
        f"topics {_bytes(found.topic_bytes_per_day)} a day",
        f"cpu {found.cpu_us_per_event:.1f} us an event = {found.cores:.2g} cores",
    ]
    return "; ".join(parts)


def _baselines(config: Config, path: str) -> dict[str, KnownBaseline]:
    """What the baseline files of the configuration tell.

    Raises
    ------
    ConfigError : a baseline file is damaged, or another model's.
    """
    if all(model.baseline.file is None for model in config.models.values()):
        return {}
    from driftline.detectors.spec import BaselineError
    from driftline.schemas.estimate import KnownBaseline
    from driftline.schemas.problems import ConfigError
    from driftline.streams.detect.reference import configured_baselines

    known: dict[str, KnownBaseline] = {}
    problems = []
    for name, model in config.models.items():
        try:
            panels = configured_baselines(config.model_copy(update={"models": {name: model}})).get(name, {})
        except BaselineError as error:
            problems.append(_unusable(path, name, str(error)))
            continue
        features = panels.get("features")
        if features is not None:
            kinds: dict[str, Any] = {c.name: c.kind for c in features.columns if c.kind != "binary" and not c.factor_names}
            grouping = {column: way for panel in panels.values() for column, way in panel.grouping().items()}
            known[name] = KnownBaseline(kinds, {key: len(values) for key, values in features.segments.items()}, grouping)
    if problems:
        raise ConfigError(problems)
    return known


def _unusable(path: str, model: str, finding: str) -> Problem:
    from driftline.schemas.document import read_document
    from driftline.schemas.problems import Flaw, from_flaw

    root, _ = read_document(Path(path).read_text("utf-8-sig"))
    return from_flaw(Flaw(("models", model, "baseline", "file"), "a baseline of this model", finding), root, path)


def _bytes(size: int) -> str:
    """A size as a person reads it, in powers of 1,000."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1_000:
            return f"{value:.3g} {unit}"
        value /= 1_000
    return f"{value:.3g} PB"
