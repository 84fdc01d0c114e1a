"""What a budget of false alarms asks of the rest of a model."""

from __future__ import annotations

import math
from collections.abc import Iterator

from driftline.schemas.budget import REFERENCE_ERRORS, reference_least
from driftline.schemas.config import Model
from driftline.schemas.document import Path
from driftline.schemas.problems import Flaw


def check_budget(model: Model, place: Path) -> Iterator[Flaw]:
    """Flaws of a model's budget.

    The reference is frozen, so its own error of 1 / sqrt(m) standard deviations is a shift for ever: what is no alarm must
    reach some of them, or the budget is spent on it. A baseline from a file is measured when it is read, and widens it.
    """
    if model.false_alarms is None:
        for index, monitor in enumerate(model.monitors or ()):
            for position, detector in enumerate(monitor.detectors):
                if detector.alert:
                    hint = 'without "false_alarms" every detector opens episodes'
                    yield Flaw((*place, "monitors", index, "detectors", position, "alert"), "false_alarms beside it", "none", hint)
        return
    if model.baseline.file is not None:
        return
    learn = model.baseline.learn
    for index, monitor in enumerate(model.monitors or ()):
        if monitor.severity.warning < REFERENCE_ERRORS / math.sqrt(learn):
            least = f"at least {REFERENCE_ERRORS / math.sqrt(learn):.3g} with baseline.learn {learn}"
            raised = _to(monitor.severity.warning)
            hint = f"a shift this small is within {REFERENCE_ERRORS:g} of the reference's own errors; raise it, or baseline.learn{raised}"
            yield Flaw((*place, "monitors", index, "severity", "warning"), least, f"{monitor.severity.warning:g}", hint)
    if model.monitors is None and learn < reference_least(DEFAULT_WARNING):
        hint = f"the default monitors warn from {DEFAULT_WARNING:g} sd, and {learn} events have an error of {1 / math.sqrt(learn):.2g}"
        yield Flaw((*place, "baseline", "learn"), f"at least {reference_least(DEFAULT_WARNING)} with false_alarms", f"{learn}", hint)


DEFAULT_WARNING = 0.1


def _to(warning: float) -> str:
    return f" to {reference_least(warning):,}" if warning > 0 else ""
