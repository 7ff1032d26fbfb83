"""Rules 3 and 4 of "Never a weapon": the node tells what it proved, and does not believe joins that others relayed."""

from __future__ import annotations

from typing import Any

import pytest

from srpnode.core import codec
from tests.core.world import (
    KEEP_ALIVE,
    NODE_ADDRESS,
    NODE_ID,
    NODE_PORT,
    START_MS,
    Peer,
    Sent,
    World,
    named,
    only,
)

VICTIM = "192.88.99.200"
CLUSTER = named("cluster")


@pytest.fixture
def world() -> World:
    return World()


def addresses(sent: list[Sent]) -> set[str]:
    """Every address that any message names."""
    return {value for item in sent for key, value in item.message.items() if key in ("address", "rendezvousAddress")}


# --- rule 3: direct joins -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hops", [0, 1])
@pytest.mark.parametrize(
    "claim",
    [
        {"address": VICTIM},
        {"port": 53},
        {"address": VICTIM, "port": 53},
        {"address": "127.0.0.1"},
        {"address": "10.0.0.1", "port": 22},
        {"address": "255.255.255.255"},
        {"address": NODE_ADDRESS, "port": NODE_PORT},
    ],
)
def test_claimed_endpoints_are_ignored(world: World, claim: dict[str, Any], hops: int) -> None:
    friends = world.connect_many(4, network="198.51.100")
    strangers = world.connect_many(4, network="198.51.101", cluster=named("another"))
    attacker = world.connect(Peer("198.51.100.66"))
    before = world.counters()
    sent = world.send(attacker, attacker.join(hops=hops, **claim))
    reached = {attacker.endpoint, *(peer.endpoint for peer in friends + strangers)}
    assert {item.to for item in sent} <= reached
    about = [item for item in only(sent, codec.INTRO) if item.to != attacker.endpoint]
    assert len(about) == 4
    for item in about:
        assert (item.message["address"], item.message["port"]) == attacker.endpoint
        assert item.message["requesterPeerId"] == attacker.peer_id.hex()
    for item in only(sent, codec.JOIN):
        assert (item.message["address"], item.message["port"]) == attacker.endpoint
    assert addresses(sent) <= {NODE_ADDRESS, *(peer.address for peer in [attacker, *friends, *strangers])}
    assert world.changed(before)["claims_wrong"] == 1


def test_honest_claims_are_not_counted(world: World) -> None:
    peer = world.connect(Peer("198.51.100.7"))
    world.send(peer, peer.join())
    assert world.count("claims_wrong") == 0


def test_wrong_claims_are_served(world: World) -> None:
    """Behind a Hard NAT the claim is honestly wrong: the joiner is introduced as if it were right."""
    friend = world.connect(Peer("198.51.100.8"))
    hard = world.connect(Peer("198.51.100.7", 45001, nat_type=5))
    sent = only(world.send(hard, hard.join(port=33333)), codec.INTRO)
    assert {item.to for item in sent} == {hard.endpoint, friend.endpoint}
    (about,) = [item for item in sent if item.to == friend.endpoint]
    assert about.message["port"] == 45001
    assert about.message["natType"] == 5


def test_relayed_copy_keeps_what_is_not_an_endpoint(world: World) -> None:
    """packetId, clock, ttl, cluster, subcluster and key of a join go on; endpoint and rendezvous are ours to say."""
    joiner = world.connect(Peer("198.51.100.7", cluster=CLUSTER, subcluster=named("sub")))
    other = world.connect(Peer("198.51.101.8", cluster=named("another"), nat_type=5))
    joiner.nat_type = 5  # two Hard strangers are not introduced: the join is relayed to the other
    (item,) = only(
        world.send(joiner, joiner.join(clock=77, packet_id=named("the join"), key="abc", address=VICTIM)), codec.JOIN
    )
    assert item.to == other.endpoint
    frame = item.frame
    assert frame["packet_id"] == named("the join")
    assert frame["clock"] == 77
    assert frame["cluster_id"] == CLUSTER
    assert frame["subcluster_id"] == named("sub")
    assert frame["hops"] == 2
    assert item.message == {
        "requesterPeerId": joiner.peer_id.hex(),
        "natType": 5,
        "address": joiner.address,
        "port": joiner.port,
        "key": "abc",
        "rendezvousAddress": NODE_ADDRESS,
        "rendezvousPort": NODE_PORT,
        "rendezvousType": 31,
        "rendezvousPeerId": NODE_ID.hex(),
        "rendezvousDeadline": START_MS + 1000 * KEEP_ALIVE,
    }


@pytest.mark.parametrize("hops", [0, 1])
def test_relayed_copy_is_no_direct_join(world: World, hops: int) -> None:
    """Whoever gets the copy must see that we are not its author: hops of at least 2."""
    joiner = world.connect(Peer("198.51.100.7", nat_type=5))
    world.connect(Peer("198.51.101.8", cluster=named("another"), nat_type=5))
    (item,) = only(world.send(joiner, joiner.join(hops=hops)), codec.JOIN)
    assert item.frame["hops"] == 2


def test_forged_rendezvous_of_a_direct_join_is_overwritten(world: World) -> None:
    """A joiner cannot make others answer to a victim: the stamp is ours."""
    joiner = world.connect(Peer("198.51.100.7", nat_type=5))
    world.connect(Peer("198.51.101.8", cluster=named("another"), nat_type=5))
    data = joiner.join(
        rendezvousAddress=VICTIM,
        rendezvousPort=53,
        rendezvousType=31,
        rendezvousPeerId=named("nobody").hex(),
        rendezvousDeadline=float(START_MS + 10**9),
    )
    (item,) = only(world.send(joiner, data), codec.JOIN)
    assert item.message["rendezvousAddress"] == NODE_ADDRESS
    assert item.message["rendezvousPort"] == NODE_PORT
    assert item.message["rendezvousPeerId"] == NODE_ID.hex()
    assert item.message["rendezvousDeadline"] == START_MS + 1000 * KEEP_ALIVE


def test_nothing_is_relayed_without_an_advertised_address() -> None:
    """A stamp with no address would be refused by every client."""
    world = World(address=0)
    joiner = world.connect(Peer("198.51.100.7", nat_type=5))
    world.connect(Peer("198.51.101.8", cluster=named("another"), nat_type=5))
    assert world.send(joiner, joiner.join()) == []


# --- rule 4: relayed joins ------------------------------------------------------------------------------------------


def relayed(joiner: Peer, rendezvous: Peer, *, hops: int = 2, **message: Any) -> bytes:
    """A join as a rendezvous peer stamps and passes it on."""
    stamp: dict[str, Any] = {
        "rendezvousAddress": rendezvous.address,
        "rendezvousPort": rendezvous.port,
        "rendezvousType": 31,
        "rendezvousPeerId": rendezvous.peer_id.hex(),
        "rendezvousDeadline": float(START_MS + 30_000),
    }
    packet_id = message.pop("packet_id", None)
    return joiner.join(hops=hops, packet_id=packet_id, **{**stamp, **message})


@pytest.mark.parametrize("hops", [2, 3, 15])
def test_relayed_joins_are_never_introduced(world: World, hops: int) -> None:
    members = world.connect_many(8)
    strangers = world.connect_many(8, network="198.51.101", cluster=named("another"))
    relay = world.connect(Peer("203.0.113.50", 3511, cluster=None))
    joiner = Peer("192.0.2.77")
    sent = world.send(relay, relayed(joiner, relay, hops=hops))
    assert only(sent, codec.INTRO) == []
    assert only(sent, codec.JOIN) == sent
    assert {item.to for item in sent} <= {peer.endpoint for peer in members}
    assert not {item.to for item in sent} & {peer.endpoint for peer in strangers}
    assert 0 < len(sent) <= 3
    assert world.view(joiner) is None
    for item in sent:
        assert item.frame["hops"] == 16, "the receiver must not relay it"
        assert (item.message["address"], item.message["port"]) == (NODE_ADDRESS, NODE_PORT), (
            "names an endpoint that nobody proved"
        )
        assert (item.message["rendezvousAddress"], item.message["rendezvousPort"]) == relay.endpoint
        assert item.message["requesterPeerId"] == joiner.peer_id.hex()


def test_relayed_joins_reach_nobody_outside_their_cluster(world: World) -> None:
    world.connect_many(8, cluster=named("another"))
    relay = world.connect(Peer("203.0.113.50", 3511))
    assert world.send(relay, relayed(Peer("192.0.2.77"), relay)) == []


def test_relayed_join_without_stamp_goes_nowhere(world: World) -> None:
    world.connect_many(4)
    relay = world.connect(Peer("203.0.113.50", 3511))
    before = world.counters()
    assert world.send(relay, Peer("192.0.2.77").join(hops=2)) == []
    assert world.drops(before) == {"scope": 1}


def test_relayed_join_past_its_deadline(world: World) -> None:
    world.connect_many(4)
    relay = world.connect(Peer("203.0.113.50", 3511))
    before = world.counters()
    assert world.send(relay, relayed(Peer("192.0.2.77"), relay, rendezvousDeadline=float(START_MS - 1))) == []
    assert world.drops(before) == {"stale": 1}


def test_relayed_join_with_too_many_hops(world: World) -> None:
    world.connect_many(4)
    relay = world.connect(Peer("203.0.113.50", 3511))
    before = world.counters()
    assert world.send(relay, relayed(Peer("192.0.2.77"), relay, hops=16)) == []
    assert world.drops(before) == {"hops": 1}


def test_stamp_of_a_third_is_spread_less(world: World) -> None:
    """When the sender is not the rendezvous peer that it names, nobody vouches for either endpoint."""
    world.connect_many(8)
    relay = world.connect(Peer("203.0.113.50", 3511))
    third = Peer("203.0.112.51", 3511)
    assert len(world.send(relay, relayed(Peer("192.0.2.77"), third, packet_id=named("1")))) == 1
    assert len(world.send(relay, relayed(Peer("192.0.2.77"), relay, packet_id=named("2")))) == 3


@pytest.mark.parametrize("vouching", [True, False])
def test_budget_per_target_prefix(world: World, vouching: bool) -> None:
    """However many requesters, names and joins: within a minute a prefix is pointed at so often, and no more."""
    limit = 20
    world.node.set_limits(relayed_joins_per_minute=limit)
    world.connect_many(8)
    relays = [world.connect(Peer(f"203.0.{i}.50", 3511)) for i in range(10)]
    told: list[Sent] = []
    before = world.counters()
    for i in range(400):
        relay = relays[i % 10]
        joiner = Peer(f"192.0.2.{i % 200 + 1}", 2000 + i, peer_id=named(f"joiner {i}"))
        rendezvous = relay if vouching else Peer(f"192.0.2.{i % 100 + 1}", 4000)
        told += world.send(relay, relayed(joiner, rendezvous))
    assert 0 < len(told) <= 3 * limit
    assert not any("192.0.2." in item.message["address"] for item in told)
    assert world.drops(before)["relay_budget"] > 300
    # Another prefix has a budget of its own, and the next minute a new one.
    assert world.send(relays[0], relayed(Peer("192.0.3.1"), relays[0])) != []
    world.advance(60)
    later = relayed(Peer("192.0.2.1", peer_id=named("later")), relays[1], rendezvousDeadline=float(world.wall_ms + 1000))
    assert world.send(relays[1], later) != []


def test_relayed_join_of_a_peer_that_is_here(world: World) -> None:
    """It has its introductions from its own join; a copy with an attacker's endpoint goes nowhere."""
    world.connect_many(4)
    victim = world.connect(Peer("198.51.100.77"))
    relay = world.connect(Peer("203.0.113.50", 3511))
    lie = relayed(victim, relay, address="192.0.2.1", port=7777)
    assert world.send(relay, lie) == []
    assert world.count("joins_known") == 1
    assert world.holder(victim.peer_id) == victim.endpoint


def test_relayed_joins_name_nobody(world: World) -> None:
    """The relayer keeps its own name, and the joiner gets no place here."""
    relay = world.connect(Peer("203.0.113.50", 3511))
    joiner = Peer("192.0.2.77")
    world.send(relay, relayed(joiner, relay))
    assert world.holder(relay.peer_id) == relay.endpoint
    assert world.holder(joiner.peer_id) is None


def test_relayed_join_is_passed_on_once(world: World) -> None:
    world.connect_many(4)
    one = world.connect(Peer("203.0.113.50", 3511))
    two = world.connect(Peer("203.0.113.51", 3511))
    joiner = Peer("192.0.2.77")
    assert world.send(one, relayed(joiner, one, packet_id=named("j"))) != []
    before = world.counters()
    assert world.send(two, relayed(joiner, two, packet_id=named("j"))) == []
    assert world.drops(before) == {"duplicate": 1}
    world.advance(2 * KEEP_ALIVE + 1)
    assert world.send(two, relayed(joiner, two, packet_id=named("j"), rendezvousDeadline=float(world.wall_ms + 9))) != []


def test_relayed_copy_does_not_spoil_the_direct_join(world: World) -> None:
    """An attacker who relays a victim's join first, or sends it as his own, cannot keep the victim from being introduced."""
    friend = world.connect(Peer("198.51.100.8"))
    attacker = world.connect(Peer("203.0.113.50", 3511))
    victim = world.prove(Peer("198.51.100.7"))
    data = victim.join(packet_id=named("j"))
    world.send(attacker, relayed(victim, attacker, packet_id=named("j")))
    world.send(attacker, data)
    sent = only(world.send(victim, data), codec.INTRO)
    assert {friend.endpoint, victim.endpoint} <= {item.to for item in sent}


# --- rendezvous -----------------------------------------------------------------------------------------------------


def answer(member: Peer, wanted: Peer, **message: Any) -> bytes:
    """A cluster member heard of the wanted peer elsewhere and asks its rendezvous peer to introduce it."""
    return member.join(hops=0, rendezvousRequesterPeerId=wanted.peer_id.hex(), **message)


@pytest.mark.parametrize("named_us", [True, False])
def test_rendezvous_introduces_exactly_two(world: World, named_us: bool) -> None:
    """Between endpoints that were proven here; the reference's answer names no rendezvous peer and means the receiver."""
    world.connect_many(5)
    joiner = world.connect(Peer("192.0.2.77", nat_type=7))
    member = world.prove(Peer("192.0.2.78", nat_type=5))
    extra = {"rendezvousPeerId": NODE_ID.hex()} if named_us else {}
    sent = world.send(member, answer(member, joiner, address=VICTIM, **extra))
    assert [item.type for item in sent] == [codec.INTRO] * 2
    by_target = {item.to: item.message for item in sent}
    assert set(by_target) == {joiner.endpoint, member.endpoint}
    for target, about in ((joiner, member), (member, joiner)):
        message = by_target[target.endpoint]
        assert message["isRendezvous"] is True
        assert (message["address"], message["port"]) == about.endpoint
        assert message["requesterPeerId"] == about.peer_id.hex()
        assert message["natType"] == about.nat_type
    assert world.count("rendezvous") == 1


def test_rendezvous_with_a_peer_we_do_not_have(world: World) -> None:
    member = world.prove(Peer("192.0.2.78"))
    before = world.counters()
    assert world.send(member, answer(member, Peer("192.0.2.77"))) == []
    assert world.drops(before) == {"rendezvous_unknown": 1}


def test_rendezvous_meant_for_another_node(world: World) -> None:
    joiner = world.connect(Peer("192.0.2.77"))
    member = world.prove(Peer("192.0.2.78"))
    before = world.counters()
    assert world.send(member, answer(member, joiner, rendezvousPeerId=named("another node").hex())) == []
    assert world.drops(before) == {"rendezvous_unknown": 1}


def test_rendezvous_with_oneself(world: World) -> None:
    member = world.connect(Peer("192.0.2.78"))
    before = world.counters()
    assert world.send(member, answer(member, member)) == []
    assert world.drops(before) == {"rendezvous_unknown": 1}


def test_rendezvous_with_a_peer_that_left(world: World) -> None:
    joiner = world.connect(Peer("192.0.2.77"))
    joiner.alive = False
    world.advance(6 * KEEP_ALIVE)
    member = world.prove(Peer("192.0.2.78"))
    assert world.send(member, answer(member, joiner)) == []


def test_rendezvous_of_strangers_waits_for_the_proof(world: World) -> None:
    """The answer comes from a peer that we never saw: it is parked, and acted upon when its endpoint is proven."""
    joiner = world.connect(Peer("192.0.2.77"))
    member = Peer("192.0.2.78")
    (ping,) = world.send(member, answer(member, joiner))
    assert ping.to == member.endpoint
    sent = world.send(member, member.pong(ping))
    assert {item.to for item in sent} == {joiner.endpoint, member.endpoint}


def test_a_peer_is_not_flooded_with_introductions(world: World) -> None:
    """However many ask to be introduced to one peer, by join or by rendezvous: so many a minute."""
    world.node.set_limits(introductions_per_minute=30)
    victim = world.connect(Peer("192.0.2.77"))
    victim.received.clear()
    for i in range(40):
        other = world.prove(Peer(f"198.51.100.{i + 1}"))
        for j in range(3):
            world.send(other, answer(other, victim, rendezvousDeadline=float(START_MS + 1000 + j)))
            world.send(other, other.join(packet_id=named(f"{i} {j}")))
    assert len(only(victim.received, codec.INTRO)) == 30
    assert world.count("introductions_full") > 0
