"""Joins that wait a moment: passed on to members, or echoed to a joiner behind a Hard NAT."""

from __future__ import annotations

from srpnode.core import codec
from tests.core import inside
from tests.core.world import NODE_ADDRESS, NODE_PORT, Peer, Sent, World, named, only

RENDEZVOUS = {"rendezvousPort": 3511, "rendezvousType": 31}
CLUSTER_MATE = Peer("198.51.100.8")


def stamped(by: Peer, joiner: Peer) -> bytes:
    """The joiner's join as the rendezvous peer passes it on."""
    return joiner.join(
        hops=2,
        rendezvousAddress=by.address,
        rendezvousPort=by.port,
        rendezvousType=31,
        rendezvousPeerId=by.peer_id.hex(),
        rendezvousDeadline=4e12,
    )


def later(world: World, seconds: float) -> list[Sent]:
    """What leaves within that time."""
    sent: list[Sent] = []
    for _ in range(round(seconds / 0.05)):
        world.pass_time(0.05)
        sent += world.tick()
    return sent


def test_a_relayed_join_is_passed_on_in_a_moment() -> None:
    world = World(deferred_joins=4)
    elsewhere, joiner = Peer("203.0.113.1"), Peer("203.0.113.2")
    world.connect(elsewhere)
    world.connect(CLUSTER_MATE)
    assert world.send(elsewhere, stamped(elsewhere, joiner)) == []
    assert only(later(world, 0.5), codec.JOIN) == []
    [passed] = only(later(world, 0.3), codec.JOIN)
    assert passed.to == CLUSTER_MATE.endpoint
    assert passed.frame["hops"] == 16  # its receivers answer the rendezvous, and pass nothing on
    assert only(later(world, 2), codec.JOIN) == []


def test_a_joiner_that_comes_by_itself_meanwhile_is_not_passed_on() -> None:
    world = World(deferred_joins=4)
    elsewhere, joiner = Peer("203.0.113.1"), Peer("203.0.113.2")
    world.connect(elsewhere)
    world.connect(CLUSTER_MATE)
    assert world.send(elsewhere, stamped(elsewhere, joiner)) == []
    world.connect(joiner)
    before = world.counters()
    assert only(later(world, 2), codec.JOIN) == []
    assert world.changed(before)["joins_known"] == 1


def test_no_more_wait_than_there_are_places() -> None:
    world = World(deferred_joins=2)
    elsewhere = Peer("203.0.113.1")
    world.connect(elsewhere)
    world.connect(CLUSTER_MATE)
    before = world.counters()
    for i in range(5):
        world.send(elsewhere, stamped(elsewhere, Peer(f"203.0.113.{10 + i}")))
    assert world.drops(before) == {"deferred_full": 3}
    assert len(only(later(world, 1), codec.JOIN)) == 2


def test_one_peer_takes_only_its_share_of_the_places() -> None:
    world = World(deferred_joins=8, deferred_joins_per_peer=3)
    greedy, other = Peer("203.0.113.1"), Peer("203.0.113.2")
    for peer in (greedy, other, CLUSTER_MATE):
        world.connect(peer)
    for turn in range(2):  # the places come back
        before = world.counters()
        for i in range(5):
            world.send(greedy, stamped(greedy, Peer(f"203.0.113.{10 + i}", 9000 + turn)))
        assert world.drops(before) == {"deferred_peer": 2}
        world.send(other, stamped(other, Peer(f"203.0.113.{20 + turn}")))
        assert world.drops(before) == {"deferred_peer": 2}
        assert len({item.message["requesterPeerId"] for item in only(later(world, 1), codec.JOIN)}) == 4
    before = world.counters()
    world.send(greedy, stamped(greedy, Peer("203.0.113.40")))
    world.pass_time(1000)  # it is gone, and its place with it
    world.tick()
    world.connect(greedy)
    for i in range(3):
        world.send(greedy, stamped(greedy, Peer(f"203.0.113.{50 + i}")))
    assert world.drops(before).get("deferred_peer", 0) == 0
    inside.check(world.node)


def test_one_that_leaves_meanwhile_gets_nothing() -> None:
    world = World(deferred_joins=4)
    easy, hard = Peer("198.51.100.8", nat_type=31), Peer("198.51.100.9", nat_type=5)
    world.connect(easy)
    world.connect(hard)
    world.send(hard, hard.join())
    world.pass_time(1000)
    assert only(world.tick(), codec.JOIN) == []


def test_a_joiner_behind_a_hard_nat_hears_of_an_easy_member_by_a_join() -> None:
    """Its application would hear of the member with the member's next join only: a pong names no cluster."""
    world = World(deferred_joins=4)
    easy, hard = Peer("198.51.100.8", nat_type=31), Peer("198.51.100.9", nat_type=5, subcluster=named("sub"))
    world.connect(easy)
    world.connect(hard)
    assert len(only(world.send(hard, hard.join()), codec.INTRO)) == 2
    [echo] = only(later(world, 1), codec.JOIN)
    assert echo.to == hard.endpoint
    assert echo.frame["hops"] == 16  # for the joiner alone: nobody passes it on
    assert (echo.frame["cluster_id"], echo.frame["subcluster_id"]) == (hard.cluster, hard.subcluster)
    assert echo.message == {
        "requesterPeerId": easy.peer_id.hex(),
        "natType": 31,
        "address": easy.address,
        "port": easy.port,
    }
    assert NODE_ADDRESS not in echo.message.values()
    assert NODE_PORT not in echo.message.values()
    [again] = only(later(world, 1), codec.JOIN)  # they may not have met by then; a client takes a packetId once
    assert again.message == echo.message
    assert again.frame["packet_id"] != echo.frame["packet_id"]
    assert only(later(world, 3), codec.JOIN) == []


def test_a_joiner_of_another_subcluster_and_its_members_hear_of_each_other_by_joins() -> None:
    """They may be connected already: then a reference peer takes no second introduction."""
    world = World(deferred_joins=8)
    member, joiner = Peer("198.51.100.8", subcluster=named("two")), Peer("198.51.100.9", subcluster=named("one"))
    for peer in (member, joiner):
        world.connect(peer)
        world.send(peer, peer.join())
    assert only(later(world, 2), codec.JOIN) == []
    joiner.subcluster = named("two")
    assert len(only(world.send(joiner, joiner.join()), codec.INTRO)) == 2
    echoes = only(later(world, 2), codec.JOIN)
    assert {(echo.to, echo.message["requesterPeerId"]) for echo in echoes} == {
        (joiner.endpoint, member.peer_id.hex()),
        (member.endpoint, joiner.peer_id.hex()),
    }
    assert [(echo.frame["hops"], echo.frame["subcluster_id"]) for echo in echoes] == [(16, named("two"))] * 2
    world.pass_time(100)
    world.prove(joiner)
    world.send(joiner, joiner.join())  # once more, for the same
    assert only(later(world, 2), codec.JOIN) == []


def test_nobody_else_gets_such_a_join() -> None:
    """Easy joiners are pinged by the member with its cluster; port-restricted members and hard ones go other ways."""
    for joiner_type, member_type in ((31, 31), (7, 31), (5, 7), (5, 5)):
        world = World(deferred_joins=4)
        member = Peer("198.51.100.8", nat_type=member_type)
        joiner = Peer("198.51.100.9", nat_type=joiner_type)
        world.connect(member)
        world.connect(joiner)
        world.send(joiner, joiner.join())
        assert only(later(world, 1), codec.JOIN) == []
