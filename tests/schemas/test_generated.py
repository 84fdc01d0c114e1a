"""What is made from the types is checked in, complete and valid."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator

from driftline.schemas import config as config_module
from driftline.schemas.config import DEFAULT_MONITORS, Config
from driftline.schemas.detector_checks import DETECTOR_PARAMS
from driftline.schemas.document import read_document
from driftline.schemas.generate import JSON_FOLDER, files
from driftline.schemas.json_schema import all_schemas
from driftline.schemas.loading import ConfigError, parse_config
from driftline.schemas.section import Section
from driftline.schemas.topics import TOPICS
from tests.schemas.configs import SHORTEST
from tests.schemas.test_loading import MISTAKES, SHORT_AND_LONG

ROOT = Path(__file__).parents[2]


def tree_of(text: str) -> Any:
    """A YAML text as an editor sees it: by YAML 1.2, short forms as written."""
    return json.loads(json.dumps(read_document(text)[0]))


GENERATED = {path.name: (path, text) for path, text in files()}


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_checked_in_file_is_what_the_types_say(name: str) -> None:
    path, text = GENERATED[name]
    checked_in = path.read_text("utf-8")
    if path.suffix == ".json":
        assert meaning(json.loads(checked_in)) == meaning(json.loads(text)), "run: make docs"
    else:
        assert checked_in == text, "run: make docs"


def meaning(schema: Any) -> Any:
    """A schema without what another release of pydantic or msgspec may write otherwise: made-up titles and forms of the same."""
    if isinstance(schema, list):
        return [meaning(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if (key, value) != ("additionalProperties", True)}
    if "const" in kept:
        kept["enum"] = [kept.pop("const")]
    if "enum" in kept:
        kept.pop("type", None)
    if isinstance(kept.get("title"), str):
        del kept["title"]
    # A property may have any name, "title" too: its value is then a schema, and stays.
    unordered = {"anyOf", "required", "enum"} & {key for key, value in kept.items() if isinstance(value, list)}
    return {
        key: sorted(json.dumps(meaning(one), sort_keys=True) for one in value) if key in unordered else meaning(value)
        for key, value in kept.items()
    }


def test_the_meaning_of_a_schema_keeps_every_change_but_form() -> None:
    whole = json.loads((JSON_FOLDER / "config.schema.json").read_text("utf-8"))
    changes: list[dict[str, Any]] = [{"required": []}, {"additionalProperties": True}, {"description": "x"}, {"properties": {}}]
    for change in changes:
        assert meaning(whole | change) != meaning(whole), change
    assert meaning(whole | {"title": "x"}) == meaning(whole)
    assert meaning({"const": "a", "type": "string"}) == meaning({"enum": ["a"]})
    assert meaning({"anyOf": [{"type": "null"}, {"type": "string"}]}) == meaning({"anyOf": [{"type": "string"}, {"type": "null"}]})


def test_no_schema_file_is_left_over() -> None:
    assert {path.name for path in JSON_FOLDER.iterdir()} == {f"{name}.schema.json" for name in all_schemas()}


@pytest.mark.parametrize("name", list(all_schemas()))
def test_schema_is_valid_draft_2020_12_with_id_title_and_description(name: str) -> None:
    schema = all_schemas()[name]
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"].endswith(f"/{name}.schema.json")
    assert schema["title"]
    assert schema["description"]


@pytest.mark.parametrize("name", list(all_schemas()))
def test_every_field_in_a_schema_is_described(name: str) -> None:
    assert list(_undescribed(all_schemas()[name])) == []


def _undescribed(schema: dict[str, Any]) -> Any:
    for part in [schema, *schema.get("$defs", {}).values()]:
        for field, inner in part.get("properties", {}).items():
            if not inner.get("description"):
                yield field


def test_every_section_and_field_of_the_configuration_is_in_the_page() -> None:
    page = (ROOT / "docs/configuration.md").read_text("utf-8")
    sections = [one for one in vars(config_module).values() if inspect.isclass(one) and issubclass(one, Section) and one is not Section]
    for section in sections:
        assert " ".join((section.__doc__ or "").split()).replace("``", "`") in page
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name} has no description"
            assert f"| `{field.alias or name}` |" in page
    assert all(f"`{monitor.id}`" in page for monitor in DEFAULT_MONITORS)
    assert all(f"`{name}`" in page for name in DETECTOR_PARAMS)


def test_links_inside_the_page_have_a_heading() -> None:
    page = (ROOT / "docs/configuration.md").read_text("utf-8")
    anchors = {re.sub(r"[^a-z_ -]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", page, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= anchors


@pytest.mark.parametrize("page", ["configuration.md", "topics.md", "upgrades.md"])
def test_files_that_a_page_links_to_exist(page: str) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    for target in re.findall(r"\]\((\.\./[^)#]+)\)", text):
        assert (ROOT / "docs" / target).exists(), target


def test_every_topic_is_in_the_page() -> None:
    page = (ROOT / "docs/topics.md").read_text("utf-8")
    assert all(f"`{topic.full_name('driftline')}`" in page for topic in TOPICS)


@pytest.mark.parametrize("text", [SHORTEST, *(text for pair in SHORT_AND_LONG for text in pair)])
def test_a_valid_file_fits_the_editors_schema(text: str) -> None:
    parse_config(text, name="x")
    assert list(Draft202012Validator(all_schemas()["config"]).iter_errors(tree_of(text))) == []


@pytest.mark.parametrize("name", ["fraud", "ads"])
def test_example_monitors_fit_the_editors_schema(name: str) -> None:
    tree = tree_of((ROOT / f"monitors/{name}.yml").read_text("utf-8"))
    assert list(Draft202012Validator(all_schemas()["config"]).iter_errors(tree)) == []


def test_the_editors_schema_refuses_what_loading_refuses() -> None:
    validator = Draft202012Validator(all_schemas()["config"])
    assert not validator.is_valid(tree_of(MISTAKES))
    assert not validator.is_valid({"predictions": "a", "models": {"m": {"windoww": 5}}})


def test_every_yaml_block_of_the_page_is_valid() -> None:
    page = (ROOT / "docs/configuration.md").read_text("utf-8")
    for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL):
        text = block + "".join(f"{key}: x\n" for key in ("predictions", "models") if key not in (tree_of(block) or {}))
        try:
            parse_config(text, name="docs/configuration.md")
        except ConfigError as error:
            pytest.fail(f"{error}\n{block}")


def test_package_data_names_the_schema_files() -> None:
    assert '"driftline.schemas" = ["json/*.json"]' in (ROOT / "pyproject.toml").read_text("utf-8")


def test_literals_of_the_schema_are_those_of_the_model() -> None:
    tasks = json.loads((JSON_FOLDER / "config.schema.json").read_text("utf-8"))["$defs"]["Model"]["properties"]["task"]["enum"]
    assert tasks == list(get_args(Config.model_fields["models"].annotation)[1].model_fields["task"].annotation.__args__)
