"""The table of what an edit does to state: every key of the file stands in it, and code reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from driftline.schemas.config import Config, SecretRef
from driftline.schemas.effects import EFFECTS, MEANINGS, edited, reset_by, settings
from driftline.schemas.loading import parse_config
from driftline.schemas.section import Section

TEXT = """
hash_key: {env: K}
predictions:
  - {topic: p, fields: {features: x, feature_names: [a, b]}}
  - {topic: q}
labels: l
models:
  m:
    features: {a: numeric, b: numeric, c: {kind: categorical, sensitive: true, path: c}}
    segments: [s, {t: {path: deep.t}}]
  n: {}
""".replace("[s, {t: {path: deep.t}}]", "{s: {}, t: {path: deep.t}}")


def leaves(section: type[BaseModel] = Config, place: str = "") -> Iterator[str]:
    """Every key of the file that holds a value, as the table writes it."""
    for name, field in section.model_fields.items():
        here = f"{place}{field.alias or name}"
        inner = list(_sections(field.annotation, ""))
        if not inner:
            yield here
        for suffix, found in inner:
            yield from leaves(found, f"{here}{suffix}.")


def _sections(annotation: Any, suffix: str) -> Iterator[tuple[str, type[BaseModel]]]:
    if isinstance(annotation, type) and issubclass(annotation, Section) and annotation is not SecretRef:
        yield suffix, annotation
    suffix += "[]" if get_origin(annotation) is list else ".NAME" if get_origin(annotation) is dict else ""
    for argument in get_args(annotation):
        yield from _sections(argument, suffix)


def rows_of(key: str) -> list[str]:
    own = [effect.key for effect in EFFECTS if effect.key == key]
    return own or [effect.key for effect in EFFECTS if effect.key.endswith(".*") and key.startswith(effect.key[:-1])]


def test_every_key_of_the_file_has_one_row() -> None:
    keys = set(leaves())
    assert {"models.NAME.decision", "predictions[].fields.class", "models.NAME.monitors[].severity.warning"} <= keys
    assert {key: rows_of(key) for key in keys if len(rows_of(key)) != 1} == {}


def test_no_row_is_of_a_key_that_is_gone() -> None:
    keys = set(leaves())
    mappings = {"models.NAME", "models.NAME.features", "models.NAME.blocks", "models.NAME.segments"}
    known = {row for key in keys for row in rows_of(key)} | mappings
    assert {effect.key for effect in EFFECTS} - known == set()
    assert {effect.kind for effect in EFFECTS} <= set(MEANINGS)


def test_only_what_resets_names_columns_and_all_of_it_does() -> None:
    assert all(bool(effect.columns) == (effect.kind == "resets") for effect in EFFECTS)


def reset(old: str, new: str, text: str = TEXT) -> dict[str, str]:
    before = settings(parse_config(text, name="a.yml"), "m")
    return reset_by({place: one.value for place, one in before.items()}, settings(parse_config(text.replace(old, new), name="b.yml"), "m"))


@pytest.mark.parametrize(
    ("edit", "gone", "kept"),
    [
        (
            ("features: {a: numeric,", "decision: 0.7\n    features: {a: numeric,"),
            ["scores/decision", "outcomes/outcome:miss"],
            ["scores/score"],
        ),
        (
            ("features: {a: numeric,", "labels: {absent: 0}\n    features: {a: numeric,"),
            ["outcomes/outcome:log_loss"],
            ["scores/decision"],
        ),
        (("[a, b]", "[b, a]"), ["features/a", "features/b", "features/correlation:a~x"], ["features/c", "features/correlation:c~x"]),
        (("path: c}", "path: d}"), ["features/c", "features/correlation:b~c"], ["features/a", "segment/s", "features/correlation:a~b"]),
        (("deep.t", "deeper.t"), ["segment/t"], ["segment/s", "features/a"]),
        (("{env: K}", "{env: L}"), ["features/c"], ["features/a", "segment/s"]),
        (("topic: q}", "topic: q, fields: {score: s}}"), ["scores/score", "outcomes/outcome:log_loss"], ["scores/service:latency"]),
        (
            ("labels: l", "labels: [{topic: l, fields: {value: y}}]"),
            ["outcomes/outcome:miss"],
            ["outcomes/stream:labelled", "scores/score"],
        ),
    ],
)
def test_an_edit_resets_what_it_gives_another_meaning_and_nothing_else(edit: tuple[str, str], gone: list[str], kept: list[str]) -> None:
    found = reset(*edit)
    assert all(edited(found, what) is not None for what in gone)
    assert all(edited(found, what) is None for what in kept)


def test_the_place_of_the_edit_is_named() -> None:
    assert edited(reset("topic: q}", "topic: q, fields: {score: s}}"), "scores/score") == "predictions[q].fields.score"


@pytest.mark.parametrize(
    "edit",
    [
        ("  - {topic: q}\n", "  - {topic: q}\n  - {topic: r, fields: {score: other}}\n"),
        ("  - {topic: q}\n", ""),
        ("  n: {}", "  n: {decision: 0.9, labels: {absent: 0}}"),
        ("b: numeric, ", ""),
        ("s: {}, ", ""),
    ],
)
def test_what_is_new_or_gone_or_of_another_model_resets_nothing(edit: tuple[str, str]) -> None:
    assert reset(*edit) == {}


def test_names_with_signs_of_globs_stand_for_themselves() -> None:
    text = TEXT.replace("path: c}", "path: c}, 'a*[1]': {kind: numeric, path: e}")
    found = reset("path: e", "path: f", text=text)
    assert edited(found, "features/a*[1]")
    assert edited(found, "features/a") is None


@pytest.mark.parametrize(
    ("edit", "place"),
    [
        (("m:\n", "m:\n    unit: card\n"), "models.m.unit"),
        (("m:\n", "m:\n    baseline: {accepted: tariff}\n"), "models.m.baseline.accepted"),
        (("amount: numeric", "amount: {kind: numeric, accepted: tariff}"), "models.m.features.amount.accepted"),
    ],
    ids=["unit", "model accepted", "feature accepted"],
)
def test_a_key_that_came_with_the_release_is_an_edit_of_its_default(edit: tuple[str, str], place: str) -> None:
    text = "version: 1\npredictions: p\nmodels:\n  m:\n    features: {amount: numeric}\n"
    assert edit[0] in text
    written = {key: one.value for key, one in settings(parse_config(text, name="a.yml"), "m").items() if key != place}
    assert reset_by(written, settings(parse_config(text, name="b.yml"), "m")) == {}
    now = settings(parse_config(text.replace(*edit), name="b.yml"), "m")
    assert reset_by(written, now) == dict.fromkeys(now[place].columns, place)
    assert reset_by({}, now) == {}, "a state that says nothing of what it was made with"
