"""Values as an attacker, a fault or another program leaves them: bytes moved about, and JSON with other things in its places."""

from __future__ import annotations

import copy
import tracemalloc
from collections.abc import Callable
from typing import Any

import orjson
from hypothesis import strategies as st

from driftline.streams.errors import StreamError

# Above what any value of these tests needs, far below what would hurt a worker.
ALLOCATED_MAX = 64 << 20

_ODD: list[Any] = [
    *(None, True, False, "", "x", "\ud7ff", "a/b", "../..", [], {}, [[]], [None], {"": None}, 0, -1, 1, 2**31, 2**53, 2**63 - 1, -(2**63)),
    *(2**63, 2**64 - 1, 0.5, -0.0, 1e300, [0] * 9, "9" * 40),
]


@st.composite
def bytes_like(draw: st.DrawFn, valid: bytes) -> bytes:
    """`valid` with bytes changed, cut out, put in, or nothing of it left."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["change", "change", "change", "cut", "insert", "repeat", "truncate"])):
            case "change" if data:
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at : at + draw(st.integers(1, 16))]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=16))
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 64))]
            case "truncate":
                del data[at:]
    return bytes(data)


@st.composite
def json_like(draw: st.DrawFn, valid: bytes) -> bytes:
    """`valid` JSON with odd values in one to three of its places, keys removed, or added."""
    root = [orjson.loads(valid)]
    for _ in range(draw(st.integers(1, 3))):
        parent, key = draw(st.sampled_from(_places(root)))
        # A copy: the next change may go into it.
        odd = copy.deepcopy(draw(st.one_of(st.sampled_from(_ODD), st.integers(-(2**63), 2**64 - 1), st.text(max_size=5))))
        match draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"])):
            case "remove" if parent is not root:
                del parent[key]
            case "add" if isinstance(parent, dict):
                parent[draw(st.text(max_size=5))] = odd
            case "add" if parent is not root:
                parent.append(odd)
            case _:
                parent[key] = odd
    return orjson.dumps(root[0]) if root else b""


def _places(node: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    keys = list(node) if isinstance(node, dict) else range(len(node))
    for key in keys:
        found.append((node, key))
        if isinstance(node[key], dict | list):
            found += _places(node[key])
    return found


def named_or_harmless(read: Callable[[], object]) -> StreamError | None:
    """Run it: nothing but a named error may come out, and no mountain of memory be asked for.

    Returns
    -------
    The error; its one line says what is wrong.
    """
    named: StreamError | None = None
    tracemalloc.start()
    try:
        read()
    except StreamError as error:
        named = error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < ALLOCATED_MAX, f"{peak >> 20} MiB were allocated"
    assert named is None or 0 < len(named.message) < 1_000
    return named
