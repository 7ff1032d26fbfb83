"""Publish and the cache: handled once, stored, relayed to a few, ejected when full, let go in time (protocol 4)."""

from __future__ import annotations

import random
from typing import Any

import pytest

from srpnode.core import codec
from tests.core import inside
from tests.core.world import KEEP_ALIVE, NODE_ID, Peer, Sent, World, named, number, only


@pytest.fixture
def world() -> World:
    return World()


def same_but_hops(sent: Sent, original: bytes, hops: int) -> bool:
    """Whether a relayed datagram is the original with another hop count, and nothing else."""
    return sent.data == original[:11] + hops.to_bytes(4, "big") + original[15:]


def same_but_time(sent: Sent, original: bytes, hops: int, left_ms: tuple[int, int]) -> bool:
    """Likewise, and with so much of its time left."""
    same = sent.data[:19] + sent.data[23:] == original[:11] + hops.to_bytes(4, "big") + original[15:19] + original[23:]
    return same and left_ms[0] <= sent.frame["ttl"] <= left_ms[1]


# --- once -----------------------------------------------------------------------------------------------------------


def test_relayed_once_and_stored(world: World) -> None:
    sender, *others = world.connect_many(6)
    data = sender.publish(b"x" * 900, hops=1, clock=99, sig=b"s" * 64, usr2=named("key"))
    sent = world.send(sender, data)
    assert len(sent) == 3
    assert {item.to for item in sent} <= {peer.endpoint for peer in others}
    assert len({item.to for item in sent}) == 3
    assert all(same_but_hops(item, data, 2) for item in sent)
    assert inside.packets(world.node) == {codec.sha256(b"x" * 900): data}
    before = world.counters()
    for peer in [sender, *others]:
        for _ in range(20):
            assert world.send(peer, data) == []
    assert world.drops(before) == {"duplicate": 120}
    assert world.cached() == 1


def test_gate_lasts_six_keep_alives(world: World) -> None:
    """A packet that was ejected or expired is not taken for a new one before."""
    sender = world.connect_many(4)[0]
    data = sender.publish(b"short-lived", ttl=1000)
    assert len(world.send(sender, data)) == 3
    world.advance(5)
    assert world.cached() == 0
    for _ in range(5):
        world.advance(KEEP_ALIVE)
        assert world.send(sender, data) == []
    world.advance(KEEP_ALIVE)
    assert len(world.send(sender, data)) == 3


def test_cached_packet_is_not_new_after_the_gate(world: World) -> None:
    """The cache remembers longer than the gate."""
    sender = world.connect_many(4)[0]
    data = sender.publish(b"kept for hours")
    assert len(world.send(sender, data)) == 3
    world.advance(7 * KEEP_ALIVE)
    before = world.counters()
    assert world.send(sender, data) == []
    assert world.drops(before) == {"duplicate": 1}


def test_gate_does_not_come_back_after_weeks(world: World) -> None:
    """What a 32-bit clock of milliseconds would mix up: a packet seen 25, 40 and 49.7 days ago is forgotten."""
    sender = Peer("198.51.100.7")
    for days in (0, 25, 40, 49.7, 60):
        fresh = World(peers=8)
        fresh.connect(sender)
        data = sender.publish(b"once", ttl=1000)
        fresh.send(sender, data)
        fresh.advance(200)
        assert fresh.cached() == 0
        fresh.pass_time(days * 86400)
        fresh.tick()
        fresh.connect(sender)
        before = fresh.counters()
        fresh.send(sender, data)
        assert fresh.drops(before) == {}, f"after {days} days"


@pytest.mark.parametrize("length", [0, 1, 31])
def test_packet_id_of_another_length(world: World, length: int) -> None:
    sender = world.connect_many(3)[0]
    before = world.counters()
    assert world.send(sender, sender.publish(b"x", packet_id=b"i" * length)) == []
    assert world.drops(before) == {"packet_id": 1}
    assert world.cached() == 0


def test_not_back_to_its_sender(world: World) -> None:
    sender, other = world.connect_many(2)
    for i in range(50):
        assert [item.to for item in world.send(sender, sender.publish(b"%d" % i))] == [other.endpoint]


def test_nobody_there(world: World) -> None:
    """Stored all the same: who comes later gets it."""
    sender = world.connect(Peer("198.51.100.7"))
    assert world.send(sender, sender.publish(b"x")) == []
    assert world.cached() == 1


def test_all_copies_share_one_payload(world: World) -> None:
    """Fan-out does not copy: the datagrams of one packet have one place in memory, that of the one received."""
    sender, *_ = world.connect_many(6)
    batch = [(sender.publish(b"%d" % i), number(sender.address), sender.port, 0) for i in range(3)]
    out = inside.receive_batch(world.node, batch, world.mono_us, world.wall_ms)
    assert len(out) == 9
    assert len({place for *_, place in out}) == 3


# --- whom to --------------------------------------------------------------------------------------------------------


def test_friends_first(world: World) -> None:
    """The same subcluster, then the same cluster, strangers only for places left free."""
    cluster, sub = named("cluster"), named("sub")
    sender = world.connect(Peer("198.51.100.7", cluster=cluster, subcluster=sub))
    close = [world.connect(Peer(f"198.51.101.{i + 1}", cluster=cluster, subcluster=sub)) for i in range(2)]
    near = [world.connect(Peer(f"198.51.102.{i + 1}", cluster=cluster)) for i in range(1)]
    world.connect_many(30, network="198.51.103", cluster=named("another"))
    for i in range(20):
        sent = world.send(sender, sender.publish(b"%d" % i))
        assert {item.to for item in sent} == {peer.endpoint for peer in close + near}
        assert [item.to for item in sent][2] == near[0].endpoint


def test_strangers_fill_the_places_left(world: World) -> None:
    sender = world.connect(Peer("198.51.100.7"))
    friend = world.connect(Peer("198.51.100.8"))
    strangers = world.connect_many(10, network="198.51.101", cluster=named("another"))
    for i in range(10):
        targets = [item.to for item in world.send(sender, sender.publish(b"%d" % i))]
        assert len(targets) == 3
        assert targets[0] == friend.endpoint
        assert set(targets[1:]) <= {peer.endpoint for peer in strangers}


def test_every_member_has_its_turn(world: World) -> None:
    """A large cluster: the load goes round, nobody is left out."""
    sender, *others = world.connect_many(31)
    received: dict[object, int] = {peer.endpoint: 0 for peer in others}
    for i in range(100):
        for item in world.send(sender, sender.publish(b"%d" % i)):
            received[item.to] += 1
    assert sum(received.values()) == 300
    assert min(received.values()) >= 5
    assert max(received.values()) <= 15


def test_strangers_vary(world: World) -> None:
    sender = world.connect(Peer("198.51.100.7"))
    strangers = world.connect_many(20, network="198.51.101", cluster=named("another"))
    reached = {item.to for i in range(100) for item in world.send(sender, sender.publish(b"%d" % i))}
    assert reached == {peer.endpoint for peer in strangers}


def test_the_nearer_stranger_is_preferred(world: World) -> None:
    """Draft: peers are weighed by temporal distance, the time from ping to pong."""
    sender = world.connect(Peer("198.51.100.7"))
    strangers = world.connect_many(20, network="198.51.101", cluster=named("another"))
    near = {peer.endpoint for peer in strangers[:10]}
    for peer in [sender, *strangers]:
        peer.alive = False
    due = [item for item in world.advance(KEEP_ALIVE + 1) if item.type == codec.PING]
    assert len(due) == 21
    for item in sorted(due, key=lambda item: item.to not in near):
        peer = world.peers[item.to]
        world.pass_time(0 if item.to in near else 0.2)
        world.send(peer, peer.pong(item))
    count = {True: 0, False: 0}
    for i in range(200):
        for item in world.send(sender, sender.publish(b"%d" % i)):
            count[item.to in near] += 1
    assert count[True] > 1.5 * count[False] > 0


def test_one_indexed_peer_more() -> None:
    siblings = tuple(Peer(f"203.0.113.{i + 10}", 3511, peer_id=named(f"sibling {i}")) for i in range(2))
    world = World(siblings=siblings)
    world.advance(1)
    sender, *others = world.connect_many(6)
    reached = set()
    for i in range(20):
        targets = [item.to for item in world.send(sender, sender.publish(b"%d" % i))]
        assert len(targets) == 4
        assert set(targets[:3]) <= {peer.endpoint for peer in others}
        reached.add(targets[3])
    assert reached == {peer.endpoint for peer in siblings}


def test_the_indexed_peer_that_answers_is_preferred() -> None:
    """One that owes an answer gets packets only when there is no other."""
    siblings = tuple(Peer(f"203.0.113.{i + 10}", 3511, peer_id=named(f"sibling {i}")) for i in range(3))
    world = World(siblings=siblings)
    world.advance(1)
    sender = world.connect(Peer("198.51.100.7"))
    siblings[0].alive = siblings[1].alive = False
    world.advance(KEEP_ALIVE + 2)
    world.pass_time(1)
    targets = [item.to for i in range(20) for item in world.send(sender, sender.publish(b"%d" % i))]
    assert set(targets) == {siblings[2].endpoint}
    siblings[2].alive = False
    world.advance(KEEP_ALIVE)
    world.pass_time(1)
    targets = [item.to for i in range(20, 60) for item in world.send(sender, sender.publish(b"%d" % i))]
    assert set(targets) == {peer.endpoint for peer in siblings}


def test_peers_without_a_nat_type_get_nothing(world: World) -> None:
    """They are proven, and not ready for packets yet."""
    sender = world.connect(Peer("198.51.100.7"))
    world.prove(Peer("198.51.100.8"))
    assert world.send(sender, sender.publish(b"x")) == []


def test_silent_peers_get_nothing(world: World) -> None:
    sender = world.connect(Peer("198.51.100.7"))
    silent = world.connect(Peer("198.51.100.8"))
    silent.alive = False
    world.advance(4 * KEEP_ALIVE - 1)
    world.pass_time(2)
    assert [item.to for item in world.send(sender, sender.publish(b"x"))] == []


# --- a hub ----------------------------------------------------------------------------------------------------------


def members(world: World, count: int, **values: Any) -> list[Peer]:
    """So many connected members of one subcluster."""
    return [
        world.connect(Peer(f"198.{51 + i // 200}.100.{i % 200 + 1}", subcluster=named("sub"), **values)) for i in range(count)
    ]


def test_a_hub_sends_to_many_members(world: World) -> None:
    """Who is nobody's member knows who came a moment ago: the packet goes to all of a subcluster, up to publish_fan_out."""
    sender, *others = members(world, 60)
    world.connect_many(20, network="203.0.114", cluster=named("another"))
    sent = world.send(sender, sender.publish(b"x"))
    assert sorted(item.to for item in sent) == sorted(peer.endpoint for peer in others)
    others += members(world, 140)[60:]
    assert len({item.to for item in world.send(sender, sender.publish(b"y"))}) == 108


def test_a_hub_prefers_those_heard_last() -> None:
    world = World(publish_fan_out=10)
    sender, *others = members(world, 41)
    world.pass_time(1)
    fresh = others[5:40:4]
    for peer in fresh:
        world.send(peer, peer.ping())
    targets = [item.to for item in world.send(sender, sender.publish(b"x"))]
    assert len(targets) == 10
    assert set(targets) >= {peer.endpoint for peer in fresh}


def test_the_budget_of_a_hub() -> None:
    """Beyond fan_out_packets_per_second a packet goes to three members in turn, and a counter tells; the next second is a new one."""
    world = World(publish_fan_out=10, fan_out_packets_per_second=25)
    sender, *others = members(world, 31)
    world.advance(2)
    sent = [len(world.send(sender, sender.publish(b"%d" % i))) for i in range(8)]
    assert sent == [10, 10, 10, 3, 3, 3, 3, 3]
    assert world.count("fan_outs_narrowed") == 5
    world.advance(1)
    assert len(world.send(sender, sender.publish(b"later"))) == 10
    reached = {item.to for i in range(100) for item in world.send(sender, sender.publish(b"turn %d" % i))}
    assert reached == {peer.endpoint for peer in others}


def test_looking_for_members_uses_the_budget_too() -> None:
    """Members that do not answer cost a look each time and get nothing: that is bounded by the same budget."""
    world = World(publish_fan_out=10, fan_out_packets_per_second=25)
    sender, *others = members(world, 51)
    for peer in others:
        peer.alive = False
    world.advance(KEEP_ALIVE + 2)
    assert world.count("departures") == 0
    assert [world.send(sender, sender.publish(b"%d" % i)) for i in range(5)] == [[]] * 5
    assert world.count("fan_outs_narrowed") == 2


def test_no_budget_at_all() -> None:
    world = World(publish_fan_out=10, fan_out_packets_per_second=0)
    sender = members(world, 31)[0]
    assert {len(world.send(sender, sender.publish(b"%d" % i))) for i in range(100)} == {10}


@pytest.mark.parametrize("value", [0, 2, 121, 1 << 31])
def test_an_impossible_fan_out(value: int) -> None:
    with pytest.raises(ValueError, match="publish_fan_out: 3 to 120"):
        World(publish_fan_out=value)


def test_what_a_hub_gives_up_goes_to_few() -> None:
    """A packet that the cache gives up was sent to many before: one last time to three."""
    world = World()
    sender = members(world, 31)[0]
    assert len(world.send(sender, sender.publish(b"short-lived", ttl=1000))) == 30
    last = only(world.advance(5), codec.PUBLISH)
    assert world.cached() == 0
    assert len(last) == 3


# --- hops -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hops", [0, 1, 14, 15])
def test_hops_grow_by_one(world: World, hops: int) -> None:
    sender = world.connect_many(4)[0]
    assert [item.frame["hops"] for item in world.send(sender, sender.publish(b"x", hops=hops))] == [hops + 1] * 3


@pytest.mark.parametrize("hops", [16, 17, 255, 256, 2**32 - 1])
def test_too_many_hops_are_stored_not_relayed(world: World, hops: int) -> None:
    sender, asker = world.connect_many(2)
    data = sender.publish(b"x", hops=hops)
    assert world.send(sender, data) == []
    assert list(inside.packets(world.node).values()) == [data]
    (answer,) = world.send(asker, asker.query(codec.sha256(b"x"), named("q"), world.wall_ms))
    assert answer.frame["message"] == b"x"


# --- any packet -----------------------------------------------------------------------------------------------------


def test_fragments_are_packets_too(world: World) -> None:
    sender, other = world.connect_many(2)
    message = bytes(range(256)) * 20
    for part in codec.split(message, ts=1):
        data = sender.publish(
            part["message"],
            index=part["index"],
            packet_id=part["packet_id"],
            previous_id=part["previous_id"],
            next_id=part["next_id"],
        )
        (item,) = world.send(sender, data)
        assert item.to == other.endpoint
        assert same_but_hops(item, data, 2)
    assert world.cached() == 6


def test_packets_of_no_cluster_are_stored(world: World) -> None:
    sender, other = world.connect_many(2)
    (item,) = world.send(sender, sender.publish(b"x", cluster_id=None, subcluster_id=None))
    assert item.to == other.endpoint
    assert world.cached() == 1


def test_trailing_bytes_are_left_behind(world: World) -> None:
    """They are no part of the packet, and would be a way to carry anything."""
    sender, other = world.connect_many(2)
    data = sender.publish(b"x")
    (item,) = world.send(sender, data + b"trailing" * 100)
    assert item.to == other.endpoint
    assert same_but_hops(item, data, 2)
    assert list(inside.packets(world.node).values()) == [data]


def test_packet_cut_inside_its_signature_travels_as_it_is(world: World) -> None:
    sender, _ = world.connect_many(2)
    data = sender.publish(b"x", sig=b"s" * 64)[:-10]
    (item,) = world.send(sender, data)
    assert same_but_hops(item, data, 2)
    assert list(inside.packets(world.node).values()) == [data]


# --- full -----------------------------------------------------------------------------------------------------------


def fill(world: World, sender: Peer, size: int = 900) -> int:
    """Publishes until the cache ejects; how many packets it holds."""
    i = 0
    while world.count("cache_ejected") + world.count("cache_bucket_full") == 0:
        world.send(sender, sender.publish(b"%06d" % i + b"x" * (size - 6)))
        i += 1
        assert i < 100_000
    return world.cached()


def test_bytes_are_bounded() -> None:
    """The cache holds what it says, of any size of packets, and never more."""
    for size in (10, 300, 900, 1024):
        world = World(cache_max_bytes=200_000, replicated_per_minute=0)
        sender = world.connect(Peer("198.51.100.7"))
        held = fill(world, sender, max(size, 6))
        for i in range(200):
            world.send(sender, sender.publish(b"more %d" % i + b"x" * (size - 8)))
        gauges = world.node.gauges()
        assert gauges["cache_bytes"] <= 200_000
        assert gauges["cache_bytes"] > 100_000, (size, held)
        inside.check(world.node)


def distance(packet_id: bytes) -> int:
    """Of a packet from the node."""
    return int.from_bytes(packet_id, "big") ^ int.from_bytes(NODE_ID, "big")


def test_ejection_takes_the_farthest_of_the_old_and_multicasts_it_once() -> None:
    world = World(cache_max_bytes=100_000, replicated_per_minute=0, sync_per_minute=0)
    sender, *_ = world.connect_many(5)
    fill(world, sender)
    for i in range(300):
        held = list(inside.packets(world.node).items())
        before = world.counters()
        data = sender.publish(b"new %d" % i + b"x" * 890)
        sent = world.send(sender, data)
        gone = [(packet_id, old) for packet_id, old in held if packet_id not in inside.packets(world.node)]
        changed = world.changed(before)
        assert len(gone) == changed.get("cache_ejected", 0) + changed.get("cache_bucket_full", 0)
        old_ids = sorted((packet_id for packet_id, _ in held[: len(held) * 3 // 4 + 2]), key=distance)
        for packet_id, old in gone:
            assert packet_id in old_ids[-8:]
            copies = [item for item in sent if item.frame["packet_id"] == packet_id]
            assert 3 <= len(copies) <= 4
            assert all(same_but_time(item, old, 2, (codec.TTL_MS - 2000, codec.TTL_MS)) for item in copies)
        assert len([item for item in sent if item.frame["packet_id"] == codec.decode(data)["packet_id"]]) == 3
    inside.check(world.node)


def test_a_full_cache_holds_the_newest_and_the_nearest() -> None:
    """Three caches' worth goes by: a quarter of the room holds what came last, the rest what is nearest to the node of all the
    rest, but for a few that lie at the border."""
    world = World(cache_max_bytes=300_000, replicated_per_minute=0)
    sender = world.connect(Peer("198.51.100.7"))
    order = []
    for i in range(900):
        data = sender.publish(b"%d" % i + bytes(850))
        order.append(codec.decode(data)["packet_id"])
        world.send(sender, data)
    held = set(inside.packets(world.node))
    newest = order[-len(held) // 4 + 2 :]
    assert held.issuperset(newest)
    near = sorted(order[: -len(newest)], key=distance)[: len(held) - len(newest)]
    assert len(held.intersection(near)) >= 0.95 * len(near)
    assert set(inside.ids(world.node)) == set(order)
    inside.check(world.node)


def test_what_was_ejected_does_not_come_back() -> None:
    """Its id is known as long as it would have lived: sent again by whomever, it is no news."""
    world = World(cache_max_bytes=16_384, replicated_per_minute=0)
    sender, other = world.connect_many(2)
    first = sender.publish(b"first" + bytes(900), ttl=600_000)
    world.send(sender, first)
    for i in range(60):
        world.send(sender, sender.publish(b"%d" % i + bytes(300)))
    world.advance(300)
    for data in [sender.publish(b"%d" % i + bytes(300)) for i in range(60)] + [first]:
        before = world.counters()
        assert world.send(other, data) == []
        assert world.drops(before) == {"duplicate": 1}


def test_packets_near_the_node_take_no_more_than_their_number() -> None:
    """Somebody grinds ids that begin like ours: each of them puts out one packet at most, and what is newest stays."""
    world = World(cache_max_bytes=300_000, replicated_per_minute=0)
    sender = world.connect(Peer("198.51.100.7"))
    for i in range(600):
        world.send(sender, sender.publish(b"%d" % i + bytes(850)))
    rng = random.Random(4)
    for i in range(100):
        held = set(inside.packets(world.node))
        ground = NODE_ID[:1] + bytes([NODE_ID[1] ^ rng.randrange(16)]) + rng.randbytes(30)
        world.send(sender, sender.publish(b"near %d" % i + bytes(850), packet_id=ground))
        now = set(inside.packets(world.node))
        assert len(held - now) <= 1
    for i in range(50):
        data = sender.publish(b"after %d" % i + bytes(850))
        world.send(sender, data)
        assert codec.decode(data)["packet_id"] in inside.packets(world.node)
    inside.check(world.node)


def test_ejection_prefers_what_nobody_here_wants() -> None:
    """Of the farthest few, a packet whose cluster has no member here goes first."""
    world = World(cache_max_bytes=20_000, replicated_per_minute=0)
    sender = world.connect(Peer("198.51.100.7"))
    ours, theirs = named("cluster"), named("elsewhere")
    far = bytes([NODE_ID[0] ^ 0xFF])
    order = [far + bytes(30) + b"\2", far + bytes(30) + b"\1"]
    world.send(sender, sender.publish(b"ours" + bytes(900), cluster_id=ours, packet_id=order[1]))
    world.send(sender, sender.publish(b"theirs" + bytes(900), cluster_id=theirs, packet_id=order[0]))
    seen: list[bytes] = []
    for i in range(100):
        near = NODE_ID[:1] + bytes([i]) + bytes(30)
        world.send(sender, sender.publish(b"%d" % i + bytes(900), cluster_id=ours, packet_id=near))
        held = inside.packets(world.node)
        seen += [packet_id for packet_id in order if packet_id not in held and packet_id not in seen]
    assert seen == order


def test_large_packet_ejects_several_small_ones() -> None:
    world = World(cache_max_bytes=16_384, replicated_per_minute=0)
    sender, *_ = world.connect_many(5)
    fill(world, sender, 100)
    before = world.counters()
    sent = world.send(sender, sender.publish(b"x" * 1024, sig=b"s" * 64))
    changed = world.changed(before)
    gone = changed.get("cache_ejected", 0) + changed.get("cache_bucket_full", 0)
    assert gone > 3
    assert len(sent) <= 4 * (gone + 1)
    assert sum(len(item.data) for item in sent) <= 5 * 4 * 1421
    inside.check(world.node)


def test_ids_chosen_by_an_attacker_keep_chains_short() -> None:
    """Thousands of fragment ids that begin alike push each other out; other packets and the cost of a lookup stay."""
    world = World(replicated_per_minute=0)
    sender, attacker = world.connect_many(2)
    honest = [b"honest %d" % i for i in range(200)]
    for text in honest:
        world.send(sender, sender.publish(text))
    for i in range(3000):
        world.send(attacker, attacker.publish(b"%d" % i, packet_id=b"\xab\xcd\xef\x01" + named(f"{i}")[:28]))
    assert world.count("cache_bucket_full") > 2900
    held = inside.packets(world.node)
    assert all(codec.sha256(text) in held for text in honest)
    inside.check(world.node)


def test_ejected_packet_with_too_many_hops_is_not_multicast() -> None:
    world = World(cache_max_bytes=16_384, replicated_per_minute=0)
    sender, *_ = world.connect_many(5)
    for i in range(100):
        sent = world.send(sender, sender.publish(b"%d" % i + bytes(900), hops=16))
        assert sent == []
    assert world.count("cache_ejected") > 0


# --- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl_s", [1, 10, 63, 64, 65, 100, 1000, 21_600, 40_000, 4_000_000])
def test_expiry_with_one_last_multicast(ttl_s: int) -> None:
    """After its ttl, at most six hours, a packet is multicast once more and dropped."""
    for cache_bytes in (100_000, 2_000_000):  # a small and a large wheel of expiry
        world = World(cache_max_bytes=cache_bytes)
        sender, *_ = world.connect_many(4)
        data = sender.publish(b"x", ttl=ttl_s * 1000)
        assert len(world.send(sender, data)) == 3
        life = min(ttl_s, 21_600)
        sent = only(world.advance(life - 0.5), codec.PUBLISH)
        assert sent == []
        assert world.cached() == 1
        sent = only(world.advance(3.5), codec.PUBLISH)
        assert world.cached() == 0
        assert len(sent) == 3
        assert all(same_but_time(item, data, 2, (1, 1)) for item in sent)  # nowhere does it live anew
        assert world.count("cache_expired") == 1
        assert only(world.advance(100), codec.PUBLISH) == []


def test_ttl_of_zero(world: World) -> None:
    sender, *_ = world.connect_many(4)
    world.send(sender, sender.publish(b"x", ttl=0))
    world.advance(3)
    assert world.cached() == 0
    inside.check(world.node)


def test_expired_packet_with_too_many_hops_is_not_multicast(world: World) -> None:
    sender, *_ = world.connect_many(4)
    world.send(sender, sender.publish(b"x", ttl=5000, hops=16))
    assert only(world.advance(10), codec.PUBLISH) == []
    assert world.cached() == 0


def test_many_expire_in_bounded_steps(world: World) -> None:
    """A thousand packets whose time is over in the same second leave over several ticks, each once."""
    world.node.set_limits(replicated_per_minute=0, sync_per_minute=0)
    sender, *_ = world.connect_many(4)
    for i in range(1000):
        world.send(sender, sender.publish(b"%d" % i, ttl=5000))
    world.pass_time(10)
    left = world.cached()
    gone: list[Sent] = []
    for _ in range(200):
        sent = only(world.tick(), codec.PUBLISH)
        gone += sent
        assert left - world.cached() <= 64
        left = world.cached()
        world.pass_time(0.01)
    assert left == 0
    assert len(gone) == 3000
    assert len({item.frame["packet_id"] for item in gone}) == 1000
    inside.check(world.node)


def test_expiry_after_a_long_quiet_time(world: World) -> None:
    """The clock of expiry stood still while the cache was empty: hours later packets still live as long as they should."""
    sender, *_ = world.connect_many(4)
    for quiet_s in (100, 70_000, 200_000):
        world.advance(quiet_s)
        world.send(sender, sender.publish(b"after %d" % quiet_s, ttl=60_000))
        world.advance(55)
        assert world.cached() == 1
        world.advance(10)
        assert world.cached() == 0
        inside.check(world.node)


def test_configured_ttl() -> None:
    world = World(cache_ttl=100)
    sender, *_ = world.connect_many(4)
    world.send(sender, sender.publish(b"x"))
    world.advance(95)
    assert world.cached() == 1
    world.advance(10)
    assert world.cached() == 0
