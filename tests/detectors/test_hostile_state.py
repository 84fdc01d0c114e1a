"""States that no stream leads to: refused, or at least harmless; kernels do not check bounds."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from driftline.detectors.kernels import PageHinkleyBank, RateBank
from driftline.detectors.kernels.bank import pack, unpack
from tests.detectors.kernel_run import VALUE_BANKS, BudgetChain, PsiWithRing, a_stream, new_banks

ROWS = 400
TYPES = {
    "adwin": (b"DADW", 1, 4, ["u1", "u1", "<i4", "<f8", "u1", "<f8", "<f8"]),
    "page_hinkley": (b"DPHK", 1, 4, ["<f8"]),
    "cusum": (b"DCUS", 1, 4, ["<f8"]),
    "ewma": (b"DEWM", 1, 4, ["<f8"]),
    "rate": (b"DRAT", 2, 3, ["<i8", "<f8", "<f8", "<i8"]),
}


def fed(name: str) -> Any:
    bank = new_banks()[name]
    values, codes, scopes = a_stream(ROWS, 3)
    bank.update(values if name in VALUE_BANKS else codes, scopes)
    return bank


def take_rows(name: str, bank: Any) -> None:
    """What a forged state could break: every kernel over many rows."""
    values, codes, scopes = a_stream(ROWS, 4)
    bank.update(values if name in VALUE_BANKS else codes, scopes)


def parts(name: str, blob: bytes) -> list[Any]:
    return unpack(blob, *TYPES[name])


@pytest.mark.parametrize("name", [*VALUE_BANKS, "psi", "rate"])
def test_random_damage_is_refused_with_a_value_error_or_does_no_harm(name: str) -> None:
    generator = np.random.default_rng(5)
    clean = fed(name).export(1)
    own = clean if name != "psi" else clean[: -fed(name).ring[1].size - 8]
    refused = 0
    for _ in range(400):
        damaged = bytearray(own)
        for place in generator.integers(16, len(own), int(generator.integers(1, 4))):
            damaged[place] = int(generator.integers(256))
        if generator.random() < 0.2:
            damaged = damaged[: int(generator.integers(len(own)))]
        target = new_banks()[name]
        try:
            (target.bank if name == "psi" else target).restore(1, bytes(damaged))
        except ValueError:
            refused += 1
            continue
        # a PSI window must also agree with its ring, which the panel checks
        if name != "psi":
            take_rows(name, target)
    assert refused > 40


@pytest.mark.parametrize(
    ("array", "forge"),
    [
        (0, lambda depth: depth + 200),
        (0, lambda depth: depth * 0),
        (2, lambda ticks: ticks * 0 - 5),
        (2, lambda ticks: ticks * 0 + 4),
        (3, lambda moments: moments * np.nan),
        (3, lambda moments: moments + 1e18),
        (4, lambda sizes: sizes * 0 + 255),
        (4, lambda sizes: sizes * 0),
        (5, lambda totals: totals[:-1]),
        (6, lambda variances: variances[:-1]),
    ],
)
def test_adwin_refuses_buckets_that_no_values_lead_to(array: int, forge: Any) -> None:
    bank = fed("adwin")
    before = bank.export(1)
    arrays = parts("adwin", before)
    arrays[array] = forge(arrays[array]).astype(arrays[array].dtype)
    with pytest.raises(ValueError, match="damaged state of DADW"):
        bank.restore(1, pack(b"DADW", 1, 4, arrays))
    assert bank.export(1) == before


@pytest.mark.parametrize("part", ["scores", "budget"])
def test_random_damage_to_a_budget_is_refused_with_a_value_error_or_does_no_harm(part: str) -> None:
    generator = np.random.default_rng(6)
    chain = BudgetChain()
    _, codes, scopes = a_stream(ROWS, 3)
    chain.update(codes, scopes, 0)
    clean = chain.scores.export(1) if part == "scores" else chain.budget.export()
    refused = 0
    for _ in range(300):
        damaged = bytearray(clean)
        for place in generator.integers(16, len(clean), int(generator.integers(1, 4))):
            damaged[place] = int(generator.integers(256))
        target = BudgetChain()
        try:
            target.scores.restore(1, bytes(damaged)) if part == "scores" else target.budget.restore(bytes(damaged))
        except ValueError:
            refused += 1
            continue
        target.update(codes, scopes, ROWS)
    assert refused > 40


@pytest.mark.parametrize(
    ("array", "value"),
    [
        (0, -1.0), (1, np.nan), (2, np.inf), (3, 1 << 40), (4, -1), (6, -1.0), (7, -1), (8, 1e9), (10, -1), (12, 200), (12, 0),
        (13, -1), (14, np.nan),
    ],
)
def test_a_budget_refuses_evidence_and_corners_that_no_values_lead_to(array: int, value: float) -> None:
    chain = BudgetChain()
    _, codes, scopes = a_stream(ROWS, 3)
    chain.update(codes, scopes, 0)
    before = chain.budget.export()
    types = ["<f8", "<f8", "<f8", "<i8", "<i8", "<i8", "<f8", "<i8", "<f8", "<i8", "<i8", "<f8", "u1", "<i8", "<f8"]
    arrays = unpack(before, b"DEDT", 2, 12, types)
    arrays[array][0] = value
    with pytest.raises(ValueError, match="damaged"):
        chain.budget.restore(pack(b"DEDT", 2, 12, arrays))
    assert chain.budget.export() == before


def test_adwin_refuses_a_window_that_would_not_fit_into_memory() -> None:
    arrays = parts("adwin", new_banks()["adwin"].export(0))
    arrays[0][:] = 60
    arrays[3][2::3] = 2.0**60 - 1
    arrays[4] = np.ones(4 * 60, np.uint8)
    arrays[5], arrays[6] = np.zeros(4 * 60), np.zeros(4 * 59)
    with pytest.raises(ValueError, match="no values lead to"):
        new_banks()["adwin"].restore(0, pack(b"DADW", 1, 4, arrays))


@pytest.mark.parametrize("field", [0, 6, 7])
@pytest.mark.parametrize("value", [np.nan, -1.0, 1e300])
def test_page_hinkley_refuses_counts_that_no_values_lead_to(field: int, value: float) -> None:
    (sums,) = parts("page_hinkley", fed("page_hinkley").export(1))
    sums[field] = value
    with pytest.raises(ValueError, match="damaged state of DPHK"):
        PageHinkleyBank(3, 4, threshold=3.0).restore(1, pack(b"DPHK", 1, 4, [sums]))


@pytest.mark.parametrize("name", ["cusum", "ewma"])
@pytest.mark.parametrize("field", [0, 4, 5])
@pytest.mark.parametrize("value", [np.nan, -1.0, 1e300])
def test_charts_refuse_counts_that_no_values_lead_to_and_the_state_of_each_other(name: str, field: int, value: float) -> None:
    magic, version, columns, dtypes = TYPES[name]
    (sums,) = unpack(fed(name).export(1), magic, version, columns, dtypes)
    other = new_banks()["ewma" if name == "cusum" else "cusum"]
    with pytest.raises(ValueError, match="expected state of"):
        other.restore(1, pack(magic, version, columns, [sums]))
    sums[field] = value
    with pytest.raises(ValueError, match=f"damaged state of {magic.decode()}"):
        new_banks()[name].restore(1, pack(magic, version, columns, [sums]))


@pytest.mark.parametrize(("array", "value"), [(0, -1), (1, np.nan), (1, -1.0), (2, np.inf), (3, 1 << 40), (3, -1)])
def test_rates_refuse_evidence_that_no_rows_lead_to(array: int, value: float) -> None:
    arrays = parts("rate", fed("rate").export(1))
    arrays[array][0] = value
    target = new_banks()["rate"]
    assert isinstance(target, RateBank)
    with pytest.raises(ValueError, match="damaged state of DRAT"):
        target.restore(1, pack(b"DRAT", 2, 3, arrays))


def test_psi_refuses_more_rows_than_its_window_has() -> None:
    source = PsiWithRing()
    _, codes, scopes = a_stream(ROWS, 3)
    source.update(codes, scopes)
    arrays = unpack(source.bank.export(1), b"DPSI", 1, 4, ["u1", "u1", "<i4", "<f8", "u1"])
    for k, value in ((2, 1 << 30), (2, -1), (1, 200), (0, 255)):
        forged = [array.copy() for array in arrays]
        forged[k][0] = value
        with pytest.raises(ValueError, match="damaged state of DPSI"):
            PsiWithRing().bank.restore(1, pack(b"DPSI", 1, 4, forged))


def test_a_state_of_another_shape_is_never_spread_over_all_series() -> None:
    one = PageHinkleyBank(1, 1, threshold=3.0).export(0)
    body = bytearray(one)
    struct.pack_into("<I", body, 8, 4)
    with pytest.raises(ValueError, match="expected 36 items"):
        PageHinkleyBank(1, 4, threshold=3.0).restore(0, bytes(body))
