"""Whole numbers as they may stand in what is read back from Kafka and Redis: within what the code computes with."""

from __future__ import annotations

from typing import Annotated

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
"""A number of rows, an offset, a sequence number."""
Index = Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)]
"""A partition, a place in a list, the length of one in memory."""
Signed64 = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
"""A time in ms."""
