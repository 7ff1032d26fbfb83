"""What happens by itself: heartbeats spread over the keep-alive, departures, restarts, and when the node wants to be ticked."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from srpnode.core import codec
from tests.core import inside
from tests.core.world import KEEP_ALIVE, NODE_ID, START_US, Peer, Sent, World, named, number, only


@pytest.fixture
def world() -> World:
    return World()


def test_every_peer_is_pinged_every_keep_alive(world: World) -> None:
    peers = world.connect_many(50)
    world.advance(0.5)
    for _ in range(10):
        pings = only(world.advance(KEEP_ALIVE), codec.PING)
        count = Counter(item.to for item in pings)
        assert set(count) == {peer.endpoint for peer in peers}
        assert set(count.values()) == {1}


def test_heartbeats_keep_their_pace() -> None:
    """Peers that came in one moment are not pinged in one moment: the reference's main loop answers to all at once."""
    world = World(peers=20_000, unproven_per_second=0)
    assert inside.crowd(world.node, 10_000, number("11.0.0.1"), 100, world.mono_us, world.wall_ms) == 10_000
    world.take()
    world.pass_time(KEEP_ALIVE - 0.5)
    world.tick()
    at: list[float] = []
    for step in range(4000):
        world.pass_time(0.005)
        at += [step * 0.005] * len(world.tick())
    assert len(at) == 10_000
    busiest = max(Counter(int(second * 10) for second in at).values())
    assert busiest <= 4 * 10_000 / KEEP_ALIVE / 10 + 100, busiest
    assert 5 <= at[-1] - at[0] <= KEEP_ALIVE


def test_heartbeats_stay_spread() -> None:
    """Once spread, the order stays: no second brings more than its share."""
    world = World(peers=4000, unproven_per_second=0)
    inside.crowd(world.node, 3000, number("11.0.0.1"), 100, world.mono_us, world.wall_ms)
    world.take()
    for i in range(3000):
        host = number("11.0.0.1") + i
        address = ".".join(str(host >> shift & 255) for shift in (24, 16, 8, 0))
        world.peers[(address, 9000)] = Peer(address, 9000, peer_id=host.to_bytes(4, "little") + b"\1" * 28)
    world.advance(3 * KEEP_ALIVE)
    start = world.mono_us
    seconds: Counter[int] = Counter()
    for _ in range(300):
        seconds[(world.mono_us - start) // 1_000_000] += len(only(world.advance(0.1), codec.PING))
    assert sum(seconds.values()) == 3000
    assert max(seconds.values()) <= 2.5 * 3000 / KEEP_ALIVE
    assert world.count("departures") == 0


def test_heartbeat_to_peers_and_to_indexed_peers() -> None:
    """Everybody is asked for a sign of life that also an unready client can give; indexed peers are told our NAT type."""
    sibling = Peer("203.0.113.6", 3511, peer_id=named("sibling"))
    world = World(siblings=(sibling,))
    peer = world.connect(Peer("198.51.100.7"))
    pings = {item.to: item for item in only(world.advance(KEEP_ALIVE + 1), codec.PING)}
    assert pings[peer.endpoint].message["isReflection"] is True
    assert "natType" not in pings[peer.endpoint].message
    assert pings[sibling.endpoint].message["isConnection"] is True
    assert pings[sibling.endpoint].message["natType"] == 31
    assert all(item.message["requesterPeerId"] == NODE_ID.hex() for item in pings.values())


def uptime_of(world: World, peers: list[Peer], uptime_ms: float) -> None:
    """Each peer answers three heartbeats, and tells that it has been there for so long."""
    for peer in peers:
        peer.uptime_ms = uptime_ms


@pytest.mark.parametrize(("uptime_s", "pings"), [(4.0, 30), (60.0, 20), (3600.0, 10)])
def test_peers_that_do_not_live_long_are_pinged_more_often(world: World, uptime_s: float, pings: int) -> None:
    """A quarter of their usual time of life, within a third of a keep-alive and one."""
    peers = world.connect_many(20)
    uptime_of(world, peers, uptime_s * 1000)
    world.advance(3 * KEEP_ALIVE)
    count = Counter(item.to for item in only(world.advance(10 * KEEP_ALIVE), codec.PING))
    assert set(count) == {peer.endpoint for peer in peers}
    assert all(abs(value - pings) <= 1 for value in count.values()), count


def test_answers_that_nobody_asked_for_do_not_shorten_the_interval(world: World) -> None:
    """One peer that says again and again that it is young, with a pingId it was given once."""
    peers = world.connect_many(20)
    uptime_of(world, peers, 3_600_000)
    world.advance(3 * KEEP_ALIVE)
    ping = only(peers[0].received, codec.PING)[-1]
    for _ in range(100):
        world.send(peers[0], peers[0].pong(ping, uptime=1000.0))
    count = Counter(item.to for item in only(world.advance(5 * KEEP_ALIVE), codec.PING))
    assert max(count.values()) <= 6


def test_a_crowd_is_not_pinged_more_often() -> None:
    """At most a thousand pings a second leave before a keep-alive is over, so 30 000 peers are pinged once in it."""
    world = World(peers=40_000, unproven_per_second=0, keep_alive=KEEP_ALIVE)
    assert inside.crowd(world.node, 30_000, number("11.0.0.1"), 100, world.mono_us, world.wall_ms) == 30_000
    world.take()
    young = world.connect(Peer("198.51.100.7"))
    young.uptime_ms = 1000.0
    sent = Counter(item.to for item in only(world.advance(2.5 * KEEP_ALIVE), codec.PING))
    assert sent[young.endpoint] in (2, 3)
    assert sum(sent.values()) <= 1000 * 2.5 * KEEP_ALIVE


@pytest.mark.parametrize("uptime_s", [1.0, 3600.0])
def test_a_lost_answer_loses_no_peer(world: World, uptime_s: float) -> None:
    """Packets get lost: two heartbeats without an answer leave a peer where it is, whatever the interval."""
    peers = world.connect_many(20)
    uptime_of(world, peers, uptime_s * 1000)
    world.advance(3 * KEEP_ALIVE)
    peer = peers[7]
    peer.alive = False
    missed: list[Sent] = []
    while len(missed) < 2:
        missed += [item for item in world.advance(0.5) if item.to == peer.endpoint and item.type == codec.PING]
    peer.alive = True
    world.advance(2 * KEEP_ALIVE)
    assert world.count("departures") == 0
    assert (world.view(peer) or {})["proven"]


def test_who_is_heard_is_not_gone_early(world: World) -> None:
    """Its answers are lost and its own pings arrive, as a reference peer sends them every keep-alive: it stays as long as its proof."""
    peers = world.connect_many(20)
    uptime_of(world, peers, 1000.0)
    world.advance(3 * KEEP_ALIVE)
    deaf, dead = peers[3], peers[4]
    deaf.alive = dead.alive = False
    for _ in range(3):
        world.advance(KEEP_ALIVE - 1)
        world.send(deaf, deaf.ping())
    assert world.view(dead) is None
    assert (world.view(deaf) or {})["proven"]
    for _ in range(3):
        world.advance(KEEP_ALIVE)
        world.send(deaf, deaf.ping())
    assert not (world.view(deaf) or {"proven": False})["proven"]


def test_distance(world: World) -> None:
    """The time from ping to pong, smoothed."""
    peer = world.connect(Peer("198.51.100.7", alive=False))
    seen = []
    for delay_ms in (80, 80, 240, 240):
        pings: list[Sent] = []
        while not pings:
            pings = only(world.advance(0.001), codec.PING)
        (ping,) = pings
        world.pass_time(delay_ms / 1000)
        world.send(peer, peer.pong(ping))
        view = world.view(peer)
        assert view is not None
        seen.append(view["distance"])
        world.send(peer, peer.pong(ping))  # again: changes nothing
        assert world.view(peer) == view
    assert seen == [80, 80, 120, 150]


# --- departures -----------------------------------------------------------------------------------------------------


def test_silent_peer_is_dropped_after_four_keep_alives(world: World) -> None:
    peer = world.connect(Peer("198.51.100.7", subcluster=named("sub")))
    other = world.connect(Peer("198.51.100.8"))
    peer.alive = False
    sent = world.advance(4 * KEEP_ALIVE - 1)
    assert len([item for item in only(sent, codec.PING) if item.to == peer.endpoint]) == 3
    assert world.view(peer) is not None
    world.advance(KEEP_ALIVE)
    assert world.view(peer) is None
    assert world.view(other) is not None
    assert world.count("departures") == 1
    gauges = world.node.gauges()
    assert (gauges["peers"], gauges["connected"], gauges["clusters"], gauges["memberships"]) == (1, 1, 1, 1)
    inside.check(world.node)


def test_silent_indexed_peer_stays() -> None:
    sibling = Peer("203.0.113.6", 3511, peer_id=named("sibling"))
    world = World(siblings=(sibling,))
    world.advance(1)
    assert world.node.gauges()["indexed"] == 1
    sibling.alive = False
    sent = world.advance(20 * KEEP_ALIVE)
    assert len([item for item in only(sent, codec.PING) if item.to == sibling.endpoint]) == 20
    assert world.node.gauges()["indexed"] == 0
    view = world.view(sibling)
    assert view is not None
    assert not view["proven"]
    sibling.alive = True
    world.advance(2 * KEEP_ALIVE)
    assert world.node.gauges()["indexed"] == 1


def test_last_of_a_thousand_leaves_nothing_behind() -> None:
    """All tables are as empty as at the start, and can be filled again."""
    world = World(peers=1000, unproven_per_second=0)
    for _ in range(3):
        before = world.count("departures")
        assert inside.crowd(world.node, 1000, number("11.0.0.1"), 300, world.mono_us, world.wall_ms) == 1000
        world.take()
        inside.check(world.node)
        world.advance(6 * KEEP_ALIVE)
        assert world.count("departures") - before == 1000
        gauges = world.node.gauges()
        assert (gauges["peers"], gauges["connected"], gauges["clusters"], gauges["memberships"]) == (0, 0, 0, 0)
        inside.check(world.node)


def test_cluster_of_departed_members_keeps_its_packets(world: World) -> None:
    """The next member gets them first, as before."""
    peer = world.connect(Peer("198.51.100.7"))
    world.send(peer, peer.publish(b"left behind"))
    peer.alive = False
    world.advance(6 * KEEP_ALIVE)
    assert world.node.gauges()["clusters"] == 1
    assert world.cached() == 1
    inside.check(world.node)


# --- restart --------------------------------------------------------------------------------------------------------


def test_restarted_node_is_found_by_its_peers() -> None:
    """The same identity, nothing remembered: heartbeats and joins of the peers suffice to know them again."""
    settings: dict[str, Any] = {"seed": b"\7" * 32}
    before = World(**settings)
    peers = before.connect_many(5)
    after = World(**settings, mono_us=START_US + 5_000_000)
    for peer in peers:
        after.peers[peer.endpoint] = peer
    for peer in peers[:4]:
        after.send(peer, peer.ping(natType=31), follow=True)
    sent = after.send(peers[4], peers[4].join(), follow=True)
    assert after.node.gauges()["connected"] == 5
    introduced = {item.to for item in only(sent, codec.INTRO)}
    assert introduced == {peer.endpoint for peer in peers}


def test_pong_to_the_node_before_its_restart(world: World) -> None:
    """Same seed and same clock: a proof asked for before still counts. Another clock or seed: it is worth nothing."""
    peer = Peer("198.51.100.7")
    (ping,) = only(world.send(peer, peer.ping()), codec.PING)
    same, later, other = World(), World(mono_us=START_US + 10**10), World(seed=b"\1" * 32)
    for after, counts in ((same, True), (later, False), (other, False)):
        after.send(peer, peer.pong(ping))
        assert (after.view(peer) is not None) == counts


def test_siblings_find_each_other() -> None:
    """Two identities that list each other as indexed peers: proven and connected within a keep-alive, whoever starts first."""
    for late_s in (0.0, 5.0, 100.0):
        one_at, two_at = Peer("203.0.113.5", 3511, peer_id=named("one")), Peer("203.0.113.6", 3511, peer_id=named("two"))
        one = World(siblings=(two_at,), peer_id=one_at.peer_id, address=number(one_at.address), seed=b"\1" * 32)
        two = World(siblings=(one_at,), peer_id=two_at.peer_id, address=number(two_at.address), seed=b"\2" * 32)
        one_at.alive = two_at.alive = False  # they answer for themselves
        at = {one_at.endpoint: (one, two_at), two_at.endpoint: (two, one_at)}
        one.advance(late_s)
        two.pass_time(late_s)
        for _ in range(320):
            queue = [*one.advance(0.1), *two.advance(0.1)]
            while queue:
                item = queue.pop(0)
                world, source = at[item.to]
                queue += world.send(source, item.data, local=item.to[0])
        assert one.node.gauges()["indexed"] == two.node.gauges()["indexed"] == 1
        assert one.count("drop_budget") == two.count("drop_budget") == 0


# --- ticks ----------------------------------------------------------------------------------------------------------


def test_idle_node_asks_for_few_ticks() -> None:
    world = World()
    ticks = 0
    while world.mono_us < START_US + 600_000_000:
        due = world.node.next_due_us()
        assert due > world.mono_us
        world.pass_time((due - world.mono_us) / 1e6)
        assert world.tick() == []
        ticks += 1
    assert ticks <= 20


def test_ticks_for_peers_and_packets(world: World) -> None:
    """A few peers and packets: a few ticks a second at most, and never one in the past after a tick."""
    peers = world.connect_many(5)
    for peer in peers:
        world.send(peer, peer.publish(peer.peer_id))
    world.advance(2)
    ticks = 0
    start = world.mono_us
    while world.mono_us < start + 60_000_000:
        due = world.node.next_due_us()
        assert due > world.mono_us
        world.pass_time((due - world.mono_us) / 1e6)
        for item in only(world.tick(), codec.PING):
            world.send(world.peers[item.to], world.peers[item.to].pong(item))
        ticks += 1
    assert ticks < 120


def test_neglected_ticks(world: World) -> None:
    """A driver that slept for an hour: nothing breaks, the silent are dropped, the work is spread."""
    world.connect_many(100)
    world.pass_time(3600)
    most = 0
    for _ in range(100):
        most = max(most, len(world.tick()))
        world.pass_time(0.01)
    assert most <= 256
    inside.check(world.node)


@pytest.mark.parametrize("keep_alive", [0.05, 1.0, 3600.0])
def test_other_keep_alives(keep_alive: float) -> None:
    world = World(keep_alive=keep_alive)
    peers = world.connect_many(10)
    world.advance(10 * keep_alive)
    if keep_alive >= 1:
        assert world.node.gauges()["connected"] == 10
    for peer in peers:
        peer.alive = False
    world.advance(6 * keep_alive)
    assert world.node.gauges()["peers"] == 0


def test_events(world: World) -> None:
    """What happened, oldest first; a full ring keeps the oldest and counts the rest."""
    peer = world.connect(Peer("198.51.100.7"))
    assert [(event["event"], event["address"], event["port"]) for event in world.node.events()] == [
        ("proven", "198.51.100.7", 9000),
        ("connected", "198.51.100.7", 9000),
    ]
    peer.alive = False
    world.advance(6 * KEEP_ALIVE)
    assert [event["event"] for event in world.node.events()] == ["gone"]
    world.connect_many(200)
    assert len(world.node.events()) == 256
    assert world.count("events_lost") == 400 - 256
    assert world.node.events() == []
