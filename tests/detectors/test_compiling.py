"""Whoever waits for compilers is told, once, and nobody else is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
from driftline.detectors.kernels.compiling import compiling_told
from driftline.detectors.kernels.jit import portable_log
with compiling_told(lambda words: print("told:", words, flush=True)):
    print(portable_log(2.0))
"""


def ran(cache: Path, *, program: str = PROGRAM) -> list[str]:
    env = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    env.pop("NUMBA_DISABLE_JIT", None)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env, timeout=300, check=True)
    return done.stdout.splitlines()


def test_the_first_compilation_is_told_in_one_line_and_a_cached_one_is_not(tmp_path: Path) -> None:
    first = ran(tmp_path)
    assert [line.split(",")[0] for line in first[:-1]] == ["told: compiling kernels"]
    assert ran(tmp_path) == first[-1:]


def test_after_the_block_nobody_listens(tmp_path: Path) -> None:
    assert len(ran(tmp_path, program=PROGRAM.replace("    print(", "    pass\nprint("))) == 1
