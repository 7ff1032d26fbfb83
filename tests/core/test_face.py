"""The Python face of a node: what it refuses, and that what it packs for another thread is what it unpacks."""

from __future__ import annotations

from typing import Any

import pytest

from srpnode.core import node as face
from srpnode.core.node import Node
from tests.core.world import NODE_ID, START_MS, START_US, Peer, World, named, number


def receive(node: Node, data: Any, source: Any, **where: Any) -> None:
    node.receive(data, source, mono_us=START_US, wall_ms=START_MS, **where)


@pytest.mark.parametrize("data", [b"", b"\0", bytearray(b"x" * 50), bytes(65_536)])
def test_any_bytes_are_received(data: bytes) -> None:
    world = World()
    world.send(("198.51.100.7", 9000), data)
    assert world.count("in_datagrams") == 1
    assert world.count("in_bytes") == len(data)


@pytest.mark.parametrize(
    ("data", "source"),
    [
        (bytes(65_537), ("198.51.100.7", 9000)),
        (b"x", ("198.51.100", 9000)),
        (b"x", ("198.51.100.256", 9000)),
        (b"x", ("somewhere", 9000)),
        (b"x", ("198.51.100.7", 65_536)),
        (b"x", ("198.51.100.7", -1)),
        (b"x", ("198.51.100.7",)),
        ("text", ("198.51.100.7", 9000)),
        (None, ("198.51.100.7", 9000)),
    ],
)
def test_what_cannot_be_received(data: Any, source: Any) -> None:
    """An error, and a node as it was."""
    world = World()
    with pytest.raises((ValueError, TypeError, OverflowError, IndexError)):
        receive(world.node, data, source)
    assert world.count("in_datagrams") == 0
    world.connect(Peer("198.51.100.7"))


def test_output_must_be_taken_first() -> None:
    """It may point into the datagram before."""
    world = World()
    peer = Peer("198.51.100.7")
    receive(world.node, peer.ping(), peer.endpoint)
    with pytest.raises(RuntimeError):
        receive(world.node, peer.ping(), peer.endpoint)
    assert len(world.node.take()) == 2
    assert world.node.take() == []
    receive(world.node, peer.ping(), peer.endpoint)


@pytest.mark.parametrize(
    "indexed",
    [
        [(number("203.0.113.6"), 3511, named("a")), (number("203.0.113.6"), 3511, named("b"))],
        [(number("203.0.113.6"), 3511, named("a")), (number("203.0.113.7"), 3511, named("a"))],
    ],
)
def test_two_configured_peers_in_one_place_or_name(indexed: list[tuple[int, int, bytes]]) -> None:
    with pytest.raises(ValueError, match="two peers"):
        Node(peer_id=NODE_ID, seed=bytes(32), indexed_peers=indexed)


def test_own_entry_among_the_configured_is_passed_over() -> None:
    """The same list of indexed peers can be given to every node in it."""
    world = World(indexed_peers=[(number("203.0.113.5"), 3511, NODE_ID), (number("203.0.113.6"), 3511, named("b"))])
    assert [row["peerId"] for row in world.node.peers()] == [named("b").hex()]


def test_peers_beyond_one_answer() -> None:
    """The table is read in slices; all of it arrives, each peer once."""
    world = World(peers=500)
    peers = world.connect_many(200)
    rows = world.node.peers()
    assert sorted((row["address"], row["port"]) for row in rows) == sorted(peer.endpoint for peer in peers)


def test_limits_packed_are_limits_set() -> None:
    assert face.pack_limits() != face.pack_limits(introductions=3)
    assert len(face.pack_limits()) == len(face.pack_limits(introductions=3))
    with pytest.raises(TypeError, match="nonsense"):
        face.pack_limits(nonsense=1)
    for value in (-1, 2**32):
        with pytest.raises(OverflowError):
            face.pack_limits(introductions=value)


@pytest.mark.parametrize("length", [-1, 33, 1000])
def test_prefixes_that_cannot_be(length: int) -> None:
    with pytest.raises(ValueError, match="prefix"):
        face.pack_rules([("198.51.100.0", length, True)])


def test_too_many_rules() -> None:
    face.pack_rules([("198.51.100.0", 24, True)] * 256, clusters=[named("c")] * 256)
    with pytest.raises(ValueError, match="at most"):
        face.pack_rules([("198.51.100.0", 24, True)] * 257)
    with pytest.raises(ValueError, match="32 bytes"):
        face.pack_rules(clusters=[b"short"])


def test_addresses_pack_to_four_bytes() -> None:
    assert face.pack_address("1.2.3.4") == number("1.2.3.4").to_bytes(4, "little")
    for text in ("1.2.3", "1.2.3.4.5", "1.2.3.999", "", "host"):
        with pytest.raises(ValueError):  # noqa: PT011
            face.pack_address(text)
