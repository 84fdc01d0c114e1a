"""Read a configuration file: every problem at once, each with its line and a hint."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import Final

from pydantic import ValidationError

from driftline.schemas.checks import check
from driftline.schemas.config import Config, Feature, Kafka, SecretRef
from driftline.schemas.document import BYTES_MAX, DocumentError, Items, Path, Table, describe, read_document
from driftline.schemas.problems import ConfigError, Flaw, Problem, from_document, from_flaw, from_pydantic, section_at, value_at
from driftline.schemas.shorthand import spell_out

_REPAIRS_MAX: Final = 8
"""Rounds of taking out what is wrong before the rules between parts are checked on the rest."""

_PLACEHOLDERS: Final[dict[str | int, str]] = {"topic": "placeholder", "kind": "numeric", "name": "psi"}

__all__ = ["ConfigError", "Problem", "load_config", "parse_config"]


def load_config(path: str | os.PathLike[str]) -> Config:
    """The configuration in a YAML file; a baseline's `file` is taken from the file's own folder.

    Raises
    ------
    ConfigError : the file cannot be read or used; `problems` lists everything that is wrong with it.
    """
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            content = file.read(BYTES_MAX + 1)
    except OSError as error:
        hint = "driftline init writes one" if isinstance(error, FileNotFoundError) else None
        raise ConfigError([Problem(name, 1, "", "", "a readable file", error.strerror or type(error).__name__, hint)]) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        got = f"byte 0x{content[error.start]:02x}"
        raise ConfigError([Problem(name, line, "", "", "UTF-8 text", got, "save the file as UTF-8")]) from None
    return parse_config(text, name=name, directory=FilePath(name).parent)


def parse_config(text: str, *, name: str, directory: FilePath | None = None) -> Config:
    """The configuration in a YAML text.

    Parameters
    ----------
    name : what to call the text in errors.
    directory : where relative paths start; None leaves them alone and does not look whether files exist.

    Raises
    ------
    ConfigError : the text cannot be used; `problems` lists everything that is wrong with it.
    """
    try:
        root, flaws = read_document(text)
    except DocumentError as error:
        raise ConfigError([from_document(error, name)]) from None
    problems = [from_document(flaw, name) for flaw in flaws]
    if not isinstance(root, Table):
        got = "an empty file" if root is None else describe(root)
        hint = "driftline init writes a commented file to start from"
        raise ConfigError([*problems, Problem(name, 1, "", "", "a mapping with predictions and models", got, hint)])
    spell_out(root)
    config, found, removed = _validate(root, name)
    known = {(problem.line, problem.path) for problem in problems}
    problems += [problem for problem in found if (problem.line, problem.path) not in known]
    if config is not None:
        # What is wrong with the rest of a list is a consequence of what was taken out of it.
        problems += [from_flaw(flaw, root, name) for flaw in check(config, directory) if flaw.loc not in removed]
    if problems or config is None:
        raise ConfigError(problems)
    config = config.model_copy(update={"kafka": _with_groups(config)})
    return config if directory is None else _with_paths(config, directory)


def _validate(root: Table, name: str) -> tuple[Config | None, list[Problem], set[Path]]:
    """The configuration, or what is left of it once every wrong part is taken out; the problems of those parts, and lists that lack one."""
    problems: list[Problem] | None = None
    removed: set[Path] = set()
    for _ in range(_REPAIRS_MAX):
        try:
            return Config.model_validate(root), problems or [], removed
        except ValidationError as error:
            flaws = from_pydantic(error.errors(include_url=False, include_input=False), root)
        if problems is None:  # what later rounds find are consequences of a repair
            problems = [from_flaw(flaw, root, name) for flaw in flaws]
        removed |= {flaw.loc[:-1] for flaw in flaws if flaw.loc and isinstance(flaw.loc[-1], int)}
        _repair(root, flaws)
    return None, problems or [], removed


def _repair(root: Table, flaws: Iterable[Flaw]) -> None:
    """Take the wrong parts out of `root`, or put something valid in their place where others refer to them."""
    places = {flaw.loc if _removable(root, flaw.loc) else flaw.loc[:-1] for flaw in flaws}
    # From the back, so that the index of a list's earlier entries stays what it was.
    for place in sorted(places, key=_order, reverse=True):
        parent = value_at(root, place[:-1])
        last = place[-1] if place else None
        if isinstance(parent, Table) and isinstance(last, str):
            if last == "length" and section_at(place[:-1]) is Feature:
                parent.put(last, 2, parent.origin)  # without one, the vector would lack a length
            elif last in _PLACEHOLDERS:
                parent.put(last, _PLACEHOLDERS[last], parent.origin)
            elif last in parent:
                del parent[last]
        elif isinstance(parent, Items) and isinstance(last, int) and last < len(parent):
            del parent[last], parent.at[last]
    for side in ("predictions", "labels"):
        if any(flaw.loc[:1] == (side,) for flaw in flaws) and not root.get(side):
            root.put(side, [{"topic": "placeholder"}], root.origin)


def _removable(root: object, loc: Path) -> bool:
    """Whether taking out the value at `loc` itself mends its parent; of a secret only the whole can go."""
    if loc and loc[-1] in _PLACEHOLDERS:
        return True
    if section_at(loc[:-1]) is SecretRef:
        return False
    parent = value_at(root, loc[:-1])
    last = loc[-1] if loc else None
    return (isinstance(parent, dict) and last in parent) or (isinstance(parent, list) and isinstance(last, int) and last < len(parent))


def _order(loc: Path) -> list[tuple[int, int, str]]:
    return [(0, part, "") if isinstance(part, int) else (1, 0, part) for part in loc]


def _with_paths(config: Config, directory: FilePath) -> Config:
    """Baseline files from the configuration file's folder, so that it may be used from any working directory."""
    models = {}
    for name, model in config.models.items():
        if model.baseline.file is not None:
            source = model.baseline.model_copy(update={"file": os.path.join(directory, model.baseline.file)})
            model = model.model_copy(update={"baseline": source})
        models[name] = model
    return config.model_copy(update={"models": models})


def _with_groups(config: Config) -> Kafka:
    """Groups follow the topics: two installations on one cluster must not share them because neither named one."""
    if "group_prefix" in config.kafka.model_fields_set:
        return config.kafka
    return config.kafka.model_copy(update={"group_prefix": config.topics.prefix})
