"""New peers get in while strangers flood the node with pings from sources that they forge."""

from __future__ import annotations

import pytest

from srpnode.core import codec
from tests.core import inside
from tests.core.world import Peer, World, only

LIMIT = 80


def flood(world: World, sources: int, first: int = 0) -> int:
    """One ping from each of so many endpoints; how many were answered."""
    answered = 0
    for i in range(first, first + sources):
        peer = Peer(f"198.{18 + i // 65_000}.{i // 250 % 250}.{i % 250 + 1}")
        answered += bool(only(world.send(peer.endpoint, peer.ping()), codec.PONG))
    return answered


def flooded() -> World:
    """All of the flood's sources have been answered once, and a new second begins."""
    world = World(unproven_per_second=LIMIT, peers=20_000)
    for _ in range(10):
        flood(world, 300)
        world.pass_time(1)
    return world


def test_a_newcomer_comes_before_those_that_were_answered() -> None:
    world = flooded()
    assert flood(world, 300) == LIMIT * 3 // 8
    newcomer = world.connect(Peer("203.0.113.7"))
    assert world.view(newcomer) is not None
    assert world.count("drop_rate_unproven") > 0
    inside.check(world.node)


def test_newcomers_share_what_is_theirs() -> None:
    world = flooded()
    flood(world, 300)
    assert flood(world, 300, first=100_000) == LIMIT // 2 - LIMIT * 3 // 8


def test_who_was_refused_and_asks_again_comes_first() -> None:
    """A client repeats its ping four times in four seconds; a flood from so many sources that none comes again does not."""
    world = World(unproven_per_second=LIMIT, peers=20_000)
    newcomers = [Peer("203.0.113.7", 9000 + i) for i in range(2 * LIMIT)]
    answered = []
    for i in range(5):
        assert flood(world, 300, first=1000 * i) == LIMIT // 2
        answered.append(sum(bool(world.send(peer.endpoint, peer.ping())) for peer in newcomers))
        world.pass_time(0.8)
        world.tick()
        world.pass_time(0.2)
    assert answered == [eighths * LIMIT // 8 for eighths in (0, 1, 1, 3, 3)]
    inside.check(world.node)


def test_refusals_are_forgotten() -> None:
    world = World(unproven_per_second=LIMIT, peers=20_000)
    newcomer = Peer("203.0.113.7")
    for i in range(5):
        flood(world, 300, first=1000 * i)
        assert not world.send(newcomer.endpoint, newcomer.ping())
        world.pass_time(8)
        world.tick()
        world.pass_time(8)


def test_the_probe_socket_of_a_known_client_is_answered() -> None:
    """Its ping comes from an endpoint that was never proven and cannot be, at an address where another was."""
    world = World(unproven_per_second=LIMIT)
    client = world.connect(Peer("203.0.113.7", 9000))
    world.pass_time(1)
    assert flood(world, 300) == LIMIT // 2
    probe = Peer("203.0.113.7", 9001)
    for _ in range(LIMIT // 2):
        assert only(world.send(probe.endpoint, probe.ping(isReflection=True, isProbe=True)), codec.PONG)
    assert not world.send(probe.endpoint, probe.ping(isReflection=True, isProbe=True))
    assert only(world.send(client, client.ping()), codec.PONG)


def test_a_proof_is_always_heard() -> None:
    """The answer to our question needs no share: whoever was asked once gets in."""
    world = World(unproven_per_second=LIMIT)
    newcomer = Peer("203.0.113.7")
    (question,) = only(world.send(newcomer.endpoint, newcomer.ping()), codec.PING)
    flood(world, 300)
    assert not world.send(Peer("203.0.113.8").endpoint, newcomer.ping())
    world.send(newcomer.endpoint, newcomer.pong(question))
    view = world.view(newcomer)
    assert view is not None
    assert view["proven"]


def test_what_was_answered_is_forgotten() -> None:
    world = flooded()
    assert flood(world, 300) == LIMIT * 3 // 8
    world.pass_time(40)
    world.tick()
    world.pass_time(40)
    assert flood(world, 300) == LIMIT // 2


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_the_smallest_limits_let_somebody_in(limit: int) -> None:
    world = World(unproven_per_second=limit)
    assert flood(world, 10) >= 1
    world.pass_time(1)
    assert flood(world, 10) >= 1


def test_a_large_limit_is_given_out_in_parts() -> None:
    """Else the answers to a second's flood would all stand in the queue before an honest peer's."""
    world = World(unproven_per_second=6400, peers=20_000)
    assert flood(world, 1000) == 50
    answered = 0
    for i in range(64):
        world.pass_time(1 / 64)
        answered += flood(world, 1000, first=1000 * (i + 1))
    assert 64 * 48 <= answered <= 6400
