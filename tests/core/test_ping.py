"""Ping and pong: what is echoed, what is told, who becomes a connected peer (protocol 4, STATE_1)."""

from __future__ import annotations

from typing import Any

import pytest

from srpnode.core import codec
from tests.core.world import KEEP_ALIVE, MAIN, NODE_ADDRESS, NODE_ID, PROBE, Peer, Sent, World, named, only

PING_ID, LONG_PING_ID, REFLECTION_ID = "0123456789ab", "0123456789abc", "ba9876543210"


@pytest.fixture
def world() -> World:
    return World()


def pong_of(world: World, peer: Peer, data: bytes, **where: Any) -> Sent:
    """The answer from the main socket; there is exactly one."""
    (pong,) = [item for item in world.send(peer, data, **where) if item.type == codec.PONG and item.socket == MAIN]
    return pong


# Every combination that matters: (what the ping says, what the pong says beyond what it always says)
OBSERVED = {"address": "198.51.100.7", "port": 9000}
CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"natType": 31, **OBSERVED}),
    ({"natType": 7}, {"natType": 31, **OBSERVED}),
    ({"isReflection": True}, {"isReflection": True, **OBSERVED}),
    ({"isReflection": False}, {"natType": 31, **OBSERVED}),
    ({"isConnection": True}, {"natType": 31, **OBSERVED}),
    ({"isConnection": False, "natType": 31}, {"natType": 31, **OBSERVED}),
    ({"isConnection": True, "natType": 31}, {"natType": 31, "isConnection": True}),
    ({"isConnection": True, "natType": 31, "isReflection": True}, {"isReflection": True, "isConnection": True}),
    ({"pingId": PING_ID}, {"natType": 31, "pingId": PING_ID, **OBSERVED}),
    ({"pingId": LONG_PING_ID}, {"natType": 31, "pingId": LONG_PING_ID, **OBSERVED}),
    (
        {"reflectionId": REFLECTION_ID, "isReflection": True},
        {"reflectionId": REFLECTION_ID, "isReflection": True, **OBSERVED},
    ),
    ({"reflectionId": REFLECTION_ID}, {"reflectionId": REFLECTION_ID, "natType": 31, **OBSERVED}),
    ({"isProbe": True}, {"natType": 31, "isProbe": True, **OBSERVED}),
    ({"isProbe": False}, {"natType": 31, "isProbe": False, **OBSERVED}),
    ({"isProbe": True, "isConnection": True, "natType": 31}, {"natType": 31, "isConnection": True}),
    (
        {"isConnection": True, "natType": 5, "pingId": PING_ID, "cacheSummaryHash": "ab" * 20, "cacheSize": 3.0},
        {"natType": 31, "isConnection": True, "pingId": PING_ID},
    ),
]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("ping", "told"), CASES)
def test_pong(world: World, ping: dict[str, Any], told: dict[str, Any], known: bool) -> None:
    peer = Peer("198.51.100.7")
    if known:
        world.prove(peer)
    world.pass_time(12.5)
    pong = pong_of(world, peer, peer.ping(**ping))
    assert pong.to == peer.endpoint
    always = {
        "requesterPeerId": peer.peer_id.hex(),
        "responderPeerId": NODE_ID.hex(),
        "cacheSummaryHash": codec.EMPTY_SUMMARY.hex(),
        "uptime": 12500.0,
        "cacheSize": 0.0,
    }
    assert pong.message == {**always, **told}
    frame = pong.frame
    assert frame["cluster_id"] == frame["subcluster_id"] == codec.UNSET
    assert (frame["clock"], frame["hops"], frame["index"], frame["ttl"]) == (1, 0, -1, codec.TTL_MS)
    again = pong_of(world, peer, peer.ping(**ping)).frame
    assert len(frame["packet_id"]) == 32
    assert frame["packet_id"] != again["packet_id"]


def test_pong_leaves_from_where_the_ping_arrived(world: World) -> None:
    """Bound to all addresses, the answer and the probe come from the one that was asked: clients match source addresses."""
    peer = Peer("198.51.100.7")
    data = peer.ping(isReflection=True, reflectionId=REFLECTION_ID, probeExternalPort=40000) + bytes(300)
    for local in ("203.0.113.5", "203.0.113.99", "10.0.0.1"):
        sent = world.send(peer, data, local=local)
        assert len(sent) == 3
        assert {item.local for item in sent} == {local}


def test_later_datagrams_follow_the_local_address(world: World) -> None:
    """A peer that talks to our second address gets everything from there."""
    peer = world.connect(Peer("198.51.100.7"))
    sender = world.connect(Peer("198.51.100.8"))
    world.send(peer, peer.ping(), local="203.0.113.99")
    (item,) = world.send(sender, sender.stream(peer.peer_id, b"x"))
    assert item.local == "203.0.113.99"
    assert {item.local for item in world.advance(KEEP_ALIVE + 1) if item.to == peer.endpoint} == {"203.0.113.99"}


def test_identical_pings_are_each_answered(world: World) -> None:
    peer = world.connect(Peer("198.51.100.7"))
    data = peer.ping(pingId=PING_ID)
    pongs = [pong_of(world, peer, data) for _ in range(5)]
    assert all(pong.message == pongs[0].message for pong in pongs)
    assert len({pong.frame["packet_id"] for pong in pongs}) == 5


def test_pong_names_the_asker_to_the_letter(world: World) -> None:
    """Ids are compared as text by clients: upper case comes back as the lower case that is our own way of writing them."""
    peer = Peer("198.51.100.7")
    message = peer.ping(bare=True)
    upper = message.replace(peer.peer_id.hex().encode(), peer.peer_id.hex().upper().encode())
    assert pong_of(world, peer, upper).message["requesterPeerId"] == peer.peer_id.hex()


def test_cache_is_told(world: World) -> None:
    """cacheSize at once, the summary hash within a second."""
    peer = world.connect(Peer("198.51.100.7"))
    ids = []
    for i in range(50):
        world.send(peer, peer.publish(b"packet %d" % i))
        ids.append(codec.sha256(b"packet %d" % i))
    assert pong_of(world, peer, peer.ping()).message["cacheSize"] == 50
    world.advance(1)
    message = pong_of(world, peer, peer.ping()).message
    assert message["cacheSummaryHash"] == codec.summarize(ids)[0].hex()


def test_packet_ids_do_not_give_away_the_generator(world: World) -> None:
    """They are new every time, and nobody can compute from them what the node will draw next."""
    mask, gamma = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(z: int) -> int:
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        return z ^ z >> 31

    def unmix(z: int) -> int:
        z ^= z >> 31 ^ z >> 62
        z = z * pow(0x94D049BB133111EB, -1, 2**64) & mask
        z ^= z >> 27 ^ z >> 54
        z = z * pow(0xBF58476D1CE4E5B9, -1, 2**64) & mask
        return z ^ z >> 30 ^ z >> 60

    assert unmix(mix(123456789)) == 123456789
    peer = world.prove(Peer("198.51.100.7"))
    words: list[int] = []
    for _ in range(20):
        packet_id = pong_of(world, peer, peer.ping()).frame["packet_id"]
        for at in range(0, 32, 8):
            drawn = bytes(a ^ b for a, b in zip(packet_id, NODE_ID, strict=True))[at : at + 8]
            words += [int.from_bytes(drawn, "little"), int.from_bytes(packet_id[at : at + 8], "little")]
    following = {mix(unmix(word) + gamma * step & mask) for word in words for step in range(1, 9)}
    assert not following & set(words)
    assert len(set(words)) >= 20


# --- the probe socket -----------------------------------------------------------------------------------------------


def test_probe_pong(world: World) -> None:
    """A second pong from the probe socket, to the port asked for, which it names; else like the first."""
    peer = Peer("198.51.100.7")
    data = peer.ping(isReflection=True, reflectionId=REFLECTION_ID, probeExternalPort=40000)
    first, second = only(world.send(peer, data), codec.PONG)
    assert (first.to, first.socket) == (peer.endpoint, MAIN)
    assert (second.to, second.socket) == (("198.51.100.7", 40000), PROBE)
    assert second.message == {**first.message, "port": 40000}


def test_probe_pongs_of_two_identities_differ() -> None:
    """A client counts them by packetId."""
    peer = Peer("198.51.100.7")
    data = peer.ping(isReflection=True, reflectionId=REFLECTION_ID, probeExternalPort=40000)
    ids = {
        item.frame["packet_id"]
        for world in (World(), World(peer_id=named("other")))
        for item in world.send(peer, data)
        if item.socket == PROBE
    }
    assert len(ids) == 2


def test_without_probe_socket() -> None:
    world = World(probe_port=0)
    peer = Peer("198.51.100.7")
    sent = world.send(peer, peer.ping(isReflection=True, reflectionId=REFLECTION_ID, probeExternalPort=40000))
    assert [item.socket for item in sent] == [MAIN] * len(sent)


def test_datagrams_to_the_probe_socket_are_dropped(world: World) -> None:
    """It only sends."""
    peer = Peer("198.51.100.7")
    before = world.counters()
    for data in (peer.ping(), b"garbage", b"", peer.join()):
        assert world.send(peer, data, socket=PROBE) == []
    assert world.drops(before) == {"probe_socket": 4}


# --- connecting -----------------------------------------------------------------------------------------------------


def test_connection_ping_connects(world: World) -> None:
    peer = world.prove(Peer("198.51.100.7", nat_type=7, subcluster=named("sub")))
    world.send(peer, peer.connection_ping())
    view = world.view(peer)
    assert view is not None
    assert view["connected"]
    assert view["natType"] == 7
    assert view["clusters"] == [named("sub")[:8].hex(), named("cluster")[:8].hex()]
    assert world.count("connections") == 1


def test_heartbeat_with_a_nat_type_connects(world: World) -> None:
    """After a restart of the node its peers send nothing but heartbeats and joins."""
    peer = world.prove(Peer("198.51.100.7"))
    world.send(peer, peer.ping(natType=15))
    view = world.view(peer)
    assert view is not None
    assert view["connected"]
    assert view["natType"] == 15


def test_pings_without_nat_type_do_not_connect(world: World) -> None:
    peer = world.prove(Peer("198.51.100.7"))
    world.send(peer, peer.ping(isConnection=True))
    null = peer.ping(isConnection=True).replace(b'"isConnection":true', b'"natType":null,"isC":0')
    world.send(peer, null)
    view = world.view(peer)
    assert view is not None
    assert not view["connected"]


@pytest.mark.parametrize("text", [b"null", b"0", b"1", b"4", b"32", b"63", b'"31"', b"-1", b"5.5"])
def test_invalid_nat_types_do_not_connect(world: World, text: bytes) -> None:
    peer = world.prove(Peer("198.51.100.7"))
    message = b'{"requesterPeerId":"' + peer.peer_id.hex().encode() + b'","natType":' + text + b',"isConnection":true}'
    world.send(peer, codec.encode(codec.PING, cluster_id=peer.cluster, message=message))
    view = world.view(peer)
    assert view is not None
    assert not view["connected"]


@pytest.mark.parametrize("nat_type", [5, 7, 13, 15, 21, 23, 29, 31])
def test_every_valid_nat_type_connects(world: World, nat_type: int) -> None:
    peer = world.connect(Peer("198.51.100.7", nat_type=nat_type))
    view = world.view(peer)
    assert view is not None
    assert view["natType"] == nat_type


def test_nat_type_changes(world: World) -> None:
    """A peer that moved to another network says so with its next ping."""
    peer = world.connect(Peer("198.51.100.7", nat_type=31))
    world.send(peer, peer.ping(natType=5))
    view = world.view(peer)
    assert view is not None
    assert view["natType"] == 5
    assert world.count("connections") == 1


def test_first_connection_ping_starts_a_sync(world: World) -> None:
    """Our summary goes to a peer that connects, again at most every six seconds."""
    peer = world.connect(Peer("198.51.100.7"))
    assert len(only(world.advance(1), codec.SYNC)) == 1
    for _ in range(10):
        world.send(peer, peer.connection_ping())
        assert only(world.advance(0.5), codec.SYNC) == []
    world.advance(1)
    world.send(peer, peer.connection_ping())
    assert len(only(world.advance(1), codec.SYNC)) == 1


def test_uptime_of_a_peer(world: World) -> None:
    peer = world.connect(Peer("198.51.100.7"))
    view = world.view(peer)
    assert view is not None
    assert view["uptime"] == 30
    for uptime in (1e300, -1e300, 4e12, 0.5):
        world.send(peer, peer.ping(natType=31, uptime=uptime))  # whatever it says, nothing breaks


# --- who is answered ------------------------------------------------------------------------------------------------


def test_source_port_zero(world: World) -> None:
    peer = Peer("198.51.100.7", 0)
    before = world.counters()
    assert world.send(peer, peer.ping()) == []
    assert world.drops(before) == {"port_zero": 1}


@pytest.mark.parametrize("address", [NODE_ADDRESS, "10.0.0.1"])
def test_our_own_endpoint_as_source(world: World, address: str) -> None:
    """The advertised endpoint, and the local one that a datagram came to: spoofed, or a loop."""
    liar = Peer(address, 3511)
    before = world.counters()
    assert world.send(liar, liar.ping(), local=address) == []
    assert world.drops(before) == {"own_source": 1}


@pytest.mark.parametrize("allow_listed", [True, False])
def test_denied_prefixes(world: World, allow_listed: bool) -> None:
    world.node.set_rules([("198.51.100.0", 25, allow_listed)], default_allow=not allow_listed)
    inside, outside = Peer("198.51.100.7"), Peer("198.51.100.200")
    before = world.counters()
    for peer in (inside, outside):
        assert bool(world.send(peer, peer.ping())) == ((peer is inside) == allow_listed)
    assert world.drops(before) == {"denied_prefix": 1}


def test_first_fitting_rule_decides(world: World) -> None:
    world.node.set_rules([("198.51.100.7", 32, False), ("198.51.100.0", 24, True), ("0.0.0.0", 0, False)])
    answered = [
        address
        for address in ("198.51.100.7", "198.51.100.8", "203.0.113.77")
        if world.send((address, 9000), Peer(address).ping())
    ]
    assert answered == ["198.51.100.8"]
    world.node.set_rules()
    assert world.send(("198.51.100.7", 9000), Peer("198.51.100.7").ping()) != []


@pytest.mark.parametrize("allow", [True, False])
def test_denied_clusters(world: World, allow: bool) -> None:
    """Refused before anything is remembered of it; pings are answered, they belong to no cluster's traffic."""
    world.node.set_rules(clusters=[named("listed")], clusters_allow=allow)
    for name in ("listed", "other"):
        peer = world.connect(Peer("198.51.100.7", cluster=named(name)))
        before = world.counters()
        world.send(peer, peer.publish(name.encode()))
        world.send(peer, peer.join())
        refused = (name == "listed") != allow
        assert world.drops(before) == ({"denied_cluster": 2} if refused else {})
    assert world.cached() == 1
