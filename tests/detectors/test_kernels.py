"""What holds for every bank: cuts, restarts and compilers never show."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.detectors.kernels.bank import pack, unpack
from driftline.detectors.kernels.jit import portable_log
from tests.detectors import kernel_run

ROWS = 400
ROOT = Path(__file__).parents[2]
BANKS = ("adwin", "page_hinkley", "cusum", "ewma", "psi", "rate")


@given(seed=st.integers(0, 10_000), cuts=st.sets(st.integers(1, ROWS - 1), max_size=12))
@settings(max_examples=40, deadline=None)
def test_the_cut_of_the_stream_never_shows(seed: int, cuts: set[int]) -> None:
    assert kernel_run.digest(ROWS, seed, sorted(cuts)) == kernel_run.digest(ROWS, seed)


def test_row_by_row_is_the_whole_batch_and_every_bank_alarms() -> None:
    stream = kernel_run.a_stream(ROWS, 1)
    whole, single = kernel_run.new_banks(), kernel_run.new_banks()
    alarms = kernel_run.feed(whole, stream, [])
    assert kernel_run.feed(single, stream, range(1, ROWS)) == alarms
    assert kernel_run.state(single) == kernel_run.state(whole)
    assert min(len(found) for found in alarms.values()) > 3
    blamed, state = kernel_run.blames(stream, [])
    assert kernel_run.blames(stream, range(1, ROWS)) == (blamed, state)
    assert len(blamed) > 3


@given(seed=st.integers(0, 10_000), stop=st.integers(1, ROWS - 1))
@settings(max_examples=25, deadline=None)
def test_a_restored_bank_is_one_that_never_stopped(seed: int, stop: int) -> None:
    values, codes, scopes = kernel_run.a_stream(ROWS, seed)
    running = kernel_run.new_banks()
    kernel_run.feed(running, (values[:stop], codes[:stop], scopes[:stop]), [])
    restored = kernel_run.new_banks()
    for name, blobs in kernel_run.state(running).items():
        for scope, blob in enumerate(blobs):
            restored[name].restore(scope, blob)
    rest = (values[stop:], codes[stop:], scopes[stop:])
    assert kernel_run.state(restored) == kernel_run.state(running)
    assert kernel_run.feed(restored, rest, []) == kernel_run.feed(running, rest, [])
    assert kernel_run.state(restored) == kernel_run.state(running)


def test_alarms_are_ordered_by_row_then_scope_of_the_row_then_column() -> None:
    stream = kernel_run.a_stream(ROWS, 2)
    for found in kernel_run.feed(kernel_run.new_banks(), stream, []).values():
        places = [(row, stream[2][row].tolist().index(scope), column) for row, scope, column, *_ in found]
        assert [p[0] for p in places] == sorted(p[0] for p in places)
        assert all(a <= b for a, b in itertools.pairwise(places) if a[0] == b[0] and len(set(stream[2][a[0]])) == 2)


def test_scopes_do_not_touch_each_other() -> None:
    values, codes, scopes = kernel_run.a_stream(ROWS, 3)
    both, one = kernel_run.new_banks(), kernel_run.new_banks()
    kernel_run.feed(both, (values, codes, scopes), [])
    kernel_run.feed(one, (values, codes, np.where(scopes == 1, 1, -1).astype(np.int32)), [])
    for name in BANKS:
        assert one[name].export(1) == both[name].export(1)


@pytest.mark.parametrize(
    "environment",
    [
        {"NUMBA_DISABLE_JIT": "1"},
        {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512_SKX"},
    ],
    ids=["interpreted", "generic processor"],
)
def test_other_compilers_and_processors_give_the_same_bits(environment: dict[str, str], tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.detectors.kernel_run"],
        cwd=ROOT,
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == [kernel_run.digest(400, 9), kernel_run.explained(), kernel_run.multiplied()]


@pytest.mark.parametrize("name", BANKS)
def test_damaged_state_is_refused(name: str) -> None:
    banks = kernel_run.new_banks()
    blob = banks[name].export(0)
    bank = banks[name].bank if name == "psi" else banks[name]
    blob = bank.export(0)
    for damaged in (b"", blob[:-1], blob + b"x", b"XXXX" + blob[4:], blob[:4] + b"\xff" + blob[5:], blob[:20]):
        with pytest.raises(ValueError, match="state of"):
            bank.restore(0, damaged)


def test_packed_arrays_come_back() -> None:
    arrays = [np.arange(5, dtype="<i4"), np.array([np.nan, -0.0]), np.zeros(0, np.uint8)]
    found = unpack(pack(b"TEST", 3, 7, arrays), b"TEST", 3, 7, ["<i4", "<f8", "u1"])
    assert [a.tobytes() for a in found] == [a.tobytes() for a in arrays]


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_the_portable_logarithm_is_the_logarithm(x: float) -> None:
    assert portable_log(x) == pytest.approx(math.log(x), rel=5e-16, abs=5e-16)
