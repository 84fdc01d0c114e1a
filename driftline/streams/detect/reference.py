"""Baseline files: the baselines of a model's panels in one file, learned by the code that learns live.

A file is a JSON object of baselines by panel kind; each keeps its own hash, so an edited one is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from driftline.detectors.baseline import Baseline
from driftline.detectors.baseline_build import BaselineBuilder
from driftline.detectors.spec import BaselineError
from driftline.schemas.config import Config, Model
from driftline.schemas.series import correlation_series
from driftline.streams.detect.plan import ModelPlan, PanelKind
from driftline.streams.detect.rows import feature_rows, outcome_rows, score_rows
from driftline.streams.observation import Observations

FORMAT: Final = "driftline-baselines"
VERSION: Final = 1
PANELS: Final[tuple[PanelKind, ...]] = ("features", "scores", "outcomes")

Baselines = Mapping[str, Baseline]


class ReferenceLearner:
    """Takes a model's observation batches, gives a baseline for each panel that had rows."""

    def __init__(self, plan: ModelPlan) -> None:
        self._plan = plan
        self._segments = list(plan.model.segments)
        self._builders: dict[PanelKind, BaselineBuilder] = {}
        self._sources: dict[tuple[str, int], int] = {}

    def add(self, batch: Observations) -> None:
        """Take one batch; other models' batches, ticks and empty ones are left alone."""
        if batch.model != self._plan.name or not len(batch):
            return
        numbers = [self._sources.setdefault(source, len(self._sources)) for source in batch.sources]
        batch.source = np.array(numbers, np.uint16)[batch.source]
        if batch.kind == "predictions":
            self._builder("features").add(feature_rows(batch, self._segments))
            self._builder("scores").add(score_rows(batch, self._plan.model, self._segments))
        elif batch.kind == "outcomes":
            self._builder("outcomes").add(outcome_rows(batch, self._plan.model, self._segments))

    def finish(self) -> dict[str, Baseline]:
        """The baselines of all rows taken.

        Raises
        ------
        BaselineError : no rows of this model came.
        """
        if not self._builders:
            raise BaselineError(f'no rows of model "{self._plan.name}" to build a baseline from')
        return {kind: builder.finish() for kind, builder in self._builders.items()}

    def _builder(self, kind: PanelKind) -> BaselineBuilder:
        if kind not in self._builders:
            self._builders[kind] = BaselineBuilder.of(self._plan.panel(kind))
        return self._builders[kind]


def save_baselines(path: Path, *, model: str, source: str, baselines: Baselines) -> None:
    """Write the file; the old one stays whole until the new one is.

    Parameters
    ----------
    source : where the rows came from, for people.
    """
    panels = {kind: json.loads(baseline.to_json()) for kind, baseline in baselines.items()}
    whole = {"format": FORMAT, "version": VERSION, "model": model, "source": source, "panels": panels}
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(whole, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_baselines(path: Path) -> dict[str, Any]:
    """The file's head and its baselines: keys model, source, panels (kind to Baseline).

    Raises
    ------
    BaselineError : missing, damaged, edited, or of a newer version.
    """
    try:
        whole = json.loads(path.read_bytes())
    except OSError as error:
        raise BaselineError(f"{path}: cannot be read: {error.strerror}; make one with `driftline baseline build`") from error
    except (ValueError, RecursionError) as error:
        raise BaselineError(f"{path}: not JSON: {error}; build it again") from error
    if not isinstance(whole, dict) or whole.get("format") != FORMAT or not isinstance(whole.get("panels"), dict):
        raise BaselineError(f'{path}: not a baseline file: expected "format": "{FORMAT}"; make one with `driftline baseline build`')
    if whole.get("version") != VERSION:
        raise BaselineError(f"{path}: version {whole.get('version')!r}, this release reads version {VERSION}; upgrade or build it again")
    known = {kind: panel for kind, panel in whole["panels"].items() if kind in PANELS}
    panels = {kind: Baseline.from_json(json.dumps(panel), place=f"{path}: panel {kind}") for kind, panel in known.items()}
    return {"model": whole.get("model"), "source": whole.get("source"), "panels": panels}


def configured_baselines(config: Config) -> dict[str, dict[str, Baseline]]:
    """The baselines of every model whose configuration names a file.

    Raises
    ------
    BaselineError : a file cannot be used, was built for another model, or before a correlation was asked for.
    """
    found: dict[str, dict[str, Baseline]] = {}
    for name, model in config.models.items():
        if model.baseline.file is not None:
            content = read_baselines(Path(model.baseline.file))
            if content["model"] != name:
                raise BaselineError(f'{model.baseline.file}: built for model "{content["model"]}", the configuration names it for "{name}"')
            _check_pairs(model, content["panels"])
            found[name] = content["panels"]
    return found


def _check_pairs(model: Model, panels: Baselines) -> None:
    """A baseline holds no rows: a pair that it was not built with cannot be made from it, and would go unwatched without a word."""
    features = panels.get("features")
    for first, second in model.correlations:
        if features is not None and features.column(correlation_series(first, second)) is None:
            raise BaselineError(
                f'{model.baseline.file}: has nothing of the correlation of "{first}" and "{second}", or one of them is no number in it; '
                "build it again with this configuration: driftline baseline build"
            )
