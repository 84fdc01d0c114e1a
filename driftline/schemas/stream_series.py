"""The names of the series of the stream itself. Detectors and the words of alerts know them without the configuration."""

from __future__ import annotations

from typing import Final

FRESHNESS: Final = "stream:freshness"
VOLUME: Final = "stream:volume"
INVALID_ROWS: Final = "stream:invalid"
JOIN_RATE: Final = "stream:join_rate"
LABEL_DELAY: Final = "stream:label_delay"
LABELLED_ROWS: Final = "stream:labelled"
LABEL_SERIES: Final = frozenset({LABEL_DELAY, LABELLED_ROWS})
"""Those that are watched with the outcomes, at each age."""
