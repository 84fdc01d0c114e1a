"""Bets on the shares of bins: the bound against an optimiser, the recursion against a plain loop, and what categories show of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from driftline.detectors.kernels import EDetectorBank
from driftline.detectors.kernels.bank import pack, unpack
from driftline.detectors.kernels.shares import (
    FADES,
    KEEPS,
    LOOK_VALUES,
    WAITS_MOST,
    WITNESSES,
    Bins,
    Shares,
    bet_again,
    new_shares,
    restore_shares,
    share_arrays,
)
from driftline.detectors.layout import lay_out
from driftline.detectors.panel import Panel
from driftline.detectors.panel_state import scope_blob
from driftline.detectors.shares import category_bins
from driftline.detectors.spec import Column, PanelBudget, PanelRows, PanelSpec, Signal
from tests.detectors.panel_cases import plain_rows, series
from tests.detectors.test_panel_state import Store, restarted

LEARN, WINDOW = 4_000, 2_000
SHARES = np.array([0.3, 0.2, 0.12, 0.1, 0.08, 0.07, 0.06, 0.04, 0.02, 0.01])
Array = np.ndarray[Any, Any]


def bins_of(share: Array, tolerance: float = 0.1) -> Bins:
    edges = stats.norm.ppf(np.cumsum(share)[:-1])
    return Bins(edges.tolist(), share.tolist(), tolerance)


def witness(share: Array, seen: Array, tolerance: float) -> Shares:
    """Shares whose memory holds these values."""
    sh = new_shares(1, {0: bins_of(share, tolerance)})
    for memory in range(len(KEEPS)):
        sh.mass[0, memory, : len(share)] = seen
        sh.taken[0, memory] = seen.sum()
    bet_again(0, False, sh)
    return sh


def psi(p: Array, r: Array) -> float:
    return float(((p - r) * np.log(p / r)).sum())


laws = st.lists(st.floats(0.001, 1.0), min_size=3, max_size=8).map(lambda found: np.array(found) / math.fsum(found))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 60), st.sampled_from([0.05, 0.1, 0.4, 2.0]))
def test_no_law_within_the_tolerance_gives_a_factor_a_mean_above_one(seed: int, n: int, tolerance: float) -> None:
    g = np.random.default_rng(seed)
    share, law = g.dirichlet(np.ones(n) * g.choice([0.3, 3.0])) + 1e-6, g.dirichlet(np.ones(n) * 0.5)
    share /= share.sum()
    sh = witness(share, g.multinomial(int(g.choice([64, 512])), law).astype(float), tolerance)
    for w in range(WITNESSES):
        if not sh.active[0, w]:
            continue
        factor = sh.factors[0, w, :n]
        assert factor.min() >= 0
        # The worst tolerated law of a linear function: on the edge of a cap of the sphere of square roots, where the gradient of
        # the Lagrange function vanishes, u = s / (nu - factor), for the nu that puts it there.
        root = np.sqrt(share)

        def on_the_edge(nu: float, factor: Array = factor, root: Array = root) -> Array:
            u = root / (nu - factor)
            return np.asarray(u / np.linalg.norm(u))

        def beyond(nu: float, root: Array = root, at: Any = on_the_edge) -> float:
            return float(at(nu) @ root - sh.cosine[0])

        nu = optimize.brentq(beyond, factor.max() + 1e-12, factor.max() + 1e9, xtol=1e-13)
        assert on_the_edge(nu) ** 2 @ factor <= 1.0 + 1e-9
        for _ in range(20):
            other = on_the_edge(nu) + 0.1 * g.normal(size=n)
            other = np.abs(other) / np.linalg.norm(other)
            if other @ root >= sh.cosine[0]:
                assert other**2 @ factor <= 1.0 + 1e-9


def test_the_bet_is_the_ratio_to_the_nearest_tolerated_law() -> None:
    """Against a general optimiser: the reverse information projection, to the precision of its solution."""
    seen = 512 * np.array([0.2, 0.1, 0.05, 0.45, 0.1, 0.02, 0.02, 0.02, 0.02, 0.02])
    sh = witness(SHARES, seen, 0.1)
    expected = (seen + 4.0 * SHARES) / (seen.sum() + 4.0)
    root = np.sqrt(SHARES)
    found = optimize.minimize(
        lambda u: -float(expected @ np.log(u * u)),
        root,
        jac=lambda u: -2.0 * expected / u,
        bounds=[(1e-4, 1.0)] * len(root),
        constraints=[
            {"type": "eq", "fun": lambda u: u @ u - 1.0, "jac": lambda u: 2.0 * u},
            {"type": "ineq", "fun": lambda u: u @ root - (1.0 - 0.1 / 8.0), "jac": lambda _: root},
        ],
        options={"maxiter": 500, "ftol": 1e-14},
    )
    assert found.success
    assert sh.factors[0, 2, : len(root)] == pytest.approx(expected / found.x**2, rel=2e-4)


@settings(deadline=None, max_examples=200)
@given(laws, laws)
def test_the_tolerance_holds_every_law_of_that_psi(p: Array, r: Array) -> None:
    n = min(len(p), len(r))
    p, r = p[:n] / p[:n].sum(), r[:n] / r[:n].sum()
    assert 4.0 * ((np.sqrt(p) - np.sqrt(r)) ** 2).sum() <= psi(p, r) * (1.0 + 1e-9) + 1e-12


def test_the_recursion_is_the_plain_one() -> None:
    g = np.random.default_rng(3)
    share = np.array([0.5, 0.3, 0.15, 0.05])
    law = np.array([0.3, 0.2, 0.1, 0.4])
    b = np.r_[g.choice(4, 500, p=share), g.choice(4, 400, p=law)]
    low = np.r_[0.0, np.cumsum(share)[:-1]][b]
    z = stats.norm.ppf(low + g.random(len(b)) * share[b])
    rate = 1e-30
    bank = EDetectorBank(1, rate=rate, first=1.0, bins={0: bins_of(share)})
    total = []
    for t in range(len(z)):
        bank.update(z[t : t + 1, None], np.zeros((1, 1), np.int32), np.array([t]))
        total.append(bank.total)
    stakes, taken, mass, fresh = [0.0] * WITNESSES, [0.0, 0.0], np.zeros((2, 4)), np.zeros(4)
    other = new_shares(1, {0: bins_of(share)})
    plain = []
    for t in range(len(z)):
        for w in range(WITNESSES):
            if other.active[0, w]:
                stakes[w] = (stakes[w] + rate) * other.factors[0, w, b[t]]
            else:
                stakes[w] = max(stakes[w], min(stakes[w] + rate, WAITS_MOST)) * FADES
        plain.append(sum(stakes) / WITNESSES)
        fresh[b[t]] += 1
        if (t + 1) % LOOK_VALUES == 0:
            for memory, keeps in enumerate(KEEPS):
                taken[memory] = keeps * taken[memory] + LOOK_VALUES
                mass[memory] = keeps * mass[memory] + fresh
            fresh[:] = 0
            other.taken[0], other.mass[0, :, :4] = taken, mass
            bet_again(0, False, other)
    assert total == pytest.approx(plain, rel=1e-12)
    assert max(total) > 1e3 * rate


def test_what_waits_without_a_bet_is_bounded() -> None:
    """Also where one false alarm in twenty values is allowed: what comes in is no evidence. No witness sees more than .5 by chance."""
    g = np.random.default_rng(4)
    bank = EDetectorBank(2, rate=[0.03, 0.02], first=1.0, bins={m: bins_of(SHARES, 2.0) for m in range(2)})
    z = g.normal(size=(20_000, 2))
    assert len(bank.update(z, np.tile(np.arange(2, dtype=np.int32), (len(z), 1)), np.arange(len(z)))) == 0
    assert bank.total <= WAITS_MOST + 1e-12


def test_what_an_alarm_of_others_takes_is_gone_and_what_was_learned_stays() -> None:
    """A monitor that had gathered a little pays for the alarm with it, and goes on to its own."""
    g = np.random.default_rng(11)
    bank = EDetectorBank(2, rate=1e-4, first=1.0, bins={m: bins_of(SHARES) for m in range(2)})
    z = g.normal(size=(3_000, 2))
    # Everything of the first lies in one bin, and a part of the second.
    z[1_000:, 0] = 3.0
    z[1_000:, 1] = np.where(g.random(2_000) < 0.1, 3.0, z[1_000:, 1])
    blames = bank.update(z[:1_100], np.tile(np.arange(2, dtype=np.int32), (1_100, 1)), np.arange(1_100))
    assert blames["monitor"][0] == 0
    paid = blames[blames["monitor"] == 1]
    state = bank.state.shares
    assert bank.total == pytest.approx(float(bank.state.evidence.sum()))
    if len(paid):
        assert state.taken[1, 1] > 400.0
    later = bank.update(z[1_100:], np.tile(np.arange(2, dtype=np.int32), (1_900, 1)), np.arange(1_100, 3_000))
    assert (later["monitor"] == 1).any()


def test_a_change_within_the_tolerance_spends_next_to_nothing() -> None:
    """2 million values of PSI .09, spread over all bins or in one: one in 100,000 allows twenty alarms each."""
    g = np.random.default_rng(5)
    for direction in (g.normal(size=len(SHARES)), np.eye(len(SHARES))[6]):

        def law(step: float, direction: Array = direction) -> Array:
            out = SHARES * np.exp(step * direction)
            return np.asarray(out / out.sum())

        step = optimize.brentq(lambda x: psi(law(x), SHARES) - 0.09, 0.0, 3.0)
        b = g.choice(len(SHARES), 1_000_000, p=law(step))
        low = np.r_[0.0, np.cumsum(SHARES)[:-1]][b]
        z = stats.norm.ppf(low + g.random(len(b)) * SHARES[b])
        bank = EDetectorBank(1, rate=1e-5, first=1.0, bins={0: bins_of(SHARES)})
        assert len(bank.update(z[:, None], np.zeros((len(z), 1), np.int32), np.arange(len(z)))) == 0


@pytest.mark.parametrize("damage", ["nan", "negative", "sum", "fresh", "short"])
def test_damaged_state_is_refused(damage: str) -> None:
    sh = witness(SHARES, 64 * SHARES, 0.1)
    arrays = share_arrays(sh, 0, 1)
    arrays = [array.reshape(-1).copy() for array in arrays]
    restore_shares(new_shares(1, {0: bins_of(SHARES)}), 0, 1, arrays)
    if damage == "nan":
        arrays[0][1] = np.nan
    elif damage == "negative":
        arrays[2][0] = -1.0
    elif damage == "sum":
        arrays[1][0] += 1.0
    elif damage == "fresh":
        arrays[3][:4] = LOOK_VALUES
    else:
        arrays[2] = arrays[2][:-1]
    with pytest.raises(ValueError, match="damaged state of shares"):
        restore_shares(new_shares(1, {0: bins_of(SHARES)}), 0, 1, arrays)


def test_bins_that_are_none_are_refused() -> None:
    for own in (Bins([], [1.0], 0.1), Bins([0.0], [0.5, 0.6], 0.1), Bins([1.0, 0.0], [0.3, 0.3, 0.4], 0.1), Bins([0.0], [0.5, 0.5], 0.0)):
        with pytest.raises(ValueError, match="expected"):
            new_shares(1, {0: own})


# Categories of a panel.


def spec(per_unit: float = 1e-5, *, warning: float = 0.1, window: int = WINDOW, learn: int = LEARN) -> PanelSpec:
    values = series("feature:kind", None, "e_detector", warning=warning, window=window)
    columns = (Column("kind", "categorical", (values,)),)
    return PanelSpec(columns=columns, window=window, learn_rows=learn, budget=PanelBudget(per_unit, True, 1 / (168 * per_unit)))


def rows_of(codes: Array) -> PanelRows:
    names = [f"v{k}" for k in range(int(codes.max()) + 1)]
    return replace(plain_rows({"x": np.zeros(len(codes))}), categorical={"kind": (codes.astype(np.int32), names)})


def moved(value: int, share: float) -> Array:
    out = np.append(SHARES, 0.0) if value == len(SHARES) else SHARES.copy()
    out *= (1.0 - share) / (1.0 - out[value])
    out[value] = share
    return np.asarray(out)


def stream(seed: int, *parts: tuple[int, Array]) -> Array:
    g = np.random.default_rng(seed)
    return np.concatenate([g.choice(len(law), n, p=law) for n, law in ((LEARN, SHARES), *parts)])


def run(codes: Array, own: PanelSpec | None = None) -> list[Signal]:
    return [s for s in Panel(spec() if own is None else own).update(rows_of(codes)) if s.kind != "baseline"]


@pytest.mark.parametrize(
    ("after", "value", "within"),
    [(moved(6, 0.35), "v6", 250), (moved(0, 0.1), "v0", 1_200), (moved(10, 0.08), "unseen", 1_200)],
    ids=["a middle value gains 29 points", "the commonest loses 20 points", "a new one"],
)
def test_a_value_that_comes_more_or_less_often_is_found_named_and_dated(after: Array, value: str, within: int) -> None:
    at = LEARN + 3_000
    first = run(stream(1, (3_000, SHARES), (3_000, after)))[0]
    assert (first.kind, first.series, first.detector, first.direction) == ("open", "feature:kind", "e_detector", None)
    assert at < first.row < at + within
    assert first.since is not None
    assert abs(first.since.offset - at) < 120
    named = first.bins[0]
    assert named.bin in (value, "rare values") if value == "unseen" else named.bin == value
    assert f"{first.effect_size:.4g}" in (first.reason or "")
    assert first.effect_kind == "psi"


def test_a_change_of_all_shares_is_found() -> None:
    g = np.random.default_rng(8)
    direction = g.normal(size=len(SHARES))

    def law(step: float) -> Array:
        out = SHARES * np.exp(step * direction)
        return np.asarray(out / out.sum())

    step = optimize.brentq(lambda x: psi(law(x), SHARES) - 0.4, 0.0, 5.0)
    first = run(stream(2, (3_000, SHARES), (3_000, law(step))))[0]
    assert LEARN + 3_000 < first.row < LEARN + 3_800
    assert first.since is not None
    assert abs(first.since.offset - LEARN - 3_000) < 200


def test_a_swap_of_equal_shares_is_no_change_of_shares() -> None:
    assert run(stream(3, (20_000, SHARES))) == []


def test_a_wider_warning_level_tolerates_more() -> None:
    codes = stream(4, (2_000, SHARES), (6_000, moved(6, 0.18)))
    assert psi(moved(6, 0.18), SHARES) < 0.2
    assert run(codes, spec(warning=0.05))[0].row > LEARN + 2_000
    assert run(codes, spec(warning=0.25)) == []


def test_a_second_change_is_found_while_the_first_is_open() -> None:
    at = LEARN + 1_000 + 5_000
    found = run(stream(5, (1_000, SHARES), (5_000, moved(6, 0.35)), (3_000, moved(3, 0.45))))
    again = [s for s in found if s.again is not None]
    assert len(again) == 1
    assert at < again[0].row < at + 600
    assert again[0].since is not None
    assert abs(again[0].since.offset - at) < 150
    assert again[0].bins[0].bin == "v3"


def test_the_level_that_is_back_ends_the_episode() -> None:
    found = run(stream(6, (1_000, SHARES), (3_000, moved(6, 0.35)), (8_000, SHARES)))
    assert [s.kind for s in found if s.kind in ("open", "recovery")] == ["open", "recovery"]


CHANGING = stream(7, (1_500, SHARES), (2_500, moved(6, 0.35)), (1_200, moved(3, 0.45)), (800, SHARES))


@settings(deadline=None, max_examples=8)
@given(st.lists(st.integers(1, len(CHANGING) - 1), max_size=12, unique=True))
def test_cuts_and_restarts_do_not_show(cuts: list[int]) -> None:
    own, rows = spec(1e-4, window=500), rows_of(CHANGING)
    whole = Panel(own)
    expected = [(s.row, replace(s, row=0)) for s in whole.update(rows)]
    found, store = restarted(own, rows, cuts)
    assert found == expected
    assert any(s.again is not None for _, s in expected)
    whole.export()
    assert store.load(own).levels(0) == whole.levels(0)


def test_a_scope_of_before_the_bets_on_bins_is_read() -> None:
    """Blobs of version 2: the bank's part goes on, and the bets on bins begin."""
    panel = Panel(spec())
    panel.update(rows_of(stream(9, (1_000, SHARES))))
    assert panel._watch is not None
    budget = panel._watch.budget
    assert budget is not None
    blob = budget.export(0)
    types = ["u1", "<f8", "u1", "<f8", "<f8", "<f8", "u1", "<i8", "<f8", "<f8", "<i8", "<i8"]
    parts = unpack(blob, b"DBUD", 4, 1, types)
    fresh = Panel(spec())
    fresh.update(rows_of(stream(9, (0, SHARES))))
    assert fresh._watch is not None
    restored = fresh._watch.budget
    assert restored is not None
    restored.restore(0, pack(b"DBUD", 2, 1, parts[:3]))
    restored.check()
    state = restored._bank.state
    assert state.seen[0] == 1_000
    assert state.shares.taken[0].tolist() == [0.0, 0.0]
    assert len(blob) - len(pack(b"DBUD", 2, 1, parts[:3])) < 2_048


def test_an_edited_warning_begins_anew_and_an_edited_budget_goes_on() -> None:
    own, store = spec(), Store()
    panel = Panel(own)
    panel.update(rows_of(stream(10, (1_000, SHARES))))
    store.take(panel)
    for edited, goes_on in ((spec(2e-5), True), (spec(warning=0.2), False)):
        watch = store.load(edited)._watch
        assert watch is not None
        assert watch.budget is not None
        state = watch.budget._bank.state
        assert (float(state.shares.taken[0, 1]) > 400.0) == goes_on
        assert (int(state.seen[0]) == 1_000) == goes_on


def test_without_categories_the_blob_is_of_the_version_before() -> None:
    values = series("x", None, "e_detector", warning=0.1)
    own = PanelSpec(columns=(Column("x", "numeric", (values,)),), window=200, learn_rows=400, budget=PanelBudget(1e-5, True, 600.0))
    panel = Panel(own)
    panel.update(plain_rows({"x": np.random.default_rng(1).normal(size=900)}))
    blob = panel.export()[0][scope_blob(0)]
    assert blob is not None
    assert b"DBUD\x02\x00" in blob


@pytest.mark.parametrize("learn", [200, 1_000, 5_000])
@pytest.mark.parametrize("values", [2, 50, 1_000])
def test_the_tolerance_covers_the_errors_of_the_reference(learn: int, values: int) -> None:
    """The true law lies within it but for one reference in a thousand or so; here none of twelve is outside."""
    g = np.random.default_rng([learn, values])
    law = 1.0 / np.arange(1, values + 1) if values != 50 else np.ones(50)
    law /= law.sum()
    for _ in range(12):
        codes = g.choice(values, learn, p=law)
        panel = Panel(spec(learn=learn))
        panel.update(rows_of(codes))
        assert panel.baseline is not None
        layout = lay_out(spec(), panel.baseline)
        own = category_bins(layout, 0, 0, 0.1, learn, 4.0)
        if own is None:
            continue
        # The true law of the bins: a category's values are spread over the room that it has beside a new value.
        assert panel._watch is not None
        scores = panel._watch.budget._scores.monitors  # type: ignore[union-attr]
        row = scores.first[0, 0]
        low, width = scores.low[row], scores.width[row]
        cuts = np.r_[0.0, stats.norm.cdf(own.edges), 1.0]
        coder = panel._watch.coder
        codes_of = coder.encode(rows_of(np.arange(values)))[0][:, 0]
        true = np.zeros(len(own.share))
        for value in range(values):
            code = codes_of[value]
            part = np.diff(np.clip((cuts - low[code]) / width[code], 0.0, 1.0))
            true += law[value] * part
        distance = 4.0 * ((np.sqrt(true) - np.sqrt(own.share)) ** 2).sum()
        assert distance <= own.tolerance, (distance, own.tolerance)
