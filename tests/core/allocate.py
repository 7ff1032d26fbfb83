"""What the interpreter of counting.c runs: every kind of datagram, full and empty tables, and how often memory was taken.

Prints one JSON object: allocations, received, sent, the counters of the nodes, and as a control what ten large objects count.
"""

from __future__ import annotations

import ctypes
import json
import random

from fuzz.core import Sequence
from tests.core import inside
from tests.core.world import MAIN, Peer, World, number


def batches(sequence: Sequence, count: int, size: int) -> list[list[tuple[bytes, int, int, int]]]:
    """Datagrams of all kinds, from everybody."""
    made = []
    for _ in range(count):
        batch = []
        for _ in range(size):
            peer = sequence.rng.choice(sequence.peers)
            batch.append((sequence.datagram(peer), number(peer.address), peer.port, MAIN))
        made.append(batch)
    return made


def main() -> None:
    total = {"allocations": 0, "received": 0, "sent": 0}
    counters: dict[str, int] = {}
    for seed in range(12):
        sequence = Sequence(seed)
        for _ in range(150):
            sequence.step()
        world = sequence.world
        prepared = batches(sequence, 20, 40)
        taken, received, sent = inside.allocations(world.node, prepared, 500, world.mono_us, world.wall_ms)
        for name, value in (("allocations", taken), ("received", received), ("sent", sent)):
            total[name] += value
        for name, value in world.counters().items():
            counters[name] = counters.get(name, 0) + value
    world = World(peers=2000, unproven_per_second=0, replicated_per_minute=0, carried_per_minute=0)
    inside.crowd(world.node, 2000, number("11.0.0.1"), 20, world.mono_us, world.wall_ms)
    world.take()
    rng = random.Random(1)
    peers = [f"11.0.{i >> 8}.{i & 255}" for i in range(1, 2000)]
    prepared = [
        [(Peer(address).publish(rng.randbytes(900)), number(address), 9000, MAIN) for address in rng.sample(peers, 40)]
        for _ in range(60)
    ]
    taken, received, sent = inside.allocations(world.node, prepared, 5000, world.mono_us, world.wall_ms)
    total = {name: total[name] + value for name, value in zip(total, (taken, received, sent), strict=True)}
    count = ctypes.CDLL(None).srp_allocation_count
    before = count()
    held = [bytes(1_000_000) for _ in range(10)]
    print(json.dumps({**total, "control": count() - before, "held": len(held), "counters": counters}))


if __name__ == "__main__":
    main()
