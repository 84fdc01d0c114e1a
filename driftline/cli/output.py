"""How results leave a command: tables for people, one JSON object a line for programs.

rich is loaded only when stdout is a terminal; a pipe gets aligned plain text, `-o json` gets the same field names
as the topics' schemas.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import click

Output = Literal["table", "json"]
F = TypeVar("F", bound=Callable[..., Any])

output_option: Callable[[F], F] = click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="json: one object a line."
)
config_option: Callable[[F], F] = click.option(
    "-c", "--config", "config_path", required=True, type=click.Path(dir_okay=False), help="The configuration."
)


def note(text: str) -> None:
    """A remark for the person, on stderr."""
    click.echo(text, err=True)


def write_line(line: bytes) -> None:
    """One line of data as it is; flushed, since a reader of `tail` waits for it."""
    out = click.get_binary_stream("stdout")
    out.write(line + b"\n")
    out.flush()


def write_json(row: Mapping[str, Any]) -> None:
    import orjson

    write_line(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY))


def write_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], output: str, *, title: str | None = None) -> None:
    """All rows at once: a table of `columns`, or every field as JSON lines."""
    if output == "json":
        for row in rows:
            write_json(row)
    elif fancy(sys.stdout):
        _rich_table(rows, columns, title)
    else:
        if title:
            click.echo(title)
        for line in plain_table(rows, columns):
            click.echo(line)


def plain_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """Aligned columns with a header line; numbers to the right."""
    cells = [[cell(row.get(name)) for name in columns] for row in rows]
    widths = [max([len(name), *(len(line[i]) for line in cells)]) for i, name in enumerate(columns)]
    right = [bool(rows) and all(isinstance(row.get(name), (int, float, type(None))) for row in rows) for name in columns]
    header = [name.rjust(w) if r else name.ljust(w) for name, w, r in zip(columns, widths, right, strict=True)]
    out = ["  ".join(header).rstrip()]
    for line in cells:
        out.append("  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip())
    return out


def cell(value: Any) -> str:
    """A value as a person reads it; `-` for none."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}"
        case dict():
            return _printable(",".join(f"{k}={v}" for k, v in value.items())) or "-"
        case list() | tuple():
            return _printable(",".join(str(v) for v in value)) or "-"
    return _printable(str(value))


def _printable(text: str) -> str:
    """The text with its control characters told instead of sent: values of records reach a terminal, which obeys them."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def fancy(stream: Any) -> bool:
    """Whether rich may draw there: a terminal that is not dumb."""
    return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"


def _rich_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], title: str | None) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, header_style="bold", box=None, pad_edge=False)
    rows = list(rows)
    for name in columns:
        numeric = bool(rows) and all(isinstance(row.get(name), (int, float, type(None))) for row in rows)
        table.add_column(name, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(_styled(name, escape(cell(row.get(name)))) for name in columns))
    Console().print(table)  # honours NO_COLOR by itself


_STYLES = {"critical": "bold red", "warning": "yellow", "firing": "red", "resolved": "green"}


def _styled(name: str, text: str) -> str:
    style = _STYLES.get(text) if name in ("severity", "condition", "max_severity") else None
    return f"[{style}]{text}[/]" if style else text


class Progress:
    """Rows done, as a bar on a terminal and as nothing in a pipe."""

    def __init__(self, title: str, total: int | None = None) -> None:
        self._bar: Any = None
        self._task: Any = None
        if fancy(sys.stderr):
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
            self._bar = RichProgress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(title, total=total, rate="")

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, rows: int) -> None:
        if self._bar is not None:
            task = self._bar.tasks[0]
            speed = f"{task.speed:,.0f}/s" if task.speed else ""
            self._bar.update(self._task, advance=rows, rate=speed)
