"""Building a baseline is often the first thing done after an installation, and what it needs is compiled then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from driftline.detectors.kernels.compiling import WORDS
from tests.cli.streams_for_tests import COLUMN_OPTIONS, config_text, write_transactions


def test_a_first_build_says_once_that_it_compiles_and_the_next_one_does_not(tmp_path: Path) -> None:
    stream = write_transactions(tmp_path / "stream.csv", 2_500)
    (tmp_path / "c.yml").write_text(config_text(labels=True))
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    env.pop("NUMBA_DISABLE_JIT", None)
    command = [sys.executable, "-m", "driftline", "baseline", "build", "c.yml", "--from-file", str(stream), *COLUMN_OPTIONS]
    told = []
    for target in ("first.json", "second.json"):
        done = subprocess.run([*command, "-o", target], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=True)
        assert WORDS not in done.stdout
        told.append(done.stderr.count(WORDS))
    assert told == [1, 0]
