"""What is wrong with a configuration file: every problem with its place, expectation, finding and a hint."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Union, get_args, get_origin

from pydantic import BaseModel

from driftline.schemas.config import Config, Model, SecretRef
from driftline.schemas.document import DocumentError, Items, Origin, Path, Table, describe
from driftline.schemas.durations import duration_text

_PATTERNS: Final = {
    r"^[A-Za-z0-9._-]{1,249}$": 'a topic name (letters, digits, ".", "_" and "-")',
    r"^[A-Za-z0-9._-]{1,200}$": 'letters, digits, ".", "_" and "-"',
    r"^[A-Za-z0-9._-]+$": 'letters, digits, ".", "_" and "-"',
    r"^[a-z0-9][a-z0-9_-]*$": 'lower-case letters, digits, "_" and "-"',
}
_BOUNDS: Final = {
    "greater_than_equal": (">=", "ge"),
    "greater_than": (">", "gt"),
    "less_than_equal": ("<=", "le"),
    "less_than": ("<", "lt"),
}
_TYPES: Final = {
    "int_type": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "list_type": "a list",
}


_ALIKE_SHOWN: Final = 3
_NO_SECTION: Final = frozenset({"model_type", "model_attributes_type"})


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes
    ----------
    place : the reader's path, for example ``monitor "x": detectors[0].delta``; empty for the file as a whole.
    path : the dotted path from the file's top, as written.
    line : line in the file, from 1.
    """

    file: str
    line: int
    path: str
    place: str
    expected: str
    got: str
    hint: str | None = None

    def __str__(self) -> str:
        place = f"{self.place}: " if self.place else ""
        text = f"{place}expected {self.expected}, got {self.got} ({self.file}:{self.line})"
        return text if self.hint is None else f"{text}\n  hint: {self.hint}"


class ConfigError(ValueError):
    """A configuration file that cannot be used; `problems` has all of them, in the file's order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems), key=lambda p: (p.line, p.path, p.expected)))
        super().__init__("\n".join(map(str, self.problems)))


def told(problems: Iterable[Problem]) -> list[str]:
    """Each problem for a person; of many that are alike, as the same mistake in fifty models, the first and how many more there are."""
    alike: dict[tuple[str, str, str | None, str], list[Problem]] = {}
    for problem in problems:
        alike.setdefault((problem.expected, problem.got, problem.hint, problem.path.rpartition(".")[2]), []).append(problem)
    out: list[str] = []
    for group in alike.values():
        shown = group if len(group) <= _ALIKE_SHOWN + 1 else group[:_ALIKE_SHOWN]
        out += map(str, shown)
        if rest := group[len(shown) :]:
            lines = sorted({problem.line for problem in rest})
            where = f"{rest[0].file}:{lines[0]}" + (f" to {lines[-1]}" if len(lines) > 1 else "")
            out.append(f"and {len(rest)} more like the last: expected {rest[0].expected}, got {rest[0].got} ({where})")
    return out


@dataclass(frozen=True, slots=True)
class Flaw:
    """A problem by its place in the normalised file; `loc` may end in a key that is absent."""

    loc: Path
    expected: str
    got: str
    hint: str | None = None


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The nearest known word as a hint; else None."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'did you mean "{found[0]}"?' if found else None


def locate(root: Any, loc: Path, *, absent: bool = True) -> tuple[Origin, Path]:
    """The origin of the value at `loc`, and `loc` without the parts that no file has (pydantic's union members).

    Parameters
    ----------
    absent : the last part may be a key that is not there, and is kept.
    """
    current, origin = root, Origin((), 1)
    if isinstance(root, Table | Items):
        origin = root.origin
    kept: list[str | int] = []
    for index, part in enumerate(loc):
        if isinstance(current, Table) and part in current:
            origin, current = current.at[str(part)], current[str(part)]
        elif isinstance(current, Items) and isinstance(part, int) and part < len(current):
            origin, current = current.at[part], current[part]
        elif absent and index == len(loc) - 1 and isinstance(current, Table):
            return Origin((*origin.path, part), origin.line), (*kept, part)
        else:
            continue
        kept.append(part)
    return origin, tuple(kept)


def value_at(root: Any, path: Path) -> Any:
    """The value at a path that exists; None where it does not."""
    for part in path:
        try:
            root = root[part]
        except (KeyError, IndexError, TypeError):
            return None
    return root


def from_flaw(flaw: Flaw, root: Any, file: str) -> Problem:
    """A problem with the line and the path as the user wrote it."""
    origin, kept = locate(root, flaw.loc)
    return Problem(file, origin.line, dotted(origin.path), _place(origin.path, kept, root), flaw.expected, flaw.got, flaw.hint)


def from_document(error: DocumentError, file: str) -> Problem:
    """A problem of the text itself."""
    path = error.origin.path
    return Problem(file, error.origin.line, dotted(path), _place(path, path, None), error.expected, error.got, error.hint)


def from_pydantic(errors: Iterable[Mapping[str, Any]], root: Any) -> list[Flaw]:
    """Flaws of the errors of one validation; the members of a union that all failed at one place are one flaw."""
    groups: dict[Path, list[Mapping[str, Any]]] = {}
    for error in errors:
        loc = tuple(error["loc"])
        missing = error["type"] == "missing"
        kept = (*locate(root, loc[:-1], absent=False)[1], loc[-1]) if missing else locate(root, loc, absent=False)[1]
        groups.setdefault(kept, []).append(error)
    inner = [loc for loc in groups if not any(other != loc and other[: len(loc)] == loc for other in groups)]
    return [_flaw(loc, groups[loc], value_at(root, loc), value_at(root, loc[:-1])) for loc in inner]


def dotted(path: Path) -> str:
    """``("a", 0, "b.c")`` as ``a[0]["b.c"]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[\w:*-]+", part):
            text += f".{part}" if text else part
        else:
            text += f'["{part[:80]}"]'
    return text


def section_at(loc: Path) -> type[BaseModel] | None:
    """The model class of the mapping at `loc`, or None where keys are free."""
    annotation: Any = Config
    for part in loc:
        annotation = _child(annotation, part)
        if annotation is None:
            return None
    return next((a for a in _members(annotation) if isinstance(a, type) and issubclass(a, BaseModel)), None)


def known_keys(section: type[BaseModel]) -> list[str]:
    """The keys a section may have, as written in the file."""
    return [field.alias or name for name, field in section.model_fields.items()]


def _members(annotation: Any) -> list[Any]:
    """The alternatives of a union, without annotations' wrappers."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for argument in get_args(annotation) for member in _members(argument)]
    if hasattr(annotation, "__metadata__"):
        return _members(annotation.__origin__)
    return [annotation]


def _child(annotation: Any, part: str | int) -> Any:
    for member in _members(annotation):
        if get_origin(member) is dict:
            return get_args(member)[1]
        if get_origin(member) is list and isinstance(part, int):
            return get_args(member)[0]
        if isinstance(member, type) and issubclass(member, BaseModel):
            for name, field in member.model_fields.items():
                if part in (name, field.alias):
                    return field.annotation
    return None


def _flaw(loc: Path, group: list[Mapping[str, Any]], value: Any, parent: Any) -> Flaw:
    first = group[0]
    if first["type"] == "extra_forbidden":
        return unknown_key(loc)
    if first["type"] == "missing":
        return Flaw(loc, _missing(loc), "nothing")
    if section_at(loc) is SecretRef and not isinstance(value, dict | list) and not {str(error["type"]) for error in group} - _NO_SECTION:
        # What stands there may be the secret: it is not shown.
        return secret_itself(loc)
    duration = _is_duration(loc)
    expected = list(dict.fromkeys(_expected(error, duration=duration) for error in group))
    # A union also reports its null member and, for text, every other member: the list of alternatives is the expectation.
    return Flaw(loc, " or ".join(expected), describe(value), _form(loc, value, parent) or _hint(group, value, duration=duration))


def secret_itself(loc: Path) -> Flaw:
    """The flaw of a secret that stands in the file; what it is stands in no message."""
    return Flaw(loc, "a secret by reference", "the secret itself", "write {env: NAME} or {file: PATH}")


def unknown_key(loc: Path) -> Flaw:
    """The flaw of a key that its section does not have."""
    section = section_at(loc[:-1])
    keys = known_keys(section) if section is not None else []
    key = str(loc[-1])
    hint = did_you_mean(key, keys)
    if section is Model and key == "accepted":
        hint = "it stands in features.NAME.accepted for one feature, in baseline.accepted for all series of the model"
    elif key in ("min_effect", "tolerance"):
        hint = "what is too small to be an alarm is severity.warning of a monitor"
    elif hint is None and keys:
        hint = f"known keys here: {', '.join(keys)}"
    return Flaw(loc, "a known key", f'"{key}"', hint)


def _missing(loc: Path) -> str:
    section = section_at(loc[:-1])
    field = None if section is None else section.model_fields.get(str(loc[-1]))
    return "a value" if field is None or not field.description else f"a value ({field.description.split(';')[0]})"


def _is_duration(loc: Path) -> bool:
    """Whether what belongs at `loc` is a duration, or a list of them."""
    section = section_at(loc[:-1])
    field = next((f for name, f in section.model_fields.items() if loc[-1] in (name, f.alias)), None) if section is not None else None
    return field is not None and any("parse_duration_ms" in repr(one) for one in (field.annotation, *field.metadata))


def _form(loc: Path, value: Any, parent: Any) -> str | None:
    """How to write what was written in another form."""
    if len(loc) < 3 or loc[0] != "models":
        return None
    match loc[2:]:
        case ("correlations", int()) if isinstance(value, str):
            names = parent if isinstance(parent, list) and len(parent) == 2 and all(isinstance(n, str) for n in parent) else ["a", "b"]
            pair = ", ".join(names)
            return f"a pair is a list of its own: write correlations: [[{pair}]]"
        case ("correlations",) if not isinstance(value, list):
            return "write correlations: [[a, b]]"
        case ("blocks",) if isinstance(value, list):
            named = ", ".join(value) if len(value) > 1 and all(isinstance(n, str) for n in value) else "a, b"
            return f"a block has a name: write blocks: {{NAME: [{named}]}}"
        case ("blocks", str()) if isinstance(value, str):
            return f"write {{{loc[3]}: [{value}, ...]}}: two or more numeric features, or one vector"
        case ("after_change",) | ("features", str(), "after_change") if not isinstance(value, dict):
            rows = value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 20_000
            return f"write after_change: keep, or after_change: {{relearn_after: {rows}}}"
    return None


def _expected(error: Mapping[str, Any], *, duration: bool) -> str:
    kind, context = str(error["type"]), error.get("ctx", {})
    if kind in _BOUNDS:
        return _bound(*_BOUNDS[kind], context, duration=duration)
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], f"text that matches {context['pattern']}")
    if kind == "literal_error":
        return "one of " + str(context["expected"]).replace("'", '"').replace(" or ", ", ")
    if kind == "value_error":
        return str(context["error"]).removeprefix("expected ")
    if kind == "too_short":
        return f"at least {context['min_length']} entry" if context["min_length"] == 1 else f"at least {context['min_length']} entries"
    if kind == "too_long":
        return f"at most {context['max_length']} entries"
    return _TYPES.get(kind, str(error["msg"]).lower())


def _bound(sign: str, key: str, context: Mapping[str, Any], *, duration: bool) -> str:
    bound = context[key]
    if duration:
        return f"a duration {sign} {duration_text(bound)}"
    return f"{'a number' if isinstance(bound, float) else 'an integer'} {sign} {bound:.12g}"


def _hint(group: list[Mapping[str, Any]], value: Any, *, duration: bool) -> str | None:
    kinds = {str(error["type"]) for error in group}
    if isinstance(value, str):
        if "bool_type" in kinds:
            return "write true or false"
        if kinds & {"int_type", "float_type"} and re.fullmatch(r"[-+]?[\d.]+", value):
            return "write the number without quotes"
        if kinds & {"int_type", "float_type"} and re.fullmatch(r"[\d_,]*\d", value):
            return f"write {re.sub('[_,]', '', value)}; YAML 1.2 has no separators in numbers"
        if "literal_error" in kinds:
            words = " ".join(str(error["ctx"]["expected"]) for error in group if error["type"] == "literal_error")
            return did_you_mean(value, re.findall(r"'([^']*)'", words))
    if isinstance(value, bool | int | float) and "string_type" in kinds and len(kinds) == 1:
        if group[0]["loc"][-1:] == ("false_alarms",):
            return "say in what time or over how many events: 1 per week, 1 per 100000 events"
        return f'quote it if it is text: "{describe(value)}"'
    if isinstance(value, int) and duration:
        return "a bare number is milliseconds"
    return None


def _place(written: Path, loc: Path, root: Any) -> str:
    """``monitor "x": ...`` or ``model "m": ...`` before the rest of the written path."""
    if len(loc) >= 2 and loc[0] == "models" and isinstance(loc[1], str):
        rest = written[2:]
        if len(loc) >= 4 and loc[2] == "monitors" and isinstance(loc[3], int):
            monitor = value_at(root, loc[:4])
            identity = monitor.get("id") if isinstance(monitor, dict) else None
            name = f'"{identity}"' if isinstance(identity, str) else f"#{loc[3] + 1}"
            return _joined(f"monitor {name}", dotted(written[4:]))
        return _joined(f'model "{loc[1][:80]}"', dotted(rest))
    return dotted(written)


def _joined(head: str, rest: str) -> str:
    return f"{head}: {rest}" if rest else head
