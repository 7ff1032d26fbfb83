"""Honest peers are served while the node is flooded: the short form of flood.py, which `make hostile` runs long."""

from __future__ import annotations

import pytest

from tests.hostile import flood

CLIENTS = 4
RATE = 4_000  # a busy machine must keep up as well
MEMORY_KB = 80_000  # the cache and the tables fill up to their bounds, no more


@pytest.mark.parametrize("workload", ["garbage", "pings", "publishes", "joins", "syncs", "collisions"])
def test_honest_peers_are_served(workload: str) -> None:
    """Four reference peers become ready, meet and get every event of each other, in the middle of it."""
    result = flood.run(workload, clients=CLIENTS, rate=RATE, compared=False)
    assert result.flood > RATE / 10, "there was no flood"
    assert len(result.ready_s) == CLIENTS
    assert result.pairs_met == result.pairs_wanted, result.summary()
    assert result.events_arrived == result.events_wanted, result.summary()
    assert len(result.ping_ms) >= 0.9 * result.ping_sent > 0, result.summary()
    assert result.memory_kb[-1] - result.memory_kb[0] < MEMORY_KB, result.summary()
