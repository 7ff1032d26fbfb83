"""Packets that peers outside their cluster are asked to carry: each reaches all that these know, so their number is bounded
(`carried_per_minute`), live and by sync together, and who talks little is not crowded out."""

from __future__ import annotations

from srpnode.core import codec
from tests.core import inside
from tests.core.test_sync import late_joiner, put, some_ids
from tests.core.world import Peer, World, named, only

MINUTE = 120


def crowded() -> tuple[World, list[Peer], Peer]:
    """Ten peers of one cluster, and a proven peer of another that nobody else is in."""
    world = World(sync_per_minute=0, carried_per_minute=MINUTE)
    others = world.connect_many(10)
    return world, others, world.connect(Peer("203.0.113.66", cluster=named("flood")))


def reached(peers: list[Peer]) -> set[bytes]:
    return {item.frame["packet_id"] for peer in peers for item in only(peer.received, codec.PUBLISH)}


def test_who_talks_much_is_carried_half_of_it() -> None:
    world, others, flooder = crowded()
    for i in range(1000):
        world.send(flooder, flooder.publish(b"flood %d" % i))
    assert len(reached(others)) == MINUTE // 2 + 1
    assert world.count("carried") == MINUTE // 2 + 1
    assert world.count("carries_refused") == 1000 - MINUTE // 2 - 1
    assert len(inside.packets(world.node)) == 1000, "they are stored all the same"
    inside.check(world.node)


def test_it_comes_back_with_time() -> None:
    world, others, flooder = crowded()
    for second in range(90):
        for i in range(50 if second % 60 == 0 else 10):
            world.send(flooder, flooder.publish(b"flood %d %d" % (second, i)))
        world.advance(1)
    came_back = 90 * MINUTE // 60
    assert came_back + MINUTE // 2 - 3 <= len(reached(others)) <= came_back + MINUTE


def test_who_talks_little_is_carried_beside_a_flood() -> None:
    world, others, flooder = crowded()
    quiet = world.connect(Peer("198.51.100.77", cluster=named("a few")))
    for i in range(1000):
        world.send(flooder, flooder.publish(b"flood %d" % i))
    texts = [b"quiet %d" % i for i in range(10)]
    for text in texts:
        world.send(quiet, quiet.publish(text))
    assert {codec.sha256(text) for text in texts} <= reached(others)


def test_the_least_talkative_cannot_take_more_than_all() -> None:
    """Endpoints enough to publish little each: together they get what there is."""
    world, others, _ = crowded()
    for i in range(300):
        one = world.connect(Peer(f"203.0.114.{i % 250 + 1}", port=9000 + i, cluster=named(f"alone {i}")))
        world.send(one, one.publish(b"alone %d" % i))
    assert world.count("carried") == MINUTE
    assert world.count("carries_refused") == 300 - MINUTE
    assert len(reached(others)) <= MINUTE


def joins_at(peers: list[Peer]) -> int:
    return sum(len(only(peer.received, codec.JOIN)) for peer in peers)


def test_joins_of_strangers_are_carried_likewise() -> None:
    """Each joins another cluster; a publisher's packets are counted apart from them."""
    world, others, flooder = crowded()
    for i in range(1000):
        flooder.cluster = named(f"flood {i}")
        world.send(flooder, flooder.join())
    assert 32 <= joins_at(others) <= MINUTE // 2 + 1
    quiet = world.connect(Peer("198.51.100.77", cluster=named("a few")))
    before = joins_at(others)
    world.send(quiet, quiet.join())
    assert joins_at(others) == before + 1
    world.send(quiet, quiet.publish(b"quiet"))
    assert codec.sha256(b"quiet") in reached(others)
    inside.check(world.node)


def test_members_get_all_of_it() -> None:
    world, others, flooder = crowded()
    for i in range(1000):
        world.send(flooder, flooder.publish(b"flood %d" % i))
    texts = [b"event %d" % i for i in range(200)]
    for text in texts:
        world.send(others[0], others[0].publish(text))
    for text in texts:
        assert sum(codec.sha256(text) in reached([one]) for one in others[1:]) == 3


def test_sync_of_other_clusters_counts_each_packet_once() -> None:
    """However many late joiners are handed it, and in the end everybody has everything."""
    world = World(replicated_per_minute=0, sync_per_minute=0, carried_per_minute=MINUTE)
    ids = some_ids(300)
    put(world, ids, cluster=named("another"))
    peers = [late_joiner(world, f"198.51.100.{i + 1}", named("cluster")) for i in range(5)]
    for peer in peers:
        world.send(peer, peer.summary([]))
    world.advance(1)
    first = world.count("carried")
    assert MINUTE // 2 <= first <= MINUTE // 2 + 20
    world.advance(4)
    assert world.count("carried") <= first + 4 * MINUTE // 60 + 1
    for _ in range(6):
        for peer in peers:
            world.send(peer, peer.summary(sorted(reached([peer]))))
        world.advance(30)
    for peer in peers:
        assert reached([peer]) == set(ids)
    assert world.count("carried") == 300


def test_waiting_for_the_rest_gives_way() -> None:
    """All jobs wait to hand out other clusters' packets: a peer that lacks those of its own is served at once."""
    world = World(replicated_per_minute=0, sync_per_minute=0, carried_per_minute=MINUTE, sync_jobs=4)
    strange, own = some_ids(400, seed=1), some_ids(200, seed=2)
    put(world, strange, cluster=named("another"))
    put(world, own, cluster=named("cluster"))
    for i in range(4):
        waiting = late_joiner(world, f"203.0.113.{i + 1}", named(f"other {i}"))
        world.send(waiting, waiting.summary([]))
    world.advance(5)
    peer = late_joiner(world, cluster=named("cluster"))
    world.send(peer, peer.summary([]))
    world.advance(3)
    assert set(own) <= reached([peer])


def test_an_indexed_peer_keeps_room_for_what_has_members() -> None:
    """Of a cluster without members here it gets what stored packets may take, of others everything."""
    sibling = Peer("192.0.2.77", port=3511, peer_id=named("sibling"), cluster=None)
    world = World(indexed_peers=[(int.from_bytes(bytes([192, 0, 2, 77]), "big"), 3511, sibling.peer_id)])
    world.prove(sibling)
    members = world.connect_many(3)
    flooder = world.connect(Peer("203.0.113.66", cluster=named("flood")))
    for i in range(1000):
        world.send(flooder, flooder.publish(b"flood %d" % i))
    assert 512 <= len(reached([sibling])) <= 512 + 32
    texts = [b"event %d" % i for i in range(100)]
    for text in texts:
        world.send(members[0], members[0].publish(text))
    assert {codec.sha256(text) for text in texts} <= reached([sibling])


def test_no_bound() -> None:
    world, others, flooder = crowded()
    world.node.set_limits(sync_per_minute=0, carried_per_minute=0)
    for i in range(1000):
        world.send(flooder, flooder.publish(b"flood %d" % i))
    assert len(reached(others)) == 1000
