"""The worlds' own manners: they leave the process as they found it, as tests of the real runner come after them in it."""

from __future__ import annotations

import time

from driftline.streams.runner import membership, name, runner
from tests.protocol.world import World, give_back


def test_worlds_that_close_in_any_order_leave_the_real_ports_and_clocks() -> None:
    make_consumer = vars(runner)["make_consumer"]
    first, second = World(), World()
    assert vars(membership)["time"] is second.clock
    first.close()
    second.close()
    give_back()
    assert vars(runner)["make_consumer"] is make_consumer
    assert vars(membership)["time"] is time
    assert vars(name)["time"] is time
