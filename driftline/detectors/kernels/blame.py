"""What an alarm of a budget says of each monitor that it is about."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLAME = np.dtype(
    [
        ("row", "<i8"),
        ("monitor", "<i4"),
        ("rank", "<i4"),
        ("evidence", "<f8"),
        ("total", "<f8"),
        ("bet", "<i4"),
        ("direction", "i1"),
        ("back", "<i8"),
        ("earliest", "<i8"),
        ("latest", "<i8"),
        ("shift", "<f8"),
    ],
    align=True,
)
"""One blamed monitor of an alarm; those of one alarm share the row and the total, and come by falling evidence.

`bet` is the alternative that has gained most, `direction` its side (0 for spreads). `back`: values of the monitor since
the likeliest start of the change, `earliest` and `latest` the ends of its 95 % interval counted likewise (0 = spreads
have none), `shift` the mean since then in standard deviations, of rates in those of the base."""

Blames = NDArray[np.void]
