"""Rules 1 and 2 of "Never a weapon": who is proven, and how little anybody else can make the node send."""

from __future__ import annotations

import random
from typing import Any

import pytest

from srpnode.core import codec
from tests.core.world import (
    KEEP_ALIVE,
    MAIN,
    NODE_ADDRESS,
    NODE_ID,
    PROBE,
    Endpoint,
    Peer,
    Sent,
    World,
    named,
    number,
    only,
)

VICTIM: Endpoint = ("198.51.100.200", 9000)


@pytest.fixture
def world() -> World:
    return World()


def proof_ping(world: World, source: Peer) -> Sent:
    """The ping that comes with the answer to a stranger's first ping."""
    (ping,) = only(world.send(source, source.ping()), codec.PING)
    return ping


# --- rule 1: proof --------------------------------------------------------------------------------------------------


def test_answering_proves(world: World) -> None:
    peer = Peer("198.51.100.7")
    ping = proof_ping(world, peer)
    assert ping.to == peer.endpoint
    assert ping.socket == MAIN
    assert ping.local == NODE_ADDRESS
    # Without isReflection a client that is not ready yet throws on answering.
    assert ping.message["isReflection"] is True
    assert "natType" not in ping.message
    assert "isConnection" not in ping.message
    assert ping.message["requesterPeerId"] == NODE_ID.hex()
    assert world.node.gauges()["peers"] == 0, "something is stored before the proof"
    assert world.send(peer, peer.pong(ping)) == []
    view = world.view(peer)
    assert view is not None
    assert view["proven"]
    assert not view["connected"]
    assert view["peerId"] == peer.peer_id.hex()
    assert world.count("proofs") == 1


def test_nothing_is_stored_for_strangers(world: World) -> None:
    for i in range(2000):
        peer = Peer(f"198.51.{i // 200}.{i % 200 + 1}", 2000 + i)
        world.send(peer, peer.connection_ping())
    gauges = world.node.gauges()
    assert (gauges["peers"], gauges["clusters"], gauges["memberships"]) == (0, 0, 0)


def test_ping_id_differs_by_endpoint(world: World) -> None:
    ids = set()
    for i in range(50):
        ids.add(proof_ping(world, Peer("198.51.100.7", 2000 + i)).message["pingId"])
        ids.add(proof_ping(world, Peer(f"198.51.100.{i + 8}", 9000)).message["pingId"])
    assert len(ids) == 100
    assert all(len(text) == 12 for text in ids)


def test_ping_id_differs_by_secret() -> None:
    peer = Peer("198.51.100.7")
    ids = {proof_ping(World(seed=bytes([i]) * 32), peer).message["pingId"] for i in range(10)}
    assert len(ids) == 10


def test_guessed_ping_id_proves_nothing(world: World) -> None:
    peer = Peer("198.51.100.7")
    ping = proof_ping(world, peer)
    guesses = random.Random(1)
    before = world.counters()
    for _ in range(200):
        assert world.send(peer, peer.pong(ping, pingId=f"{guesses.getrandbits(48):012x}")) == []
    right = ping.message["pingId"]
    for at in range(12):
        wrong = right[:at] + ("0" if right[at] != "0" else "1") + right[at + 1 :]
        world.send(peer, peer.pong(ping, pingId=wrong))
    assert world.drops(before) == {"pong_unasked": 212}
    assert world.view(peer) is None


@pytest.mark.parametrize("text", ["{ping}0", "0{ping}"])
def test_longer_ping_id_proves_nothing(world: World, text: str) -> None:
    peer = Peer("198.51.100.7")
    ping = proof_ping(world, peer)
    world.send(peer, peer.pong(ping, pingId=text.format(ping=ping.message["pingId"])))
    assert world.view(peer) is None


def test_pong_without_ping_id_proves_nothing(world: World) -> None:
    peer = Peer("198.51.100.7")
    data = codec.encode(
        codec.PONG,
        message=codec.write_message(
            codec.PONG, {"requesterPeerId": NODE_ID.hex(), "responderPeerId": peer.peer_id.hex(), "isReflection": True}
        ),
    )
    before = world.counters()
    world.send(peer, data)
    assert world.drops(before) == {"pong_unasked": 1}
    assert world.view(peer) is None


def test_ping_id_of_another_endpoint_proves_nothing(world: World) -> None:
    """An attacker who reads his own pingId cannot prove a victim's endpoint with it, nor another port of his own."""
    attacker = Peer("198.51.100.66")
    ping = proof_ping(world, attacker)
    before = world.counters()
    for endpoint in (VICTIM, (attacker.address, attacker.port + 1), ("198.51.100.67", attacker.port)):
        world.send(endpoint, attacker.pong(ping))
        assert world.view(endpoint) is None
    assert world.drops(before) == {"pong_unasked": 3}


def test_ping_id_of_another_node_proves_nothing(world: World) -> None:
    """What one identity asked does not prove an endpoint to its sibling: their secrets differ."""
    peer = Peer("198.51.100.7")
    other = World(seed=b"\1" * 32)
    ping = proof_ping(other, peer)
    world.send(peer, peer.pong(ping))
    assert world.view(peer) is None


def test_replayed_pong_is_worthless_after_two_epochs(world: World) -> None:
    """Somebody recorded the victim's pong: it proves the victim's endpoint for two minutes, then never again."""
    victim = Peer(*VICTIM)
    recorded = victim.pong(proof_ping(world, victim))
    world.send(victim, recorded)
    assert world.view(victim) is not None
    world.advance(5 * KEEP_ALIVE)
    assert world.view(victim) is None, "the victim is gone"
    before = world.counters()
    for _ in range(10):
        world.send(victim, recorded)
        world.advance(64)
    assert world.drops(before) == {"pong_unasked": 10}
    assert world.view(victim) is None


def test_pong_survives_the_change_of_the_epoch() -> None:
    """A round trip may cross the moment in which pingIds change."""
    for late_s in (0.02, 0.5, 2.0, 60.0):
        for start_s in range(1000, 1064, 3):
            world = World(mono_us=start_s * 1_000_000)
            peer = Peer("198.51.100.7")
            ping = proof_ping(world, peer)
            world.pass_time(late_s)
            world.send(peer, peer.pong(ping))
            assert world.view(peer) is not None, (late_s, start_s)


def test_proof_lasts_four_keep_alives(world: World) -> None:
    """Without an answer for that long a peer is a stranger again; datagrams that anybody can forge do not count as answers."""
    peer = world.connect(Peer("198.51.100.7"))
    peer.alive = False
    for _ in range(15):
        world.advance(KEEP_ALIVE / 4)
        world.send(peer, peer.ping(natType=31))
        view = world.view(peer)
        assert view is not None
        assert view["proven"]
    world.advance(KEEP_ALIVE / 4)
    view = world.view(peer)
    assert view is None or not view["proven"]
    before = world.counters()
    assert world.send(peer, peer.publish(b"too late")) == []
    assert world.drops(before) == {"unproven": 1}


def test_answered_heartbeats_keep_the_proof(world: World) -> None:
    peer = world.connect(Peer("198.51.100.7"))
    world.advance(20 * KEEP_ALIVE)
    view = world.view(peer)
    assert view is not None
    assert view["proven"]
    assert view["connected"]
    assert world.count("departures") == 0


def test_no_proof_ping_to_the_source_of_a_probe(world: World) -> None:
    """A client takes any ping on its probe socket for a step of its own reflection."""
    peer = Peer("198.51.100.7", 45000)
    sent = world.send(peer, peer.ping(isReflection=True, isProbe=True, reflectionId="0123456789ab"))
    assert [item.type for item in sent] == [codec.PONG]


def test_proven_peers_get_no_proof_ping(world: World) -> None:
    peer = world.prove(Peer("198.51.100.7"))
    assert only(world.send(peer, peer.ping()), codec.PING) == []
    assert only(world.send(peer, peer.connection_ping()), codec.PING) == []


@pytest.mark.parametrize("kind", [codec.INTRO, codec.PUBLISH, codec.STREAM, codec.SYNC, codec.QUERY])
def test_strangers_may_not(world: World, kind: int) -> None:
    """From unproven sources only ping, pong and join are handled."""
    world.connect_many(3)
    stranger = Peer(*VICTIM)
    message = b"{}"
    if kind == codec.INTRO:
        message = codec.write_message(
            kind,
            {
                "requesterPeerId": stranger.peer_id.hex(),
                "responderPeerId": NODE_ID.hex(),
                "natType": 31,
                "address": "198.51.100.9",
                "port": 9000,
            },
        )
    data = codec.encode(kind, message=message, packet_id=named("p"), usr3=named("q"), usr4=b"1")
    before = world.counters()
    assert world.send(stranger, data) == []
    assert world.drops(before) == {"unproven": 1}
    assert world.cached() == 0


def test_relayed_join_of_a_stranger(world: World) -> None:
    """Only a direct join may wait for its sender's proof."""
    stranger = Peer(*VICTIM)
    before = world.counters()
    assert world.send(stranger, stranger.join(hops=2)) == []
    assert world.drops(before) == {"unproven": 1}


# --- rule 2: budget -------------------------------------------------------------------------------------------------


def forged(rng: random.Random) -> bytes:
    """A ping, pong or join as a stranger might send it: small, large, with and without what makes answers grow."""
    stranger = Peer(*VICTIM, cluster=rng.choice([None, named("cluster")]))
    kind = rng.choice([codec.PING, codec.PING, codec.PING, codec.PONG, codec.JOIN])
    if kind == codec.JOIN:
        data = stranger.join(hops=rng.choice([0, 1, 2]))
    elif kind == codec.PONG:
        data = codec.encode(
            kind,
            message=codec.write_message(
                kind, {"requesterPeerId": NODE_ID.hex(), "responderPeerId": stranger.peer_id.hex(), "pingId": "0" * 12}
            ),
        )
    else:
        keys: dict[str, Any] = {
            "probeExternalPort": rng.randrange(1, 65536),
            "reflectionId": "0123456789ab",
            "pingId": "0123456789abc",
            "natType": rng.choice([5, 7, 15, 31]),
            "isConnection": True,
            "isReflection": True,
            "isProbe": rng.random() < 0.5,
            "cacheSummaryHash": "ab" * 20,
            "uptime": 30000.0,
        }
        chosen: dict[str, Any] = {key: value for key, value in keys.items() if rng.random() < 0.5}
        data = stranger.ping(bare=rng.random() < 0.5, **chosen)
    return data + rng.choice([b"", b"\0" * rng.randrange(1, 300)])


@pytest.mark.parametrize("seed", range(4))
def test_three_bytes_for_a_byte(seed: int) -> None:
    """In handling one datagram from an unproven source: at most three bytes per byte, and all of it to the source address."""
    world = World(peers=64, cache_max_bytes=16384)
    friends = world.connect_many(3)
    for friend in friends:
        world.send(friend, friend.publish(b"something to sync " + friend.peer_id))
    rng = random.Random(seed)
    longest = 0.0
    for _ in range(1500):
        data = forged(rng)
        sent = world.send(VICTIM, data)
        size = sum(len(item.data) for item in sent)
        assert size <= 3 * len(data), [(item.type, len(item.data)) for item in sent]
        longest = max(longest, size / len(data))
        for item in sent:
            assert item.to[0] == VICTIM[0]
            if item.socket == MAIN:
                assert item.to == VICTIM
    assert longest > 2, "the forged datagrams do not come near the limit"
    assert world.node.gauges()["peers"] == 3


def test_order_within_the_budget(world: World) -> None:
    """Pong first, then the probe's pong, then the proof ping; what does not fit is left out and counted."""
    stranger = Peer("198.51.100.7")
    keys: dict[str, Any] = {"probeExternalPort": 40000, "reflectionId": "0123456789ab", "isReflection": True}
    generous = world.send(stranger, stranger.ping(**keys) + bytes(400))
    assert [(item.type, item.socket) for item in generous] == [
        (codec.PONG, MAIN),
        (codec.PONG, PROBE),
        (codec.PING, MAIN),
    ]
    sizes = [len(item.data) for item in generous]
    data = stranger.ping(bare=True, **keys)
    before = world.counters()
    scant = world.send(stranger, data)
    budget = 3 * len(data)
    fitting = [at for at in range(1, 4) if sum(sizes[:at]) <= budget]
    assert 0 < len(fitting) < 3
    assert len(scant) >= len(fitting)
    assert scant[0].type == codec.PONG
    assert scant[0].socket == MAIN
    assert world.drops(before)["budget"] == 3 - len(scant)


def test_real_clients_fit_into_the_budget(world: World) -> None:
    """What the reference sends before it is ready is answered in full. Its first ping already brings the proof ping; a
    reflection gets both of its pongs."""
    reference: list[tuple[dict[str, Any], list[int]]] = [
        ({"isConnection": True}, [codec.PONG, codec.PING]),
        ({"natType": 31, "isConnection": True, "cacheSize": 0.0}, [codec.PONG, codec.PING]),
        ({"natType": 31}, [codec.PONG, codec.PING]),
        ({"isReflection": True, "reflectionId": "0123456789ab", "isProbe": True}, [codec.PONG]),
        ({"isReflection": True, "reflectionId": "0123456789ab", "probeExternalPort": 40000}, [codec.PONG, codec.PONG]),
    ]
    for i, (keys, answers) in enumerate(reference):
        peer = Peer(f"198.51.100.{i + 1}")
        assert [item.type for item in world.send(peer, peer.ping(**keys))][: len(answers)] == answers


def test_probe_pong_goes_to_the_source_address(world: World) -> None:
    """probeExternalPort is a port of the source, whatever else the ping says."""
    peer = Peer("198.51.100.7")
    sent = world.send(peer, peer.ping(isReflection=True, reflectionId="0123456789ab", probeExternalPort=40001) + bytes(99))
    (probe,) = [item for item in sent if item.socket == PROBE]
    assert probe.to == ("198.51.100.7", 40001)
    assert probe.message["port"] == 40001
    assert probe.local == NODE_ADDRESS
    assert probe.frame["packet_id"] != sent[0].frame["packet_id"]


@pytest.mark.parametrize("port", [1, 22, 53, 123, 1023])
def test_probe_pong_never_to_a_privileged_port(port: int) -> None:
    """A reflector must not reach a victim's DNS or NTP; where the operator allows it, it may."""
    peer = Peer("198.51.100.7")
    data = peer.ping(isReflection=True, reflectionId="0123456789ab", probeExternalPort=port) + bytes(99)
    world = World()
    for _ in range(2):
        before = world.counters()
        assert [item for item in world.send(peer, data) if item.socket == PROBE] == []
        assert world.drops(before) == {"scope": 1}
        world.prove(peer) if world.view(peer) is None else None
    allowed = World(privileged_ports=True)
    assert [item.to[1] for item in allowed.send(peer, data) if item.socket == PROBE] == [port]


def test_pongs_to_strangers_cause_nothing(world: World) -> None:
    """A pong is never answered, so no two nodes can be made to talk to each other for ever."""
    stranger = Peer(*VICTIM)
    data = codec.encode(
        codec.PONG,
        message=codec.write_message(
            codec.PONG, {"requesterPeerId": NODE_ID.hex(), "responderPeerId": stranger.peer_id.hex(), "pingId": "0" * 12}
        ),
    )
    assert world.send(stranger, data) == []


def test_two_nodes_do_not_loop() -> None:
    """A forged ping makes two nodes exchange a handful of datagrams, then silence."""
    one = World(address=number("203.0.113.5"))
    two = World(address=number("203.0.113.6"), peer_id=named("two"), seed=b"\2" * 32)
    at = {("203.0.113.5", 3511): one, ("203.0.113.6", 3511): two}
    queue = [(("203.0.113.6", 3511), item) for item in one.send(("203.0.113.6", 3511), Peer("203.0.113.6").ping(natType=31))]
    queue = [(("203.0.113.5", 3511), item) for _, item in queue]
    exchanged = 0
    while queue:
        source, item = queue.pop(0)
        exchanged += 1
        assert exchanged < 20
        if item.to in at:
            queue += [(item.to, answer) for answer in at[item.to].send(source, item.data)]


# --- parking --------------------------------------------------------------------------------------------------------


def test_parked_join_is_handled_after_the_proof(world: World) -> None:
    """A restarted node loses no join: the proof comes, and the join is handled as if it had come then."""
    friend = world.connect(Peer("198.51.100.8"))
    joiner = Peer("198.51.100.7")
    sent = world.send(joiner, joiner.join())
    assert [item.type for item in sent] == [codec.PING]
    assert sent[0].to == joiner.endpoint
    assert world.count("parked") == 1
    sent = world.send(joiner, joiner.pong(sent[0]))
    assert sorted(item.to for item in only(sent, codec.INTRO)) == [joiner.endpoint, friend.endpoint]
    assert world.count("unparked") == 1
    view = world.view(joiner)
    assert view is not None
    assert view["connected"]


def test_parked_connection_ping_connects(world: World) -> None:
    peer = Peer("198.51.100.7")
    world.send(peer, peer.connection_ping(), follow=True)
    view = world.view(peer)
    assert view is not None
    assert view["connected"]
    assert view["clusters"] == [named("cluster")[:8].hex()]


def test_one_datagram_is_parked_per_endpoint(world: World) -> None:
    """Ten joins before the proof: one is handled."""
    friend = world.connect(Peer("198.51.100.8"))
    joiner = Peer("198.51.100.7")
    pings = [world.send(joiner, joiner.join(packet_id=named(f"join {i}")))[0] for i in range(10)]
    sent = world.send(joiner, joiner.pong(pings[-1]))
    assert len(only(sent, codec.INTRO)) == 2
    assert {item.to for item in sent} == {joiner.endpoint, friend.endpoint}
    assert world.send(joiner, joiner.pong(pings[0])) == []
    assert world.count("unparked") == 1


def test_parked_join_is_not_replaced_by_a_ping(world: World) -> None:
    world.connect(Peer("198.51.100.8"))
    joiner = Peer("198.51.100.7")
    world.send(joiner, joiner.join())
    sent = world.send(joiner, joiner.connection_ping())
    (ping,) = only(sent, codec.PING)
    assert len(only(world.send(joiner, joiner.pong(ping)), codec.INTRO)) == 2


def test_parked_datagrams_expire(world: World) -> None:
    world.connect(Peer("198.51.100.8"))
    joiner = Peer("198.51.100.7")
    (ping,) = world.send(joiner, joiner.join())
    world.pass_time(4.5)
    assert world.send(joiner, joiner.pong(ping)) == []
    assert world.count("unparked") == 0


def test_parking_belongs_to_the_endpoint(world: World) -> None:
    """An attacker cannot have a victim's endpoint introduced: he parks a join in its name and never sees the ping."""
    friend = world.connect(Peer("198.51.100.8"))
    attacker = Peer("198.51.100.66")
    world.send(VICTIM, attacker.join())
    world.prove(attacker)
    assert only(friend.received, codec.INTRO, codec.JOIN) == []
    assert world.count("unparked") == 0
    assert world.view(VICTIM) is None


def test_parking_table_is_bounded_and_forgets_the_oldest() -> None:
    """A flood of spoofed joins costs places, not memory; who comes after the flood is served."""
    world = World(parked=64, unproven_per_second=0)
    friend = world.connect(Peer("198.51.100.8"))
    for i in range(5000):
        spoofed = Peer(f"203.0.{i // 250}.{i % 250 + 1}", 5000)
        world.send(spoofed, spoofed.join())
    assert world.count("drop_parking_replaced") >= 5000 - 64
    joiner = Peer("198.51.100.7")
    (ping,) = world.send(joiner, joiner.join())
    sent = world.send(joiner, joiner.pong(ping))
    assert sorted(item.to for item in only(sent, codec.INTRO)) == [joiner.endpoint, friend.endpoint]


def test_without_parking_nothing_breaks() -> None:
    world = World(parked=0)
    joiner = Peer("198.51.100.7")
    (ping,) = world.send(joiner, joiner.join())
    world.send(joiner, joiner.pong(ping))
    assert world.view(joiner) is not None
    assert world.count("parked") == 0
