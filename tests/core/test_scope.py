"""Rule 6 of "Never a weapon": which addresses a message may name, and who is introduced to whom."""

from __future__ import annotations

from typing import Any

import pytest

from srpnode.core import codec
from tests.core.world import NODE_ADDRESS, NODE_PORT, NODE_PROBE_PORT, START_MS, Peer, World, named, number, only

PUBLIC = ["1.1.1.1", "192.0.2.1", "198.51.100.1", "203.0.113.77", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1",
          "223.255.255.254", "169.253.0.1", "11.0.0.0", "192.167.0.1", "192.169.0.1"]  # fmt: skip
PRIVATE = ["10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.254", "192.168.0.1", "192.168.255.255", "169.254.1.1",
           "100.64.0.1", "100.127.255.254"]  # fmt: skip
LOOPBACK = ["127.0.0.1", "127.255.255.254"]
NEVER = ["0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"]


def relayed(world: World, message: dict[str, Any]) -> tuple[int, dict[str, int]]:
    """A relayed join with this claim: to how many it was passed on, and what was dropped."""
    relay = world.connect(Peer(world_address(world, 250), 3511, cluster=None))
    joiner = Peer("192.0.2.77", peer_id=named(repr(message)))
    claim: dict[str, Any] = {
        "rendezvousAddress": relay.address,
        "rendezvousPort": relay.port,
        "rendezvousDeadline": float(START_MS + 30_000),
        **message,
    }
    before = world.counters()
    return len(world.send(relay, joiner.join(hops=2, **claim))), world.drops(before)


def world_address(world: World, host: int) -> str:
    """An address near the world's peers."""
    return next(iter(world.peers))[0].rsplit(".", 1)[0] + f".{host}"


def public_world() -> World:
    world = World(relayed_joins_per_minute=0)
    world.connect_many(4)
    return world


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_named(address: str) -> None:
    assert relayed(public_world(), {"address": address, "port": 9000}) == (3, {})


@pytest.mark.parametrize("address", PRIVATE + LOOPBACK + NEVER)
@pytest.mark.parametrize("key", ["address", "rendezvousAddress"])
def test_private_addresses_may_not(address: str, key: str) -> None:
    told, drops = relayed(public_world(), {key: address})
    assert (told, drops) == (0, {"scope": 1})


@pytest.mark.parametrize("port", [1, 22, 53, 123, 1023])
@pytest.mark.parametrize("key", ["port", "rendezvousPort"])
def test_privileged_ports_may_not(port: int, key: str) -> None:
    assert relayed(public_world(), {key: port}) == (0, {"scope": 1})
    allowed = World(relayed_joins_per_minute=0, privileged_ports=True)
    allowed.connect_many(4)
    assert relayed(allowed, {key: port})[1] == {}


@pytest.mark.parametrize("port", [NODE_PORT, NODE_PROBE_PORT])
@pytest.mark.parametrize("keys", [("address", "port"), ("rendezvousAddress", "rendezvousPort")])
def test_our_own_endpoints_may_not(port: int, keys: tuple[str, str]) -> None:
    """Nobody can have our own ports sent to by others, or make us our own rendezvous peer."""
    assert relayed(public_world(), {keys[0]: NODE_ADDRESS, keys[1]: port}) == (0, {"scope": 1})


@pytest.mark.parametrize(
    ("own", "allowed", "refused"),
    [
        ("10.0.0.1", PRIVATE + PUBLIC, LOOPBACK + NEVER),
        ("127.0.0.1", LOOPBACK + PUBLIC, PRIVATE + NEVER),
    ],
)
def test_a_private_node_may_name_its_own_kind(own: str, allowed: list[str], refused: list[str]) -> None:
    """A laboratory on loopback or in a private network works without a setting."""
    for address in allowed + refused:
        world = World(address=number(own), relayed_joins_per_minute=0)
        world.connect_many(4, network=own.rsplit(".", 1)[0].replace("127.0.0", "127.0.1"))
        told, drops = relayed(world, {"address": address, "port": 9000})
        assert (told > 0, "scope" in drops) == (address in allowed, address in refused), address


def test_proven_endpoints_are_served_whatever_they_are() -> None:
    """A peer on a private address or a privileged port answers for itself: it is in its own network with us."""
    for address, port in (("10.0.0.9", 9000), ("127.0.0.9", 9000), ("198.51.100.7", 443), ("198.51.100.8", 53)):
        world = World()
        peer = world.connect(Peer(address, port))
        sender = world.connect(Peer("198.51.100.99"))
        assert world.send(sender, sender.stream(peer.peer_id, b"hello"))[0].to == (address, port)


@pytest.mark.parametrize(
    ("one", "two", "met"),
    [
        ("198.51.100.7", "203.0.113.9", True),
        ("10.0.0.7", "192.168.1.9", True),
        ("127.0.0.7", "127.0.1.9", True),
        ("198.51.100.7", "10.0.0.9", False),
        ("10.0.0.7", "198.51.100.9", False),
        ("127.0.0.7", "198.51.100.9", False),
        ("10.0.0.7", "127.0.0.9", False),
    ],
)
def test_introductions_stay_within_one_scope(one: str, two: str, met: bool) -> None:
    """A peer elsewhere is not told to send to somebody's 10.0.0.7, which is another machine there."""
    world = World()
    world.connect(Peer(two))
    joiner = world.connect(Peer(one))
    assert (only(world.send(joiner, joiner.join()), codec.INTRO) != []) == met
    world = World()
    wanted = world.connect(Peer(two))
    asker = world.connect(Peer(one))
    data = asker.join(hops=0, rendezvousRequesterPeerId=wanted.peer_id.hex())
    assert (only(world.send(asker, data), codec.INTRO) != []) == met


def test_relayed_copies_of_private_joiners() -> None:
    """The stamp of a joiner on a private address would point at another machine elsewhere: it does not leave the scope."""
    world = World()
    world.connect(Peer("198.51.101.8", cluster=named("another"), nat_type=5))
    joiner = world.connect(Peer("10.0.0.7", nat_type=5))
    sent = only(world.send(joiner, joiner.join()), codec.JOIN)
    assert [item for item in sent if item.message["address"] == "10.0.0.7" and not item.to[0].startswith("10.")] == []
