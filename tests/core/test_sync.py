"""Sync: summaries are right, differences are found level by level, everybody who comes late is served (protocol 4, STATE_6)."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from srpnode.core import codec
from tests.core import inside
from tests.core.pair import Pair
from tests.core.world import NODE_ADDRESS, NODE_ID, START_MS, Peer, Sent, World, named, only

VECTORS = Path(__file__).parents[1] / "vectors" / "summaries.json"


@pytest.fixture
def world() -> World:
    return World(replicated_per_minute=0, sync_per_minute=0, carried_per_minute=0)


def put(world: World, ids: list[bytes], cluster: bytes | None = None, **fields: int) -> None:
    """Packets with these ids are in the cache; nothing was relayed."""
    source = world.prove(Peer("198.51.100.250"))
    for packet_id in ids:
        data = source.publish(packet_id.hex().encode(), packet_id=packet_id, hops=16, cluster_id=cluster, **fields)
        world.send(source, data)
    held = inside.packets(world.node)
    assert all(packet_id in held for packet_id in ids)


def some_ids(count: int, prefix: str = "", seed: int = 0) -> list[bytes]:
    """Random packet ids that start with the prefix."""
    rng = random.Random(f"{prefix} {seed}")
    return [bytes.fromhex((prefix + rng.randbytes(32).hex())[:64]) for _ in range(count)]


def timeless(data: bytes) -> bytes:
    """A packet without its ttl."""
    return data[:19] + data[23:]


def late_joiner(world: World, address: str = "198.51.100.7", cluster: bytes | None = None) -> Peer:
    peer = world.connect(Peer(address, cluster=cluster))
    world.advance(1)
    peer.received.clear()
    return peer


def summary_of(sent: list[Sent]) -> tuple[str, bytes, list[bytes | None]]:
    (item,) = only(sent, codec.SYNC)
    return codec.decode_summary(item.frame["message"])


# --- summaries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 17, 100, 1000])
def test_offered_summary(world: World, count: int) -> None:
    """To a peer that connects: the summary of the whole cache, with a time six hours back."""
    ids = some_ids(count)
    put(world, ids)
    peer = world.connect(Peer("198.51.100.7"))
    sent = only(world.advance(1), codec.SYNC)
    assert [item.to for item in sent] == [peer.endpoint]
    assert summary_of(sent) == ("", *codec.summarize(ids))
    frame = sent[0].frame
    assert START_MS - 21_600_000 <= int(frame["usr4"]) <= START_MS - 21_600_000 + 3000
    assert frame["packet_id"] == codec.sha256(codec.UNSET, frame["message"], codec.UNSET)


@pytest.mark.parametrize("prefix", ["", "a", "a0", "a0b", "a0b1", "a0b1c", "a0b1c2d3e4f5"])
@pytest.mark.parametrize("cache_bytes", [16_384, 1_000_000, 20_000_000])
def test_summaries_below_every_prefix(prefix: str, cache_bytes: int) -> None:
    """Whatever level is asked for: the answer is one level down, and what codec.summarize() says of the ids."""
    world = World(cache_max_bytes=cache_bytes, replicated_per_minute=0)
    ids = [*some_ids(20, prefix), *some_ids(20, seed=9)]
    put(world, ids)
    peer = late_joiner(world)
    _, buckets = codec.summarize(ids, prefix)
    theirs = [named("differs")[:20] if bucket is not None else None for bucket in buckets]
    sent = world.send(peer, peer.sync(codec.encode_summary(prefix, named("differs")[:20], theirs)))
    for item in only(sent, codec.SYNC):
        below, answer, children = codec.decode_summary(item.frame["message"])
        assert below[:-1] == prefix
        assert (answer, children) == codec.summarize(ids, below)
    asked = {codec.decode_summary(item.frame["message"])[0] for item in only(sent, codec.SYNC)}
    assert asked == {prefix + f"{digit:x}" for digit in range(16) if buckets[digit] is not None}
    # The same again after changes: nothing of the old hashes is left.
    more = some_ids(10, prefix, seed=1)
    put(world, more)
    world.pass_time(2)
    for item in only(world.send(peer, peer.sync(codec.encode_summary(prefix, named("differs")[:20], theirs))), codec.SYNC):
        below, answer, children = codec.decode_summary(item.frame["message"])
        assert (answer, children) == codec.summarize([*ids, *more], below)
    inside.check(world.node)


@pytest.mark.skipif(not VECTORS.exists(), reason="no vectors in this tree")
def test_vectors_of_the_reference() -> None:
    """What the reference's own code says of sets of ids is what a node says of its cache, and what a node agrees with."""
    for vector in json.loads(VECTORS.read_text())["vectors"]:
        ids = [bytes.fromhex(text) for text in vector["ids"]]
        world = World(replicated_per_minute=0)
        put(world, ids)
        peer = late_joiner(world)
        assert world.node.gauges()["summary"] == next(row["hash"] for row in vector["summaries"] if row["prefix"] == "")
        for row in vector["summaries"]:
            before = world.counters()
            assert world.send(peer, peer.sync(bytes.fromhex(row["encoded"]))) == []
            assert world.drops(before) == {}
            # One bucket's hash changed: only there we go on.
            buckets = [bucket and bytes.fromhex(bucket) for bucket in row["buckets"]]
            for digit, bucket in enumerate(buckets):
                if bucket is None:
                    continue
                other = [*buckets]
                other[digit] = bytes(20)
                sent = world.send(peer, peer.sync(codec.encode_summary(row["prefix"], bytes(20), other)))
                assert summary_of(sent)[0] == row["prefix"] + f"{digit:x}"


def test_summary_follows_every_change(world: World) -> None:
    """Insertion, ejection and expiry: the summary that pongs carry is right within a second."""
    world = World(cache_max_bytes=200_000, replicated_per_minute=0)
    rng = random.Random(5)
    source = world.connect(Peer("198.51.100.250"))
    for round_ in range(30):
        for i in range(rng.randrange(60)):
            text = b"%d %d" % (round_, i) + bytes(rng.randrange(900))
            world.send(source, source.publish(text, ttl=rng.randrange(1000, 60_000), hops=16))
        world.advance(1)
        (pong,) = world.send(source, source.ping())
        assert pong.message["cacheSummaryHash"] == codec.summarize(list(inside.packets(world.node)))[0].hex()
        inside.check(world.node)
        world.advance(rng.random() * 10)


def test_equal_summaries_end_it(world: World) -> None:
    ids = some_ids(100)
    put(world, ids)
    peer = late_joiner(world)
    for prefix in ("", "a", "ab"):
        assert world.send(peer, peer.summary(ids, prefix)) == []


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0",
        b"\0" + bytes(19),
        b"\0" + bytes(20) + b"\0",
        b"\0" + bytes(20) + b"\0" + bytes(19),
        b"\0" + bytes(20) + b"\x10" + bytes(20),
        b"\x41" + bytes(33) + bytes(20),
        b"\xff" + bytes(200),
        b"\x01" + bytes(20),
    ],
)
def test_messages_that_are_no_summaries(world: World, message: bytes) -> None:
    put(world, some_ids(10))
    peer = late_joiner(world)
    before = world.counters()
    assert world.send(peer, peer.sync(message)) == []
    assert world.drops(before) == {"summary": 1}


@pytest.mark.parametrize("digits", [0, 1, 2, 31, 32, 62, 63, 64])
def test_prefixes_of_every_length(world: World, digits: int) -> None:
    """Down to whole ids: answered or not, nothing breaks and nothing recurs for ever."""
    ids = some_ids(20)
    put(world, ids)
    peer = late_joiner(world)
    prefix = ids[0].hex()[:digits]
    sent = world.send(peer, peer.sync(codec.encode_summary(prefix, bytes(20), [bytes(20)] * 16)))
    for item in only(sent, codec.SYNC):
        assert len(codec.decode_summary(item.frame["message"])[0]) == digits + 1
    assert len(sent) == (16 if digits < 64 else 0)


# --- bringing up to date --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 8, 9, 100, 700])
def test_late_joiner_gets_everything(world: World, count: int) -> None:
    """Each packet once, as it stands in the cache, with the time that it has left."""
    ids = some_ids(count)
    put(world, ids)
    peer = late_joiner(world)
    world.send(peer, peer.summary([]))
    world.advance(5)
    packets = [item for item in peer.received if item.type == codec.PUBLISH]
    held = inside.packets(world.node)
    assert sorted(timeless(item.data) for item in packets) == sorted(timeless(data) for data in held.values())
    assert all(codec.TTL_MS - 8000 < item.frame["ttl"] <= codec.TTL_MS for item in packets)
    assert len(held) == count


def test_several_late_joiners_at_once(world: World) -> None:
    """They all send the same bytes; the reference serves the first of them alone."""
    ids = some_ids(300)
    put(world, ids)
    peers = [late_joiner(world, f"198.51.100.{i + 1}") for i in range(12)]
    for peer in peers:
        peer.received.clear()
    for peer in peers:
        world.send(peer, peer.summary([]))
    world.advance(5)
    for peer in peers:
        got = [item.frame["packet_id"] for item in only(peer.received, codec.PUBLISH)]
        assert sorted(got) == sorted(ids)


def test_repeated_summary_is_gated_for_a_moment(world: World) -> None:
    put(world, some_ids(5))
    peer = late_joiner(world)
    data = peer.summary([])
    assert len(world.send(peer, data)) == 5
    before = world.counters()
    assert world.send(peer, data) == []
    assert world.drops(before) == {"duplicate": 1}
    world.pass_time(1.1)
    assert len(world.send(peer, data)) == 5


def test_own_cluster_first(world: World) -> None:
    """A late joiner gets its own cluster's packets first, in the order of their arrival, then the rest."""
    ours, theirs = named("cluster"), named("another")
    strange, own, strange2 = some_ids(200, seed=1), some_ids(50, seed=2), some_ids(200, seed=3)
    put(world, strange, cluster=theirs)
    put(world, own, cluster=ours)
    put(world, strange2, cluster=theirs)
    peer = late_joiner(world, cluster=ours)
    world.send(peer, peer.summary([]))
    world.advance(5)
    got = [item.frame["packet_id"] for item in only(peer.received, codec.PUBLISH)]
    assert got[:50] == own
    assert sorted(got[50:]) == sorted(strange + strange2)


def test_only_missing_packets_are_sent(world: World) -> None:
    """What lies in buckets that the peer has too is compared one level down; it asks on, and gets only what it lacks."""
    ids = some_ids(400)
    put(world, ids)
    peer = late_joiner(world)
    held = set(ids[:200])
    questions = [""]
    asked = 0
    while questions:
        prefix = questions.pop(0)
        asked += 1
        assert asked < 500
        sent = world.send(peer, peer.summary(sorted(held), prefix))
        questions += [codec.decode_summary(item.frame["message"])[0] for item in only(sent, codec.SYNC)]
    world.advance(3)
    got = [item.frame["packet_id"] for item in only(peer.received, codec.PUBLISH)]
    assert set(got) == set(ids) - held
    assert len(got) == 200


def test_how_one_asks(world: World) -> None:
    """Where we lack what the other side has, our summary goes there, even an empty one."""
    peer = late_joiner(world)
    sent = world.send(peer, peer.summary(some_ids(3, "a") + some_ids(2, "7")))
    assert sorted(codec.decode_summary(item.frame["message"])[0] for item in sent) == ["7", "a"]
    for item in sent:
        prefix, digest, buckets = codec.decode_summary(item.frame["message"])
        assert (digest, buckets) == (codec.EMPTY_SUMMARY, [None] * 16)
        assert item.frame["message"] == codec.encode_summary(prefix, digest, buckets)


def test_pace(world: World) -> None:
    """Spread over the first second or two: a peer that takes some 700 datagrams a second loses none."""
    world.node.set_limits(replicated_per_minute=0, sync_per_minute=0, carried_per_minute=0)
    put(world, some_ids(700))
    peer = late_joiner(world)
    world.send(peer, peer.summary([]))
    counts = []
    for _ in range(30):
        world.advance(0.1)
        counts.append(len(only(peer.received, codec.PUBLISH)))
        peer.received.clear()
    assert sum(counts) == 700
    assert max(counts) <= 44


def live_and_stored(**limits: int) -> tuple[World, Peer, Peer]:
    """1500 packets of its cluster in the cache, a member that came late, and a member that publishes."""
    world = World(cache_max_bytes=4_000_000, replicated_per_minute=0)
    put(world, some_ids(1500), cluster=named("cluster"))
    publisher = world.connect(Peer("198.51.100.9"))
    peer = late_joiner(world, cluster=named("cluster"))
    world.node.set_limits(**limits)
    return world, publisher, peer


def minutes_of(world: World, peer: Peer, minutes: int, step: float = 1.0) -> list[int]:
    """Publishes that reach the peer in each of so many minutes of its own; it never stops asking."""
    counts = []
    for minute in range(minutes):
        peer.received.clear()
        for i in range(round(60 / step)):
            world.send(peer, peer.sync(codec.encode_summary("", named(f"{minute} {i}")[:20], [None] * 16)))
            world.advance(step)
        counts.append(len(only(peer.received, codec.PUBLISH)))
    return counts


@pytest.mark.parametrize("ask_after_s", [0, 25, 55])
def test_sync_keeps_to_its_share_of_what_a_receiver_takes(ask_after_s: int) -> None:
    """Whatever is asked for and however often: in no minute of the receiver more than its share, the minutes being nobody's in
    common; in the end everything."""
    world, _, peer = live_and_stored()
    world.advance(ask_after_s)
    counts = minutes_of(world, peer, 4)
    assert counts[0] == 512
    assert max(counts) <= 512
    assert min(counts[:3]) >= 300
    assert world.count("drop_sync_share") > 0
    assert sum(counts) >= 1500


def test_live_packets_go_while_sync_waits() -> None:
    """A late joiner that gets all its share of stored packets gets every live packet of its cluster as well."""
    world, publisher, peer = live_and_stored()
    world.send(peer, peer.summary([]))
    world.advance(20)
    assert world.count("drop_sync_share") > 0
    live = [b"live %d" % i for i in range(400)]
    for text in live:
        world.send(publisher, publisher.publish(text))
    got = {item.frame["packet_id"] for item in only(peer.received, codec.PUBLISH)}
    assert {codec.sha256(text) for text in live} <= got


def test_sync_stops_where_live_packets_use_the_quota() -> None:
    """What the receiver would drop above its quota is not sent."""
    world, publisher, peer = live_and_stored()
    for i in range(1000):
        world.send(publisher, publisher.publish(b"live %d" % i))
    peer.received.clear()
    world.send(peer, peer.summary([]))
    world.advance(5)
    assert len(only(peer.received, codec.PUBLISH)) <= 23
    assert world.count("drop_sync_share") > 0


def test_other_clusters_take_no_more_than_half_of_a_share() -> None:
    """Somebody floods a cluster without members here: strangers are asked to carry it, each within its share."""
    world, _, peer = live_and_stored(replicated_per_minute=0, carried_per_minute=0)
    flooder = world.connect(Peer("203.0.113.66", cluster=named("flood")))
    peer.received.clear()
    for i in range(3000):
        world.send(flooder, flooder.publish(b"flood %d" % i))
    assert len(only(peer.received, codec.PUBLISH)) == 256
    assert world.count("drop_stranger_share") > 0


def test_forged_summaries_cost_their_victim_no_more_than_a_share() -> None:
    """Summaries that carry a proven peer's endpoint, a thousand a second: what it is sent for them is bounded."""
    world, _, victim = live_and_stored()
    victim.received.clear()
    rng = random.Random(3)
    for second in range(20):
        for i in range(1000):
            prefix = f"{rng.randrange(4096):03x}"[: rng.randrange(4)]
            buckets = [rng.choice([None, bytes(20)]) for _ in range(16)]
            forged = victim.sync(codec.encode_summary(prefix, named(f"{second} {i}")[:20], buckets))
            world.send(victim, forged)
        world.advance(1)
    packets, summaries = only(victim.received, codec.PUBLISH), only(victim.received, codec.SYNC)
    assert len(packets) <= 512
    assert len(summaries) <= 2048
    assert world.count("drop_sync_summaries") > 0


def test_peer_that_leaves_in_the_middle(world: World) -> None:
    """Its job ends with it; nothing more is sent there."""
    world.node.set_limits(replicated_per_minute=0, sync_per_minute=100, carried_per_minute=0)
    put(world, some_ids(700))
    peer = late_joiner(world)
    world.send(peer, peer.summary([]))
    world.advance(1)
    assert world.node.gauges()["sync_jobs"] == 1
    peer.alive = False
    world.advance(160)
    assert world.view(peer) is None
    assert world.node.gauges()["sync_jobs"] == 0
    inside.check(world.node)


@pytest.mark.parametrize("seed", range(6))
def test_packets_that_go_while_they_are_sent(seed: int) -> None:
    """Expiry and ejection take packets away in the middle of a job: what is sent is a whole packet of the cache, each at most
    once more, and what stays is sent."""
    rng = random.Random(seed)
    world = World(replicated_per_minute=0, cache_max_bytes=300_000, sync_per_minute=0)
    source = world.prove(Peer("198.51.100.250"))
    everything: set[bytes] = set()

    def publish(count: int, ttl: int) -> None:
        for _ in range(count):
            text = rng.randbytes(rng.choice([8, 60, 300, 900]))
            data = source.publish(text, hops=16, ttl=ttl, cluster_id=named(rng.choice(["cluster", "cluster", "another"])))
            everything.add(timeless(data))
            world.send(source, data)

    for _ in range(6):
        publish(30, rng.choice([3000, 3000, 4000, 3_600_000]))
    peer = late_joiner(world, cluster=named("cluster"))
    world.send(peer, peer.summary([]))
    for _ in range(60):
        world.advance(0.1)
        publish(rng.choice([0, 0, 5, 40]), rng.choice([1000, 3_600_000]))
        inside.check(world.node)
    got = [timeless(item.data) for item in only(peer.received, codec.PUBLISH)]
    assert set(got) <= everything
    assert len(got) > 50


def test_last_sent_and_the_next_are_ejected_together() -> None:
    """Their places are free, and their blocks another packet's: the job goes on with what is left of the cluster."""
    world = World(replicated_per_minute=0, cache_max_bytes=20_000, sync_per_minute=0)  # 126 blocks of 160 bytes
    source = world.connect(Peer("198.51.100.250"))
    blocks = [2, 2, 1, 2, 7, 2, *[2] * 53, 3]
    digit = NODE_ID[0] >> 4 ^ 15  # what is ejected is farthest from the node
    first = some_ids(5, f"{NODE_ID[0] ^ 0xFF:02x}") + some_ids(15, f"{NODE_ID[0] ^ 0xF0:02x}")
    near = NODE_ID.hex()[0]
    for i, (size, packet_id) in enumerate(zip(blocks, first + some_ids(20, near) + some_ids(20, f"{int(near, 16) ^ 1:x}"), strict=True)):
        data = source.publish(b"%02d" % i + bytes(160 * size - 148 - 10), packet_id=packet_id, usr1=None, hops=16)
        assert (len(data) + 159) // 160 == size
        world.send(source, data)
    assert world.cached() == len(blocks)
    peer = late_joiner(world, cluster=named("cluster"))
    world.send(peer, peer.sync(codec.encode_summary("", bytes(20), [None if i == digit else bytes(20) for i in range(16)])))
    peer.received.clear()
    world.tick()
    sent = [item.frame["packet_id"] for item in peer.received]
    assert sent == first[:4]
    world.send(source, source.publish(bytes(1024), sig=bytes(64), usr2=bytes(32), usr3=bytes(32), usr4=bytes(32), hops=16))
    assert world.count("cache_ejected") == 5
    held = inside.packets(world.node)
    peer.received.clear()
    world.advance(3)
    got = [timeless(item.data) for item in only(peer.received, codec.PUBLISH)]
    assert got == [timeless(held[packet_id]) for packet_id in first[5:]]


def test_work_for_summaries_is_bounded() -> None:
    """A peer that asks for summaries without end gets a share of the work of a second, and the others theirs."""
    world = World(replicated_per_minute=0, control_per_minute=0)
    put(world, some_ids(800))
    greedy, modest = late_joiner(world, "198.51.100.66"), late_joiner(world, "198.51.100.7")
    answered = 0
    for i in range(3000):
        data = greedy.sync(codec.encode_summary("ab", i.to_bytes(20, "big"), [bytes(20)] * 16))
        answered += bool(world.send(greedy, data))
    assert world.count("drop_sync_work") > 0
    assert answered < 3000
    assert only(world.send(modest, modest.sync(codec.encode_summary("cd", bytes(20), [bytes(20)] * 16))), codec.SYNC) != []


def test_a_comparison_of_many_ids_is_spread_over_time() -> None:
    """Sixteen summaries of all ids, at once, would keep everybody else waiting: those that cost much come in steps of 10 ms, peer by
    peer, and each peer has one comparison wait."""
    world = World(replicated_per_minute=0, sync_per_minute=0, sync_summaries_per_minute=0, cache_max_bytes=20_000_000)
    ids = some_ids(6000)
    put(world, ids)
    peers = [late_joiner(world, f"198.51.100.{i + 1}") for i in range(3)]
    put(world, some_ids(1000, seed=1))
    differs = codec.encode_summary("", bytes(20), [bytes(20)] * 16)

    def told(peer: Peer) -> list[str]:
        return [codec.decode_summary(item.frame["message"])[0] for item in only(peer.received, codec.SYNC)]

    for peer in peers:
        world.send(peer, peer.sync(differs))
    at_once = [len(told(peer)) for peer in peers]
    assert all(1 <= count <= 2048 // (7000 // 16) + 2 for count in at_once)
    before = world.counters()
    again = codec.encode_summary("", bytes(19) + b"1", [bytes(20)] * 16)
    world.send(peers[0], peers[0].sync(again))
    assert world.drops(before) == {"sync_jobs": 1}
    steps = 0
    while len(told(peers[-1])) < 16:
        world.advance(0.01)
        inside.check(world.node)
        steps += 1
        assert steps < 100
    assert steps >= 2
    assert [sorted(set(told(peer))) for peer in peers] == [[f"{digit:x}" for digit in range(16)]] * 3


def test_a_comparison_ends_with_the_proof_of_its_peer() -> None:
    world = World(replicated_per_minute=0, sync_summaries_per_minute=0, cache_max_bytes=20_000_000)
    put(world, some_ids(6000))
    first = late_joiner(world, "198.51.100.1")
    put(world, some_ids(1000, seed=1))
    world.send(first, first.sync(codec.encode_summary("", bytes(20), [bytes(20)] * 16)))
    told = len(only(first.received, codec.SYNC))
    assert told < 16
    world.pass_time(400)
    world.tick()
    assert len(only(first.received, codec.SYNC)) == told
    inside.check(world.node)


@pytest.mark.parametrize("greedy_peers", [20, 150])
def test_a_late_joiner_is_served_in_a_storm(greedy_peers: int) -> None:
    """So many proven peers ask without end, for summaries and for everything, at more than twice what the node does: its work
    stays within a second's, each gets its share, and who joins in the middle gets what it lacks."""
    world = World(control_per_minute=0, replicated_per_minute=0, peers=1024, sync_jobs=16)
    ids = some_ids(400)
    put(world, ids, cluster=named("cluster"))
    world.node.set_limits()
    greedy = [late_joiner(world, f"203.0.{i // 200}.{i % 200 + 1}", named("cluster")) for i in range(greedy_peers)]
    rng = random.Random(7)

    def storm(second: int) -> None:
        for i in range(90_000 // greedy_peers):
            for peer in rng.sample(greedy, 4):
                nothing = codec.encode_summary("", named(f"{second} {i}")[:20], [None] * 16)
                differs = codec.encode_summary(f"{i % 16:x}", named(f"{second} {i}")[:20], [bytes(20)] * 16)
                world.send(peer, peer.sync(nothing if i % 16 == 0 else differs))

    for second in range(3):
        storm(second)
        world.advance(1)
    peer = late_joiner(world, cluster=named("cluster"))
    before = world.counters()
    got: set[bytes] = set()
    for second in range(3, 12):
        world.send(peer, peer.summary(sorted(got)))
        storm(second)
        world.advance(1)
        got |= {item.frame["packet_id"] for item in only(peer.received, codec.PUBLISH)}
    assert got == set(ids)
    assert world.changed(before).get("out_sync", 0) <= 9 * (1_000_000 // 32)
    assert world.count("drop_sync_work") + world.count("drop_sync_summaries") > 10_000
    for one in greedy:
        assert len(only(one.received, codec.PUBLISH)) <= 512
    inside.check(world.node)


# --- two nodes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only_one", "common", "only_two"),
    [
        (0, 0, 0), (1, 0, 0), (0, 0, 1), (1, 0, 1), (5, 0, 5), (0, 50, 0), (3, 50, 3), (40, 40, 40), (300, 0, 300),
        (300, 300, 300), (0, 300, 300), (700, 1, 1), (1, 500, 0),
    ],
)  # fmt: skip
def test_two_nodes_converge(only_one: int, common: int, only_two: int) -> None:
    """Whatever each holds, soon both hold everything, and their summaries say the same."""
    pair = Pair(replicated_per_minute=0, sync_per_minute=0)
    texts = [b"packet %d" % i for i in range(only_one + common + only_two)]
    pair.put(pair.one, texts[: only_one + common])
    pair.put(pair.two, texts[only_one:])
    pair.advance(8)
    one, two = pair.caches()
    assert one == two == {codec.sha256(text) for text in texts}
    assert pair.equal()
    # Each packet that one side lacked crossed once; what both had, never.
    crossed = [item.frame["packet_id"] for item in only(pair.traffic, codec.PUBLISH)]
    lacking = {codec.sha256(text) for text in texts[:only_one] + texts[only_one + common :]}
    assert set(crossed) == lacking
    assert len(crossed) <= 2 * len(lacking)
    for world in pair.worlds:
        inside.check(world.node)


def test_packets_below_one_prefix_converge() -> None:
    """Ids that begin alike for many digits: the recursion goes as deep as it must."""
    pair = Pair(replicated_per_minute=0, sync_per_minute=0)
    ids = some_ids(20, "abcdef0123456789")
    put(pair.one, ids[:12])
    put(pair.two, ids[8:])
    pair.advance(10)
    assert pair.equal()
    assert len(pair.caches()[0]) == 20


def test_convergence_within_the_default_rates() -> None:
    """With the quotas that every node has, more packets than a minute allows take more than a minute, and arrive."""
    pair = Pair(cache_max_bytes=4_000_000)
    source = Peer("198.51.100.250")
    pair.one.node.set_limits(replicated_per_minute=0)
    pair.put(pair.one, [b"packet %d" % i for i in range(2500)])
    pair.one.node.set_limits()
    assert pair.one.view(source) is not None
    for _ in range(14):
        pair.advance(31, step=0.1)
        if pair.equal():
            break
    assert pair.equal(), [len(ids) for ids in pair.caches()]


def test_wall_clock_of_the_other_side_does_not_matter(world: World) -> None:
    """The since-time that a summary carries is not looked at: clocks of clients are wrong."""
    put(world, some_ids(5))
    for i, wall_ms in enumerate((0, START_MS + 10**10, 1)):
        peer = late_joiner(world, f"198.51.100.{i + 1}")
        assert len(world.send(peer, peer.summary([], wall_ms=wall_ms))) == 5
        assert peer.received[0].local == NODE_ADDRESS
