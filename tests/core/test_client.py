"""The core as an application's peer, where that could make a weapon of it or loses what it was given."""

from __future__ import annotations

from typing import Any

import pytest

from srpnode.core import codec
from tests.core import inside
from tests.core.world import NODE_ID, START_MS, Peer, Sent, World, named, only

CLUSTER, SUB = named("cluster"), named("sub")


def client(**settings: Any) -> World:
    """A peer of an application that joined one subcluster."""
    world = World(**{"app_bytes": 20_000, "attempts": 8, **settings})
    world.node.join(CLUSTER, SUB)
    return world


def join_elsewhere(i: int, rendezvous: Peer, **message: Any) -> bytes:
    """A join of a cluster member, stamped by its rendezvous peer and relayed."""
    joiner = Peer(f"192.0.2.{i % 200 + 1}", 2000 + i, cluster=CLUSTER, subcluster=SUB)
    return joiner.join(
        hops=2,
        rendezvousAddress=rendezvous.address,
        rendezvousPort=rendezvous.port,
        rendezvousType=31,
        rendezvousPeerId=rendezvous.peer_id.hex(),
        rendezvousDeadline=float(START_MS + 30_000),
        **message,
    )


def test_answers_the_rendezvous_peer() -> None:
    """Asks the peer that stamped the join to be introduced to its sender."""
    world = client()
    relay = world.connect(Peer("203.0.113.50", 3511))
    elsewhere = Peer("203.0.113.60", 3511)
    (answer,) = only(world.send(relay, join_elsewhere(1, elsewhere)), codec.JOIN)
    assert answer.to == elsewhere.endpoint
    assert answer.frame["hops"] == 0
    assert answer.message["rendezvousPeerId"] == elsewhere.peer_id.hex()
    assert answer.message["requesterPeerId"] == NODE_ID.hex()


def test_answers_at_one_prefix_are_limited() -> None:
    """Joins that name a victim as their rendezvous peer make us send there: within the budget of relayed joins."""
    world = client(relayed_joins_per_minute=20)
    relay = world.connect(Peer("203.0.113.50", 3511))
    victim = Peer("198.51.100.200", 4000)
    sent: list[Sent] = []
    for i in range(300):
        sent += world.send(relay, join_elsewhere(i, victim))
    assert 0 < len([item for item in sent if item.to == victim.endpoint]) <= 20


@pytest.mark.parametrize("position", [0, 1, 2**31, 2**32 - 1, 2**32 - 1000, 2**32 - 19_999])
@pytest.mark.parametrize("size", [1000, 4096, 20_000])
def test_application_ring_after_any_number_of_bytes(position: int, size: int) -> None:
    """Four billion bytes later the records are still whole."""
    world = client(app_bytes=size)
    sender = world.connect(Peer("198.51.100.7"))
    world.node.app_events()
    inside.wind_application_ring(world.node, position)
    for i in range(200):
        data = sender.stream(NODE_ID, b"%d" % i + bytes(i * 3))
        world.send(sender, data)
        ((kind, packet, source),) = world.node.app_events()
        assert (kind, packet, source) == ("stream", data, sender.endpoint)


def test_application_ring_drops_the_newest() -> None:
    """An application that does not listen: what no longer fits is dropped and counted, the rest stays whole."""
    world = client(app_bytes=4000)
    sender = world.connect(Peer("198.51.100.7"))
    world.node.app_events()
    sent = [sender.stream(NODE_ID, b"%d" % i + bytes(500)) for i in range(50)]
    for data in sent:
        world.send(sender, data)
    events = world.node.app_events()
    assert [packet for _, packet, _ in events] == sent[: len(events)]
    assert world.count("drop_app_full") == 50 - len(events) > 0


@pytest.mark.parametrize("socket", [-1, 258, 9999, 65_536, 70_000])
def test_sockets_that_do_not_exist(socket: int) -> None:
    """Main, probe and 256 of the pool; a number beyond them would point out of a table."""
    world = client()
    with pytest.raises((ValueError, OverflowError)):
        world.send(Peer("198.51.100.7"), Peer("198.51.100.7").ping(), socket=socket)
