"""Strangers share what the machine can do: less when the driver says that datagrams are lost, more when it does not."""

from __future__ import annotations

from srpnode.core import codec
from srpnode.core.node import Node
from tests.core import inside
from tests.core.world import NODE_ID, Peer, World, only

LIMIT = 6400
FLOOR = LIMIT // 32
STEP_S = 1 / 64


def allowed(world: World) -> int:
    world.tick()
    return int(world.node.gauges()["strangers_per_second"])


def ask(world: World, count: int, first: int) -> int:
    """A ping from each of so many endpoints that never asked before; how many were answered."""
    answered = 0
    for i in range(first, first + count):
        peer = Peer(f"198.{18 + i // 65_000}.{i // 250 % 250}.{i % 250 + 1}")
        answered += bool(world.send(peer.endpoint, peer.ping()))
    return answered


def pressed(world: World, seconds: float, asking: int, first: int = 0) -> int:
    """Strangers ask, so many each 64th of a second, and the driver loses datagrams all the time; how many were answered."""
    answered = 0
    for i in range(round(seconds / STEP_S)):
        answered += ask(world, asking, first + i * asking)
        world.node.pressed(world.mono_us, world.wall_ms)
        world.pass_time(STEP_S)
    return answered


def test_losses_halve_what_strangers_get_down_to_a_floor() -> None:
    world = World(unproven_per_second=LIMIT, peers=20_000)
    assert allowed(world) == LIMIT
    for first in (0, 100):
        ask(world, FLOOR // 8 + 1, first)
        world.pass_time(STEP_S)
    world.node.pressed(world.mono_us, world.wall_ms)
    assert allowed(world) == LIMIT // 2, "the first loss is not answered at once"
    world.node.pressed(world.mono_us, world.wall_ms)
    assert allowed(world) == LIMIT // 2, "before a cut can have been felt, another one"
    world.pass_time(0.25)
    pressed(world, 2, asking=300, first=200)
    assert allowed(world) == FLOOR
    assert world.count("unproven_cuts") == 5
    assert FLOOR // 2 <= pressed(world, 1, asking=50, first=40_000) <= FLOOR
    inside.check(world.node)


def test_it_comes_back_slowly() -> None:
    world = World(unproven_per_second=LIMIT, peers=20_000)
    pressed(world, 2, asking=50)
    lost_s = world.mono_us / 1e6 - STEP_S
    seen = []
    while allowed(world) < LIMIT:
        seen.append((world.mono_us / 1e6 - lost_s, allowed(world)))
        world.pass_time(0.5)
        ask(world, 1, len(seen))
    assert seen == [(since, FLOOR + int(since) * LIMIT // 64) for since, _ in seen]
    assert 60 < world.mono_us / 1e6 - lost_s < 64
    world.pass_time(100)
    assert allowed(world) == LIMIT


def test_losses_that_strangers_do_not_cause_take_nothing_from_them() -> None:
    """Garbage that fills the buffer does not lock newcomers out."""
    world = World(unproven_per_second=LIMIT, peers=20_000)
    pressed(world, 1, asking=int(FLOOR * STEP_S) - 1)
    assert allowed(world) == LIMIT
    pressed(world, 1, asking=50, first=10_000)
    assert allowed(world) < LIMIT
    world.pass_time(70)
    assert allowed(world) == LIMIT
    world.node.pressed(world.mono_us, world.wall_ms)
    assert allowed(world) == LIMIT, "for what strangers did long ago"


def test_what_is_left_is_given_out_in_parts_of_a_second() -> None:
    """At once it would be gone before an honest newcomer's ping."""
    world = World(unproven_per_second=LIMIT, peers=20_000)
    pressed(world, 2, asking=50)
    assert allowed(world) == FLOOR
    world.pass_time(0.1)
    first = ask(world, 200, 20_000)
    assert 1 <= first <= FLOOR // 16 + 1
    world.pass_time(0.1)
    assert ask(world, 200, 21_000) == first


def test_who_keeps_asking_gets_in_through_the_floor() -> None:
    """Twenty newcomers ask twice a second, as clients do, in a flood of 19 200 pings a second, no two from one endpoint."""
    world = World(unproven_per_second=LIMIT, peers=20_000)
    pressed(world, 2, asking=300)
    newcomers = [Peer("203.0.113.7", 9000 + i) for i in range(20)]
    waiting = list(newcomers)
    for i in range(10 * 64):
        ask(world, 300, 100_000 + i * 300)
        world.node.pressed(world.mono_us, world.wall_ms)
        for peer in [peer for peer in waiting if newcomers.index(peer) == i % 32]:
            if only(world.send(peer.endpoint, peer.ping()), codec.PONG):
                waiting.remove(peer)
        world.pass_time(STEP_S)
    assert allowed(world) == FLOOR
    assert not waiting


def test_unlimited_stays_unlimited() -> None:
    world = World(unproven_per_second=0, peers=20_000)
    assert pressed(world, 1, asking=20) == 1280
    assert allowed(world) == 0
    assert world.count("unproven_cuts") == 0


def test_a_new_limit_is_cut_likewise() -> None:
    world = World(unproven_per_second=LIMIT, peers=20_000)
    pressed(world, 0.2, asking=50)
    assert allowed(world) == LIMIT // 2
    world.node.set_limits(unproven_per_second=100)
    assert allowed(world) == 50
    world.node.set_limits(unproven_per_second=1)
    assert allowed(world) == 1


def test_any_number_may_be_cut() -> None:
    for limit in (1, 5, 31, 639, 640, 4_000_000_000):
        node = Node(peer_id=NODE_ID, seed=bytes(32), peers=10, unproven_per_second=limit)
        for i in range(100):
            data = Peer("198.51.100.7", 1024 + i).ping()
            node.receive(data, ("198.51.100.7", 1024 + i), mono_us=i * 260_000, wall_ms=1)
            node.take()
            node.pressed(i * 260_000, 1)
            assert 1 <= node.gauges()["strangers_per_second"] <= limit


def test_a_share_is_given_out_a_little_at_a_time() -> None:
    """No queue of answers builds up in which everybody waits, and what a busy moment missed is made up for: up to a 64th of a second."""
    world = World(unproven_per_second=LIMIT, peers=20_000)
    world.pass_time(1)
    assert ask(world, 200, 0) == LIMIT // 64 // 2, "newcomers' half after a pause"
    parts = []
    for i in range(1, 101):
        world.pass_time(0.002)
        parts.append(ask(world, 20, 200 * i))
    assert max(parts) <= LIMIT // 500
    assert sum(parts) >= 0.45 * LIMIT / 5
    world.pass_time(0.008)
    assert ask(world, 200, 100_000) >= 0.49 * LIMIT // 125
