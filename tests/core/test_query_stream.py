"""Query with its return routes, and streams that are proxied (protocol 4)."""

from __future__ import annotations

from typing import Any

import pytest

from srpnode.core import codec
from tests.core import inside
from tests.core.world import KEEP_ALIVE, NODE_ID, START_MS, Peer, World, named, only


@pytest.fixture
def world() -> World:
    return World()


def answer(question: bytes, text: bytes, *, hops: int = 1, index: int = -1) -> bytes:
    """What a peer that holds the packet sends back."""
    frame = codec.decode(question)
    return codec.encode(
        codec.QUERY,
        hops=hops,
        index=index,
        packet_id=codec.sha256(text),
        cluster_id=frame["cluster_id"],
        usr1=codec.sha256(b"event"),
        usr3=frame["usr3"],
        usr4=b"2",
        message=text,
    )


# --- questions that we can answer -----------------------------------------------------------------------------------


def test_answer_is_a_copy_of_the_packet(world: World) -> None:
    """Type, query id and mark are the answer's; everything else is the packet's, and the cache keeps the packet as it was."""
    asker, sender = world.connect_many(2)
    data = sender.publish(b"x" * 500, clock=7, hops=3, ttl=99_000, usr2=named("key"), usr3=named("own"), sig=b"s" * 64)
    world.send(sender, data)
    packet_id = codec.sha256(b"x" * 500)
    (item,) = world.send(asker, asker.query(packet_id, named("q"), world.wall_ms))
    assert item.to == asker.endpoint
    packet, copy = codec.decode(data), item.frame
    different = {key for key in packet if packet[key] != copy[key]}  # type: ignore[literal-required]
    assert different <= {"type", "usr3", "usr4", "size"}
    assert (copy["type"], copy["usr3"], copy["usr4"]) == (codec.QUERY, named("q"), b"2")
    assert inside.packets(world.node) == {packet_id: data}
    assert world.count("queries_answered") == 1


def test_only_the_asker_is_answered(world: World) -> None:
    asker, sender, *_ = world.connect_many(8)
    world.send(sender, sender.publish(b"x"))
    sent = world.send(asker, asker.query(codec.sha256(b"x"), named("q"), world.wall_ms))
    assert [item.to for item in sent] == [asker.endpoint]


def test_two_askers_for_one_packet(world: World) -> None:
    """Gated by query id: the second asker's question is another one, though its message and packetId are the same."""
    one, two, sender = world.connect_many(3)
    world.send(sender, sender.publish(b"x"))
    for asker, query_id in ((one, named("q1")), (two, named("q2")), (one, named("q3"))):
        (item,) = world.send(asker, asker.query(codec.sha256(b"x"), query_id, world.wall_ms))
        assert item.to == asker.endpoint
        assert item.frame["usr3"] == query_id


def test_one_question_is_answered_once(world: World) -> None:
    asker, sender = world.connect_many(2)
    world.send(sender, sender.publish(b"x"))
    data = asker.query(codec.sha256(b"x"), named("q"), world.wall_ms)
    assert len(world.send(asker, data)) == 1
    before = world.counters()
    for peer in (asker, sender):
        assert world.send(peer, data) == []
    assert world.drops(before) == {"duplicate": 2}


@pytest.mark.parametrize("hops", [0, 15, 16, 1000])
def test_held_packets_are_answered_at_any_distance(world: World, hops: int) -> None:
    asker, sender = world.connect_many(2)
    world.send(sender, sender.publish(b"x"))
    assert len(world.send(asker, asker.query(codec.sha256(b"x"), named("q"), world.wall_ms, hops=hops))) == 1


def test_stale_questions(world: World) -> None:
    """Older than 2048 ms by their own stamp."""
    asker, sender = world.connect_many(2)
    world.send(sender, sender.publish(b"x"))
    before = world.counters()
    assert world.send(asker, asker.query(codec.sha256(b"x"), named("q1"), world.wall_ms - 2049)) == []
    assert world.drops(before) == {"stale": 1}
    assert len(world.send(asker, asker.query(codec.sha256(b"x"), named("q2"), world.wall_ms - 2048))) == 1


def test_answered_packet_of_the_largest_size(world: World) -> None:
    """The query id is longer than what it replaces: the answer still fits."""
    asker, sender = world.connect_many(2)
    full: dict[str, Any] = {name: named(name) for name in ("previous_id", "next_id", "usr2", "usr3", "usr4", "subcluster_id")}
    world.send(sender, sender.publish(b"x" * 1024, sig=b"s" * 64, **full))
    (item,) = world.send(asker, asker.query(codec.sha256(b"x" * 1024), named("q"), world.wall_ms))
    assert item.frame["message"] == b"x" * 1024
    assert item.frame["sig"] == b"s" * 64


# --- questions that travel on ---------------------------------------------------------------------------------------


def test_unanswered_question_travels_on(world: World) -> None:
    asker, *others = world.connect_many(5)
    data = asker.query(named("unknown"), named("q"), world.wall_ms)
    sent = world.send(asker, data)
    assert len(sent) == 3
    assert {item.to for item in sent} <= {peer.endpoint for peer in others}
    assert all(item.data == data[:11] + (2).to_bytes(4, "big") + data[15:] for item in sent)


@pytest.mark.parametrize("hops", [16, 17, 2**32 - 1])
def test_question_with_too_many_hops(world: World, hops: int) -> None:
    asker = world.connect_many(4)[0]
    before = world.counters()
    assert world.send(asker, asker.query(named("unknown"), named("q"), world.wall_ms, hops=hops)) == []
    assert world.drops(before) == {"hops": 1}


def test_answer_takes_the_return_route(world: World) -> None:
    asker, *others = world.connect_many(5)
    data = asker.query(named("unknown"), named("q"), world.wall_ms)
    world.send(asker, data)
    found = answer(data, b"found it", hops=2)
    (item,) = world.send(others[0], found)
    assert item.to == asker.endpoint
    assert item.data == found[:11] + (3).to_bytes(4, "big") + found[15:]
    assert world.count("answers_routed") == 1
    assert world.cached() == 0


def test_same_answer_from_several_is_routed_once(world: World) -> None:
    asker, *others = world.connect_many(5)
    data = asker.query(named("unknown"), named("q"), world.wall_ms)
    world.send(asker, data)
    routed = [item for other in others for item in world.send(other, answer(data, b"found it"))]
    assert len(routed) == 1


def test_all_packets_of_an_answer_are_routed(world: World) -> None:
    """A split message: head and fragments carry one query id and different packetIds."""
    asker, other = world.connect_many(2)
    data = asker.query(named("unknown"), named("q"), world.wall_ms)
    world.send(asker, data)
    for i in range(5):
        (item,) = world.send(other, answer(data, b"fragment %d" % i, index=i))
        assert item.to == asker.endpoint


def test_answers_of_two_questions_do_not_mix(world: World) -> None:
    one, two, other = world.connect_many(3)
    questions = {peer.endpoint: peer.query(named("unknown"), named(peer.address), world.wall_ms) for peer in (one, two)}
    for peer in (one, two):
        world.send(peer, questions[peer.endpoint])
    for peer in (two, one):
        (item,) = world.send(other, answer(questions[peer.endpoint], b"found it"))
        assert item.to == peer.endpoint


def test_answer_nobody_asked_for(world: World) -> None:
    other, *_ = world.connect_many(5)
    before = world.counters()
    assert world.send(other, answer(other.query(named("unknown"), named("q"), START_MS), b"x")) == []
    assert world.drops(before) == {"no_route": 1}


def test_asker_answers_its_own_question(world: World) -> None:
    """Nothing to route: it would go back to where it came from."""
    asker, _ = world.connect_many(2)
    data = asker.query(named("unknown"), named("q"), world.wall_ms)
    world.send(asker, data)
    before = world.counters()
    assert world.send(asker, answer(data, b"x")) == []
    assert world.drops(before) == {"no_route": 1}


def test_route_ends_with_two_keep_alives(world: World) -> None:
    asker, other = world.connect_many(2)
    data = asker.query(named("unknown"), named("q"), world.wall_ms)
    world.send(asker, data)
    world.advance(2 * KEEP_ALIVE - 1)
    assert len(world.send(other, answer(data, b"in time"))) == 1
    world.advance(2)
    before = world.counters()
    assert world.send(other, answer(data, b"too late")) == []
    assert world.drops(before) == {"no_route": 1}


def test_route_ends_with_its_asker() -> None:
    """The asker left, and somebody else has its place in the table: answers do not go to that one."""
    world = World(keep_alive=30.0)
    asker, other = world.connect_many(2)
    data = asker.query(named("unknown"), named("q"), world.wall_ms)
    world.pass_time(1)
    world.send(asker, data)
    asker.alive = False
    heir = world.prove(Peer("198.51.101.1"))
    heir.peer_id = asker.peer_id
    world.send(heir, heir.connection_ping(), follow=True)  # claims the asker's name, who does not answer: its place is free
    world.advance(2)
    assert world.view(asker) is None
    before = world.counters()
    assert world.send(other, answer(data, b"to nobody")) == []
    assert world.drops(before) == {"no_route": 1}
    newcomer = world.connect(Peer("198.51.101.2"))
    assert world.send(other, answer(data, b"to nobody still")) == []
    assert only(newcomer.received, codec.QUERY) == []


def test_answer_with_too_many_hops(world: World) -> None:
    asker, other = world.connect_many(2)
    data = asker.query(named("unknown"), named("q"), world.wall_ms)
    world.send(asker, data)
    before = world.counters()
    assert world.send(other, answer(data, b"x", hops=16)) == []
    assert world.drops(before) == {"hops": 1}


def test_answers_with_an_event_hash_are_not_stale(world: World) -> None:
    """usr1 of an answer is the hash of an event name; about one in 25 begins with digits and would pass for an old time."""
    asker, other = world.connect_many(2)
    data = asker.query(named("unknown"), named("q"), world.wall_ms)
    world.send(asker, data)
    frame = codec.decode(answer(data, b"x"))
    values: dict[str, Any] = {key: frame[key] for key in ("packet_id", "cluster_id", "usr3", "usr4", "message")}
    found = codec.encode(codec.QUERY, usr1=b"123" + bytes(29), **values)
    assert len(world.send(other, found)) == 1


@pytest.mark.parametrize(
    "message", [b"", b"{}", b"[]", b"null", b'{"packetId":7}', b'{"packetId":"abc"}', b"\xff\xfe", b'{"a":{"b":1}}']
)
def test_free_form_questions_travel_on(world: World, message: bytes) -> None:
    asker, *_ = world.connect_many(5)
    data = codec.encode(codec.QUERY, hops=1, usr1=str(world.wall_ms).encode(), usr3=named("q"), usr4=b"1", message=message)
    assert len(world.send(asker, data)) == 3


def test_travelling_questions_count_like_packets() -> None:
    """They make others work: so many a minute."""
    world = World(replicated_per_minute=50)
    asker, *_ = world.connect_many(5)
    relayed = 0
    for i in range(200):
        relayed += bool(world.send(asker, asker.query(named("unknown"), named(f"{i}"), world.wall_ms)))
    assert relayed == 50
    assert world.drops({}) == {"rate_endpoint": 150}


def test_answered_questions_count_like_packets() -> None:
    """An answer is up to seven times as large, and whoever forges a peer's endpoint has it sent there."""
    world = World(replicated_per_minute=50)
    asker, sender = world.connect_many(2)
    world.send(sender, sender.publish(b"x" * 1024))
    packet_id = codec.sha256(b"x" * 1024)
    answered = 0
    for i in range(200):
        answered += bool(world.send(asker, asker.query(packet_id, named(f"{i}"), world.wall_ms)))
    assert answered == world.count("queries_answered") == 50
    assert world.drops({}) == {"rate_endpoint": 150}
    world.advance(60)
    assert world.send(asker, asker.query(packet_id, named("later"), world.wall_ms))


def test_slow_questions_are_never_too_many() -> None:
    """Also without a limit on control packets the count begins anew every minute."""
    world = World(replicated_per_minute=50, control_per_minute=0)
    asker, *_ = world.connect_many(5)
    for i in range(200):
        assert world.send(asker, asker.query(named("unknown"), named(f"{i}"), world.wall_ms)) != [], i
        world.advance(2)


# --- streams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hops", [0, 1, 15])
def test_stream_is_forwarded(world: World, hops: int) -> None:
    """To the peer that it names, with a hop more (the reference forgets to count), otherwise untouched."""
    one, two, *_ = world.connect_many(5)
    data = one.stream(two.peer_id, b"x" * 1024, hops=hops)
    (item,) = world.send(one, data)
    assert item.to == two.endpoint
    assert item.data == data[:11] + (hops + 1).to_bytes(4, "big") + data[15:]
    assert world.cached() == 0


def test_streams_are_not_gated(world: World) -> None:
    one, two = world.connect_many(2)
    data = one.stream(two.peer_id, b"again")
    assert [len(world.send(one, data)) for _ in range(10)] == [1] * 10


@pytest.mark.parametrize("hops", [16, 17, 2**32 - 1])
def test_stream_with_too_many_hops(world: World, hops: int) -> None:
    one, two = world.connect_many(2)
    before = world.counters()
    assert world.send(one, one.stream(two.peer_id, b"x", hops=hops)) == []
    assert world.drops(before) == {"hops": 1}


def test_two_proxies_do_not_loop() -> None:
    """Each believes that the other knows the way: the packet ends after sixteen hops."""
    lost = named("lost")
    worlds = [World(peer_id=named(f"node {i}"), seed=bytes([i]) * 32) for i in range(2)]
    for world in worlds:
        other = world.connect(Peer("203.0.113.77", 3511, peer_id=lost))  # "the peer is behind the other proxy"
        assert world.holder(lost) == other.endpoint
    source = worlds[0].connect(Peer("198.51.100.7"))
    sent = worlds[0].send(source, source.stream(lost, b"x"))
    relay = [worlds[0].connect(Peer("203.0.113.78", 3511)), worlds[1].connect(Peer("203.0.113.78", 3511))]
    forwards = 0
    at = 0
    while sent:
        forwards += 1
        at = 1 - at
        sent = worlds[at].send(relay[at], sent[0].data)
        assert forwards < 50
    assert forwards == 16


@pytest.mark.parametrize("to", [None, b"", b"x" * 31, named("nobody"), NODE_ID])
def test_stream_to_nobody(world: World, to: bytes | None) -> None:
    one = world.connect_many(3)[0]
    data = codec.encode(codec.STREAM, usr3=to, usr4=one.peer_id, message=b"x")
    before = world.counters()
    assert world.send(one, data) == []
    assert world.drops(before) == {"no_destination": 1}


def test_stream_to_oneself(world: World) -> None:
    one = world.connect(Peer("198.51.100.7"))
    before = world.counters()
    assert world.send(one, one.stream(one.peer_id, b"x")) == []
    assert world.drops(before) == {"no_destination": 1}


def test_stream_to_a_peer_that_left(world: World) -> None:
    one, two = world.connect_many(2)
    two.alive = False
    world.advance(4 * KEEP_ALIVE + 1)
    assert world.send(one, one.stream(two.peer_id, b"x")) == []


def test_stream_head_with_index_zero(world: World) -> None:
    """The head of a split message is JSON; it is forwarded like every part."""
    one, two = world.connect_many(2)
    for part in codec.split(b"x" * 3000, ts=1):
        data = codec.encode(
            codec.STREAM,
            index=part["index"],
            packet_id=part["packet_id"],
            previous_id=part["previous_id"],
            usr3=two.peer_id,
            usr4=one.peer_id,
            message=part["message"],
        )
        (item,) = world.send(one, data)
        assert item.to == two.endpoint
