"""River's detectors by name: same alarms as river itself, and state that continues."""

from __future__ import annotations

import numpy as np
import pytest

from driftline.detectors.river_adapter import SEED, RiverDetector, river_detectors

BINARY = {"DDM", "EDDM", "FHDDM", "HDDMA", "HDDMW"}


def stream(name: str, n: int = 2_400) -> list[float]:
    generator = np.random.default_rng(8)
    change = np.arange(n) >= n // 2
    if name in BINARY:
        return [float(hit) for hit in generator.random(n) < np.where(change, 0.6, 0.1)]
    return [float(value) for value in generator.normal(size=n) + 1.5 * change]


@pytest.mark.parametrize("name", sorted(river_detectors()))
def test_alarms_are_those_of_river_itself(name: str) -> None:
    detector = RiverDetector(name)
    parameters = {"seed": SEED} if name in {"KSWIN", "DummyDriftDetector"} else {}
    theirs = river_detectors()[name](**parameters)
    expected = []
    for position, value in enumerate(stream(name)):
        theirs.update(value)
        if theirs.drift_detected:
            expected.append(position)
    assert detector.update_many(stream(name)).tolist() == expected


@pytest.mark.parametrize("name", sorted(river_detectors()))
@pytest.mark.parametrize("stop", [1, 37, 1_205, 1_377, 2_000])
def test_a_restored_detector_is_one_that_never_stopped(name: str, stop: int) -> None:
    values = stream(name)
    running, restored = RiverDetector(name, history=150), RiverDetector(name, history=150)
    running.update_many(values[:stop])
    restored.restore(running.export())
    assert restored.drift_detected == running.drift_detected
    assert restored.update_many(values[stop:]).tolist() == running.update_many(values[stop:]).tolist()
    assert restored.export() == running.export()


def test_values_held_are_bounded() -> None:
    detector = RiverDetector("ADWIN", history=100)
    held = []
    for value in np.random.default_rng(1).normal(size=1_000):
        detector.update(value)
        held.append(detector.width)
    assert max(held) == 200
    assert min(held[200:]) == 101
    assert len(detector.export()) < 200 * 8 + 50


def test_values_that_are_not_finite_are_skipped() -> None:
    values = np.array(stream("PageHinkley"))
    holed = np.insert(values, [3, 1_300], [np.nan, np.inf])
    plain, skipping = RiverDetector("PageHinkley"), RiverDetector("PageHinkley")
    expected = plain.update_many(values)
    found = skipping.update_many(holed)
    assert len(found) == len(expected) > 0
    assert skipping.export() == plain.export()


def test_a_name_that_does_not_exist_is_answered_with_close_ones() -> None:
    with pytest.raises(ValueError, match='got "kswim"; did you mean: KSWIN'):
        RiverDetector("kswim")
    with pytest.raises(ValueError, match=r'got "os\.system"; did you mean: ADWIN'):
        RiverDetector("os.system")


def test_parameters_are_checked_by_name_and_by_river() -> None:
    with pytest.raises(ValueError, match=r'ADWIN \(delta, clock.*got "window"'):
        RiverDetector("ADWIN", {"window": 5})
    with pytest.raises(ValueError, match="KSWIN takes"):
        RiverDetector("KSWIN", {"alpha": 5.0})


def test_state_of_another_detector_is_refused() -> None:
    blob = RiverDetector("DDM").export()
    for wrong in (blob, b"", RiverDetector("ADWIN").export() + b"x"):
        with pytest.raises(ValueError, match="state of"):
            RiverDetector("ADWIN").restore(wrong)
