"""The Python in README.md and docs/ runs as it is written, and gives what its comments say."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from driftline.publish import Publisher
from tests.conftest import CreateTopics, Kafka

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
RESULT = re.compile(r"#\s*(\[[^]]*\])")


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


def run(block: str) -> tuple[dict[str, Any], list[tuple[list[Any], list[Any]]]]:
    """What the block defines, and the (found, promised) results of the lines that have one in their comment."""
    space: dict[str, Any] = {}
    results = []
    lines = block.splitlines()
    for statement in ast.parse(block).body:
        if not isinstance(statement, ast.Expr):
            exec(compile(ast.Module([statement], []), "block", "exec"), space)
            continue
        found = eval(compile(ast.Expression(statement.value), "block", "eval"), space)
        promised = RESULT.search(lines[(statement.end_lineno or 1) - 1])
        if promised is not None:
            results.append((list(found), ast.literal_eval(promised[1])))
    return space, results


def test_every_page_with_python_is_run_here() -> None:
    """A new page with an example needs a test; what needs no service is run by the test below."""
    assert [page.name for page in PAGES if blocks(page)] == ["README.md", "false-alarms.md", "publishing.md"]


@pytest.mark.parametrize(("page", "count"), [("README.md", 4), ("docs/false-alarms.md", 2)])
def test_the_examples_of_a_page_give_what_they_say(page: str, count: int) -> None:
    results = [result for block in blocks(ROOT / page) for result in run(block)[1]]
    assert len(results) == count
    assert [found for found, _ in results] == [promised for _, promised in results]


def test_the_publishing_example_delivers_its_records(kafka: Kafka, create_topics: CreateTopics) -> None:
    predictions, labels = create_topics("predictions", "labels")
    [block] = blocks(ROOT / "docs" / "publishing.md")
    for written, here in (("localhost:9092", kafka.bootstrap), ('"predictions"', f'"{predictions}"'), ('"labels"', f'"{labels}"')):
        assert written in block
        block = block.replace(written, here)
    publisher = run(block)[0]["publisher"]
    assert isinstance(publisher, Publisher)
    assert (publisher.delivered, publisher.dropped, publisher.failed) == (2, 0, 0)
