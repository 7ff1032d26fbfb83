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
        node.receive(ping(pingId="0123456789ab", cacheSummaryHash="00" * 20, uptime=1, cacheSize=0), PEER, "192.0.2.1", socket, mono_us=1_000_000, wall_ms=1)
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
