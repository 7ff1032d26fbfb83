"""Instructions that single datagrams cost, by the size of the tables: python -m tests.core.cost prints the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from srpnode.core import codec
from tests.core import inside
from tests.core.world import MAIN, START_MS, START_US, Peer, World, named, number

FIRST = number("11.0.0.1")
CLUSTERS = 40


@dataclass(frozen=True)
class Size:
    """How much a node holds."""

    peers: int
    packets: int  # of about a kilobyte; 0: the cache is empty
    cache_bytes: int = 16_000_000

    def __str__(self) -> str:
        return f"{self.peers} peers, {self.packets} packets"


SMALL = [Size(1, 0), Size(1000, 0), Size(1000, 1000)]
LARGE = [Size(100_000, 0), Size(100_000, 13_000)]
FULL = [Size(1000, 500, 400_000), Size(100_000, 16_000)]  # each insertion ejects another packet


def peer_at(i: int, count: int) -> Peer:
    """One of a crowd, by its number."""
    i %= count
    address = FIRST + i
    text = ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))
    cluster = (i % min(CLUSTERS, count)).to_bytes(4, "little") + b"\7" * 28
    return Peer(text, 9000, peer_id=address.to_bytes(4, "little") + b"\1" * 28, cluster=cluster)


def world_of(size: Size) -> World:
    """A node that holds so much. Half of the peers share 40 clusters of equal size."""
    world = World(
        peers=max(size.peers, 2),
        cache_max_bytes=size.cache_bytes,
        gate_entries=65_536,
        meter_entries=65_536,
        unproven_per_second=0,
        replicated_per_minute=0,
        sync_per_minute=0,
        carried_per_minute=0,
        control_per_minute=0,
        address_per_minute=0,
        prefix_per_minute=0,
        introductions=2,
    )
    made = inside.crowd(world.node, size.peers, FIRST, min(CLUSTERS, size.peers), START_US, START_MS)
    assert made == size.peers
    world.take()
    for first in range(0, size.packets, 500):
        batch = []
        for i in range(first, min(first + 500, size.packets)):
            peer = peer_at(i, size.peers)
            batch.append((peer.publish(b"%08d" % i + bytes(800)), number(peer.address), peer.port, MAIN))
        inside.receive_batch(world.node, batch, world.mono_us, world.wall_ms)
    return world


def datagrams(world: World, size: Size, samples: int) -> Iterator[tuple[str, Peer, bytes, list[tuple[bytes, int, int, int]]]]:
    """(what, who, datagram, what comes before it) of each kind."""
    for i in range(samples):
        at = i * 7919 + 1
        peer, other = peer_at(at, size.peers), peer_at(at + 2, size.peers)
        yield "ping", peer, peer.connection_ping(pingId="0123456789ab"), []
        fresh = peer.publish(b"fresh %d" % i + bytes(800))
        yield "publish", peer, fresh, []
        yield "duplicate", peer, fresh, [(fresh, number(other.address), other.port, MAIN)]
        if size.peers == 1:
            continue
        yield "stream", peer, peer.stream(other.peer_id, bytes(800)), []
        yield "question", peer, peer.query(named("unknown"), named(f"q {i}"), world.wall_ms), []
        if i == 0:
            yield "join", peer, peer.join(), []
        if size.packets:
            held = codec.sha256(b"%08d" % (size.packets // 2 + i) + bytes(800))
            yield "answer", peer, peer.query(held, named(f"a {i}"), world.wall_ms), []
        stranger = Peer(f"12.0.0.{i + 1}")
        yield "stranger", stranger, stranger.connection_ping(), []


def measure(size: Size, kinds: set[str] | None = None, samples: int = 2) -> dict[str, float]:
    """Mean instructions of each kind of datagram at a node of that size. OSError where no child can be traced."""
    world = world_of(size)
    costs: dict[str, list[int]] = {}
    for what, peer, data, before in datagrams(world, size, samples):
        if kinds is not None and what not in kinds:
            continue
        batch = [(data, number(peer.address), peer.port, MAIN)]
        steps = inside.instructions(world.node, before + batch, world.mono_us, world.wall_ms)
        if before:
            steps -= inside.instructions(world.node, before, world.mono_us, world.wall_ms)
        costs.setdefault(what, []).append(steps)
    return {what: sum(values) / len(values) for what, values in costs.items()}


if __name__ == "__main__":
    for size in [*SMALL, *LARGE, *FULL]:
        print(f"{size!s:32}", "  ".join(f"{what} {cost:.0f}" for what, cost in measure(size).items()))
