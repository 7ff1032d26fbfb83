"""What a peer and a cached packet take in memory, computed from the tables themselves."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core import inside
from tests.core.world import MAIN, Peer, World, number

FULL_BYTES = 1421  # a datagram with every field full


@pytest.mark.parametrize("peers", [10_000, 20_000, 100_000, 131_072, 1_000_000])
def test_a_peer_takes_at_most_400_bytes(peers: int) -> None:
    """With all places in use: every peer named, two clusters of its own, five memberships for each two peers."""
    assert 192 < inside.peer_bytes(peers) <= 400


@pytest.mark.parametrize("max_bytes", [16_000_000, 24_000_000])
def test_a_full_cache_takes_at_most_15_per_cent_more(max_bytes: int) -> None:
    """Full packets, as applications send them: what the cache takes beyond cache.max_bytes to find, list and summarise them."""
    world = World(cache_max_bytes=max_bytes, replicated_per_minute=0, gate_entries=65_536)
    peer = world.connect(Peer("198.51.100.7"))
    everything: dict[str, Any] = {name: bytes([1]) * 32 for name in ("subcluster_id", "previous_id", "next_id", "usr1", "usr2", "usr3", "usr4")}
    for first in range(0, max_bytes // FULL_BYTES + 500, 500):
        batch = []
        for i in range(first, first + 500):
            data = peer.publish(b"%08d" % i + bytes(1016), sig=bytes(64), **everything)
            assert len(data) == FULL_BYTES
            batch.append((data, number(peer.address), peer.port, MAIN))
        inside.receive_batch(world.node, batch, world.mono_us, world.wall_ms)
    assert world.count("cache_ejected") > 0, "not full"
    payload, memory = inside.cache_bytes(world.node)
    assert 0.9 * max_bytes < payload <= max_bytes
    assert max_bytes < memory <= 1.15 * max_bytes, f"{memory} bytes for {payload}"
