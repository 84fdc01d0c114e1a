"""Pictures of tables: what a cell says, where it is drawn, and that the pictures of the docs are of the tables beside them."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks.quality import pictures
from benchmarks.quality.pictures import Axis, Point, Table, drawn_columns, labels_of, point_of, svg, tables

DOCS = Path(__file__).resolve().parents[1] / "docs"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("cell", "point"),
    [
        ("5.4 (4.1 to 7.0)", Point(5.4, 4.1, 7.0)),
        ("11547 (11399 to 11697)", Point(11547, 11399, 11697)),
        ("306 +- 23 (272)", Point(306, 283, 329)),
        ("4368 +- 20, 98% missed", Point(4368, 4348, 4388, whole=False)),
        ("333 +- 584 (29)", Point(333, 0, 917)),
        ("3275, 80% missed (inf)", Point(3275, 3275, 3275, whole=False, interval=False)),
        ("1 in 5e+03: 3.4 (2.0 to 5.4)", Point(3.4, 2.0, 5.4)),
        ("12,000", Point(12_000, 12_000, 12_000, interval=False)),
        ("none found", None),
        ("50 of 50", None),
        ("1 of 50 features by .5 sd", None),
        ("", None),
    ],
)
def test_a_cell_is_a_figure_with_its_interval_or_none(cell: str, point: Point | None) -> None:
    assert point_of(cell) == point


def test_columns_with_intervals_are_drawn_else_plain_numbers_else_those_that_are_named() -> None:
    rows = [["a", "1", "2 (1 to 3)"], ["b", "4", ""]]
    assert drawn_columns(Table("t", "p", ["row", "n", "rate"], rows)) == [2]
    assert drawn_columns(Table("t", "p", ["row", "n", "rate"], rows, ["n"])) == [1]
    assert drawn_columns(Table("t", "p", ["row", "n", "words"], [["a", "1", "x"]])) == [1]
    with pytest.raises(ValueError, match="no figures"):
        svg(Table("t", "p", ["row", "words"], [["a", "x"]]))


def test_rows_are_told_apart() -> None:
    header = ["change", "correlation", "delay"]
    assert labels_of(Table("t", "p", header, [["up", "0", "1"], ["down", "0", "1"]]), 2) == ["up", "down"]
    assert labels_of(Table("t", "p", header, [["up", "0", "1"], ["up", "0.5", "1"]]), 2) == ["up, correlation 0", "up, correlation 0.5"]


def test_the_axis_is_logarithmic_and_has_a_place_for_nothing() -> None:
    axis = Axis([Point(0.0, 0.0, 5.0), Point(10.0, 8.0, 700.0)])
    assert axis.x(0.0) < axis.x(10.0) < axis.x(100.0) < axis.x(1000.0)
    assert axis.x(100.0) - axis.x(10.0) == pytest.approx(axis.x(1000.0) - axis.x(100.0))
    assert axis.x(math.sqrt(1000.0)) == pytest.approx((axis.x(10.0) + axis.x(100.0)) / 2)
    assert [name for _, name in axis.ticks()] == ["0", "1", "10", "100", "1,000"]


def test_every_figure_is_drawn_where_it_belongs_and_words_are_escaped() -> None:
    table = Table("a < b", "p", ["row", "rate"], [["x & y", "2 (1 to 5)"], ["z", "50, 4% missed"], ["w", "none found"]])
    root = ET.fromstring(svg(table))
    dots = [dot for dot in root.iter(f"{SVG}circle") if dot.find(f"{SVG}title") is not None]
    axis = Axis([Point(2, 1, 5), Point(50, 50, 50)])
    assert [float(dot.attrib["cx"]) for dot in dots] == [round(axis.x(2), 1), round(axis.x(50), 1)]
    assert [dot.attrib["fill"] == "#fff" for dot in dots] == [False, True]
    bar = next(line for line in root.iter(f"{SVG}line") if line.get("stroke-width") == "2")
    assert (float(bar.attrib["x1"]), float(bar.attrib["x2"])) == (round(axis.x(1), 1), round(axis.x(5), 1))
    assert {"a < b", "x & y", "none found"} <= {text.text for text in root.iter(f"{SVG}text")}


@pytest.mark.parametrize("name", ["quality.md", "real-streams.md"])
def test_every_table_of_figures_has_a_picture_that_is_of_it(name: str) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    # What stands before that part of the page has a picture of its own kind.
    text = text[text.index("## Under a budget") :] if name == "real-streams.md" else text
    found = list(tables(text))
    assert len(found) == len(re.findall(r"^\|---", text, re.MULTILINE))
    for table in found:
        assert (DOCS / table.path).read_text(encoding="utf-8") == svg(table), f"run python -m {pictures.__name__} docs/{name}"
