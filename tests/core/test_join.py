"""Join: introductions in pairs, friends first, relayed on to others (protocol 4 and 6, STATE_5)."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from srpnode.core import codec
from tests.core import inside
from tests.core.world import KEEP_ALIVE, NODE_ID, Peer, Sent, World, named, number, only

HARD, EASY = (5, 13, 21, 29), (7, 15, 23, 31)


@pytest.fixture
def world() -> World:
    return World()


def introduced(sent: list[Sent], joiner: Peer) -> list[tuple[str, int]]:
    """Whom the joiner was introduced to, in order. Fails when an introduction is not one of a pair side by side."""
    intros = only(sent, codec.INTRO)
    assert len(intros) % 2 == 0
    others = []
    for about_joiner, about_other in itertools.batched(intros, 2) if hasattr(itertools, "batched") else pairs(intros):
        assert about_other.to == joiner.endpoint
        other = (about_other.message["address"], about_other.message["port"])
        assert about_joiner.to == other
        assert (about_joiner.message["address"], about_joiner.message["port"]) == joiner.endpoint
        others.append(other)
    return others


def pairs(items: list[Sent]) -> list[tuple[Sent, Sent]]:
    return list(zip(items[::2], items[1::2], strict=True))


# --- introductions --------------------------------------------------------------------------------------------------


def test_introduction(world: World) -> None:
    """Everything that both sides are told."""
    other = world.connect(Peer("198.51.100.8", nat_type=7))
    joiner = world.connect(Peer("198.51.100.7", nat_type=15, subcluster=named("sub")))
    world.pass_time(1.234)
    sent = world.send(joiner, joiner.join(clock=5))
    assert introduced(sent, joiner) == [other.endpoint]
    for item, about in zip(sent, (joiner, other), strict=True):
        assert item.message == {
            "requesterPeerId": about.peer_id.hex(),
            "responderPeerId": NODE_ID.hex(),
            "isRendezvous": False,
            "natType": about.nat_type,
            "address": about.address,
            "port": about.port,
        }
        frame = item.frame
        assert frame["hops"] == 2
        assert frame["clock"] == 1
        assert frame["cluster_id"] == joiner.cluster
        assert frame["subcluster_id"] == joiner.subcluster
        assert frame["usr1"] == str(world.wall_ms).encode()
        assert len(frame["packet_id"]) == 32
    assert sent[0].frame["packet_id"] != sent[1].frame["packet_id"]


def test_packet_ids_of_introductions(world: World) -> None:
    """A client takes one packetId once: all members get the same introduction of a joiner, every other has an id of its own."""
    members = [world.connect(Peer(f"198.51.100.{i}", nat_type=7)) for i in range(10, 15)]
    joiner = world.connect(Peer("198.51.100.7", nat_type=15))
    seen: set[bytes] = set()
    for turn in range(2):
        sent = [item for item in world.send(joiner, joiner.join(clock=5 + turn)) if item.type == codec.INTRO]
        assert len(sent) == 2 * len(members)
        about_joiner = [item for item in sent if item.to != joiner.endpoint]
        assert len({item.data for item in about_joiner}) == 1
        ids = {item.frame["packet_id"] for item in sent}
        assert len(ids) == 1 + len(members)
        assert not ids & seen
        seen |= ids
        world.pass_time(61)
        for peer in (joiner, *members):
            world.connect(peer)


def test_join_connects(world: World) -> None:
    """A proven direct join makes its sender a connected peer of its cluster."""
    peer = world.prove(Peer("198.51.100.7", nat_type=7, subcluster=named("sub")))
    world.send(peer, peer.join())
    view = world.view(peer)
    assert view is not None
    assert view["connected"]
    assert view["natType"] == 7
    assert view["clusters"] == [named("sub")[:8].hex(), named("cluster")[:8].hex()]


def test_subcluster_first_then_cluster(world: World) -> None:
    cluster, sub = named("cluster"), named("sub")
    near = [world.connect(Peer(f"198.51.101.{i + 1}", cluster=cluster)) for i in range(3)]
    close = [world.connect(Peer(f"198.51.102.{i + 1}", cluster=cluster, subcluster=sub)) for i in range(3)]
    world.connect_many(5, network="198.51.103", cluster=named("another"))
    joiner = world.connect(Peer("198.51.100.7", cluster=cluster, subcluster=sub))
    met = introduced(world.send(joiner, joiner.join()), joiner)
    assert set(met[:3]) == {peer.endpoint for peer in close}
    assert set(met[3:]) == {peer.endpoint for peer in near}


@pytest.mark.parametrize("friends", [0, 1, 2, 3, 4])
def test_strangers_only_for_places_left_free(world: World, friends: int) -> None:
    members = world.connect_many(friends, network="198.51.101")
    strangers = world.connect_many(10, network="198.51.102", cluster=named("another"))
    joiner = world.connect(Peer("198.51.100.7"))
    met = introduced(world.send(joiner, joiner.join()), joiner)
    assert set(met[:friends]) == {peer.endpoint for peer in members}
    assert set(met[friends:]) <= {peer.endpoint for peer in strangers}
    assert len(met) == max(friends, 3)


def test_same_subcluster_id_of_another_cluster_is_strange(world: World) -> None:
    """A subcluster belongs to its cluster."""
    sub = named("sub")
    world.connect_many(3, network="198.51.101", cluster=named("another"), subcluster=sub, nat_type=5)
    joiner = world.connect(Peer("198.51.100.7", subcluster=sub, nat_type=5))
    assert introduced(world.send(joiner, joiner.join()), joiner) == []


def test_everybody_of_a_cluster_meets_everybody(world: World) -> None:
    """Fifty clients in five clusters: every pair of a cluster is introduced."""
    clients = [world.connect(Peer(f"198.51.100.{i + 1}", cluster=named(f"cluster {i % 5}"))) for i in range(50)]
    met = set()
    for client in clients:
        for other in introduced(world.send(client, client.join()), client):
            met.add(frozenset((client.endpoint, other)))
    for one, two in itertools.combinations(clients, 2):
        if one.cluster == two.cluster:
            assert frozenset((one.endpoint, two.endpoint)) in met


def test_limit_of_introductions() -> None:
    """A large cluster: so many per join, and repeated joins go round the others."""
    world = World(introductions=4)
    others = world.connect_many(20)
    joiner = world.connect(Peer("198.51.101.7"))
    met: set[tuple[str, int]] = set()
    for _ in range(15):
        new = introduced(world.send(joiner, joiner.join()), joiner)
        assert len(new) == 4
        met |= set(new)
        world.advance(2 * KEEP_ALIVE + 1)
    assert met == {peer.endpoint for peer in others}


@pytest.mark.parametrize("one", HARD + EASY)
@pytest.mark.parametrize("two", HARD + EASY)
def test_nat_types_that_meet(world: World, one: int, two: int) -> None:
    """Members of a cluster always: for two Hard peers we become their proxy. Strangers who are both Hard never."""
    world.connect(Peer("198.51.101.1", nat_type=one))
    joiner = world.connect(Peer("198.51.100.7", nat_type=two))
    assert len(introduced(world.send(joiner, joiner.join()), joiner)) == 1
    world = World()
    world.connect(Peer("198.51.101.1", nat_type=one, cluster=named("another")))
    joiner = world.connect(Peer("198.51.100.7", nat_type=two))
    met = introduced(world.send(joiner, joiner.join()), joiner)
    assert len(met) == (0 if one in HARD and two in HARD else 1)


def test_indexed_peers_are_not_introduced() -> None:
    sibling = Peer("203.0.113.6", 3511, peer_id=named("sibling"))
    world = World(siblings=(sibling,))
    world.advance(1)
    world.send(sibling, sibling.connection_ping())
    joiner = world.connect(Peer("198.51.100.7"))
    sent = world.send(joiner, joiner.join())
    assert only(sent, codec.INTRO) == []
    assert [item.to for item in only(sent, codec.JOIN)] == [sibling.endpoint]


def test_join_of_an_indexed_peer() -> None:
    """A sibling's own join: nothing to introduce."""
    sibling = Peer("203.0.113.6", 3511, peer_id=named("sibling"))
    world = World(siblings=(sibling,))
    world.advance(1)
    world.connect_many(3)
    assert world.send(sibling, sibling.join()) == []


def test_nobody_is_introduced_to_the_silent(world: World) -> None:
    silent = world.connect(Peer("198.51.100.8"))
    silent.alive = False
    world.pass_time(4 * KEEP_ALIVE + 1)
    joiner = world.connect(Peer("198.51.100.7"))
    assert introduced(world.send(joiner, joiner.join()), joiner) == []


def test_a_busy_member_is_introduced_where_others_are_lacking() -> None:
    """One whose last ping is still unanswered: only while there are fewer others than a join may meet."""
    world = World(introductions=3)
    busy = world.connect(Peer("198.51.100.8"))
    busy.alive = False
    world.advance(KEEP_ALIVE + 2)
    world.advance(2)
    joiner = world.connect(Peer("198.51.100.7"))
    assert introduced(world.send(joiner, joiner.join()), joiner) == [busy.endpoint]
    world.connect_many(2)
    joiner = world.connect(Peer("198.51.100.10"))
    met = introduced(world.send(joiner, joiner.join()), joiner)
    assert len(met) == 3
    assert busy.endpoint not in met


def test_joiner_meets_itself_never(world: World) -> None:
    joiner = world.connect(Peer("198.51.100.7"))
    assert world.send(joiner, joiner.join()) == []


# --- relay ----------------------------------------------------------------------------------------------------------


def test_not_relayed_to_those_just_introduced(world: World) -> None:
    """The copy carries the packetId of the joiner's next join and would make them deaf to it."""
    world.connect_many(12)
    world.connect_many(3, network="198.51.101", cluster=named("another"))
    for i in range(10):
        joiner = world.connect(Peer(f"198.51.102.{i + 1}"))
        sent = world.send(joiner, joiner.join())
        met = {item.to for item in only(sent, codec.INTRO)}
        assert not met & {item.to for item in only(sent, codec.JOIN)}
        assert joiner.endpoint not in {item.to for item in only(sent, codec.JOIN)}


def test_a_join_reaches_two_well_known_peers() -> None:
    """Of three, one may be another identity of the same process: the others still hear of it, whichever is drawn."""
    well_known = tuple(Peer(f"203.0.113.{i}", 3511, peer_id=named(f"well-known {i}")) for i in (6, 7, 8))
    drawn = set()
    for seed in range(16):
        world = World(siblings=well_known, seed=bytes([seed]) * 32)
        world.advance(1)
        for peer in well_known:
            world.send(peer, peer.connection_ping())
        joiner = world.connect(Peer("198.51.100.7"))
        copies = [item.to for item in only(world.send(joiner, joiner.join()), codec.JOIN)]
        assert len(copies) == len(set(copies)) == 2
        drawn.add(frozenset(copies))
    assert len(drawn) == 3


def test_relayed_copies_are_few(world: World) -> None:
    world.node.set_limits(introductions=1)
    world.connect_many(30)
    joiner = world.connect(Peer("198.51.102.1"))
    assert len(only(world.send(joiner, joiner.join()), codec.JOIN)) <= 4


# --- gate -----------------------------------------------------------------------------------------------------------


def test_repeated_join_is_gated_for_two_keep_alives(world: World) -> None:
    other = world.connect(Peer("198.51.100.8"))
    joiner = world.connect(Peer("198.51.100.7"))
    data = joiner.join()
    assert introduced(world.send(joiner, data), joiner) == [other.endpoint]
    before = world.counters()
    for _ in range(10):
        assert world.send(joiner, data) == []
    assert world.drops(before) == {"duplicate": 10}
    world.advance(2 * KEEP_ALIVE - 1)
    assert world.send(joiner, data) == []
    world.advance(2)
    assert introduced(world.send(joiner, data), joiner) == [other.endpoint]


@pytest.mark.parametrize("claim", [{"port": 1234}, {"address": "192.0.2.1"}, {"key": "abc"}])
def test_other_claims_do_not_pass_the_gate(world: World, claim: dict[str, Any]) -> None:
    """Or a peer could have itself introduced again and again."""
    world.connect(Peer("198.51.100.8"))
    joiner = world.connect(Peer("198.51.100.7"))
    world.send(joiner, joiner.join())
    assert world.send(joiner, joiner.join(packet_id=named("new"), clock=9, **claim)) == []


def test_a_join_with_the_right_address_follows_one_with_the_old_one(world: World) -> None:
    """Who joins before it knows that its address has changed is introduced once more when it knows; not the other way round."""
    other = world.connect(Peer("198.51.100.8"))
    joiner = world.connect(Peer("198.51.100.7"))
    old = joiner.join(address="198.51.100.99")
    for data, met in ((old, [other.endpoint]), (old, []), (joiner.join(), [other.endpoint]), (old, []), (joiner.join(), [])):
        assert introduced(world.send(joiner, data), joiner) == met
        world.advance(1)


def test_another_subcluster_is_another_join(world: World) -> None:
    other = world.connect(Peer("198.51.100.8"))
    joiner = world.connect(Peer("198.51.100.7"))
    for name in ("one", "two", "three"):
        joiner.subcluster = named(name)
        assert introduced(world.send(joiner, joiner.join()), joiner) == [other.endpoint]


def test_another_nat_type_is_another_join(world: World) -> None:
    """A client that found out its NAT type joins again at once."""
    other = world.connect(Peer("198.51.100.8"))
    joiner = world.connect(Peer("198.51.100.7"))
    for nat_type in (31, 7, 5):
        joiner.nat_type = nat_type
        assert introduced(world.send(joiner, joiner.join()), joiner) == [other.endpoint]


def test_another_peer_on_the_same_endpoint_is_another_join(world: World) -> None:
    """An application restarted on its port with a new key: it is introduced like anybody."""
    other = world.connect(Peer("198.51.100.8"))
    joiner = world.connect(Peer("198.51.100.7"))
    assert introduced(world.send(joiner, joiner.join()), joiner) == [other.endpoint]
    world.advance(5)
    again = Peer(joiner.address, joiner.port, peer_id=named("new key"))
    world.send(again, again.connection_ping(), follow=True)
    assert introduced(world.send(again, again.join()), again) == [other.endpoint]


def test_rejoining_for_ever_is_bounded(world: World) -> None:
    """By new keys or subclusters a joiner may pass the gate; the number of introductions in a minute ends it."""
    world.node.set_limits(introductions_per_minute=50)
    world.connect_many(10)
    joiner = world.connect(Peer("198.51.101.7"))
    count = 0
    for i in range(100):
        joiner.subcluster = named(f"{i}")
        joiner.peer_id = named(f"key {i}")
        count += len(only(world.send(joiner, joiner.join()), codec.INTRO))
    assert count <= 2 * 50


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cluster", [None, b"", b"x" * 31])
def test_join_without_a_cluster(world: World, cluster: bytes | None) -> None:
    world.connect_many(3)
    peer = world.connect(Peer("198.51.100.7"))
    peer.cluster = cluster
    before = world.counters()
    assert world.send(peer, peer.join()) == []
    assert world.drops(before) == {"cluster_id": 1}


@pytest.mark.parametrize(
    "claim",
    [b'"natType":0', b'"natType":null', b'"natType":33', b'"address":"nowhere"', b'"address":7', b'"port":0', b'"port":65536'],
)
def test_join_without_valid_claims(world: World, claim: bytes) -> None:
    """The reference does not check them at all."""
    world.connect_many(3)
    peer = world.connect(Peer("198.51.100.7"))
    fields = {b'"natType"': b'"natType":31', b'"address"': b'"address":"198.51.100.7"', b'"port"': b'"port":9000'}
    fields[claim.split(b":")[0]] = claim
    message = b'{"requesterPeerId":"' + peer.peer_id.hex().encode() + b'",' + b",".join(fields.values()) + b"}"
    before = world.counters()
    assert world.send(peer, codec.encode(codec.JOIN, hops=1, cluster_id=peer.cluster, message=message)) == []
    assert sum(world.drops(before).values()) == 1


def test_join_past_its_deadline(world: World) -> None:
    world.connect_many(3)
    peer = world.connect(Peer("198.51.100.7"))
    before = world.counters()
    assert world.send(peer, peer.join(rendezvousDeadline=float(world.wall_ms - 1))) == []
    assert world.drops(before) == {"stale": 1}


def test_joins_of_a_batch_meet_each_other(world: World) -> None:
    """All of a batch is handled in order: who joins first is there for the next."""
    peers = [world.prove(Peer(f"198.51.100.{i + 1}")) for i in range(4)]
    batch = [(peer.join(), number(peer.address), peer.port, 0) for peer in peers]
    out = inside.receive_batch(world.node, batch, world.mono_us, world.wall_ms)
    kinds = [data[4] for data, *_ in out]
    assert kinds.count(codec.INTRO) == 2 * (1 + 2 + 3)
