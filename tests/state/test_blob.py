"""A task's small state: of this version, or a stop with a reason."""

from __future__ import annotations

import pytest

from driftline.streams.errors import StateError
from driftline.streams.state.blob import read_state


def test_state_of_this_version_is_read() -> None:
    assert read_state(b'{"v": 3, "a": 1}', 3) == {"v": 3, "a": 1}


def test_state_of_a_newer_worker_is_refused_with_what_to_do() -> None:
    with pytest.raises(StateError, match="version 4, this worker reads version 3\n  hint: upgrade"):
        read_state(b'{"v": 4}', 3)


@pytest.mark.parametrize("blob", [b"", b"{", b"[]", b"{}", b"null", b"\xff", b"[" * 5_000])
def test_damaged_state_is_refused(blob: bytes) -> None:
    with pytest.raises(StateError, match="damaged"):
        read_state(blob, 3)
