"""What becomes of a reference once what it is of has changed for good."""

from __future__ import annotations

from pydantic import Field

from driftline.schemas.section import Section


class Relearn(Section):
    """A change that stays becomes the new normal by itself: its episodes end, and the reference is learned anew."""

    relearn_after: int = Field(
        ge=100, le=100_000_000,
        description="values judged since the change without a further one, at least baseline.learn and twice the longest window",
    )
