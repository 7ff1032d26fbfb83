"""A peerId cannot be taken from its holder by datagrams that only claim to come from it."""

from __future__ import annotations

import pytest

from srpnode.core import codec
from tests.core import inside
from tests.core.world import Peer, Sent, World, named, only

NAME = named("the victim")


def forged_ping(victim: Peer, name: bytes) -> bytes:
    return Peer(victim.address, victim.port, peer_id=name).connection_ping()


def forged_heartbeat(victim: Peer, name: bytes) -> bytes:
    return Peer(victim.address, victim.port, peer_id=name).ping(natType=31)


def forged_join(victim: Peer, name: bytes) -> bytes:
    return Peer(victim.address, victim.port, peer_id=name).join()


def answer(world: World, peer: Peer, sent: list[Sent]) -> None:
    """The peer answers the pings that it got among these, 20 ms later."""
    world.pass_time(0.02)
    for item in only(sent, codec.PING):
        if item.to == peer.endpoint:
            world.send(peer, peer.pong(item))


@pytest.mark.parametrize("forge", [forged_ping, forged_heartbeat, forged_join])
def test_a_forged_rename_frees_no_name(forge: object) -> None:
    """Off the path: a datagram in the victim's endpoint gives it another name, a second claims the old one for the attacker."""
    assert callable(forge)
    world = World()
    victim = world.connect(Peer("198.51.100.7", peer_id=NAME))
    thief = world.connect(Peer("198.51.100.66"))
    friend = world.connect(Peer("198.51.100.9"))
    world.pass_time(2)
    asked = only(world.send(victim.endpoint, forge(victim, named("nobody"))), codec.PING)
    assert [item.to for item in asked] == [victim.endpoint]
    answer(world, victim, asked)
    world.advance(2)
    thief.peer_id = NAME
    answer(world, victim, world.send(thief, thief.connection_ping(), follow=True))
    world.advance(5)
    assert world.holder(NAME) == victim.endpoint
    (item,) = world.send(friend, friend.stream(NAME, b"for the victim"))
    assert item.to == victim.endpoint
    inside.check(world.node)


def test_a_name_whose_holder_is_silent_is_not_pushed_onto_another() -> None:
    """The attacker lets a name of his own fail its ping and claims it for the victim: that would free the victim's own."""
    world = World()
    victim = world.connect(Peer("198.51.100.7", peer_id=NAME))
    decoy = world.connect(Peer("198.51.100.65"))
    thief = world.connect(Peer("198.51.100.66"))
    decoy.alive = False
    world.pass_time(2)
    asked = only(world.send(victim.endpoint, forged_ping(victim, decoy.peer_id)), codec.PING)
    assert [item.to for item in asked] == [victim.endpoint]
    answer(world, victim, asked)
    world.advance(3)
    thief.peer_id = NAME
    answer(world, victim, world.send(thief, thief.connection_ping(), follow=True))
    world.advance(5)
    assert world.holder(NAME) == victim.endpoint
    inside.check(world.node)


def test_a_flood_of_forged_renames_is_one_question() -> None:
    world = World()
    victim = world.connect(Peer("198.51.100.7", peer_id=NAME))
    world.pass_time(2)
    sent = [item for i in range(200) for item in world.send(victim.endpoint, forged_ping(victim, named(str(i))))]
    assert len(only(sent, codec.PING)) == 1
    assert world.holder(NAME) == victim.endpoint


def test_what_was_parked_in_another_name_does_not_count() -> None:
    """A ping in the thief's words waits for the proof of an endpoint that then proves to be somebody else."""
    world = World()
    stranger = Peer("198.51.100.7")
    (ping,) = only(world.send(stranger.endpoint, forged_ping(stranger, NAME)), codec.PING)
    world.send(stranger, stranger.pong(ping))
    assert world.holder(stranger.peer_id) == stranger.endpoint
    assert world.holder(NAME) is None


def test_a_peer_started_anew_is_served_at_once() -> None:
    """Another key on the old port: its connection ping waits for its answer, and is then handled."""
    world = World()
    friend = world.connect(Peer("198.51.100.9", cluster=named("new cluster")))
    world.connect(Peer("198.51.100.7", peer_id=NAME))
    world.pass_time(2)
    again = Peer("198.51.100.7", peer_id=named("new key"), cluster=named("new cluster"))
    world.peers[again.endpoint] = again
    sent = world.send(again, again.join(), follow=True)
    assert world.holder(again.peer_id) == again.endpoint
    assert {item.to for item in only(sent, codec.INTRO)} == {again.endpoint, friend.endpoint}
    inside.check(world.node)
