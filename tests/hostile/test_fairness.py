"""What strangers do in masses uses up nobody's chances among his own."""

from __future__ import annotations

from srpnode.core import codec
from tests.core.world import Peer, World, named, only


def test_joins_for_random_clusters_leave_introductions_to_members() -> None:
    """A flood of joiners of other clusters is introduced to an honest peer as strangers: it must still meet its own."""
    world = World(introductions_per_minute=40)
    honest = world.connect(Peer("198.51.100.1"))
    for i in range(200):
        joiner = world.connect(Peer(f"203.0.113.{i + 1}", cluster=named(f"random {i}")))
        world.send(joiner, joiner.join())
    told = only(honest.received, codec.INTRO)
    assert 0 < len(told) <= 3, "strangers took more than their sixteenth"
    member = world.connect(Peer("198.51.100.2"))
    sent = only(world.send(member, member.join()), codec.INTRO)
    assert {honest.endpoint, member.endpoint} <= {item.to for item in sent}
