"""What `after_change` asks of the rest of a model."""

from __future__ import annotations

from collections.abc import Iterator

from driftline.schemas.config import Model
from driftline.schemas.document import Path
from driftline.schemas.problems import Flaw
from driftline.schemas.series import longest_window


def check_after_change(model: Model, place: Path) -> Iterator[Flaw]:
    """Flaws of a model's `after_change` and of its features'.

    A reference that is learned anew takes `baseline.learn` rows: what did not stay as long would be learned in its middle. And what
    came and went has to leave the window before its level is seen to be back.
    """
    longest = longest_window(model)
    least = max(model.baseline.learn, 2 * longest)
    said = [((*place, "after_change"), model.after_change)]
    for name, feature in (model.features or {}).items():
        own: Path = (*place, "features", name, "after_change")
        if feature.after_change not in (None, "keep") and feature.kind == "vector":
            hint = "a vector has no reference of its own; its blocks go by the model's after_change"
            yield Flaw(own, "a numeric or categorical feature", "a vector", hint)
        elif feature.after_change is not None:
            said.append((own, feature.after_change))
    for where, one in said:
        if one != "keep" and one.relearn_after < least:
            hint = "what stays for less than a reference takes to learn, or is still in a window that has it, is not the new normal yet"
            wanted = f"at least {least}: baseline.learn ({model.baseline.learn}), and twice the longest window ({longest})"
            yield Flaw((*where, "relearn_after"), wanted, f"{one.relearn_after}", hint)
