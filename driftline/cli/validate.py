"""`driftline validate FILE...`: every mistake at once, else what the file will cost."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from driftline.cli.errors import EXIT_BAD_INPUT
from driftline.cli.output import note, output_option, write_json, write_rows

if TYPE_CHECKING:
    from driftline.schemas.config import Config


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False))
@click.option("--rate", type=float, default=100.0, show_default=True, metavar="N", help="Predictions a second, for the bytes a day.")
@output_option
def command(files: tuple[str, ...], rate: float, output: str) -> None:
    """Check configurations and print the series, Redis bytes, topic bytes a day and CPU per event they imply.

    Exit code 2 when any file has a mistake; all mistakes of all files are listed.
    """
    from driftline.schemas.loading import ConfigError, load_config

    failed = False
    for path in files:
        try:
            config = load_config(path)
        except ConfigError as error:
            failed = True
            _show_problems(error, path, output)
            continue
        _show_cost(config, path, rate, output)
    if failed:
        sys.exit(EXIT_BAD_INPUT)


def _show_problems(error: Any, path: str, output: str) -> None:
    if output == "json":
        for problem in error.problems:
            fields = ("line", "path", "expected", "got", "hint")
            write_json({"file": path, "valid": False, **{name: getattr(problem, name) for name in fields}})
        return
    for problem in error.problems:
        note(f"error: {problem}")
    count = len(error.problems)
    note(f"{path}: {count} mistake{'s' if count > 1 else ''}")


def _show_cost(config: Config, path: str, rate: float, output: str) -> None:
    from driftline.schemas.estimate import estimate

    found = estimate(config, rate=rate)
    if output == "json":
        write_json({"file": path, "valid": True, **found.as_dict()})
        return
    write_rows(found.rows(), found.columns(), output, title=f"{path}: valid")
