"""`driftline demo`: a simulated fraud stream with injected changes, on an embedded broker and a real Redis."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from driftline.cli.output import fancy, write_json


@click.command("demo")
@click.option("--json", "as_json", is_flag=True, help="As fast as it goes; one JSON object on stdout when it is done.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the simulated stream.")
@click.option("--no-changes", is_flag=True, help="The same stream without injected changes: nothing should be found.")
@click.option("--rows", type=click.IntRange(20_000, 10_000_000), default=52_000, show_default=True, help="Predictions to send.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("driftline-demo"), show_default=True,
              help="Directory of the picture, the configuration and the workers' log.")  # fmt: skip
def command(as_json: bool, seed: int, no_changes: bool, rows: int, out: Path) -> None:
    """Simulate a fraud stream, change it three times, and watch Driftline find it.

    Needs nothing but this package: the broker is librdkafka's own, Redis comes from a wheel. Leaves a picture
    (demo.html), the configuration that did it (demo.yml) and the workers' log behind.
    """
    from driftline.cli.errors import Failure
    from driftline.demo.run import DemoError, DemoOptions, run_demo

    def say(line: str) -> None:
        if not as_json:
            click.secho(line, fg=_colour(line) if fancy(sys.stdout) else None)

    say(f"Simulating {rows:,} card payments with late labels, three countries and {'no' if no_changes else 'three'} injected changes.")
    try:
        result = run_demo(DemoOptions(seed=seed, rows=rows, paced=not as_json, changed=not no_changes, directory=out), say)
    except DemoError as error:
        raise Failure(str(error)) from error
    if as_json:
        write_json(result.as_json())
        return
    say(f"\n{result.config} did this:\n")
    say(result.config.read_text())
    found = sum(change.event is not None for change in result.verdict.found)
    say(f"Found {found} of {len(result.verdict.found)} changes; series wrongly accused: {len(result.verdict.accused)}.")
    say(f"Picture: {result.picture.resolve()}")
    say("Next: driftline init --from-topic YOUR_TOPIC --bootstrap HOST:PORT")


def _colour(line: str) -> str | None:
    if "DETECTED" in line:
        return "red"
    return "yellow" if "injecting" in line else "green" if "resolved" in line else None
