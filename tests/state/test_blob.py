"""A task's small state: of this version and this shape, or a stop with a reason."""

from __future__ import annotations

import msgspec
import pytest

from driftline.streams.bounded import Count
from driftline.streams.errors import StateError
from driftline.streams.state.blob import read_state


class Held(msgspec.Struct):
    a: Count


def test_state_of_this_version_is_read() -> None:
    assert read_state(b'{"v": 3, "a": 1}', 3, Held) == Held(1)


def test_state_of_a_newer_worker_is_refused_with_what_to_do_whatever_else_is_in_it() -> None:
    for blob in (b'{"v": 4}', b'{"v": 4, "a": "renamed"}', b'{"v": "next"}'):
        with pytest.raises(StateError, match=r"version .*, this worker reads version 3\n  hint: upgrade"):
            read_state(blob, 3, Held)


@pytest.mark.parametrize(
    "blob",
    [
        *(b"", b"{", b"[]", b"{}", b"null", b"\xff", b"[" * 5_000, b'{"v": 3}', b'{"v": 3, "a": "1"}', b'{"v": 3, "a": -1}'),
        *(b'{"v": 3, "a": 9223372036854775808}', b'{"v": 3, "a": ' + b"9" * 5_000 + b"}", b'{"v": 3, "a": 1e300}'),
    ],
)
def test_damaged_state_is_refused(blob: bytes) -> None:
    with pytest.raises(StateError, match="damaged"):
        read_state(blob, 3, Held)
