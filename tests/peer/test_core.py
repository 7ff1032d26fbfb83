"""Single decisions of the core that an ordinary peer relies on."""

from __future__ import annotations

from typing import Any

from srpnode.core import codec
from srpnode.core.node import Node

OURS = bytes.fromhex("01" * 32)
OTHER = bytes.fromhex("02" * 32)
PEER = ("198.51.100.20", 41288)


def ordinary_peer(**more: Any) -> Node:
    return Node(peer_id=OURS, seed=bytes(32), nat_type=0, app_bytes=65536, attempts=8, peers=64, pool_open=256, **more)


def ping(**keys: Any) -> bytes:
    text = codec.write_message(codec.PING, {"requesterPeerId": OTHER.hex(), **keys})
    return codec.encode(codec.PING, message=text)


def test_a_ping_to_a_socket_of_the_pool_is_answered_from_it() -> None:
    """Behind a symmetric NAT only that socket's mapping lets the answer of the answer in."""
    node = ordinary_peer()
    for socket in (0, 2, 200):
        node.receive(
            ping(pingId="0123456789ab", cacheSummaryHash="00" * 20, uptime=1, cacheSize=0),
            PEER,
            "192.0.2.1",
            socket,
            mono_us=1_000_000,
            wall_ms=1,
        )
        sent = node.take()
        assert [codec.decode(data)["type"] for data, *_ in sent] == [codec.PONG, codec.PING]
        assert [(to, used) for _, to, _, used in sent] == [(PEER, socket)] * 2


def test_what_an_ordinary_peer_sends_leaves_from_the_address_that_the_system_chooses() -> None:
    """Its own address may have changed since a datagram arrived."""
    node = ordinary_peer()
    node.receive(ping(), PEER, "192.0.2.1", mono_us=1_000_000, wall_ms=1)
    assert {local for _, _, local, _ in node.take()} == {"0.0.0.0"}
    node = Node(peer_id=OURS, seed=bytes(32))  # a node on several addresses answers from the one that was asked
    node.receive(ping(), PEER, "192.0.2.1", mono_us=1_000_000, wall_ms=1)
    assert {local for _, _, local, _ in node.take()} == {"192.0.2.1"}


class Introduced:
    """An ordinary peer behind a port-restricted NAT, ready, with one introducer, which tells it of a hard peer."""

    CLUSTER = bytes([4]) * 32
    SUBCLUSTER = bytes([5]) * 32
    NODES = (("198.51.100.10", 3511, bytes([3]) * 32), ("198.51.100.11", 3512, bytes([6]) * 32))
    SEEN = ("203.0.113.5", 5000)
    HARD = "198.51.100.20"

    def __init__(self) -> None:
        self.at_us = 1_000_000
        entries = [(int.from_bytes(map(int, a.split("."))), port, name) for a, port, name in self.NODES]
        self.node = ordinary_peer(indexed_peers=entries, mono_us=self.at_us, wall_ms=1000)
        self.node.join(self.CLUSTER, self.SUBCLUSTER)
        self.openers: list[int] = []
        while ("ready", 7) not in [event[:2] for event in self.node.app_events()]:
            self.step()
        text = codec.write_message(
            codec.INTRO,
            {
                "requesterPeerId": OTHER.hex(),
                "responderPeerId": self.NODES[0][2].hex(),
                "natType": 5,
                "address": self.HARD,
                "port": 7000,
            },
        )
        frame = codec.encode(
            codec.INTRO,
            hops=2,
            cluster_id=self.CLUSTER,
            subcluster_id=self.SUBCLUSTER,
            usr1=str(self.at_us // 1000).encode(),
            message=text,
        )
        self.receive(frame, self.NODES[0][:2])

    def receive(self, data: bytes, source: tuple[str, int], socket: int = 0) -> None:
        self.node.receive(data, source, "0.0.0.0", socket, mono_us=self.at_us, wall_ms=self.at_us // 1000)
        self.answer()

    def step(self) -> None:
        """A millisecond later."""
        self.at_us += 1000
        self.node.tick(self.at_us, self.at_us // 1000)
        self.answer()

    def answer(self) -> None:
        """The two nodes answer pings as a port-restricted NAT lets it through; one-byte openers are noted."""
        for data, to, _, socket in self.node.take():
            if data == b"\x01":
                self.openers.append(to[1])
                continue
            asked = next((each for each in self.NODES if each[:2] == to), None)
            if asked is None or codec.decode(data)["type"] != codec.PING:
                continue
            said = codec.read_message(data)
            pong: dict[str, Any] = {
                "requesterPeerId": said["requesterPeerId"],
                "responderPeerId": asked[2].hex(),
                "address": self.SEEN[0],
                "port": self.SEEN[1] + socket,
                **{key: said[key] for key in ("pingId", "reflectionId", "isReflection") if key in said},
            }
            frame = codec.encode(codec.PONG, message=codec.write_message(codec.PONG, pong))
            self.receive(frame, to, socket)


def test_who_comes_through_a_port_that_we_opened_is_met_at_once() -> None:
    """A reference peer behind a hard NAT answers from another port than it connects from: no other proof can come."""
    world = Introduced()
    node = world.node
    for _ in range(50):
        world.step()
    assert len(world.openers) == len(set(world.openers)) >= 50
    assert min(world.openers) >= 1024
    closed = next(port for port in range(1024, 65536) if port not in world.openers)
    connection = codec.encode(
        codec.PING,
        cluster_id=world.CLUSTER,
        subcluster_id=world.SUBCLUSTER,
        message=codec.write_message(
            codec.PING, {"requesterPeerId": OTHER.hex(), "natType": 5, "isConnection": True, "uptime": 1}
        ),
    )
    stranger = connection.replace(OTHER.hex().encode(), b"07" * 32)
    for data, source in (
        (connection, (world.HARD, closed)),
        (connection, ("198.51.100.77", world.openers[7])),
        (stranger, (world.HARD, world.openers[7])),
    ):
        world.receive(data, source)
        assert node.app_events() == []
    sent = len(world.openers)
    world.receive(connection, (world.HARD, world.openers[7]))
    ((kind, peer_id, cluster, subcluster, nat_type, direct, address, port),) = node.app_events()
    assert (kind, peer_id, cluster, subcluster) == ("join", OTHER, world.CLUSTER, world.SUBCLUSTER)
    assert (nat_type, direct, address, port) == (5, True, world.HARD, world.openers[7])
    for _ in range(50):
        world.step()
    assert len(world.openers) == sent  # it is reached: no more of them


def test_who_is_not_reached_is_reached_by_proxy_until_it_comes_by_itself() -> None:
    """Fallback after two seconds, upgrade when a later attempt succeeds."""
    world = Introduced()
    events: list[tuple[Any, ...]] = []
    while not events:
        world.step()
        events = world.node.app_events()
    assert events == [("join", OTHER, world.CLUSTER, world.SUBCLUSTER, 5, False, world.HARD, 7000)]
    assert 1024 <= len(world.openers) <= 1025
    stream = codec.encode(codec.STREAM, usr3=OTHER, usr4=OURS, packet_id=bytes([9]) * 32, message=b"x", hops=1)
    world.node.stream(stream)
    assert [to for _, to, _, _ in world.node.take()] == [world.NODES[0][:2]]
    # Later it comes from a port of its own accord, and proves it.
    place = (world.HARD, 7777)
    world.node.receive(
        codec.encode(
            codec.PING,
            cluster_id=world.CLUSTER,
            subcluster_id=world.SUBCLUSTER,
            message=codec.write_message(
                codec.PING,
                {
                    "requesterPeerId": OTHER.hex(),
                    "natType": 5,
                    "isConnection": True,
                    "pingId": "0123456789ab",
                    "cacheSummaryHash": "00" * 20,
                },
            ),
        ),
        place,
        mono_us=world.at_us,
        wall_ms=world.at_us // 1000,
    )
    proof = next(
        codec.read_message(data)["pingId"]
        for data, to, _, _ in world.node.take()
        if to == place and codec.decode(data)["type"] == codec.PING
    )
    pong = {"requesterPeerId": OURS.hex(), "responderPeerId": OTHER.hex(), "pingId": proof, "natType": 5}
    world.receive(codec.encode(codec.PONG, message=codec.write_message(codec.PONG, pong)), place)
    assert ("join", OTHER, world.CLUSTER, world.SUBCLUSTER, 5, True, *place) in world.node.app_events()
    world.node.stream(stream[:-1] + b"\x01")
    assert [to for _, to, _, _ in world.node.take()] == [place]
    assert world.node.counters()["proxies_upgraded"] == 1


def test_another_address_than_before_starts_a_discovery() -> None:
    """Each heartbeat asks the indexed peers where they see us."""
    world = Introduced()
    world.node.app_events()
    world.SEEN = ("203.0.113.99", 6000)
    started_us = world.at_us
    seen: list[tuple[Any, ...]] = []
    while world.at_us < started_us + 30_000_000 and not seen:
        world.step()
        seen = [event for event in world.node.app_events() if event[0] == "ready"]
    assert seen
    assert seen[0][:4] == ("ready", 7, "203.0.113.99", 6000)
