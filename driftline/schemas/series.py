"""The series a model has, by name: what monitors' globs match and what the estimate counts."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from driftline.schemas.config import DEFAULT_MONITORS, Config, FeatureKind, Model, Monitor
from driftline.schemas.stream_series import FRESHNESS, INVALID_ROWS, JOIN_RATE, LABEL_DELAY, LABELLED_ROWS, VOLUME

Group = Literal["features", "quality", "scores", "service", "outcomes", "stream"]

UNKNOWN: Final = "?"
"""Stands for names that only the data tells: features to be learned."""

PAIR: Final = "~"
"""Stands between the names of two features; no feature of a pair has it in its name, so that the name of a series tells the pair."""

_CORRELATION: Final = "correlation:"
_BLOCK: Final = "block:"
_QUALITY: Final[dict[str, tuple[str, ...]]] = {
    "numeric": ("missing", "invalid", "out_of_range", "constant"),
    "categorical": ("missing", "invalid", "unseen", "constant"),
    "vector": ("missing", "invalid"),
}


@dataclass(frozen=True, slots=True)
class Series:
    """One series of one model.

    Attributes
    ----------
    column : the column whose codes it is computed from; series of one column share its ring.
    rate : 0/1 valued: watched by a rate detector rather than by bins.
    joint : values of a row that are watched together, over all rows and in no segment; 0 = it is no block.
    """

    name: str
    group: Group
    column: str
    rate: bool = False
    joint: int = 0

    @property
    def unknown(self) -> bool:
        """Whether part of the name is only known from the data."""
        return UNKNOWN in self.name


def model_series(config: Config, model: Model, features: dict[str, FeatureKind] | None = None) -> list[Series]:
    """Every series of a model; `features` overrides the file's (from a baseline)."""
    if features is None and model.features is not None:
        features = {name: feature.kind for name, feature in model.features.items()}
    pairs = (correlation_series(first, second) for first, second in model.correlations)
    made = [Series(name, "features", name) for name in pairs]
    made += [Series(block_series(name), "features", block_series(name), joint=width_of(model, name)) for name in model.blocks]
    return [*_features(features), *made, *_scores(config, model), *_outcomes(config, model), *_stream(config, model)]


def correlation_series(first: str, second: str) -> str:
    """The name of the series of a pair of features, in whichever order they are named."""
    return _CORRELATION + PAIR.join(sorted((first, second)))


def block_series(name: str) -> str:
    """The name of the series of a block."""
    return _BLOCK + name


def width_of(model: Model, block: str) -> int:
    """The numbers of a block: of its features, those of a vector all."""
    declared = model.features or {}
    return sum(declared[name].length or 1 if name in declared else 1 for name in model.blocks[block].features)


def pair_of(series: str) -> tuple[str, ...]:
    """The two features of a pair's series; empty for another series."""
    return tuple(series.removeprefix(_CORRELATION).split(PAIR)) if series.startswith(_CORRELATION) else ()


def matches(glob: str, series: Series) -> bool:
    """Whether a glob matches a series, or may match one whose name is not known yet."""
    if not series.unknown:
        return fnmatch.fnmatchcase(series.name, glob)
    head = series.name.split(UNKNOWN)[0]
    literal = glob[: min((glob.index(c) for c in "*?[" if c in glob), default=len(glob))]
    return literal.startswith(head) if len(literal) >= len(head) else literal != glob and head.startswith(literal)


def owners(series: Iterable[Series], monitors: Sequence[Monitor]) -> dict[str, Monitor]:
    """Series name to the first monitor whose globs match it; a disabled one keeps its series unwatched."""
    found: dict[str, Monitor] = {}
    for one in series:
        for monitor in monitors:
            if any(matches(glob, one) for glob in monitor.series):
                found[one.name] = monitor
                break
    return found


def monitors_of(model: Model) -> Sequence[Monitor]:
    """The model's monitors, or the defaults."""
    return DEFAULT_MONITORS if model.monitors is None else model.monitors


def longest_window(model: Model) -> int:
    """Rows that the windows of a model hold."""
    return max([model.window, *(monitor.window or 0 for monitor in monitors_of(model))])


def _features(features: dict[str, FeatureKind] | None) -> list[Series]:
    if features is None:
        return [Series(f"feature:{UNKNOWN}", "features", "feature"), Series(f"quality:{UNKNOWN}", "quality", "feature", rate=True)]
    # What a vector holds is watched by the blocks that name it.
    out = [Series(f"feature:{name}", "features", f"feature:{name}") for name, kind in features.items() if kind != "vector"]
    for name, kind in features.items():
        out += [Series(f"quality:{name}:{what}", "quality", f"feature:{name}", rate=True) for what in _QUALITY[kind]]
    return out


def _scores(config: Config, model: Model) -> list[Series]:
    fields = [source.fields for source in config.predictions]
    out: list[Series] = []
    if any(f.score is not None for f in fields):
        if model.task != "multiclass":
            out.append(Series("score", "scores", "score"))
        if model.task == "binary" and model.decision is not None:
            out.append(Series("decision", "scores", "decision", rate=True))
    if model.task != "regression":
        out.append(Series("class", "scores", "class"))
        out += [Series(f"class_share:{value}", "scores", "class", rate=True) for value in model.classes or ()]
    if model.task == "multiclass":
        out += [Series("confidence", "scores", "confidence"), Series("entropy", "scores", "entropy")]
    out.append(Series("service:latency", "service", "latency"))
    out += [Series(f"service:latency_{tail}", "service", "latency", rate=True) for tail in ("p95", "p99")]
    out.append(Series("service:error", "service", "error", rate=True))
    return out


def _outcomes(config: Config, model: Model) -> list[Series]:
    if not config.labels:
        return []
    if model.task == "binary":
        out = [Series("outcome:log_loss", "outcomes", "log_loss"), Series("outcome:residual", "outcomes", "residual")]
        return out + [Series(f"outcome:{what}", "outcomes", what, rate=True) for what in ("miss", "false_alarm")]
    if model.task == "regression":
        return [Series("outcome:error", "outcomes", "error"), Series("outcome:absolute_error", "outcomes", "absolute_error")]
    out = [Series("outcome:log_loss", "outcomes", "log_loss"), Series("outcome:wrong", "outcomes", "wrong", rate=True)]
    out.append(Series("outcome:class", "outcomes", "label"))
    return out + [Series(f"outcome:class:{value}", "outcomes", "label", rate=True) for value in model.classes or ()]


def _stream(config: Config, model: Model) -> list[Series]:
    out = [Series(VOLUME, "stream", "volume"), Series(INVALID_ROWS, "stream", "invalid", rate=True)]
    if model.freshness is not None:
        out.append(Series(FRESHNESS, "stream", "freshness"))
    if config.labels:
        out += [Series(LABEL_DELAY, "stream", "label_delay"), Series(LABELLED_ROWS, "stream", "labelled", rate=True)]
        if model.labels.join_watched:
            out.append(Series(JOIN_RATE, "stream", "join_rate"))
    return out
