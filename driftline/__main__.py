"""``python -m driftline``: the same as the ``driftline`` command."""

from __future__ import annotations

from driftline.cli.main import main

main()
