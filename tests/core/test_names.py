"""Rule 5 of "Never a weapon": a peerId stays with its proven endpoint until that one fails a ping."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from srpnode.core import codec
from tests.core import inside
from tests.core.world import KEEP_ALIVE, NODE_ID, Peer, Sent, World, named, only

NAME = named("the victim")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def victim(world: World) -> Peer:
    peer = world.connect(Peer("198.51.100.7", peer_id=NAME))
    world.pass_time(1)  # an answer of the same moment would count
    return peer


def claim_by_pong(world: World, claimant: Peer) -> list[Sent]:
    """The claimant proves its endpoint, and calls itself by the name in that very pong."""
    (ping,) = only(world.send(claimant, Peer(claimant.address, claimant.port).ping()), codec.PING)
    world.peers[claimant.endpoint] = claimant
    return world.send(claimant, claimant.pong(ping))


def claim_by_ping(world: World, claimant: Peer) -> list[Sent]:
    """It has a name already: it is asked first, and its answer claims the other."""
    world.prove(Peer(claimant.address, claimant.port))
    world.peers[claimant.endpoint] = claimant
    return world.send(claimant, claimant.connection_ping(), follow=True)


def claim_by_join(world: World, claimant: Peer) -> list[Sent]:
    world.prove(Peer(claimant.address, claimant.port))
    world.peers[claimant.endpoint] = claimant
    return world.send(claimant, claimant.join(), follow=True)


def claim_parked(world: World, claimant: Peer) -> list[Sent]:
    """A connection ping in the victim's name that waits for the proof of the claimant's endpoint."""
    world.peers[claimant.endpoint] = claimant
    return world.send(claimant, claimant.connection_ping(), follow=True)


Claim = Callable[[World, Peer], list[Sent]]
CLAIMS: list[Claim] = [claim_by_pong, claim_by_ping, claim_by_join, claim_parked]


@pytest.mark.parametrize("claim", CLAIMS)
def test_claimed_name_stays_with_its_living_holder(world: World, victim: Peer, claim: Claim) -> None:
    thief = Peer("198.51.100.66", peer_id=NAME)
    before = world.counters()
    sent = claim(world, thief)
    assert world.drops(before)["name_taken"] >= 1
    asked = [item for item in only(sent, codec.PING) if item.to == victim.endpoint]
    assert len(asked) == 1, "the holder was not asked whether it is still there"
    world.send(victim, victim.pong(asked[0]))
    world.advance(10)
    assert world.holder(NAME) == victim.endpoint
    view = world.view(victim)
    assert view is not None
    assert view["connected"]
    assert world.count("names_moved") == 0
    inside.check(world.node)


@pytest.mark.parametrize("claim", CLAIMS)
def test_name_moves_after_its_holder_failed_a_ping(world: World, victim: Peer, claim: Claim) -> None:
    """A peer that roamed or restarted elsewhere gets its name back within two seconds."""
    victim.alive = False
    heir = Peer("198.51.100.66", peer_id=NAME)
    sent = claim(world, heir)
    asked = [item.to for item in only(sent, codec.PING) if item.to != heir.endpoint]
    assert asked == [victim.endpoint], "moved without asking"
    assert world.holder(NAME) == victim.endpoint
    world.advance(2)
    assert world.holder(NAME) == heir.endpoint
    assert world.count("names_moved") == 1
    inside.check(world.node)


@pytest.mark.parametrize("known", [True, False])
def test_name_never_moves_without_a_ping_that_left(victim: Peer, world: World, known: bool) -> None:
    """Where the ping to the holder could not be queued, the holder has failed nothing."""
    thief = Peer("198.51.100.66", peer_id=NAME)
    if known:
        world.prove(Peer(thief.address, thief.port))
    (ping,) = only(world.send(thief, thief.connection_ping()), codec.PING)
    world.node.set_limits(bandwidth_out_bytes_per_second=1)
    before = world.counters()
    assert only(world.send(thief, thief.pong(ping)), codec.PING) == []
    assert world.drops(before)["name_taken"] >= 1
    world.node.set_limits()
    world.pass_time(3)
    world.tick()
    assert world.holder(NAME) == victim.endpoint


def test_one_lost_ping_does_not_lose_a_name(world: World, victim: Peer) -> None:
    """The holder is asked twice: what leaves within the batch is lost here, what leaves later it answers."""
    sent = claim_by_ping(world, Peer("198.51.100.66", peer_id=NAME))
    assert len([item for item in only(sent, codec.PING) if item.to == victim.endpoint]) == 1
    later = world.advance(3)
    assert len([item for item in only(later, codec.PING) if item.to == victim.endpoint]) == 1
    assert world.holder(NAME) == victim.endpoint
    assert world.count("names_moved") == 0
    inside.check(world.node)


def test_old_pong_does_not_save_a_name(world: World, victim: Peer) -> None:
    """What the holder answered before it was asked proves nothing about now."""
    world.advance(KEEP_ALIVE + 1)
    victim.alive = False
    heir = Peer("198.51.100.66", peer_id=NAME)
    claim_by_ping(world, heir)
    world.advance(2)
    assert world.holder(NAME) == heir.endpoint


def test_repeated_claims_are_one_question(world: World, victim: Peer) -> None:
    """Somebody who claims a name a thousand times cannot make us flood its holder."""
    victim.alive = False
    thief = Peer("198.51.100.66", peer_id=NAME)
    sent = claim_by_ping(world, thief)
    for i in range(1000):
        sent += world.send(thief, thief.connection_ping(cacheSize=float(i)))
    assert len([item for item in sent if item.to == victim.endpoint]) == 1


def test_many_claimants_are_one_question(world: World, victim: Peer) -> None:
    sent: list[Sent] = []
    for i in range(50):
        sent += claim_by_ping(world, Peer(f"203.0.113.{i + 10}", peer_id=NAME))
    (ping,) = [item for item in sent if item.to == victim.endpoint]
    world.send(victim, victim.pong(ping))
    world.advance(3)
    assert world.holder(NAME) == victim.endpoint


def test_claims_beyond_the_table_wait(world: World) -> None:
    """More disputes at once than there is room for: no name moves that was not asked for, and later ones are settled later."""
    holders = world.connect_many(80)
    for holder in holders:
        holder.alive = False
    world.pass_time(1)
    heirs = [world.prove(Peer(f"203.0.113.{i + 1}")) for i in range(80)]
    for holder, heir in zip(holders, heirs, strict=True):
        heir.peer_id = holder.peer_id
    asked = []
    for heir in heirs:
        asked += [item.to for item in world.send(heir, heir.connection_ping(), follow=True)]
    world.advance(2)
    moved = [holder for holder, heir in zip(holders, heirs, strict=True) if world.holder(holder.peer_id) == heir.endpoint]
    assert 0 < len(moved) < 80
    assert all(holder.endpoint in asked for holder in moved)
    for heir in heirs:
        world.send(heir, heir.connection_ping(), follow=True)
    world.advance(2)
    assert all(world.holder(heir.peer_id) == heir.endpoint for heir in heirs)
    inside.check(world.node)


def test_our_own_name_cannot_be_claimed(world: World) -> None:
    liar = Peer("198.51.100.66", peer_id=NODE_ID)
    before = world.counters()
    assert world.send(liar, liar.connection_ping()) == []
    (ping,) = only(world.send(liar, Peer(liar.address).ping()), codec.PING)
    world.send(liar, liar.pong(ping))
    assert world.drops(before) == {"self_named": 2}
    assert world.view(liar) is None
    world.prove(Peer(liar.address))
    for data in (liar.connection_ping(), liar.join(), liar.pong(ping)):
        before = world.counters()
        assert world.send(liar, data) == []
        assert world.drops(before) == {"self_named": 1}
    assert world.holder(NODE_ID) is None


def test_configured_names_cannot_be_claimed() -> None:
    """Not even before the sibling itself was heard of, and not when it fails a ping."""
    sibling = Peer("203.0.113.6", 3511, peer_id=named("sibling"))
    world = World(siblings=(sibling,))
    sibling.alive = False
    for i, claim in enumerate(CLAIMS):
        claim(world, Peer("198.51.100.66", 6000 + i, peer_id=sibling.peer_id))
        world.advance(10)
        assert world.holder(sibling.peer_id) == sibling.endpoint
    view = world.view(sibling)
    assert view is not None
    assert view["indexed"]
    assert not view["proven"]


def test_configured_endpoint_with_another_name() -> None:
    """Somebody else sits at the configured address: neither proven nor renamed."""
    sibling = Peer("203.0.113.6", 3511, peer_id=named("sibling"))
    world = World(siblings=(sibling,))
    other = Peer(sibling.address, sibling.port, peer_id=named("somebody else"))
    sibling.alive = False
    (ping,) = [item for item in world.advance(1) if item.to == sibling.endpoint]
    before = world.counters()
    world.send(other, other.pong(ping))
    assert world.drops(before) == {"name_taken": 1}
    view = world.view(sibling)
    assert view is not None
    assert not view["proven"]
    assert view["peerId"] == sibling.peer_id.hex()
    assert world.holder(other.peer_id) is None


def test_a_peer_may_rename_itself(world: World, victim: Peer) -> None:
    """An application restarted on the same port with a new key."""
    again = Peer(victim.address, victim.port, peer_id=named("new key"))
    world.peers[again.endpoint] = again
    world.send(again, again.connection_ping(), follow=True)
    assert world.holder(again.peer_id) == again.endpoint
    assert world.holder(NAME) is None
    inside.check(world.node)


def test_free_name_of_a_departed_peer(world: World, victim: Peer) -> None:
    victim.alive = False
    world.advance(6 * KEEP_ALIVE)
    assert world.holder(NAME) is None
    heir = world.connect(Peer("198.51.100.66", peer_id=NAME))
    assert world.holder(NAME) == heir.endpoint
    assert world.count("names_moved") == 0


def test_name_of_a_holder_whose_proof_ran_out(world: World, victim: Peer) -> None:
    """Nobody ticked the node meanwhile: the holder is still in the table, but it is no proven endpoint, and keeps no name."""
    world.pass_time(4 * KEEP_ALIVE + 1)
    heir = Peer("198.51.100.66", peer_id=NAME)
    sent = claim_by_pong(world, heir)
    assert [item for item in sent if item.to == victim.endpoint] == []
    assert world.holder(NAME) == heir.endpoint
    inside.check(world.node)


def test_a_holder_whose_proof_runs_out_meanwhile_is_asked_no_more(world: World, victim: Peer) -> None:
    world.pass_time(4 * KEEP_ALIVE - 1.4)
    asked = claim_by_pong(world, Peer("198.51.100.66", peer_id=NAME))
    assert [item.to for item in only(asked, codec.PING)] == [victim.endpoint]
    world.pass_time(0.8)
    assert victim.endpoint not in {item.to for item in world.tick()}
    inside.check(world.node)


def test_claimant_that_left_meanwhile_inherits_nothing(world: World) -> None:
    """A loses its own name, and with it its place, in the same moment in which it would inherit another's."""
    names = [named("first"), named("second")]
    a = world.connect(Peer("198.51.100.1", peer_id=names[0]))
    holder = world.connect(Peer("198.51.100.2", peer_id=names[1]))
    b = world.prove(Peer("198.51.100.3"))
    a.alive = holder.alive = False
    world.pass_time(1)
    b.peer_id = names[0]
    renamed = Peer(a.address, a.port, peer_id=names[1])
    world.send(renamed, renamed.connection_ping(), follow=True)  # A claims the other's name …
    world.pass_time(0.001)
    world.send(b, b.connection_ping(), follow=True)  # … while B claims A's, who does not answer any more
    world.pass_time(2)
    world.tick()
    inside.check(world.node)
    assert world.holder(names[0]) == b.endpoint
    taken = world.holder(names[1])
    assert taken is None or world.view(taken) is not None
    for i in range(400):
        world.prove(Peer(f"203.0.113.{i % 200 + 1}", 4000 + i))
    inside.check(world.node)


def test_stream_follows_the_name(world: World, victim: Peer) -> None:
    """While a name is disputed its packets go to the endpoint that is proven to hold it."""
    sender = world.connect(Peer("198.51.100.9"))
    thief = Peer("198.51.100.66", peer_id=NAME)
    claim_by_ping(world, thief)
    (item,) = world.send(sender, sender.stream(NAME, b"secret"))
    assert item.to == victim.endpoint


def test_a_join_that_waited_for_the_name_is_introduced_when_it_moves(world: World, victim: Peer) -> None:
    """A peer whose address has changed joins before its old endpoint has failed the ping: not only with its next join."""
    member = world.connect(Peer("198.51.100.9"))
    victim.alive = False
    heir = Peer("198.51.100.66", peer_id=NAME)
    claim_parked(world, heir)
    assert only(world.send(heir, heir.join()), codec.INTRO) == []
    told = {item.to: item.message for item in only(world.advance(3), codec.INTRO)}
    assert told[member.endpoint]["address"] == heir.address
    assert told[heir.endpoint]["address"] == member.address
    inside.check(world.node)
