"""The text of a configuration from verdicts on a sample: short, commented, and accepted by `validate`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from driftline.cli.inference import Verdict, hinted_segment, leaf, segment_candidates
from driftline.schemas.durations import duration_text
from driftline.schemas.series import PAIR

_PLAIN: Final = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_YAML_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"})
BLOCK_LEAST: Final = 3
BLOCK_MOST: Final = 64
"""Numeric features of which a block is suggested: two are a pair, and of hundreds somebody knows which belong together."""


@dataclass(slots=True)
class Draft:
    """Everything the file says.

    Attributes
    ----------
    fields, label_fields : only what differs from the defaults.
    root : path under which an event keeps its features; "" = the top level.
    models : name to share of the sample.
    prefix : of our topics, groups and keys; another one in every file.
    age_ms : the labels' age; None = auto.
    decision : score from which the answer is yes; None = the default.
    pairs : numeric fields that go together most, with their correlation.
    vectors : fields that are lists of so many numbers.
    """

    source: str
    rows: int
    bootstrap: str
    topic: str
    labels_topic: str | None
    models: list[str]
    prefix: str
    verdicts: Sequence[Verdict]
    task: str = "binary"
    fields: dict[str, Any] = field(default_factory=dict)
    label_fields: dict[str, Any] = field(default_factory=dict)
    root: str = "features"
    decision: float | None = None
    age_ms: int | None = None
    age_note: str = ""
    notes: list[str] = field(default_factory=list)
    pairs: Sequence[tuple[str, str, float]] = ()
    vectors: Sequence[tuple[str, int]] = ()


def write_draft(draft: Draft) -> str:
    """The YAML text."""
    lines = [
        f"# Written by `driftline init` from {draft.source} ({draft.rows:,} rows). Every guess has its reason beside it:",
        "# change what is wrong, then `driftline validate` this file.",
        *(f"# {note}" for note in draft.notes),
        "",
        "version: 1",
        "environment: default     # part of every event's id; staging and production differ here",
        "",
        "kafka:",
        f"  bootstrap: {quoted(draft.bootstrap)}",
        "",
        "# Topics, consumer groups and keys of this file alone: of two files that share them each would skip the other's rows.",
        "topics:",
        f"  prefix: {quoted(draft.prefix)}",
        "redis:",
        f"  key_prefix: {quoted(draft.prefix)}",
        "",
        "predictions:",
        f"  - topic: {quoted(draft.topic)}",
        *_fields(draft.fields),
    ]
    if draft.labels_topic is not None:
        lines += ["", "labels:", f"  - topic: {quoted(draft.labels_topic)}", *_fields(draft.label_fields)]
    else:
        lines += ["", "# No labels: features and scores are watched, outcomes are not. With labels:", "# labels:", "#   - topic: ..."]
    lines += ["", "models:"]
    first, *others = draft.models
    anchor = " &model" if others else ""
    lines.append(f"  {quoted(first)}:{anchor}")
    lines += _model(draft)
    lines += [f"  {quoted(name)}: *model" for name in others]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """A YAML scalar that is text, whatever it looks like."""
    if _PLAIN.match(text) and text.lower() not in _YAML_WORDS:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _fields(fields: dict[str, Any]) -> list[str]:
    if not fields:
        return []
    values = [f"      {name}: {'null' if value is None else quoted(value)}" for name, value in fields.items()]
    return ["    fields:            # where an event keeps what Driftline needs", *values]


def _model(draft: Draft) -> list[str]:
    lines = [f"    task: {draft.task}"]
    if draft.decision is not None:
        lines.append(f"    decision: {draft.decision!r}     # score from which the answer is yes")
    features = [v for v in draft.verdicts if v.role == "feature"]
    if features:
        lines.append(f"    features:            # {len(features)} of {len(draft.verdicts)} fields")
        lines += _aligned([(_feature(v, draft.root), v.reason) for v in features])
    lines += _left_out(draft.verdicts)
    lines += _pairs(draft)
    lines += _blocks(draft)
    lines += _segments(draft.verdicts, draft.root)
    if draft.labels_topic is not None:
        age = f"[{duration_text(draft.age_ms)}]" if draft.age_ms is not None else "[auto]"
        note = draft.age_note or "the 95th percentile of the delay, measured once"
        lines += ["    labels:", f"      ages: {age}     # {note}"]
        lines.append("      # absent: 0        # if only positives are ever sent: no label by that age means 0")
    lines += ["    baseline:", "      learn: 5000        # events to learn from; or `file:` from `driftline baseline build`"]
    lines.append("    window: 5000         # events in a sliding window")
    lines.append("    false_alarms: 1 per week   # at most so many by chance, over all series together")
    return lines


def _feature(verdict: Verdict, root: str) -> str:
    path = verdict.name
    name = _name(path, root)
    if path == (f"{root}." if root else "") + name:
        return f"      {quoted(name)}: {verdict.kind}"
    return f"      {quoted(name)}: {{kind: {verdict.kind}, path: {quoted(path)}}}"


def _name(path: str, root: str) -> str:
    """What a feature is called in the file."""
    name = path.removeprefix(f"{root}." if root else "")
    return name if "." not in name and ":" not in name else leaf(name)


def _pairs(draft: Draft) -> list[str]:
    """Suggested only: each is one more series, and moves with its features too."""
    named = [(_name(first, draft.root), _name(second, draft.root), correlation) for first, second, correlation in draft.pairs]
    lines = [f"    #   - [{quoted(a)}, {quoted(b)}]     # {r:.2f}" for a, b, r in named if PAIR not in a + b]
    return ["    # correlations:      # what these have to do with each other, by rank; watched where it is named", *lines] if lines else []


def _blocks(draft: Draft) -> list[str]:
    """Suggested only: which features belong together is not in the rows."""
    numbers = [quoted(_name(v.name, draft.root)) for v in draft.verdicts if v.role == "feature" and v.kind == "numeric"]
    lines = [f"    #   all: [{', '.join(numbers)}]"] if BLOCK_LEAST <= len(numbers) <= BLOCK_MOST else []
    for path, length in draft.vectors:
        name = quoted(_name(path, draft.root))
        place = "" if path == (f"{draft.root}." if draft.root else "") + name else f", path: {quoted(path)}"
        lines.append(f"    #   {name}: [{name}]     # with {name}: {{kind: vector, length: {length}{place}}} among the features")
    head = "    # blocks:            # what these are jointly, for changes that none shows alone; watched where it is named"
    return [head, *lines] if lines else []


def _left_out(verdicts: Sequence[Verdict]) -> list[str]:
    out = [v for v in verdicts if v.role == "left_out"]
    used = [v for v in verdicts if v.role not in ("left_out", "feature")]
    lines = ["    # used otherwise:"] if used else []
    lines += [f"    #   {v.name}: {v.role.replace('_', ' ')} ({v.reason})" for v in used]
    lines += ["    # left out:"] if out else []
    return lines + [f"    #   {v.name}: {_one_line(v.reason)}" for v in out]


def _segments(verdicts: Sequence[Verdict], root: str) -> list[str]:
    candidates = segment_candidates(verdicts)[:4]
    if not candidates:
        return []
    chosen = candidates[:1] if hinted_segment(candidates[0]) else []
    lines = ["    segments:            # each value gets series of its own; every segment costs"]
    if not chosen:
        lines = ["    # segments:          # each value gets series of its own; every segment costs"]
    for verdict in candidates:
        mark = "" if verdict in chosen else "# "
        name = verdict.name.removeprefix(f"{root}." if root else "")
        lines.append(f"      {mark}{quoted(leaf(name))}: {{max: {max(10, verdict.profile.distinct)}}}     # {_one_line(verdict.reason)}")
    return lines


def _aligned(rows: list[tuple[str, str]]) -> list[str]:
    width = min(max(len(text) for text, _ in rows), 48)
    return [f"{text.ljust(width)}  # {_one_line(reason)}" for text, reason in rows]


def _one_line(text: str) -> str:
    return " ".join(text.split())
