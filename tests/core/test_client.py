"""The core as an application's peer, where that could make a weapon of it or loses what it was given."""

from __future__ import annotations

from typing import Any

import pytest

from srpnode.core import codec
from tests.core import inside
from tests.core.world import NODE_ID, START_MS, Peer, Sent, World, named, only

CLUSTER, SUB = named("cluster"), named("sub")


def client(**settings: Any) -> World:
    """A peer of an application that joined one subcluster."""
    world = World(**{"app_bytes": 20_000, "attempts": 8, **settings})
    world.node.join(CLUSTER, SUB)
    return world


def join_elsewhere(i: int, rendezvous: Peer, **message: Any) -> bytes:
    """A join of a cluster member, stamped by its rendezvous peer and relayed."""
    joiner = Peer(f"192.0.2.{i % 200 + 1}", 2000 + i, cluster=CLUSTER, subcluster=SUB)
    return joiner.join(
        hops=2,
        rendezvousAddress=rendezvous.address,
        rendezvousPort=rendezvous.port,
        rendezvousType=31,
        rendezvousPeerId=rendezvous.peer_id.hex(),
        rendezvousDeadline=float(START_MS + 30_000),
        **message,
    )


def test_answers_the_rendezvous_peer() -> None:
    """Asks the peer that stamped the join to be introduced to its sender."""
    world = client()
    relay = world.connect(Peer("203.0.113.50", 3511))
    elsewhere = Peer("203.0.113.60", 3511)
    (answer,) = only(world.send(relay, join_elsewhere(1, elsewhere)), codec.JOIN)
    assert answer.to == elsewhere.endpoint
    assert answer.frame["hops"] == 0
    assert answer.message["rendezvousPeerId"] == elsewhere.peer_id.hex()
    assert answer.message["requesterPeerId"] == NODE_ID.hex()


def test_answers_at_one_prefix_are_limited() -> None:
    """Joins that name a victim as their rendezvous peer make us send there: within the budget of relayed joins."""
    world = client(relayed_joins_per_minute=20)
    relay = world.connect(Peer("203.0.113.50", 3511))
    victim = Peer("198.51.100.200", 4000)
    sent: list[Sent] = []
    for i in range(300):
        sent += world.send(relay, join_elsewhere(i, victim))
    assert 0 < len([item for item in sent if item.to == victim.endpoint]) <= 20


@pytest.mark.parametrize("position", [0, 1, 2**31, 2**32 - 1, 2**32 - 1000, 2**32 - 19_999])
@pytest.mark.parametrize("size", [1000, 4096, 20_000])
def test_application_ring_after_any_number_of_bytes(position: int, size: int) -> None:
    """Four billion bytes later the records are still whole."""
    world = client(app_bytes=size)
    sender = world.connect(Peer("198.51.100.7"))
    world.node.app_events()
    inside.wind_application_ring(world.node, position)
    for i in range(200):
        data = sender.stream(NODE_ID, b"%d" % i + bytes(i * 3))
        world.send(sender, data)
        ((kind, packet, source),) = world.node.app_events()
        assert (kind, packet, source) == ("stream", data, sender.endpoint)


def test_application_ring_drops_the_newest() -> None:
    """An application that does not listen: what no longer fits is dropped and counted, the rest stays whole."""
    world = client(app_bytes=4000)
    sender = world.connect(Peer("198.51.100.7"))
    world.node.app_events()
    sent = [sender.stream(NODE_ID, b"%d" % i + bytes(500)) for i in range(50)]
    for data in sent:
        world.send(sender, data)
    events = world.node.app_events()
    assert [packet for _, packet, _ in events] == sent[: len(events)]
    assert world.count("drop_app_full") == 50 - len(events) > 0


@pytest.mark.parametrize("socket", [-1, 258, 9999, 65_536, 70_000])
def test_sockets_that_do_not_exist(socket: int) -> None:
    """Main, probe and 256 of the pool; a number beyond them would point out of a table."""
    world = client()
    with pytest.raises((ValueError, OverflowError)):
        world.send(Peer("198.51.100.7"), Peer("198.51.100.7").ping(), socket=socket)


class TestAttempts:
    """An introduction makes us send to whom it names: within budgets, or a client could be aimed."""

    CONFIGURED = Peer("203.0.113.1", 3511, cluster=CLUSTER)

    def aim(self, world: World, by: Peer, targets: list[Peer], seconds: float = 3.0) -> list[Sent]:
        """What leaves when one peer introduces all of these."""
        sent: list[Sent] = []
        for target in targets:
            sent += world.send(by, by.intro(target, subcluster=SUB, wall_ms=world.wall_ms))
        for _ in range(round(seconds / 0.005)):
            world.pass_time(0.005)
            sent += world.tick()
        return [item for item in sent if item.to[0] in {target.address for target in targets}]

    def peer(self, nat_type: int = 31, **limits: Any) -> World:
        world = client(nat_type=nat_type, siblings=(self.CONFIGURED,), attempts=64, peers=256, **limits)
        world.prove(self.CONFIGURED)
        return world

    @pytest.mark.parametrize(("configured", "most"), [(True, 4), (False, 1)])
    def test_ports_opened_at_one_prefix(self, configured: bool, most: int) -> None:
        world = self.peer(nat_type=7)
        by = self.CONFIGURED if configured else world.connect(Peer("203.0.113.50", cluster=CLUSTER))
        targets = [Peer(f"198.51.100.{i + 1}", nat_type=5) for i in range(50)]
        sent = self.aim(world, by, targets)
        assert {item.data for item in sent} == {b"\x01"}
        assert len(sent) == 1024 * most
        assert world.count("drop_attempt_budget") == 50 - most
        # Who is not punched is reached through the introducer, at once.
        told = [event for event in world.node.app_events() if event[0] == "join"]
        assert {event[1] for event in told} == {target.peer_id for target in targets}
        assert not any(event[5] for event in told)

    def test_no_more_at_once_than_a_router_has_room_for(self) -> None:
        world = self.peer(nat_type=7, punches_per_minute=0)
        sent = self.aim(world, self.CONFIGURED, [Peer(f"198.51.{i}.1", nat_type=5) for i in range(50)])
        assert len(sent) == 8 * 1024

    def test_pings_at_one_prefix(self) -> None:
        world = self.peer()
        sent = self.aim(world, self.CONFIGURED, [Peer(f"198.51.100.{i + 1}", 4000) for i in range(40)])
        assert len(sent) == 40 * 6  # an honest number of them
        sent = self.aim(world, self.CONFIGURED, [Peer(f"198.51.100.{i + 1}", 5000) for i in range(60)])
        assert len(sent) == (64 - 40) * 6
        assert world.count("drop_attempt_budget") == 100 - 64
        world.pass_time(60)
        assert len(self.aim(world, self.CONFIGURED, [Peer("198.51.100.1", 6000)])) == 6

    def test_every_socket_pings_once_more_when_all_ports_of_the_other_are_open(self) -> None:
        """The other side opens its ports for a second; two attempts at a time do not share the sockets out between them."""
        world = self.peer(nat_type=5, pool_open=256)
        targets = [Peer(f"198.51.{i}.1", 4000, nat_type=7) for i in range(2)]
        for target in targets:
            world.send(self.CONFIGURED, self.CONFIGURED.intro(target, subcluster=SUB, wall_ms=world.wall_ms))
        last: dict[str, dict[int, float]] = {target.address: {} for target in targets}
        pings = 0
        for step in range(2_000):
            world.pass_time(0.001)
            for item in only(world.tick(), codec.PING):
                if item.to[0] in last:
                    last[item.to[0]][item.socket] = step / 1000
                    pings += 1
        assert pings > 2 * 1020  # the first left before the first step
        for sockets in last.values():
            assert len(sockets) == 256
            assert min(sockets.values()) > 1.2
            assert max(sockets.values()) < 1.7  # the answer has time to come

    def test_who_is_reached_is_told_our_cluster_twice(self) -> None:
        """What reached it may have been a pong, which names none, and one ping may be lost."""
        world = self.peer()
        other = Peer("198.51.100.8", cluster=CLUSTER, subcluster=SUB)
        sent = world.send(self.CONFIGURED, self.CONFIGURED.intro(other, subcluster=SUB, wall_ms=world.wall_ms))
        (ping,) = only(sent, codec.PING)
        assert world.node.app_events() == []
        sent = world.send(other, other.pong(ping, isConnection=True))
        assert [event[:2] for event in world.node.app_events()] == [("join", other.peer_id)]
        for _ in range(400):
            world.pass_time(0.005)
            sent += world.tick()
        named = [item for item in only(sent, codec.PING) if item.to == other.endpoint]
        assert [item.frame["subcluster_id"] for item in named] == [SUB, SUB]
        assert all(item.message["isConnection"] for item in named)

    def test_in_all(self) -> None:
        world = self.peer(attempts_per_minute=32)
        sent = self.aim(world, self.CONFIGURED, [Peer(f"198.{i}.100.1", 4000) for i in range(50)])
        assert len(sent) == 32 * 6


class TestJoinsLater:
    """A subcluster that is joined after others told us of it."""

    OTHER = named("other")

    def test_members_that_are_known_are_told_at_once(self) -> None:
        world = client()
        member = world.connect(Peer("198.51.100.8", subcluster=self.OTHER))
        assert world.node.app_events() == []
        world.node.join(CLUSTER, self.OTHER)
        ((kind, peer_id, cluster, subcluster, *_),) = world.node.app_events()
        assert (kind, peer_id, cluster, subcluster) == ("join", member.peer_id, CLUSTER, self.OTHER)
        world.node.leave(CLUSTER, self.OTHER)
        world.node.join(CLUSTER, self.OTHER)
        assert [event[:2] for event in world.node.app_events()] == [("join", member.peer_id)]

    def test_an_introduction_of_before_does_not_make_deaf_to_the_next(self) -> None:
        world = client(nat_type=5)
        relay = world.connect(Peer("203.0.113.50", 3511))
        hard = Peer("198.51.100.8", nat_type=5)
        world.send(relay, relay.intro(hard, subcluster=self.OTHER))
        world.node.app_events()  # reached by proxy, on behalf of a subcluster that is not ours
        world.node.join(CLUSTER, self.OTHER)
        world.send(relay, relay.intro(hard, subcluster=self.OTHER))
        ((kind, peer_id, _, subcluster, _, direct, *_),) = world.node.app_events()
        assert (kind, peer_id, subcluster, direct) == ("join", hard.peer_id, self.OTHER, False)


def test_one_peer_at_a_time_brings_us_up_to_date() -> None:
    """While one answers what we asked it for, our own summary is offered to nobody else: who lacks everything would be sent
    everything by each. The last one that had to wait is asked afterwards."""
    world = client()
    first, *others = (world.connect(Peer(f"198.51.100.{i + 1}", cluster=CLUSTER, subcluster=SUB)) for i in range(5))
    world.advance(7)  # summaries go to one peer every six seconds at most
    world.send(others[0], others[0].connection_ping(cacheSummaryHash=b"\1".hex() * 20))
    assert [item.to for item in only(world.advance(0.5), codec.SYNC)] == [others[0].endpoint], "else it is offered at once"
    asked = only(world.send(first, first.summary([named("one"), named("two")])), codec.SYNC)
    assert {item.to for item in asked} == {first.endpoint}
    for other in others[1:]:
        world.pass_time(0.1)
        world.send(other, other.connection_ping(cacheSummaryHash=b"\1".hex() * 20))
    offered = [item.to for item in only(world.advance(0.8), codec.SYNC)]
    assert offered == []
    offered = [item.to for item in only(world.advance(1.5), codec.SYNC)]
    assert offered == [others[-1].endpoint]
