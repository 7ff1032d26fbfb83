"""Clocks that jump: after a suspend, after somebody set the time. Nothing is lost that was promised, nothing bursts."""

from __future__ import annotations

import pytest

from srpnode.core import codec
from tests.core import inside
from tests.core.world import KEEP_ALIVE, START_MS, Peer, World, only

SUSPEND_S = 600.0
YEAR_MS = 365 * 86_400_000


def busy_world() -> tuple[World, list[Peer]]:
    world = World()
    peers = world.connect_many(20)
    for i, peer in enumerate(peers):
        world.send(peer, peer.publish(b"kept %d" % i))
    world.advance(5)
    return world, peers


def test_suspend_of_ten_minutes() -> None:
    """The monotonic clock stood still or not: packets are kept, and each peer is back with its first heartbeat."""
    world, peers = busy_world()
    world.pass_time(SUSPEND_S)
    sent = world.tick()
    assert len(sent) <= 4 * len(peers), "a burst after waking"
    assert world.cached() == len(peers)
    world.answers.clear()
    for peer in peers:
        world.send(peer, peer.ping(natType=31), follow=True)
        view = world.view(peer)
        assert view is not None
        assert view["connected"]
        assert world.holder(peer.peer_id) == peer.endpoint
    world.advance(2 * KEEP_ALIVE)
    assert world.node.gauges()["connected"] == len(peers)
    inside.check(world.node)


@pytest.mark.parametrize("jump_ms", [YEAR_MS, -YEAR_MS, -START_MS, 3_600_000, -3_600_000])
def test_the_wall_clock_jumps(jump_ms: int) -> None:
    """Only fields of the wire follow it: peers, packets, rates and gates do not notice."""
    world, peers = busy_world()
    world.wall_ms += jump_ms
    before = world.counters()
    world.advance(3 * KEEP_ALIVE)
    assert world.node.gauges()["connected"] == len(peers)
    assert world.cached() == len(peers)
    joiner = Peer("203.0.113.77")
    world.peers[joiner.endpoint] = joiner
    sent = world.send(joiner, joiner.join(), follow=True)
    intros = only(sent, codec.INTRO)
    assert intros
    assert {int(item.frame["usr1"]) for item in intros} == {world.wall_ms}
    assert only(world.send(peers[0], peers[0].publish(b"after the jump")), codec.PUBLISH)
    assert not {"stale", "unproven", "rate_endpoint"} & set(world.drops(before))
    inside.check(world.node)


def test_the_monotonic_clock_never_goes_back() -> None:
    """A driver that hands in an older time changes nothing; with the right time all goes on."""
    world, peers = busy_world()
    now = world.mono_us
    world.mono_us = now - 3_600_000_000
    assert only(world.send(peers[0], peers[0].ping()), codec.PONG)
    world.tick()
    assert world.node.next_due_us() >= now
    world.mono_us = now
    world.advance(3 * KEEP_ALIVE)
    assert world.node.gauges()["connected"] == len(peers)
    inside.check(world.node)
