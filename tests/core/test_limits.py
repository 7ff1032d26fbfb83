"""Rule 7 of "Never a weapon": rates in layers, tables of fixed size that evict fairly."""

from __future__ import annotations

from typing import Any

import pytest

from srpnode.core import codec
from tests.core import inside
from tests.core.world import KEEP_ALIVE, START_US, Peer, World, named, number, only


def strangers(world: World, pings: int, *, addresses: int = 1, ports: int = 1, network: str = "198.51.100") -> int:
    """How many pings of so many strangers are answered."""
    answered = 0
    for i in range(pings):
        peer = Peer(f"{network}.{i % addresses + 1}", 5000 + i // addresses % ports)
        answered += any(item.type == codec.PONG for item in world.send(peer, peer.ping()))
    return answered


# --- rates ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 10, 100])
def test_replicated_rate_of_an_endpoint(limit: int) -> None:
    """Publish and join share one quota a minute; pings and the rest do not count against it."""
    world = World(replicated_per_minute=limit)
    peer = world.connect(Peer("198.51.100.7"))
    before = world.counters()
    for i in range(3 * limit):
        peer.cluster = named(f"cluster {i}")
        world.send(peer, peer.publish(b"packet %d" % i) if i % 2 else peer.join())
        world.send(peer, peer.ping(natType=31))
    assert world.drops(before) == {"rate_endpoint": 2 * limit}
    changed = world.changed(before)
    assert changed.get("in_publish", 0) + changed["in_join"] == limit
    assert changed["in_ping"] == 3 * limit
    # Another endpoint of the same address has its own, and the next minute is a new one.
    other = world.connect(Peer("198.51.100.7", 9001))
    before = world.counters()
    world.send(other, other.publish(b"from another port"))
    world.advance(60)
    world.send(peer, peer.publish(b"a minute later"))
    assert world.drops(before) == {}
    assert world.cached() == limit // 2 + 2


def test_quotas_of_many_end_at_different_moments() -> None:
    """Else a flood within them would be a storm at the beginning of each minute."""
    world = World(replicated_per_minute=4)
    peers = [world.connect(Peer(f"198.51.{i}.7")) for i in range(64)]
    taken = []
    for step in range(4 * 60):
        before = world.count("in_publish")
        for i, peer in enumerate(peers):
            world.send(peer, peer.publish(b"%d of %d" % (step, i)))
        taken.append(world.count("in_publish") - before)
        if step % 40 == 0:  # they stay proven
            for peer in peers:
                world.send(peer, peer.ping(natType=31))
        world.advance(0.5)
    for minute in (taken[120:], taken[8:128]):
        assert sum(minute) == 64 * 4
        assert max(minute) <= 4 * 4, "no storm"


def test_control_rate_of_an_endpoint() -> None:
    world = World(control_per_minute=50)
    peer = world.connect(Peer("198.51.100.7"))
    world.advance(60)
    before = world.counters()
    for _ in range(100):
        world.send(peer, peer.ping())
    world.send(peer, peer.publish(b"apart from the rest"))
    changed = world.changed(before)
    assert changed["in_ping"] + changed["drop_rate_endpoint"] == 100
    assert 48 <= changed["in_ping"] <= 50
    assert changed["in_publish"] == 1


@pytest.mark.parametrize("kind", ["ping", "join"])
def test_rate_of_an_unproven_endpoint(kind: str) -> None:
    """The same quotas, kept outside the peer table."""
    world = World(control_per_minute=20, replicated_per_minute=20)
    peer = Peer("198.51.100.7")
    before = world.counters()
    for _ in range(60):
        world.send(peer, peer.ping() if kind == "ping" else peer.join())
    assert world.drops(before) == {"rate_endpoint": 40}
    assert world.node.gauges()["peers"] == 0


def test_rate_of_an_address() -> None:
    """Many ports of one address: together they have a larger quota, and it ends."""
    world = World(address_per_minute=500, unproven_per_second=0)
    assert strangers(world, 2000, ports=1000) == 500
    assert world.drops({}) == {"rate_address": 1500}
    assert strangers(world, 10, network="198.51.101") == 10
    world.advance(60)
    assert strangers(world, 10) == 10


def test_rate_of_a_prefix() -> None:
    world = World(prefix_per_minute=500, unproven_per_second=0)
    assert strangers(world, 2000, addresses=250) == 500
    assert world.drops({}) == {"rate_prefix": 1500}
    assert strangers(world, 10, network="198.51.101") == 10


def test_publishing_weighs_more_on_address_and_prefix() -> None:
    """A publish makes the node send several datagrams: it counts like many pings."""
    for name in ("address_per_minute", "prefix_per_minute"):
        limits: dict[str, Any] = {name: 6400}
        world = World(**limits)
        peer = world.connect(Peer("198.51.100.7"))
        for i in range(200):
            world.send(peer, peer.publish(b"packet %d" % i))
        assert 98 <= world.count("in_publish") <= 100


def test_rate_of_all_strangers() -> None:
    """A flood from any number of spoofed sources: so many a second, and proven peers do not notice."""
    world = World(unproven_per_second=100, peers=20_000)
    friend = world.connect(Peer("203.0.113.77"))
    other = world.connect(Peer("203.0.113.78"))
    world.pass_time(1)
    answered = 0
    for i in range(3000):
        peer = Peer(f"198.{51 + i % 50}.{i // 250}.{i % 250 + 1}")
        answered += bool(world.send(peer, peer.ping()))
    assert answered == 50  # the rest is for those that ask again, and for addresses that are known
    assert world.count("drop_rate_unproven") == 3000 - 50
    (item,) = world.send(friend, friend.stream(other.peer_id, b"through the flood"))
    assert item.to == other.endpoint
    assert only(world.send(friend, friend.ping()), codec.PONG)
    world.pass_time(1)
    assert strangers(world, 50) == 38, "three eighths, for those that were answered before"


@pytest.mark.parametrize(
    "name",
    ["replicated_per_minute", "control_per_minute", "address_per_minute", "prefix_per_minute", "unproven_per_second"],
)
def test_zero_means_unlimited(name: str) -> None:
    limits: dict[str, Any] = {name: 0}
    world = World(**limits)
    peer = world.connect(Peer("198.51.100.7"))
    before = world.counters()
    for i in range(1100):
        world.send(peer, peer.publish(b"packet %d" % i))
    changed = world.changed(before)
    assert changed.get("drop_rate_endpoint", 0) == (0 if name == "replicated_per_minute" else 1100 - 1024)


def test_spoofed_floods_do_not_use_up_a_neighbours_quota() -> None:
    """Many sources at once: those that stay within their quotas are served while a heavy one is held back."""
    world = World(control_per_minute=100, meter_entries=1024, unproven_per_second=0)
    heavy = Peer("198.51.100.66")
    served = dict.fromkeys(range(50), 0)
    passed = 0
    for i in range(5000):
        passed += bool(world.send(heavy, heavy.ping()))
        quiet = Peer(f"203.0.113.{i % 50 + 1}")
        served[i % 50] += bool(world.send(quiet, quiet.ping()))
    assert set(served.values()) == {100}
    assert passed <= 110


def test_meter_keeps_the_heavy_ones() -> None:
    """A flood of random sources pushes light users out of the table, never the one that is being held back."""
    world = World(control_per_minute=100, meter_entries=64)
    heavy = Peer("198.51.100.66")
    passed = 0
    for i in range(4000):
        passed += bool(world.send(heavy, heavy.ping()))
        spoofed = Peer(f"203.{i % 200}.{i // 200}.7")
        world.send(spoofed, spoofed.ping())
    assert passed <= 130


def test_bandwidth_limit() -> None:
    """What would exceed the outgoing bandwidth is dropped and counted, and comes back with time."""
    world = World(bandwidth_out_bytes_per_second=10_000)
    peer = Peer("198.51.100.7")
    world.pass_time(1)
    sent = [item for _ in range(200) for item in world.send(peer, peer.ping())]
    assert 9_000 < sum(len(item.data) for item in sent) <= 10_000
    assert world.count("drop_bandwidth") > 0
    world.pass_time(0.1)
    sent = [item for _ in range(200) for item in world.send(peer, peer.ping())]
    assert 500 < sum(len(item.data) for item in sent) <= 1_000 + 500  # and what was left of the second before
    world.pass_time(3600)
    sent = [item for _ in range(200) for item in world.send(peer, peer.ping())]
    assert sum(len(item.data) for item in sent) <= 10_000, "saved up over an hour"


def test_limits_change_while_running() -> None:
    world = World(replicated_per_minute=10)
    peer = world.connect(Peer("198.51.100.7"))
    for i in range(30):
        world.send(peer, peer.publish(b"packet %d" % i))
    assert world.cached() == 10
    world.node.set_limits(replicated_per_minute=40)  # thirty are used up
    for i in range(30, 60):
        world.send(peer, peer.publish(b"packet %d" % i))
    assert world.cached() == 20


@pytest.mark.parametrize("name", ["replicated_per_minut", "peers", "nonsense"])
def test_unknown_limits_are_errors(name: str) -> None:
    world = World()
    with pytest.raises(TypeError):
        world.node.set_limits(**{name: 1})


# --- tables ---------------------------------------------------------------------------------------------------------


def fill(world: World, count: int, network: int, *, port: int = 9000) -> int:
    """So many peers try to be proven, one address each. How many are."""
    before = world.count("proofs")
    for i in range(count):
        endpoint = Peer(f"{network}.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}", port)
        world.send(endpoint, endpoint.ping(), follow=True)
    return world.count("proofs") - before


def test_peers_of_one_address() -> None:
    """One machine, or one carrier NAT, cannot take the whole table."""
    world = World(peers_per_address=10)
    for i in range(50):
        peer = Peer("198.51.100.66", 3000 + i)
        world.send(peer, peer.ping(), follow=True)
    assert world.node.gauges()["peers"] == 10
    assert world.count("drop_peers_address") == 40
    world.connect(Peer("198.51.100.67"))


def test_peers_of_one_prefix() -> None:
    world = World(peers_per_prefix=10)
    for i in range(50):
        peer = Peer(f"198.51.100.{i + 1}")
        world.send(peer, peer.ping(), follow=True)
    assert world.node.gauges()["peers"] == 10
    assert world.count("drop_peers_prefix") == 40
    world.connect(Peer("198.51.101.67"))


def test_places_come_back() -> None:
    world = World(peers_per_address=10)
    for i in range(10):
        world.prove(Peer("198.51.100.66", 3000 + i)).alive = False
    world.advance(6 * KEEP_ALIVE)
    assert world.node.gauges()["peers"] == 0
    for i in range(10):
        world.prove(Peer("198.51.100.66", 4000 + i))
    inside.check(world.node)


def test_full_table_keeps_living_peers() -> None:
    """However many newcomers prove themselves, peers that answer their heartbeats keep their places."""
    world = World(peers=64)
    friends = world.connect_many(40)
    fill(world, 200, 11)
    world.advance(2 * KEEP_ALIVE)
    before = world.counters()
    fill(world, 300, 12)
    assert world.drops(before)["peers_full"] > 0
    assert all(world.view(friend) is not None for friend in friends)
    inside.check(world.node)


def test_full_table_makes_room_for_the_living() -> None:
    """Peers that missed a heartbeat give way, a few at a time, before their four keep-alives are over."""
    world = World(peers=64)
    friends = world.connect_many(8)
    fill(world, 200, 11)  # they prove themselves once, and never answer again
    assert world.count("drop_peers_full") > 0
    world.advance(2 * KEEP_ALIVE)
    newcomers = 0
    for i in range(40):
        newcomers += fill(world, 1, 12, port=3000 + i)
    assert newcomers >= 38
    assert world.count("peers_evicted") >= 38
    assert all(world.view(friend) is not None for friend in friends)
    inside.check(world.node)


def test_a_full_table_says_so() -> None:
    """Whoever has no room for a newcomer does not confirm the connection: what it sends would be dropped as a stranger's."""
    world = World(peers=20, spare_peers=0)
    world.connect_many(20)
    world.advance(KEEP_ALIVE)
    stranger = Peer("198.51.101.1")
    (pong, *_) = only(world.send(stranger, stranger.connection_ping(pingId="0123456789ab")), codec.PONG)
    assert "isConnection" not in pong.message
    assert pong.message["address"] == stranger.address
    friend = Peer("198.51.100.1")
    (pong, *_) = only(world.send(friend, friend.connection_ping(pingId="0123456789ab")), codec.PONG)
    assert pong.message["isConnection"] is True
    roomy = World()
    (pong, *_) = only(roomy.send(stranger, stranger.connection_ping(pingId="0123456789ab")), codec.PONG)
    assert pong.message["isConnection"] is True


def test_who_never_connects_gives_way() -> None:
    """Peers that answer heartbeats and have not become connected ones after ten seconds make room, connected ones do not."""
    world = World(peers=40, spare_peers=0)
    friends = world.connect_many(20)
    idle = [world.prove(Peer(f"198.51.101.{i + 1}")) for i in range(20)]
    assert fill(world, 10, 12) == 0, "within ten seconds nobody gives way"
    world.advance(11)
    assert fill(world, 60, 12, port=4000) > 5
    assert all(world.view(friend) is not None for friend in friends)
    assert sum(world.view(peer) is None for peer in idle) == world.count("peers_evicted") > 5
    inside.check(world.node)


def test_indexed_peers_are_never_evicted() -> None:
    sibling = Peer("203.0.113.6", 3511, peer_id=named("sibling"), alive=False)
    world = World(peers=16, siblings=(sibling,))
    fill(world, 100, 11)
    world.advance(2 * KEEP_ALIVE)
    fill(world, 64, 12)
    assert world.count("peers_evicted") > 0
    assert world.holder(sibling.peer_id) == sibling.endpoint


def test_one_peer_cannot_take_all_clusters() -> None:
    """Seventeen clusters of one peer are its newest sixteen."""
    world = World()
    peer = world.connect(Peer("198.51.100.7"))
    for i in range(100):
        peer.cluster = named(f"cluster {i}")
        world.send(peer, peer.connection_ping())
    gauges = world.node.gauges()
    assert gauges["memberships"] == 16
    assert gauges["clusters"] == 16
    view = world.view(peer)
    assert view is not None
    assert view["clusters"][0] == named("cluster 99")[:8].hex()
    inside.check(world.node)


def test_published_clusters_leave_room_for_members() -> None:
    """Packets of ever new clusters fill the cache, not the table by which peers of one cluster find each other."""
    world = World(peers=64, replicated_per_minute=0)
    attacker = world.connect(Peer("198.51.100.66"))
    for i in range(1000):
        world.send(attacker, attacker.publish(b"%d" % i, cluster_id=named(f"cluster {i}")))
    assert world.cached() > 500
    world.connect_many(20, network="203.0.113", cluster=named("others"))
    one = world.connect(Peer("198.51.100.7", cluster=named("ours")))
    two = world.connect(Peer("198.51.100.8", cluster=named("ours")))
    sent = only(world.send(one, one.join()), codec.INTRO)
    assert two.endpoint in {item.to for item in sent}
    assert world.count("cluster_table_full") > 0
    assert world.count("member_table_full") == 0
    inside.check(world.node)


def test_members_of_many_clusters_leave_room_for_others() -> None:
    """Twenty peers that join sixteen clusters each do not keep the members of other clusters apart."""
    world = World(peers=64)
    for i in range(20):
        greedy = world.connect(Peer(f"203.0.113.{i + 1}"))
        for j in range(32):
            greedy.cluster = named(f"cluster {i} {j}")
            world.send(greedy, greedy.connection_ping())
    for i in range(20):
        one = world.connect(Peer(f"198.51.100.{i + 1}", cluster=named(f"ours {i}")))
        two = world.connect(Peer(f"198.51.101.{i + 1}", cluster=named(f"ours {i}")))
        sent = only(world.send(one, one.join()), codec.INTRO)
        assert two.endpoint in {item.to for item in sent}, i
    inside.check(world.node)


def test_member_is_noted_as_soon_as_there_is_room() -> None:
    """A peer that came while the table of clusters was full is not forgotten: its next ping makes it a member."""
    world = World(peers=1)
    for i in range(40):
        greedy = world.connect(Peer(f"203.0.113.{i + 1}", alive=False))
        for j in range(16):
            greedy.cluster = named(f"cluster {i} {j}")
            world.send(greedy, greedy.connection_ping())
    peer = world.connect(Peer("198.51.100.7", cluster=named("ours")))
    assert world.count("cluster_table_full") > 0
    view = world.view(peer)
    assert view is not None
    assert view["clusters"] == []
    world.advance(6 * KEEP_ALIVE)
    world.send(peer, peer.connection_ping())
    view = world.view(peer)
    assert view is not None
    assert view["clusters"] == [named("ours")[:8].hex()]


def test_one_peer_cannot_take_all_sync_jobs() -> None:
    """Somebody who lacks everything, a thousand times, does not keep the next one from being served."""
    world = World(sync_jobs=16, cache_max_bytes=1_000_000, replicated_per_minute=0, sync_per_minute=0)
    source = world.connect(Peer("198.51.100.7"))
    for i in range(600):
        world.send(source, source.publish(b"packet %d" % i))
    world.advance(2)
    greedy = world.connect(Peer("198.51.100.66"))
    late = world.connect(Peer("198.51.100.8"))
    world.advance(1)
    for i in range(100):
        world.send(greedy, greedy.sync(codec.encode_summary("", named(f"{i}")[:20], [None] * 16)))
    late.received.clear()
    world.send(late, late.summary([]))
    world.advance(5)
    assert len({item.frame["packet_id"] for item in only(late.received, codec.PUBLISH)}) == 600


def test_gate_is_bounded() -> None:
    """More packets than the gate can remember: no memory grows, what is forgotten early is counted."""
    world = World(gate_entries=64, replicated_per_minute=0)
    peer = world.connect(Peer("198.51.100.7"))
    for i in range(1000):
        world.send(peer, peer.publish(b"packet %d" % i))
    assert world.count("gate_evicted") > 800
    assert world.count("in_publish") == 1000


def test_output_queue_is_bounded() -> None:
    """A batch that would send more than the queue holds: the rest is dropped and counted, and nothing is torn."""
    world = World(queue_datagrams=64)
    peers = world.connect_many(8)
    batch: list[tuple[bytes, int, int, int]] = []
    for i in range(300):
        peer = peers[i % 8]
        batch.append((peer.publish(b"packet %d" % i), number(peer.address), peer.port, 0))
    before = world.counters()
    out = inside.receive_batch(world.node, batch, world.mono_us, world.wall_ms)
    assert len(out) == 64
    changed = world.changed(before)
    assert changed["out_datagrams"] == 64
    assert changed["drop_queue_full"] > 0
    assert world.cached() == 300
    for data, *_ in out:
        assert codec.decode(data)["hops"] == 2
    inside.check(world.node)


def test_slab_is_bounded() -> None:
    """Answers that need memory of their own stop when it is used up, not behind it."""
    world = World(queue_datagrams=1024)
    batch: list[tuple[bytes, int, int, int]] = []
    for i in range(1000):
        peer = Peer(f"198.51.{i // 250}.{i % 250 + 1}")
        keys: dict[str, Any] = {"isReflection": True, "reflectionId": "0123456789ab", "probeExternalPort": 40000}
        batch.append((peer.ping(**keys) + bytes(300), number(peer.address), peer.port, 0))
    before = world.counters()
    out = inside.receive_batch(world.node, batch, world.mono_us, world.wall_ms)
    changed = world.changed(before)
    assert changed["drop_queue_full"] > 0
    assert len(out) == changed["out_datagrams"]
    assert len({place for *_, place in out}) == len(out), "two answers share one place"
    for data, *_ in out:
        codec.decode(data)


@pytest.mark.parametrize(
    "setting",
    [
        {"peers": 0},
        {"peers": 1_000_001},
        {"cache_max_bytes": 4095},
        {"queue_bytes": 4095},
        {"subclusters": 0},
        {"unpublished": 0},
        {"events": 0},
        {"challenges": 0},
        {"access_rules": 257},
        {"spare_peers": 65_537},
        {"clusters": 4_000_001},
        {"queue_datagrams": 63},
        {"keep_alive": 0.0},
        {"keep_alive": 3601.0},
        {"gate_entries": 2**28 + 1},
        {"peer_id": b"short"},
        {"seed": b"short"},
        {"indexed_peers": [(1, 1, b"short")]},
    ],
)
def test_sizes_that_cannot_be(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        World(**setting)


def test_the_smallest_tables_work() -> None:
    """What the simulator gives its many peers: full tables are counted, never overrun."""
    world = World(
        peers=8, spare_peers=0, clusters=4, gate_entries=16, meter_entries=8, parked=1, return_routes=8, sync_jobs=1,
        deferred_joins=1, queue_datagrams=64, queue_bytes=4096, cache_max_bytes=4096, subclusters=1, unpublished=1, challenges=1,
        events=1, access_rules=1, app_bytes=2048, attempts=1,
    )  # fmt: skip
    world.node.set_rules(prefixes=[("192.0.2.0", 24, False)])
    with pytest.raises(ValueError, match="at most 1 rules"):
        world.node.set_rules(prefixes=[("192.0.2.0", 24, False), ("192.0.3.0", 24, False)])
    world.node.join(named("cluster"), named("sub"))
    with pytest.raises(OSError, match="too many"):
        world.node.join(named("cluster"), named("another"))
    world.take()
    for i in range(3):
        if i:
            with pytest.raises(BlockingIOError):
                world.node.publish(Peer("198.51.100.1").publish(b"%d" % i, hops=0))
        else:
            assert world.node.publish(Peer("198.51.100.1").publish(b"%d" % i, hops=0)) == 0
        world.take()
    peers = [Peer(f"198.51.{i}.7", cluster=named(f"cluster {i % 7}"), subcluster=named("sub")) for i in range(20)]
    for peer in peers:
        world.peers[peer.endpoint] = peer
        world.send(peer, peer.ping(), follow=True)
        world.send(peer, peer.connection_ping(), follow=True)
        world.send(peer, peer.join())
        for n in range(20):
            world.send(peer, peer.publish(b"%d" % n + peer.peer_id * 25))
        inside.check(world.node)
    world.advance(5 * KEEP_ALIVE)
    inside.check(world.node)
    gauges = world.node.gauges()
    assert gauges["peers"] == 8
    assert gauges["clusters"] <= 4
    assert 0 < gauges["cache_bytes"] <= 4096
    assert world.count("drop_peers_full") == 12
    assert world.count("events_lost") > 0


def test_time_never_goes_back() -> None:
    """A driver whose clock jumps back does not reset quotas or gates."""
    world = World(replicated_per_minute=10)
    peer = world.connect(Peer("198.51.100.7"))
    for i in range(20):
        world.send(peer, peer.publish(b"packet %d" % i))
    world.mono_us = START_US - 500_000_000
    for i in range(20, 40):
        world.send(peer, peer.publish(b"packet %d" % i))
    assert world.cached() == 10
