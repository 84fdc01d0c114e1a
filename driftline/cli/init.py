"""`driftline init`: a commented configuration from a sample, with what was left out and why."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from driftline.cli.errors import Failure, Refusal
from driftline.cli.inference import Verdict, infer, label_candidates, leaf
from driftline.cli.lists import vector_columns
from driftline.cli.output import note
from driftline.cli.roles import OF_LABELS, Given, resolve, role_options
from driftline.schemas.durations import duration_text

if TYPE_CHECKING:
    from driftline.cli.draft import Draft
    from driftline.cli.sample import Sample

_FIELDS = {name: name for name in ("id", "time", "model", "version", "score", "class")}
_FIELDS |= {"latency": "latency_ms", "weight": "sample_weight"}
"""Role to the default path of its field."""
_MODELS_MAX = 5
_PREFIX_NAME_MAX = 100  # Kafka's names have at most 249 characters
_AGE_MAX_MS = 45 * 86_400_000  # within the 60 days that waiting rows are kept, with room for a stop of the join


@click.command()
@click.option("--from-file", type=click.Path(exists=True, dir_okay=False), help="A CSV, .csv.gz or Parquet file of past rows.")
@click.option("--from-topic", metavar="TOPIC", help="A topic of predictions.")
@click.option("--labels-topic", metavar="TOPIC", help="The topic of labels, with --from-topic; its name to be, with --from-file.")
@click.option("-b", "--bootstrap", default="localhost:9092", show_default=True, help="Broker address.")
@click.option("--model", help="A column that names the model, or else its name.  [default: from the sample, else the file's name]")
@role_options
@click.option("--sample", "rows", type=click.IntRange(min=10), default=20_000, show_default=True, metavar="N", help="Rows to look at.")
@click.option("-o", "--output", "target", type=click.Path(dir_okay=False), default="driftline.yml", show_default=True, help="- is stdout.")
@click.option("--force", is_flag=True, help="Overwrite the file.")
def command(
    from_file: str | None,
    from_topic: str | None,
    labels_topic: str | None,
    bootstrap: str,
    model: str | None,
    rows: int,
    target: str,
    force: bool,
    given: Given,
) -> None:
    """Look at a sample and write a configuration: features and their kinds, score, label, segments.

    Ids, timestamps and free text are left out, and the file says why; --id, --time, --label, --score and the like name what is
    guessed wrong. Nothing is ever overwritten without --force.

    \b
    driftline init --from-file bookings.csv.gz --label y -o hotels.yml
    driftline init --from-topic fraud.predictions --labels-topic fraud.labels -b broker:9092
    """  # noqa: D301
    if (from_file is None) == (from_topic is None):
        raise Refusal("expected one of --from-file and --from-topic")
    if target != "-" and os.path.exists(target) and not force:
        raise Refusal(f'"{target}" exists', hint="--force overwrites it; -o names another")
    if from_file is not None:
        draft = _from_file(from_file, labels_topic, bootstrap, model, rows, target, given)
    else:
        draft = _from_topic(str(from_topic), labels_topic, bootstrap, model, rows, target, given)
    _decide(draft, given)
    text = _checked(draft)
    if target == "-":
        click.echo(text, nl=False)
        return
    Path(target).write_text(text, encoding="utf-8")
    kept = sum(v.role == "feature" for v in draft.verdicts)
    dropped = sum(v.role == "left_out" for v in draft.verdicts)
    several = f"{len(draft.models)} models, " if len(draft.models) > 1 else ""
    note(f"{target}: {several}{kept} features, {dropped} columns left out; next: driftline validate {shlex.quote(target)}")


def _decide(draft: Draft, given: Given) -> None:
    """The threshold of the answer, where there is one to choose."""
    if given.decision is None:
        return
    if draft.task != "binary":
        raise Refusal(f"--decision {given.decision:g}: the label makes this a {draft.task} model, and a threshold is for yes and no")
    draft.decision = given.decision


def _checked(draft: Draft) -> str:
    """The text, once `validate` accepts it."""
    from driftline.cli.draft import write_draft
    from driftline.schemas.loading import ConfigError, parse_config

    text = write_draft(draft)
    try:
        parse_config(text, name="the draft")
    except ConfigError as error:
        raise Failure(f"the draft does not validate; please report this\n{error}") from error
    return text


def _from_file(
    path: str, labels_topic: str | None, bootstrap: str, model: str | None, rows: int, target: str, given: Given
) -> Draft:
    from driftline.cli.draft import Draft
    from driftline.cli.sample import sample_file

    sample = sample_file(path, rows)
    given = resolve(given, sample.columns, source=f'"{path}"')
    if model is not None and model in sample.columns and model not in given.roles.values():
        given, model = replace(given, roles={**given.roles, "model": model}), None
    verdicts = infer(sample.columns, given.roles, given.drop, labelled=True)
    roles = {v.role: v for v in verdicts}
    name = model or _name_of(path)
    label = roles.get("label")
    notes: list[str] = []
    models = _models_in(sample.columns[roles["model"].name], model, notes) if "model" in roles else [name]
    draft = Draft(
        source=os.path.basename(path),
        rows=sample.rows,
        bootstrap=bootstrap,
        topic=f"{name}.predictions",
        labels_topic=(labels_topic or f"{name}.labels") if label is not None or labels_topic else None,
        models=models,
        prefix=_prefix(target, name),
        notes=notes,
        verdicts=verdicts,
        root="",
        task=_task(label),
        pairs=_pairs(sample, verdicts),
        vectors=vector_columns(sample.columns),
    )
    if "time" in roles and "label_time" in roles:
        _measure_age(draft, sample, roles["time"].name, roles["label_time"].name)
    if label is None and (candidates := label_candidates(verdicts)):
        draft.notes.append(f"No column was taken for the label. If one of {', '.join(candidates[:5])} is it, name it with --label.")
    if "model" in roles and model is not None and model not in map(str, sample.columns[roles["model"].name]):
        del roles["model"]   # `publish` then sends that name, whatever the column says
    draft.notes += ["Send the file with:", f"  {_publish_command(path, target, roles)}"]
    return draft


def _publish_command(path: str, target: str, roles: dict[Any, Verdict]) -> str:
    words = ["driftline", "publish", path, "-c", target if target != "-" else "driftline.yml"]
    flags = {"id": "--id", "time": "--time", "label": "--label", "label_time": "--label-time", "score": "--score", "class": "--class"}
    flags |= {"model": "--model", "version": "--version", "latency": "--latency", "weight": "--weight"}
    for role, flag in flags.items():
        if role in roles and not (role == "label_time" and "label" not in roles):
            words += [flag, roles[role].name]
    if "score" not in roles and "label" in roles and roles["label"].profile.distinct == 2:
        words += ["--score-from", f"logistic:{roles['label'].name}:5000"]
    return shlex.join(words)


def _measure_age(draft: Draft, sample: Sample, time: str, label_time: str) -> None:
    """The 95th percentile of the labels' delay in the sample, rounded up to whole hours or days."""
    import numpy as np
    import pyarrow as pa

    from driftline.streams.source_file import NO_TIME, times_ms

    begun, ended = times_ms(pa.array(sample.columns[time])), times_ms(pa.array(sample.columns[label_time]))
    known = (begun != NO_TIME) & (ended != NO_TIME) & (ended >= begun)
    if known.sum() < 20:
        return
    delay = float(np.percentile((ended - begun)[known], 95))
    unit = 86_400_000 if delay > 172_800_000 else 3_600_000 if delay > 7_200_000 else 60_000
    age_ms = max(1, int(np.ceil(delay / unit))) * unit
    draft.age_ms = min(age_ms, _AGE_MAX_MS)
    draft.age_note = "95 % of the sample's labels come within this"
    if age_ms > _AGE_MAX_MS:
        draft.age_note = f"it takes {duration_text(age_ms)} for 95 % of the sample's labels; the waiting topic keeps 60 days"


def _task(label: Verdict | None) -> str:
    if label is None:
        return "binary"
    if label.profile.distinct <= 2:
        return "binary"
    return "regression" if label.profile.numeric and label.profile.distinct > 20 else "multiclass"


def _name_of(path: str) -> str:
    stem = re.sub(r"(\.(csv|parquet|pq|gz|tsv|txt))+$", "", os.path.basename(path), flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_") or "model"


def _prefix(target: str, otherwise: str) -> str:
    """What starts the names of our topics, groups and keys: no other file's, or two installations would share them.

    Parameters
    ----------
    otherwise : what tells the file apart where its own name is the default, which many files have.
    """
    stem = re.sub(r"\.ya?ml$", "", os.path.basename(target), flags=re.IGNORECASE)
    name = otherwise.removesuffix(".predictions") if stem in ("-", "driftline") else stem
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:_PREFIX_NAME_MAX]
    return f"driftline.{safe}" if safe else "driftline"


def _from_topic(topic: str, labels_topic: str | None, bootstrap: str, model: str | None, rows: int, target: str, given: Given) -> Draft:
    from driftline.cli.draft import Draft
    from driftline.cli.sample import sample_topic
    from driftline.schemas.config import Kafka

    kafka = Kafka(bootstrap=bootstrap)
    sample = sample_topic(kafka, topic, rows)
    # With a topic of labels the truth is a field of its events; without one it can only stand here, and must be no feature.
    here = resolve(given, sample.columns, source=f'topic "{topic}"', without=OF_LABELS if labels_topic is not None else ())
    verdicts = infer(*_within(sample, here))
    roles = {v.role: v for v in verdicts}
    draft = Draft(topic, sample.rows, bootstrap, topic, labels_topic, ["model"], _prefix(target, topic), verdicts)
    draft.root = _feature_root(verdicts)
    draft.pairs = _pairs(sample, verdicts)
    draft.vectors = vector_columns(_within(sample, here)[0])
    draft.fields = _mapping(roles, sample, here)
    if draft.root != "features":
        draft.fields["features"] = draft.root
    draft.models = _models(roles, sample, model, topic, draft)
    if sample.unreadable:
        draft.notes.append(f"{sample.unreadable:,} records were not JSON objects; they would go to the dead-letter topic.")
    if "id" not in roles and "id" not in here.roles:
        draft.notes.append("No field was unique in the sample: check `id`, labels join by it.")
    if labels_topic is not None:
        draft.label_fields, draft.task = _label_mapping(sample_topic(kafka, labels_topic, rows), draft, given, labels_topic)
    return draft


def _pairs(sample: Sample, verdicts: Sequence[Verdict]) -> list[tuple[str, str, float]]:
    """Numeric features that go together most."""
    from driftline.cli.correlated import most_correlated

    return most_correlated({v.name: sample.columns[v.name] for v in verdicts if v.role == "feature" and v.kind == "numeric"})


def _feature_root(verdicts: Sequence[Verdict]) -> str:
    """The object that holds most features."""
    parents = Counter(v.name.rpartition(".")[0] for v in verdicts if v.role == "feature")
    return parents.most_common(1)[0][0] if parents else "features"


def _within(sample: Sample, given: Given) -> tuple[dict[str, list[Any]], dict[str, str], tuple[str, ...]]:
    """The fields inside the events, with what is said of them: key and headers are no features, and are taken only where named."""
    events = {name: values for name, values in sample.columns.items() if name != "key" and not name.startswith("header:")}
    return events, {role: name for role, name in given.roles.items() if name in events}, tuple(n for n in given.drop if n in events)


def _mapping(roles: dict[Any, Verdict], sample: Sample, given: Given) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for role, default in _FIELDS.items():
        found = given.roles.get(role) or (roles[role].name if role in roles else None)
        if role == "id" and found is None and "key" in sample.columns:
            found = "key"
        name = default if role == "latency" else role
        if found is not None and found != default:
            fields[name] = found
        if found is None and role == "time":
            fields[name] = None
    return fields


def _models(roles: dict[Any, Verdict], sample: Sample, model: str | None, topic: str, draft: Draft) -> list[str]:
    """The models named in the events; a topic that names none gets a fixed one."""
    if "model" not in roles:
        name = model or re.sub(r"[^A-Za-z0-9_-]+", "_", topic.split(".")[0])
        draft.fields["model"] = f"const:{name}"
        return [name]
    return _models_in(sample.columns[roles["model"].name], model, draft.notes)


def _models_in(values: Sequence[Any], model: str | None, notes: list[str]) -> list[str]:
    """The commonest names, or the one that was asked for; a note where some are left out."""
    names = [name for name, _ in Counter(str(value) for value in values if value is not None).most_common()]
    if model is not None:
        if model in names and len(names) > 1:
            notes.append(f"{len(names)} models in the sample; the rows of others are skipped.")
        return [model]
    if len(names) > _MODELS_MAX:
        notes.append(f"{len(names)} models in the sample; the {_MODELS_MAX} commonest are configured, the rows of others are skipped.")
    return names[:_MODELS_MAX]


def _label_mapping(sample: Sample, draft: Draft, given: Given, topic: str) -> tuple[dict[str, Any], str]:
    """Where labels keep their id, time and value; the id is the field that shares values with the predictions' id."""
    named = {role: name for role, name in given.roles.items() if role in OF_LABELS}
    here = resolve(Given(named, (), None), sample.columns, source=f'topic "{topic}"').roles
    verdicts = infer(_within(sample, Given({}, (), None))[0])
    fields: dict[str, Any] = {}
    times = [here["label_time"]] if "label_time" in here else [v.name for v in verdicts if v.role in ("time", "label_time")]
    if times and times[0] != "time":
        fields["time"] = times[0]
    elif not times:
        fields["time"] = None
    prediction_id = draft.fields.get("id", "id")
    ids = [v.name for v in verdicts if leaf(v.name) == leaf(prediction_id)] or [v.name for v in verdicts if v.role == "id"]
    if ids and ids[0] != "id":
        fields["id"] = ids[0]
    values = [v for v in verdicts if v.role == "label"]
    values += [v for v in verdicts if v.role in ("feature", "score", "class") and v.name not in ids]
    if "label" in here:
        values = [v for v in verdicts if v.name == here["label"]]
    value = here.get("label") or (values[0].name if values else "label")
    if value != "label":
        fields["value"] = value
    return fields, _task(values[0] if values else None)
