"""Rule 8 of "Never a weapon": every drop has a counter with its reason. Here is a datagram for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from srpnode.core import codec
from tests.core import inside
from tests.core.world import (
    KEEP_ALIVE,
    NODE_ADDRESS,
    NODE_ID,
    PROBE,
    START_MS,
    Peer,
    World,
    named,
    number,
    only,
)

HERE = Peer("198.51.100.7")
Scenario = Callable[[], World]
SCENARIOS: dict[str, Scenario] = {}


def drop(name: str) -> Callable[[Scenario], Scenario]:
    """A scenario whose last datagram is dropped for this reason, and for no other."""

    def add(scenario: Scenario) -> Scenario:
        SCENARIOS[name] = scenario
        return scenario

    return add


def fresh() -> Peer:
    return Peer(HERE.address, HERE.port)


def with_peer(**settings: Any) -> tuple[World, Peer]:
    world = World(**settings)
    return world, world.connect(fresh())


def from_stranger(data: bytes, **settings: Any) -> World:
    world = World(**settings)
    world.send(HERE, data)
    return world


def from_peer(make: Callable[[Peer], bytes], times: int = 1, **settings: Any) -> World:
    world, peer = with_peer(**settings)
    for _ in range(times):
        world.send(peer, make(peer))
    return world


# --- the codec's verdicts -------------------------------------------------------------------------------------------

PING = HERE.ping()
BAD = {
    "short": PING[:20],
    "magic": b"\0" + PING[1:],
    "type": PING[:4] + b"\x09" + PING[5:],
    "version": PING[:6] + b"\x05" + PING[7:],
    "length": PING[:23] + b"\xff" + PING[24:],
    "json": codec.encode(codec.PING, message=b"{"),
    "deep": codec.encode(codec.PING, message=b'{"natType":' + b"[" * 500),
    "key": codec.encode(codec.PING, message=b'{"unheard":1}'),
    "missing": codec.encode(codec.PING, message=b'{"natType":31}'),
    "value": codec.encode(codec.PING, message=b'{"requesterPeerId":"short"}'),
}
for verdict, data in BAD.items():
    SCENARIOS[verdict] = lambda data=data: from_stranger(data)  # type: ignore[misc]


# --- sources ----------------------------------------------------------------------------------------------------------


@drop("port_zero")
def port_zero() -> World:
    world = World()
    world.send((HERE.address, 0), PING)
    return world


@drop("own_source")
def own_source() -> World:
    world = World()
    world.send((NODE_ADDRESS, 3511), PING)
    return world


@drop("probe_socket")
def probe_socket() -> World:
    world = World()
    world.send(HERE, PING, socket=PROBE)
    return world


@drop("denied_prefix")
def denied_prefix() -> World:
    world = World()
    world.node.set_rules([(HERE.address, 32, False)])
    world.send(HERE, PING)
    return world


@drop("denied_cluster")
def denied_cluster() -> World:
    world, peer = with_peer()
    world.node.set_rules(clusters=[named("cluster")])
    world.send(peer, peer.publish(b"x"))
    return world


@drop("rate_endpoint")
def rate_endpoint() -> World:
    world, peer = with_peer(replicated_per_minute=2)
    for i in range(3):
        world.send(peer, peer.publish(b"%d" % i))
    return world


@drop("rate_address")
def rate_address() -> World:
    world = World(address_per_minute=2)
    for i in range(3):
        world.send((HERE.address, 9000 + i), PING)
    return world


@drop("rate_prefix")
def rate_prefix() -> World:
    world = World(prefix_per_minute=2)
    for i in range(3):
        world.send((f"198.51.100.{i + 1}", 9000), PING)
    return world


@drop("rate_unproven")
def rate_unproven() -> World:
    world = World(unproven_per_second=2)
    for i in range(3):
        world.send((f"198.51.{i}.1", 9000), PING)
    return world


@drop("unproven")
def unproven() -> World:
    return from_stranger(HERE.publish(b"x"))


@drop("budget")
def budget() -> World:
    return from_stranger(HERE.ping(bare=True))


# --- names and proofs -------------------------------------------------------------------------------------------------


@drop("self_named")
def self_named() -> World:
    return from_stranger(Peer(HERE.address, peer_id=NODE_ID).ping())


@drop("name_taken")
def name_taken() -> World:
    world = World()
    holder = world.connect(Peer("198.51.100.8"))
    thief = Peer(HERE.address, HERE.port)
    (ping,) = only(world.send(thief, thief.ping()), codec.PING)
    world.send(thief, thief.pong(ping, responderPeerId=holder.peer_id.hex()))
    return world


@drop("name_unproven")
def name_unproven() -> World:
    """It asks under another name, and its pong gives a third."""
    world, peer = with_peer()
    data = Peer(peer.address, peer.port, peer_id=named("other")).connection_ping()
    for ping in only(world.send(peer, data), codec.PING):
        world.send(peer, peer.pong(ping))
    return world


@drop("pong_unasked")
def pong_unasked() -> World:
    message = {"requesterPeerId": NODE_ID.hex(), "responderPeerId": HERE.peer_id.hex(), "pingId": "0" * 12}
    return from_stranger(codec.encode(codec.PONG, message=codec.write_message(codec.PONG, message)))


@drop("peers_full")
def peers_full() -> World:
    world = World(peers=1, sync_jobs=128)
    inside.crowd(world.node, 65, number("11.0.0.1"), 1, world.mono_us, world.wall_ms)
    world.take()
    late = fresh()
    for ping in only(world.send(late, late.ping()), codec.PING):
        world.send(late, late.pong(ping))
    return world


@drop("peers_address")
def peers_address() -> World:
    world, _ = with_peer(peers_per_address=1)
    second = Peer(HERE.address, 9001)
    world.send(second, second.ping(), follow=True)
    return world


@drop("peers_prefix")
def peers_prefix() -> World:
    world, _ = with_peer(peers_per_prefix=1)
    second = Peer("198.51.100.8")
    world.send(second, second.ping(), follow=True)
    return world


@drop("parking_replaced")
def parking_replaced() -> World:
    world = World(parked=1)
    for i in range(3):
        joiner = Peer(f"198.51.100.{i + 1}")
        world.send(joiner, joiner.join())
    return world


# --- handlers -----------------------------------------------------------------------------------------------------------


@drop("cluster_id")
def cluster_id() -> World:
    return from_peer(lambda peer: Peer(peer.address, cluster=None).join())


@drop("packet_id")
def packet_id() -> World:
    return from_peer(lambda peer: peer.publish(b"x", packet_id=b"short"))


@drop("stale")
def stale() -> World:
    return from_peer(lambda peer: peer.query(named("x"), named("q"), START_MS - 5000))


@drop("duplicate")
def duplicate() -> World:
    return from_peer(lambda peer: peer.publish(b"x"), times=2)


@drop("hops")
def hops() -> World:
    return from_peer(lambda peer: peer.query(named("x"), named("q"), START_MS, hops=16))


@drop("claim")
def claim() -> World:
    message = b'{"requesterPeerId":"' + HERE.peer_id.hex().encode() + b'","natType":null,"address":"1.2.3.4","port":9}'
    return from_peer(lambda peer: codec.encode(codec.JOIN, hops=1, cluster_id=peer.cluster, message=message))


@drop("scope")
def scope() -> World:
    return from_peer(lambda peer: Peer("192.0.2.1").join(hops=2, address="10.0.0.1", packet_id=named(peer.address)))


@drop("relay_budget")
def relay_budget() -> World:
    world, relay = with_peer(relayed_joins_per_minute=1)
    world.connect(Peer("198.51.100.8"))
    for i in range(2):
        joiner = Peer("192.0.2.1", 9000 + i)
        world.send(relay, joiner.join(hops=2, rendezvousAddress=relay.address, rendezvousPort=relay.port))
    return world


@drop("deferred_full")
def deferred_full() -> World:
    world, relay = with_peer(deferred_joins=1)
    world.connect(Peer("198.51.100.8"))
    for i in range(2):
        joiner = Peer("192.0.2.1", 9000 + i)
        world.send(relay, joiner.join(hops=2, rendezvousAddress=relay.address, rendezvousPort=relay.port))
    return world


@drop("deferred_peer")
def deferred_peer() -> World:
    world, relay = with_peer(deferred_joins=8, deferred_joins_per_peer=1)
    world.connect(Peer("198.51.100.8"))
    for i in range(2):
        joiner = Peer("192.0.2.1", 9000 + i)
        world.send(relay, joiner.join(hops=2, rendezvousAddress=relay.address, rendezvousPort=relay.port))
    return world


@drop("rendezvous_unknown")
def rendezvous_unknown() -> World:
    return from_peer(lambda peer: peer.join(hops=0, rendezvousRequesterPeerId=named("nobody").hex()))


def client(attempts: int = 8, app_bytes: int = 4096, **limits: int) -> tuple[World, Peer]:
    world, peer = with_peer(attempts=attempts, app_bytes=app_bytes, **limits)
    world.node.join(named("cluster"), named("sub"))
    world.node.app_events()
    return world, peer


@drop("intro_ignored")
def intro_ignored() -> World:
    return from_peer(lambda peer: peer.intro(Peer("198.51.100.8")))


@drop("intro_stale")
def intro_stale() -> World:
    world, peer = client()
    world.send(peer, peer.intro(Peer("198.51.100.8"), wall_ms=START_MS - 60_000))
    return world


@drop("intro_known")
def intro_known() -> World:
    world, peer = client()
    for _ in range(2):
        world.send(peer, peer.intro(Peer("198.51.100.8")))
    return world


@drop("attempts_full")
def attempts_full() -> World:
    world, peer = client(attempts=1)
    for i in range(2):
        world.send(peer, peer.intro(Peer(f"198.51.100.{i + 8}")))
    return world


@drop("attempt_budget")
def attempt_budget() -> World:
    world, peer = client(attempts_per_minute=1)
    for i in range(2):
        world.send(peer, peer.intro(Peer(f"198.51.{i}.8")))
    return world


@drop("opened_share")
def opened_share() -> World:
    world, peer = client(nat_type=7)
    hard = Peer("198.51.100.8", nat_type=5)
    (opener,) = world.send(peer, peer.intro(hard))
    hard.port = opener.to[1]
    world.send(hard, hard.connection_ping())
    for i in range(20):
        world.send(peer, peer.stream(hard.peer_id, b"%d" % i))
    return world


@drop("app_full")
def app_full() -> World:
    world, peer = client(app_bytes=1024)
    for i in range(2):
        world.send(peer, peer.stream(NODE_ID, b"%d" % i + bytes(600)))
    return world


@drop("no_destination")
def no_destination() -> World:
    return from_peer(lambda peer: peer.stream(named("nobody"), b"x"))


@drop("no_route")
def no_route() -> World:
    return from_peer(lambda _: codec.encode(codec.QUERY, usr3=named("q"), usr4=b"2", message=b"x"))


@drop("summary")
def summary() -> World:
    return from_peer(lambda peer: peer.sync(b"no summary"))


@drop("sync_work")
def sync_work() -> World:
    world, peer = with_peer(control_per_minute=0)
    i = 0
    while world.count("drop_sync_work") == 0:
        world.send(peer, peer.sync(codec.encode_summary("ab", i.to_bytes(20, "big"), [None] * 16)))
        i += 1
        assert i < 20_000
    return world


@drop("sync_jobs")
def sync_jobs() -> World:
    world, peer = with_peer(sync_jobs=0)
    for i in range(200):
        world.send(peer, peer.publish(b"%d" % i))
    world.send(peer, peer.summary([]))
    return world


@drop("sync_summaries")
def sync_summaries() -> World:
    world, peer = with_peer(sync_summaries_per_minute=2)
    for i in range(9):
        world.send(peer, peer.publish(b"%d" % i))
    world.send(peer, peer.sync(codec.encode_summary("", bytes(20), [bytes(20)] * 16)))
    return world


@drop("sync_share")
def sync_share() -> World:
    world, peer = with_peer(sync_per_minute=3)
    for i in range(9):
        world.send(peer, peer.publish(b"%d" % i))
    world.send(peer, peer.summary([]))
    return world


@drop("stranger_share")
def stranger_share() -> World:
    world, peer = with_peer(sync_per_minute=4)
    world.connect(Peer("203.0.113.9", cluster=None))
    for i in range(9):
        world.send(peer, peer.publish(b"%d" % i))
    return world


@drop("queue_full")
def queue_full() -> World:
    world = World(queue_datagrams=64)
    peers = world.connect_many(4)
    batch = [(peers[0].publish(b"%d" % i), number(peers[0].address), peers[0].port, 0) for i in range(22)]
    inside.receive_batch(world.node, batch, world.mono_us, world.wall_ms)
    return world


@drop("bandwidth")
def bandwidth() -> World:
    world, peer = with_peer()
    world.node.set_limits(bandwidth_out_bytes_per_second=10)
    world.send(peer, peer.ping())
    return world


@drop("peer_bandwidth")
def peer_bandwidth() -> World:
    world, peer = with_peer()
    other = world.connect(Peer("198.51.100.8"))
    world.node.set_limits(peer_out_bytes_per_second=100)
    world.send(peer, peer.stream(other.peer_id, b"x" * 100))
    return world


# --- all of them -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCENARIOS)
def test_drop(name: str) -> None:
    """What the scenario leads to is counted under this name, and nothing else is dropped."""
    world = SCENARIOS[name]()
    drops = world.drops({})
    assert drops.pop(name, 0) > 0, drops
    assert drops == {}, "set up with other drops"


def test_every_drop_has_its_scenario() -> None:
    """A new reason to drop needs a datagram here that is dropped for it."""
    names = {name.removeprefix("drop_") for name in World().counters() if name.startswith("drop_")}
    assert names == set(SCENARIOS)


def test_counters_only_grow() -> None:
    """Nothing resets them: not a reading, not a change of limits, not time."""
    world, peer = with_peer()
    for i in range(20):
        before = world.counters()
        world.send(peer, peer.publish(b"%d" % (i % 7)))
        world.advance(KEEP_ALIVE / 3)
        world.node.set_limits(replicated_per_minute=5)
        after = world.counters()
        assert all(after[name] >= before[name] for name in before)
