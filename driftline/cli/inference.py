"""What the columns of a sample are: id, time, label, score, features and their kinds; and what to leave out, and why.

Every verdict has its reason, which `init` writes next to it: a guess that is wrong must be easy to see.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final, Literal

Role = Literal["id", "time", "label", "label_time", "score", "class", "model", "version", "latency", "weight", "feature", "left_out"]
Kind = Literal["numeric", "categorical"]

_TIME_TEXT: Final = re.compile(r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?$")
_MONTH_TEXT: Final = re.compile(r"^\d{4}[-/]\d{2}([-/]\d{2})?$")
_TIME_WORDS: Final = frozenset({"time", "ts", "timestamp", "date", "datetime", "at", "when", "day"})
_EPOCH: Final = (9e8, 5e15)  # 1998 in seconds to 2128 in microseconds
_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "label": (
        "label", "y", "y_true", "target", "truth", "ground_truth", "actual", "outcome", "is_fraud", "fraud", "chargeback",
        "clicked", "click", "converted", "conversion", "churned", "churn", "cancelled", "canceled", "is_canceled", "is_cancelled",
    ),
    "score": ("score", "y_prob", "y_score", "proba", "probability", "prob", "risk_score", "fraud_score", "model_score", "prediction_score"),
    "class": ("class", "y_pred", "prediction", "predicted", "predicted_class", "decision"),
    "model": ("model", "model_name", "model_id"),
    "version": ("version", "model_version"),
    "latency": ("latency_ms", "latency"),
    "weight": ("sample_weight",),
}  # fmt: skip
_ID_WORDS: Final = frozenset({"id", "uuid", "guid", "key", "hash", "token", "number", "no", "txn", "transaction"})
_CODE_WORDS: Final = frozenset({"code", "type", "category", "zip", "postcode", "month", "weekday", "group", "position", "class", "id"})
_LABEL_WORDS: Final = frozenset({"label", "outcome", "truth", "target"})
_EVENT_WORDS: Final = frozenset((
    "fraud", "chargeback", "clicked", "converted", "churn", "churned", "default", "defaulted", "cancelled", "canceled", "survived",
    "purchased", "subscribed", "responded", "returned", "delinquent", "bad",
))  # fmt: skip
_SCORE_WORDS: Final = frozenset({"score", "prob", "proba", "probability", "propensity", "likelihood"})
_SEGMENT_WORDS: Final = frozenset((
    "segment", "country", "region", "market", "hotel", "tenant", "store", "shop", "brand", "campaign", "policy", "channel",
    "platform", "device", "product", "plan", "tier", "merchant", "currency", "site", "city",
))  # fmt: skip
_YES_OR_NO: Final = ({"0", "1"}, {"0.0", "1.0"}, {"no", "yes"}, {"n", "y"}, {"false", "true"}, {"f", "t"})
_TEXT_LENGTH: Final = 40  # characters: longer on average is prose, not a category
_CATEGORIES_MAX: Final = 2_000
_UNIQUE_SHARE: Final = 0.5
_ID_ROWS_MIN: Final = 10
_ID_SHARE: Final = 0.95
"""An id may come again: producers repeat what was not acknowledged, and a call is retried."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a column holds in the sample."""

    n: int
    missing: int
    distinct: int
    numeric: bool
    integer: bool
    low: float
    high: float
    time_like: bool
    month_like: bool
    ascending: bool
    nested: bool
    boolean: bool
    length: float
    words: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A column, what it is taken for, and why."""

    name: str
    role: Role
    reason: str
    profile: Profile
    kind: Kind = "numeric"


def infer(
    sample: Mapping[str, Sequence[Any]], given: Mapping[str, str] | None = None, drop: Sequence[str] = (), *, labelled: bool = False
) -> list[Verdict]:
    """A verdict on every column, in the sample's order.

    Parameters
    ----------
    given : role to the column that a person named for it; only the other roles are guessed.
    drop : columns that a person wants left out.
    labelled : rows of the past, which may hold the truth; the events of a model hold its answer.
    """
    profiles = {name: _profile(name, values) for name, values in sample.items()}
    roles: dict[str, tuple[Role, str]] = dict.fromkeys(drop, ("left_out", "by --drop"))
    roles |= {name: (role, "as given") for role, name in (given or {}).items()}  # type: ignore[misc]
    _choose_times(profiles, roles)
    _choose_named(profiles, roles, labelled=labelled)
    _choose_id(profiles, roles)
    out: list[Verdict] = []
    for name, profile in profiles.items():
        if name in roles:
            role, reason = roles[name]
            out.append(Verdict(name, role, reason, profile))
        else:
            out.append(_feature(name, profile))
    return out


def label_candidates(verdicts: Sequence[Verdict]) -> list[str]:
    """Features that could be the truth: two values, and one of them yes."""
    return [v.name for v in verdicts if v.role == "feature" and _yes_or_no(v.profile)]


def segment_candidates(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Categorical features with 2 to 20 values, none of the top ones rare; the likeliest name first."""
    fit = [v for v in verdicts if v.role == "feature" and v.kind == "categorical" and 2 <= v.profile.distinct <= 20]
    fit = [v for v in fit if v.profile.top[1][1] >= 0.01]
    return sorted(fit, key=_segment_rank)


def hinted_segment(verdict: Verdict) -> bool:
    """Whether the name itself says that this divides the traffic."""
    return bool(_words(verdict.name) & _SEGMENT_WORDS)


def leaf(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _segment_rank(verdict: Verdict) -> tuple[bool, int]:
    return (not hinted_segment(verdict), verdict.profile.distinct)


def _choose_times(profiles: Mapping[str, Profile], roles: dict[str, tuple[Role, str]]) -> None:
    """The event time is the time column whose name says so or that ascends; a label's time has the label in its name."""
    taken = _taken(roles)
    times = [name for name, profile in profiles.items() if profile.time_like and name not in roles]
    of_label = [name for name in times if _words(name) & _LABEL_WORDS]
    if of_label and "label_time" not in taken:
        roles[of_label[0]] = ("label_time", "a time, and its name speaks of the label")
    rest = [name for name in times if name not in roles]
    for name, profile in profiles.items():
        if profile.month_like and name not in roles:
            roles[name] = ("left_out", "a date; it drifts by nature")
    named = ("time", "ts", "timestamp", "event_time", "event_ts", "datetime", "created_at")
    best = sorted(rest, key=lambda name: (leaf(name) not in named, not profiles[name].ascending))
    if best and "time" not in taken:
        why = "the time column that ascends" if profiles[best[0]].ascending else "the first time column"
        roles[best[0]] = ("time", why)
    for name in rest:
        if name not in roles:
            roles[name] = ("left_out", "a timestamp; only the event time is used, and a clock drifts by nature")


def _choose_named(profiles: Mapping[str, Profile], roles: dict[str, tuple[Role, str]], *, labelled: bool) -> None:
    taken = _taken(roles)
    for role, names in _NAMES.items():
        if role not in taken and (found := _named(role, names, profiles, roles)) is not None:
            roles[found] = (role, "by its name")  # type: ignore[assignment]
    _choose_score(profiles, roles)
    if labelled:
        _choose_label(profiles, roles)
    if "label" in _taken(roles):
        for name, profile in profiles.items():
            speaks = _words(name) & _LABEL_WORDS or leaf(name).lower() in _NAMES["label"]
            if name not in roles and speaks and not profile.time_like:
                roles[name] = ("left_out", "its name speaks of the label: it is not known when the prediction is made")


def _taken(roles: Mapping[str, tuple[Role, str]]) -> set[Role]:
    return {role for role, _ in roles.values()}


def _named(role: str, names: Sequence[str], profiles: Mapping[str, Profile], roles: Mapping[str, tuple[Role, str]]) -> str | None:
    """The column with the likeliest of these names."""
    for wanted in names:
        for name, profile in profiles.items():
            if leaf(name).lower() == wanted and name not in roles and _fits(role, profile):
                return name
    return None


def _choose_score(profiles: Mapping[str, Profile], roles: dict[str, tuple[Role, str]]) -> None:
    """Where no name says it alone, the one column of probabilities whose name speaks of one."""
    if "score" in _taken(roles):
        return
    found = [
        name
        for name, p in profiles.items()
        if name not in roles and _words(name) & _SCORE_WORDS and p.numeric and not p.integer and p.low >= 0 and p.high <= 1
    ]
    if len(found) == 1:
        roles[found[0]] = ("score", "probabilities, and its name speaks of one")


def _choose_label(profiles: Mapping[str, Profile], roles: dict[str, tuple[Role, str]]) -> None:
    """Where no name says it alone: the one column of yes and no that is named for an outcome, else a class without a score."""
    by_role = {role: name for name, (role, _) in roles.items()}
    if "label" in by_role:
        return
    found = [name for name, p in profiles.items() if name not in roles and _yes_or_no(p) and _words(name) & (_EVENT_WORDS | _LABEL_WORDS)]
    if len(found) == 1:
        roles[found[0]] = ("label", "yes or no, and its name speaks of an outcome")
    elif "class" in by_role and "score" not in by_role and roles[by_role["class"]][1] != "as given":
        roles[by_role["class"]] = ("label", "a class in rows without a score: the truth, not an answer")


def _yes_or_no(p: Profile) -> bool:
    """Two values, 0 and 1 or the words for them."""
    values = {value.lower() for value, _ in p.top}
    return p.distinct == 2 and (p.boolean or any(values == pair for pair in _YES_OR_NO))


def _fits(role: str, profile: Profile) -> bool:
    match role:
        case "score":
            return profile.numeric and profile.distinct > 2
        case "latency" | "weight":
            return profile.numeric
        case "class":
            return 0 < profile.distinct <= 100
        case "model" | "version":
            return 0 < profile.distinct <= 50 and not profile.nested
        case _:
            return profile.distinct > 0 and not profile.nested


def _choose_id(profiles: Mapping[str, Profile], roles: dict[str, tuple[Role, str]]) -> None:
    """The column that tells rows apart; one that is named for it may have a few repeats and holes."""
    if "id" in _taken(roles):
        return
    fit = {name: p for name, p in profiles.items() if name not in roles and p.n >= _ID_ROWS_MIN and not p.nested}
    fit = {name: p for name, p in fit.items() if p.integer or not p.numeric}
    unique = [name for name, p in fit.items() if p.distinct == p.n and not p.missing]
    hinted = [name for name, p in fit.items() if _words(name) & _ID_WORDS and p.distinct >= _ID_SHARE * (p.n + p.missing)]
    hinted.sort(key=lambda name: name not in unique)
    exact = [name for name in hinted if leaf(name).lower() in ("id", "event_id", "prediction_id", "transaction_id", "txn_id", "request_id")]
    best = exact or hinted or [name for name in unique if not profiles[name].numeric]
    if best:
        roles[best[0]] = ("id", _uniqueness(profiles[best[0]]))


def _uniqueness(p: Profile) -> str:
    flaws = [f"{n:,} {what}" for n, what in ((p.n - p.distinct, "repeated"), (p.missing, "missing")) if n]
    return "unique in the sample" + (f" but for {' and '.join(flaws)} of {p.n + p.missing:,} rows" if flaws else "")


def _feature(name: str, p: Profile) -> Verdict:
    """A feature with its kind, or the reason to leave the column out."""
    rows = p.n + p.missing
    if p.n == 0:
        return Verdict(name, "left_out", f"empty in all {rows:,} rows of the sample", p)
    if p.nested:
        return Verdict(name, "left_out", "a list or an object, not a value", p)
    crowded = p.distinct > 50 and p.distinct > _UNIQUE_SHARE * p.n
    if not p.numeric and (p.length > _TEXT_LENGTH or (p.words >= 4 and crowded)):
        return Verdict(name, "left_out", f"free text, {p.length:.0f} characters on average", p)
    identifier = bool(_words(name) & _ID_WORDS)
    if crowded and (not p.numeric or (identifier and p.integer)):
        return Verdict(name, "left_out", f"an identifier: {p.distinct:,} different values in {p.n:,} rows", p)
    if not p.numeric and p.distinct > _CATEGORIES_MAX:
        return Verdict(name, "left_out", f"{p.distinct:,} different values: too many for categories", p)
    by_name = p.integer and bool(_words(name) & _CODE_WORDS)
    if p.boolean or not p.numeric or by_name:
        return Verdict(name, "feature", _categories(p), p, "categorical")
    return Verdict(name, "feature", _range(p), p, "numeric")


def _categories(p: Profile) -> str:
    shares = ", ".join(f"{value} {100 * share:.0f} %" for value, share in p.top[:3])
    text = f"{p.distinct:,} values: {shares}" if p.distinct > 1 else f"always {p.top[0][0]} in the sample"
    return text + _missing(p)


def _range(p: Profile) -> str:
    text = f"{p.low:g} to {p.high:g}" if p.distinct > 1 else f"always {p.low:g} in the sample"
    return text + _missing(p)


def _missing(p: Profile) -> str:
    return f"; {100 * p.missing / (p.n + p.missing):.1f} % missing" if p.missing else ""


def _profile(name: str, values: Sequence[Any]) -> Profile:
    known = [value for value in values if value is not None and value == value]
    n = len(known)
    nested = any(isinstance(value, (dict, list)) for value in known)
    empty = Profile(n, len(values) - n, 0, False, False, 0.0, 0.0, False, False, False, nested, False, 0.0, 0.0, ())
    if nested or not known:
        return empty
    texts = [str(value) for value in known]
    counts = Counter(texts)
    numbers = [value for value in known if isinstance(value, (int, float)) and not isinstance(value, bool)]
    numeric = len(numbers) >= 0.95 * n
    dated = not numeric and all(hasattr(value, "year") for value in known[:100])
    stamp = not numeric and (dated or sum(bool(_TIME_TEXT.match(text)) for text in texts) >= 0.95 * n)
    epoch = numeric and bool(_words(name) & _TIME_WORDS) and all(_EPOCH[0] < value < _EPOCH[1] for value in numbers)
    compared: list[Any] = numbers if numeric else texts
    steps = list(pairwise(compared))
    top = tuple((value[:30], count / n) for value, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:5])
    return replace(
        empty,
        distinct=len(counts),
        numeric=numeric,
        integer=numeric and all(float(value).is_integer() for value in numbers),
        low=float(min(numbers)) if numbers else 0.0,
        high=float(max(numbers)) if numbers else 0.0,
        time_like=stamp or epoch,
        month_like=not (numeric or stamp) and sum(bool(_MONTH_TEXT.match(text)) for text in texts) >= 0.95 * n,
        ascending=sum(a <= b for a, b in steps) >= 0.99 * len(steps),
        boolean=all(isinstance(value, bool) for value in known),
        length=sum(map(len, texts)) / n,
        words=sum(text.count(" ") + 1 for text in texts) / n,
        top=top,
    )


def _words(name: str) -> set[str]:
    """The lower-case words of a name in snake_case or camelCase."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", leaf(name))
    return set(re.split(r"[^a-z0-9]+", spaced.lower()))
