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
import numpy.typing as npt

from driftline.detectors.baseline import Baseline
from driftline.detectors.baseline_build import BaselineBuilder
from driftline.detectors.spec import BaselineError, PanelRows
from driftline.schemas.config import Config, Model
from driftline.schemas.durations import duration_text
from driftline.schemas.series import block_series, correlation_series, width_of
from driftline.streams.detect.plan import ModelPlan, PanelKind
from driftline.streams.detect.rows import feature_rows, outcome_rows, score_rows
from driftline.streams.detect.units import Units, watched_rows
from driftline.streams.observation import NO_UNIT, Observations

FORMAT: Final = "driftline-baselines"
VERSION: Final = 1
PANELS: Final[tuple[PanelKind, ...]] = ("features", "scores", "outcomes")

Baselines = Mapping[str, Baseline]
Unit = list[str | int]
"""A unit and its window in ms, as JSON has it."""


class ReferenceLearner:
    """Takes a model's observation batches, gives a baseline for each panel that had rows."""

    def __init__(self, plan: ModelPlan) -> None:
        self._plan = plan
        self._segments = list(plan.model.segments)
        self._builders: dict[PanelKind, BaselineBuilder] = {}
        self._sources: dict[tuple[str, int], int] = {}
        self._watched = 0
        self._with_unit = False
        self._units: dict[tuple[str, int | None], Units] = {}

    def add(self, batch: Observations) -> None:
        """Take one batch; other models' batches, ticks and empty ones are left alone."""
        if batch.model != self._plan.name or not len(batch):
            return
        numbers = [self._sources.setdefault(source, len(self._sources)) for source in batch.sources]
        batch.source = np.array(numbers, np.uint16)[batch.source]
        model = self._plan.model
        self._with_unit |= batch.unit is not None and bool((batch.unit != NO_UNIT).any())
        ledger = (batch.kind, batch.age_ms)
        if model.unit is not None and ledger not in self._units:
            self._units[ledger] = Units(model)
        watched = watched_rows(model, self._units.get(ledger), batch)
        if batch.kind == "predictions":
            self._take("features", feature_rows(batch, self._segments, self._plan.lengths), watched)
            self._take("scores", score_rows(batch, model, self._segments), watched)
        elif batch.kind == "outcomes":
            self._take("outcomes", outcome_rows(batch, model, self._segments), watched)

    def _take(self, kind: PanelKind, rows: PanelRows, watched: npt.NDArray[np.int64] | None) -> None:
        """Let a builder have the rows that its panel will see; None = all."""
        rows = rows if watched is None else rows.take(watched)
        self._watched += rows.n
        self._builder(kind).add(rows)

    def finish(self) -> dict[str, Baseline]:
        """The baselines of all rows taken.

        Raises
        ------
        BaselineError : no rows of this model came, none of them would be watched, or none says its unit.
        """
        if not self._builders:
            raise BaselineError(f'no rows of model "{self._plan.name}" to build a baseline from')
        if not self._watched:
            why = f"its unit_window is {self._plan.model.unit_window / 3_600_000:g} h" if self._plan.model.unit else "all are expected"
            raise BaselineError(f'no row of model "{self._plan.name}" would be watched: {why}, and they span no more')
        if self._plan.model.unit is not None and not self._with_unit:
            raise BaselineError(
                f'no row says its unit, "{self._plan.model.unit}", so that none was left out as they are live; '
                f"name its column with --segment {self._plan.model.unit}=COLUMN, or build from the topic"
            )
        return {kind: builder.finish() for kind, builder in self._builders.items()}

    def _builder(self, kind: PanelKind) -> BaselineBuilder:
        if kind not in self._builders:
            self._builders[kind] = BaselineBuilder.of(self._plan.panel(kind))
        return self._builders[kind]


def save_baselines(path: Path, *, model: str, source: str, baselines: Baselines, unit: Unit | None = None) -> None:
    """Write the file; the old one stays whole until the new one is.

    Parameters
    ----------
    source : where the rows came from, for people.
    unit : by which rows were left out (`unit_of`).
    """
    panels = {kind: json.loads(baseline.to_json()) for kind, baseline in baselines.items()}
    whole = {"format": FORMAT, "version": VERSION, "model": model, "source": source, "panels": panels}
    if unit is not None:
        whole["unit"] = unit
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(whole, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_baselines(path: Path) -> dict[str, Any]:
    """The file's head and its baselines: keys model, source, unit (None = none), panels (kind to Baseline).

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
    return {"model": whole.get("model"), "source": whole.get("source"), "unit": whole.get("unit"), "panels": panels}


def unit_of(model: Model) -> Unit | None:
    """By what a model's rows are left out; None = all are watched."""
    return None if model.unit is None else [model.unit, model.unit_window]


def configured_baselines(config: Config) -> dict[str, dict[str, Baseline]]:
    """The baselines of every model whose configuration names a file.

    Raises
    ------
    BaselineError : a file cannot be used, was built for another model, or before a correlation or block was asked for.
    """
    found: dict[str, dict[str, Baseline]] = {}
    for name, model in config.models.items():
        if model.baseline.file is not None:
            content = read_baselines(Path(model.baseline.file))
            if content["model"] != name:
                raise BaselineError(f'{model.baseline.file}: built for model "{content["model"]}", the configuration names it for "{name}"')
            _check_made(model, content["panels"])
            if content["unit"] != (unit := unit_of(model)):
                why = f"built with {_told(content['unit'])}, the configuration has {_told(unit)}: other rows are watched"
                raise BaselineError(f"{model.baseline.file}: {why}; build it again")
            found[name] = content["panels"]
    return found


def _told(unit: Unit | None) -> str:
    """A unit for people."""
    match unit:
        case None:
            return "no unit"
        case [str(path), int(window)]:
            return f'unit "{path}" and unit_window {duration_text(window)}'
    return f"unit and unit_window {json.dumps(unit)}"


def _check_made(model: Model, panels: Baselines) -> None:
    """A baseline holds no rows: a pair or block that it was not built with cannot be made from it, and would go unwatched silently."""
    features = panels.get("features")
    for first, second in model.correlations:
        if features is not None and features.column(correlation_series(first, second)) is None:
            raise BaselineError(
                f'{model.baseline.file}: has nothing of the correlation of "{first}" and "{second}", or one of them is no number in it; '
                "build it again with this configuration: driftline baseline build"
            )
    for name, block in model.blocks.items():
        place = None if features is None else features.column(block_series(name))
        held = None if features is None or place is None else features.columns[place].block
        same = held is not None and held.names == tuple(sorted(block.features)) and held.width in (0, width_of(model, name))
        if features is not None and not same:
            raise BaselineError(
                f'{model.baseline.file}: has nothing of block "{name}" of these features, or one of them is no number in it; '
                "build it again with this configuration: driftline baseline build"
            )
