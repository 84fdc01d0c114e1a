"""A name for this worker that survives its restart: the host and the lowest free slot on it.

It is the `transactional.id` (a restarted worker ends the transaction its killed self left open, at once instead of
after `transaction.timeout`) and the static member id (a restart gets its partitions back without a rebalance).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import socket
import tempfile
from pathlib import Path
from typing import IO

_SLOTS_MAX = 1_000


class Instance:
    """A held name; `close` gives it back, and so does the kernel when the process dies."""

    def __init__(self, group: str, bootstrap: str, *, name: str | None = None) -> None:
        self._file: IO[bytes] | None = None
        given = name or os.environ.get("DRIFTLINE_INSTANCE")
        self.name = given if given else self._take(group, bootstrap)

    def _take(self, group: str, bootstrap: str) -> str:
        folder = Path(tempfile.gettempdir()) / f"driftline-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        place = hashlib.sha256(f"{group} {bootstrap}".encode()).hexdigest()[:16]
        host = re.sub(r"[^A-Za-z0-9._-]", "_", socket.gethostname()) or "host"
        for slot in range(_SLOTS_MAX):
            file = (folder / f"{place}-{slot}.lock").open("ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                continue
            self._file = file
            return f"{host}-{slot}"
        raise OSError(f"more than {_SLOTS_MAX} workers of one group on this host")

    def close(self) -> None:
        """Give the name back."""
        if self._file is not None:
            self._file.close()
            self._file = None
