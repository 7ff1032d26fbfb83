"""A second endpoint of a peer behind a hard NAT: reference peers stream to their proxy from the socket that reached the other."""

from __future__ import annotations

import pytest

from srpnode.core import codec
from tests.core.world import Endpoint, Peer, Sent, World, only

OTHER_PORT = 40_000


def proxy(nat_type: int = 5) -> tuple[World, Peer, Peer, Endpoint]:
    """A node, two peers that it is the proxy of, and the place that the first streams from."""
    world = World()
    hard, easy = Peer("198.51.100.8", nat_type=nat_type), Peer("198.51.100.9", nat_type=7)
    world.connect(hard)
    world.connect(easy)
    return world, hard, easy, (hard.address, OTHER_PORT)


def pings(sent: list[Sent], to: Endpoint) -> list[Sent]:
    return [item for item in only(sent, codec.PING) if item.to == to]


def test_it_is_asked_and_served_once_its_peer_has_answered() -> None:
    world, hard, easy, place = proxy()
    before = world.counters()
    first = world.send(place, hard.stream(easy.peer_id, b"lost"))
    [ping] = pings(first, place)
    assert only(first, codec.STREAM) == []
    assert len(ping.data) <= 3 * len(hard.stream(easy.peer_id, b"lost"))
    assert pings(world.send(place, hard.stream(easy.peer_id, b"lost too")), place) == []  # one question at a time
    world.send(hard, hard.pong(ping))  # from its main socket: a reference peer has no other answer
    assert world.drops(before) == {"unproven": 2}
    [stream] = only(world.send(place, hard.stream(easy.peer_id, b"heard")), codec.STREAM)
    assert stream.to == easy.endpoint
    assert world.changed(before)["aliases"] == 1
    # What is for the peer itself still goes to its main socket.
    [stream] = only(world.send(easy, easy.stream(hard.peer_id, b"back")), codec.STREAM)
    assert stream.to == hard.endpoint


def test_it_lives_as_long_as_its_peer_answers_for_it() -> None:
    world, hard, easy, place = proxy()
    [ping] = pings(world.send(place, hard.stream(easy.peer_id, b"lost")), place)
    world.send(hard, hard.pong(ping))
    for _ in range(8):
        sent = world.advance(world.keep_alive)
        for ping in pings(sent, place):
            world.send(hard, hard.pong(ping))
    assert only(world.send(place, hard.stream(easy.peer_id, b"heard")), codec.STREAM)
    world.advance(5 * world.keep_alive)
    assert only(world.send(place, hard.stream(easy.peer_id, b"lost")), codec.STREAM) == []


@pytest.mark.parametrize("what", ["another address", "nobody's name", "an easy peer"])
def test_others_are_not_asked(what: str) -> None:
    world, hard, easy, place = proxy(nat_type=7 if what == "an easy peer" else 5)
    sender = Peer("198.51.100.77") if what == "nobody's name" else hard
    source = ("198.51.100.66", OTHER_PORT) if what == "another address" else place
    assert world.send(source, sender.stream(easy.peer_id, b"x")) == []


def test_the_answer_of_another_peer_proves_nothing() -> None:
    world, hard, easy, place = proxy()
    [ping] = pings(world.send(place, hard.stream(easy.peer_id, b"lost")), place)
    before = world.counters()
    world.send(easy, easy.pong(ping))
    world.send(hard, hard.pong(ping, pingId="0123456789ab"))
    assert world.drops(before) == {"pong_unasked": 2}
    assert only(world.send(place, hard.stream(easy.peer_id, b"x")), codec.STREAM) == []
