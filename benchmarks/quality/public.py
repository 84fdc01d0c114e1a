"""The public way: a configuration and a file of rows through `driftline replay`, so that what is measured is what runs."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Literal

from click.testing import CliRunner

from driftline.cli.main import cli


def replayed(
    rows: Path, configuration: str, *options: str, what: Literal["drift", "alerts", "incidents", "snapshots"] = "drift"
) -> list[dict[str, Any]]:
    """What `driftline replay` prints for model ``m`` of the configuration.

    Raises
    ------
    SystemExit : it failed; with the end of what it said.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as config:
        config.write(configuration)
        config.flush()
        result = CliRunner().invoke(cli, ["replay", str(rows), "-c", config.name, *options, "--model", "m", "--what", what, "-o", "json"])
    if result.exit_code:
        raise SystemExit(f"{rows}: {result.output[-2_000:]}")
    return [json.loads(line) for line in result.stdout.splitlines()]
