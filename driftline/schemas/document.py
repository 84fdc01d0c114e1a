"""A YAML file as plain values, each with the line it stands on.

The file is read by YAML 1.2's core schema: only ``true`` and ``false`` are booleans, ``1e8`` is a number, dates and
``12:30`` are text. PyYAML's own (1.1) schema would read the country code ``NO`` as false and ``1e8`` as text. Values are
built from PyYAML's nodes here, so a file can name no Python object.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import yaml

Path = tuple[str | int, ...]

BYTES_MAX: Final = 1 << 20
VALUES_MAX: Final = 50_000
"""Values in the text, and again after aliases are expanded: nine lines of nested aliases make 10^9 of them. A file with
100 models of 100 features has 10,000; PyYAML needs seconds for 50,000."""
DEPTH_MAX: Final = 40

_INT: Final = re.compile(r"[-+]?[0-9]{1,18}\Z", re.ASCII)
_EXPONENT_INT: Final = re.compile(r"[-+]?[0-9]{1,15}[eE]\+?[0-9]{1,2}\Z", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z", re.ASCII)
_BOOLEAN_11: Final = frozenset({"yes", "no", "on", "off", "true", "false"})
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset({"true", "True", "TRUE"})
_FALSE: Final = frozenset({"false", "False", "FALSE"})
_PLAIN: Final = "plain"
_TEXT: Final = "tag:yaml.org,2002:str"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value stands: its path as written in the file, and its line (from 1)."""

    path: Path
    line: int


class Table(dict[str, Any]):
    """A mapping that knows where it and each of its values come from."""

    def __init__(self, origin: Origin) -> None:
        super().__init__()
        self.origin = origin
        self.at: dict[str, Origin] = {}

    def put(self, key: str, value: Any, origin: Origin) -> None:
        self[key] = value
        self.at[key] = origin


class Items(list[Any]):
    """A list that knows where it and each of its values come from."""

    def __init__(self, origin: Origin) -> None:
        super().__init__()
        self.origin = origin
        self.at: list[Origin] = []

    def put(self, value: Any, origin: Origin) -> None:
        self.append(value)
        self.at.append(origin)


class DocumentError(ValueError):
    """A flaw of the text itself: what was expected, what was found, where, and what to do."""

    def __init__(self, origin: Origin, expected: str, got: str, hint: str | None = None) -> None:
        super().__init__(f"expected {expected}, got {got}")
        self.origin, self.expected, self.got, self.hint = origin, expected, got, hint


def read_document(text: str) -> tuple[Any, list[DocumentError]]:
    """The values of a YAML text, and the flaws that do not keep the rest from being read.

    Raises
    ------
    DocumentError : the text is too large, not YAML, holds several documents, or is nested or aliased without bound.
    """
    if len(text.encode("utf-8", "surrogatepass")) > BYTES_MAX:
        raise DocumentError(Origin((), 1), f"at most {BYTES_MAX:,} bytes", "a larger file", "split the installation into several files")
    try:
        node = yaml.compose(text, Loader=_Loader)
    except DocumentError:
        raise
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise DocumentError(Origin((), line), "printable text", f"character U+{_codepoint(error):04X}") from None
    except yaml.MarkedYAMLError as error:
        raise _syntax(error) from None
    except (ValueError, OverflowError) as error:  # PyYAML lets bad escapes such as "\UFFFFFFFF" through to chr()
        raise DocumentError(Origin((), 1), "valid YAML", str(error)[:200]) from None
    builder = _Builder()
    return (None if node is None else builder.value(node, ())), builder.flaws


class _Loader(yaml.BaseLoader):
    """Composes nodes whose tag says only whether a scalar was plain, quoted or explicitly tagged."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._values = 0

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _TEXT
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth += 1
        self._values += 1
        if self._values > VALUES_MAX:
            raise DocumentError(Origin((), self.get_mark().line + 1), f"at most {VALUES_MAX:,} values", "more", "split the file")
        if self._depth > DEPTH_MAX:
            raise DocumentError(Origin((), self.get_mark().line + 1), f"at most {DEPTH_MAX} levels", "deeper nesting")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Builder:
    """Nodes to values, with a count against alias bombs."""

    def __init__(self) -> None:
        self.flaws: list[DocumentError] = []
        self._values = 0

    def value(self, node: Any, path: Path) -> Any:
        origin = Origin(path, node.start_mark.line + 1)
        self._values += 1
        if self._values > VALUES_MAX:
            raise DocumentError(origin, f"at most {VALUES_MAX:,} values", "aliases (or lists) that expand to more", "write the parts out")
        if len(path) > DEPTH_MAX:
            raise DocumentError(Origin(path[:1], origin.line), f"at most {DEPTH_MAX} levels", "an alias that holds itself")
        if isinstance(node, yaml.MappingNode):
            return self._table(node, origin)
        if isinstance(node, yaml.SequenceNode):
            items = Items(origin)
            for index, child in enumerate(node.value):
                items.put(self.value(child, (*path, index)), Origin((*path, index), child.start_mark.line + 1))
            return items
        return self._scalar(node, origin)

    def _table(self, node: Any, origin: Origin) -> Table:
        table = Table(origin)
        own: set[str] = set()
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self._key(key_node, origin.path)
            if key == "<<" and key_node.tag == _PLAIN:
                self._merge(table, value_node, origin, own)
                continue
            if key is None:
                continue
            place = Origin((*origin.path, key), line)
            if key in own:
                first = table.at[key].line
                self.flaws.append(DocumentError(place, "each key once", f'"{key}" again', f"it is already set on line {first}"))
                continue
            own.add(key)
            table.put(key, self.value(value_node, place.path), place)
        return table

    def _merge(self, table: Table, node: Any, origin: Origin, own: set[str]) -> None:
        """Take in the keys of ``<<``: the table's own keys win, then the earlier of several."""
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            merged = self.value(source, origin.path)
            if not isinstance(merged, Table):
                place = Origin((*origin.path, "<<"), source.start_mark.line + 1)
                self.flaws.append(DocumentError(place, "an alias of a mapping", describe(merged)))
                continue
            for key, value in merged.items():
                if key not in own and key not in table:
                    table.put(key, value, merged.at[key])

    def _key(self, node: Any, path: Path) -> str | None:
        """The key's text; None, and a flaw, when another YAML reader would take it for something else than text."""
        line = node.start_mark.line + 1
        if not isinstance(node, yaml.ScalarNode):
            self.flaws.append(DocumentError(Origin(path, line), "a text key", "a list or a mapping as a key"))
            return None
        key = str(node.value)
        place = Origin((*path, key), line)
        if node.tag == _PLAIN and key.lower() in _BOOLEAN_11:
            hint = f'many YAML readers take {key} for true or false: quote it, "{key}"'
            self.flaws.append(DocumentError(place, "a text key", f"the YAML 1.1 boolean {key}", hint))
            return None
        if node.tag == _PLAIN and not isinstance(plain_scalar(key), str):
            self.flaws.append(DocumentError(place, "a text key", key or "an empty key", f'quote it: "{key}"'))
            return None
        return key

    def _scalar(self, node: Any, origin: Origin) -> Any:
        if node.tag == _PLAIN:
            return plain_scalar(node.value)
        if node.tag != _TEXT:
            tag = str(node.tag).replace("tag:yaml.org,2002:", "!!")
            hint = "remove it; quote the value if it is text"
            self.flaws.append(DocumentError(origin, "a value without a tag", f'the tag "{tag}"', hint))
            return None
        return node.value


def plain_scalar(text: str) -> Any:
    """An unquoted scalar by YAML 1.2's core schema; an integer with an exponent (``1e4``) is an integer too."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INT.match(text):
        return int(text)
    if _EXPONENT_INT.match(text):
        mantissa, exponent = re.split("[eE]", text)
        if int(exponent) <= 15:
            return int(mantissa) * 10 ** int(exponent)
    if _FLOAT.match(text):
        return float(text)
    if text.lstrip("+-").lower() in (".inf", ".nan"):
        return float(text.replace(".", "", 1))
    return text


def describe(value: object) -> str:
    """A found value in a few words: text quoted, containers by what they are."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "nothing (null)"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= 60 else f'"{value[:57]}..."'
    return str(value)


def _syntax(error: yaml.MarkedYAMLError) -> DocumentError:
    mark = error.problem_mark or error.context_mark
    line = 1 if mark is None else mark.line + 1
    problem = error.problem or "unreadable text"
    if "'\\t'" in problem:
        return DocumentError(Origin((), line), "spaces for indentation", "a tab", "replace the tab by spaces; YAML allows no tabs there")
    if "expected a single document" in str(error.context):
        return DocumentError(Origin((), line), "one YAML document", "a second one", "remove the line ---")
    if "alias" in problem:
        return DocumentError(Origin((), line), "an anchor for each alias", problem)
    if problem.startswith("mapping values are not allowed"):
        return DocumentError(Origin((), line), "valid YAML", problem, 'quote a value that holds ": ", and check the indentation')
    return DocumentError(Origin((), line), "valid YAML", problem)


def _codepoint(error: yaml.reader.ReaderError) -> int:
    character = error.character
    return ord(character) if isinstance(character, str) else int(character)
