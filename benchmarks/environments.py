"""Environments for what is measured beside the project and is no part of it, made on demand."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def environment(directory: Path, *installs: Sequence[str]) -> str:
    """The Python of an environment of its own, made by the first call.

    Parameters
    ----------
    directory : of the environment
    installs : arguments of one `pip install` after the other

    Raises
    ------
    subprocess.CalledProcessError : pip failed, which has said why; the next call tries again
    """
    python = directory.absolute() / "bin" / "python"
    made = directory / "installed.json"
    wanted = [list(arguments) for arguments in installs]
    # The list is written last: an environment that was left half made, or was made for other versions, is not taken for this one.
    if python.exists() and made.exists() and json.loads(made.read_text()) == wanted:
        return str(python)
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    for arguments in wanted:
        subprocess.run([str(python), "-m", "pip", "install", "-q", *arguments], check=True)
    made.write_text(json.dumps(wanted))
    return str(python)
