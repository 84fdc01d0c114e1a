"""Small configuration texts and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftline.schemas.loading import ConfigError, Problem, parse_config

SHORTEST = """
predictions: fraud.predictions
models:
  fraud: {}
"""


def problems_of(text: str, directory: Path | None = None) -> list[Problem]:
    with pytest.raises(ConfigError) as refused:
        parse_config(text, name="test.yml", directory=directory)
    return list(refused.value.problems)


def only_problem(text: str, directory: Path | None = None) -> Problem:
    problems = problems_of(text, directory)
    assert len(problems) == 1, "\n".join(map(str, problems))
    return problems[0]


def with_model(model: str, top: str = "") -> str:
    """A file whose model `fraud` has this body; `model` starts on line 4."""
    body = "\n".join("    " + line for line in model.splitlines())
    return f"predictions: fraud.predictions\nmodels:\n  fraud:\n{body}\n{top}"
