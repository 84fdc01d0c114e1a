"""Bins that evidence shows together are named by the values in them."""

from __future__ import annotations

import math
import re
from itertools import combinations

import pytest

from driftline.detectors.baseline import ColumnReference
from driftline.detectors.signals import _group_name
from driftline.detectors.spec import ABOVE, BELOW, INVALID, MISSING

REFERENCE = ColumnReference("days", "numeric", edges=(0.0, 6.0, 38.0, 101.0), low=-3.0, high=200.0)
ORDER = [BELOW, 0, 1, 2, 3, 4, ABOVE]
GROUPS = [ORDER[first:stop] for first, stop in combinations(range(len(ORDER) + 1), 2) if stop - first > 1]


def bin_of(value: float) -> int:
    if value < -3.0:
        return BELOW
    return ABOVE if value > 200.0 else sum(value > edge for edge in REFERENCE.edges)


def holds(name: str, value: float) -> bool:
    """What the name of a range says of a value."""
    if name == "any":
        return True
    if found := re.fullmatch(r"([\[(])(.+), (.+)\]", name):
        lower, upper = float(found[2]), float(found[3])
        return (value >= lower if found[1] == "[" else value > lower) and value <= upper
    sign, bound = name.split(" ")
    return {"<=": value <= float(bound), ">": value > float(bound), ">=": value >= float(bound)}[sign]


@pytest.mark.parametrize("codes", GROUPS, ids=str)
def test_a_range_holds_exactly_the_values_of_its_bins(codes: list[int]) -> None:
    name = _group_name(REFERENCE, codes)
    for at in (-3.0, *REFERENCE.edges, 200.0):
        for value in (math.nextafter(at, -math.inf), at, math.nextafter(at, math.inf), at + 0.5):
            assert holds(name, value) == (bin_of(value) in codes), (name, value)


def test_what_has_no_value_is_named_beside_the_range() -> None:
    assert _group_name(REFERENCE, [3, 4, MISSING]) == "(38, 200] or missing"
    assert _group_name(REFERENCE, [MISSING, INVALID]) == "missing or invalid"
    assert _group_name(REFERENCE, [BELOW, ABOVE]) == "< -3 or > 200"
    assert _group_name(ColumnReference("flag", "binary"), [0, 1]) == "0 or 1"
