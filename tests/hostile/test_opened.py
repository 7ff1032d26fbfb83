"""An introducer and a forger together: a peer behind a port-restricted NAT is told that somebody behind a Hard one is at a victim,
opens its way, and takes a ping forged from one of the opened ports for that somebody. What it then sends to the victim."""

from __future__ import annotations

import random

import pytest

from srpnode.core import codec
from tests.core import inside
from tests.core.world import Peer, Sent, World, named, only

CLUSTER, SUB = named("cluster"), named("sub")
FIRST = 16  # datagrams that a peer gets for nothing
HARD, RESTRICTED = 5, 7


class Attack:
    """The peer, its introducer, and a friend in the subcluster. The victim answers nothing."""

    def __init__(self) -> None:
        self.introducer = Peer("203.0.113.1", 3511, cluster=CLUSTER)
        self.world = World(
            nat_type=RESTRICTED, siblings=(self.introducer,), attempts=8, peers=256, app_bytes=20_000, queue_datagrams=16_384
        )
        self.world.node.join(CLUSTER, SUB)
        self.world.prove(self.introducer)
        self.friend = self.world.connect(Peer("203.0.113.9", cluster=CLUSTER, subcluster=SUB))
        self.victim = Peer("198.51.100.7", peer_id=named("nobody"), nat_type=HARD, cluster=CLUSTER, subcluster=SUB)
        self.opened: list[int] = []
        self.spent = 0
        self.published = 0
        self.at_victim: list[Sent] = []

    def note(self, sent: list[Sent]) -> list[Sent]:
        self.opened += [item.to[1] for item in sent if item.data == b"\x01"]
        self.at_victim += [item for item in sent if item.to[0] == self.victim.address and item.data != b"\x01"]
        return sent

    def tick(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.005)):
            self.world.pass_time(0.005)
            self.note(self.world.tick())

    def open(self) -> None:
        """The introduction, and the thousand ports that it has the peer open."""
        self.note(self.world.send(self.introducer, self.introducer.intro(self.victim, subcluster=SUB, wall_ms=self.world.wall_ms)))
        self.tick(1.5)

    def forge(self, data: bytes) -> list[Sent]:
        self.spent += 1
        return self.note(self.world.send(self.victim, data))

    def guess(self) -> None:
        """Pings from ports at random until one is believed."""
        rng = random.Random(3)
        ports = list(range(1024, 65536))
        rng.shuffle(ports)
        for port in ports:
            self.victim.port = port
            self.forge(self.victim.connection_ping())
            view = self.world.view(self.victim)
            if view is not None and view["connected"]:
                return

    def publish(self, count: int) -> int:
        """Of the application; how many of these the victim got."""
        before = self.data()
        for _ in range(count):
            self.published += 1
            self.world.node.publish(self.friend.publish(b"%d" % self.published, subcluster_id=SUB))
            self.note(self.world.take())
        return self.data() - before

    def data(self) -> int:
        return sum(1 for item in self.at_victim if item.type not in (codec.PING, codec.PONG))


@pytest.fixture
def attack() -> Attack:
    made = Attack()
    made.open()
    assert len(made.opened) == 1024, "no ports were opened"
    made.guess()
    return made


def test_the_lie_is_believed(attack: Attack) -> None:
    """Else nothing below means anything. Some 63 pings are needed."""
    assert attack.victim.port in attack.opened
    assert 10 < attack.spent < 400
    assert attack.publish(1) == 1


def test_the_victim_gets_no_more_than_the_liar_spends(attack: Attack) -> None:
    believed = attack.spent
    attack.publish(300)
    assert attack.data() <= FIRST + 1, "what was wasted on guesses does not count"
    for i in range(100):
        attack.forge(attack.victim.ping())
        if i % 2:
            attack.world.send(attack.friend, attack.friend.publish(b"relayed %d" % i, subcluster_id=SUB))
            attack.note(attack.world.take())
    attack.publish(300)
    assert attack.data() <= FIRST + 1 + attack.spent - believed
    assert attack.world.count("drop_opened_share") > 0
    inside.check(attack.world.node)


def test_its_summaries_and_questions_bring_nothing_more(attack: Attack) -> None:
    for i in range(50):
        attack.world.send(attack.friend, attack.friend.publish(b"stored %d" % i, subcluster_id=SUB))
    attack.world.take()
    spent, before = attack.spent, attack.data()
    for _ in range(20):
        attack.forge(attack.victim.sync(codec.encode_summary("", codec.sha256(b"x")[:20], [None] * 16)))
        attack.forge(attack.victim.query(codec.sha256(b"stored 1"), named(f"{attack.spent}"), attack.world.wall_ms))
        attack.tick(0.1)
    assert attack.data() - before <= FIRST + attack.spent - spent


def test_others_are_not_told_of_it(attack: Attack) -> None:
    joiner = attack.world.connect(Peer("203.0.113.20", cluster=CLUSTER, subcluster=SUB))
    sent = attack.world.send(joiner, joiner.join())
    for _ in range(300):
        attack.world.pass_time(0.01)
        sent += attack.world.tick()
    told = {item.message["address"] for item in only(sent, codec.INTRO)}
    assert told & {joiner.address, attack.friend.address}, "nobody is introduced at all"
    assert attack.victim.address not in told
    before = attack.world.counters()
    assert attack.forge(attack.victim.join()) == []
    assert attack.world.drops(before) == {"unproven": 1}


def test_what_is_more_goes_by_the_introducer(attack: Attack) -> None:
    """Streams of the application arrive, should it be somebody after all."""
    to = []
    for i in range(40):
        attack.world.node.stream(attack.friend.stream(attack.victim.peer_id, b"%d" % i))
        to += [item.to for item in attack.world.take() if item.type == codec.STREAM]
    assert len(to) == 40
    assert to.count(attack.victim.endpoint) <= FIRST + 1
    assert to[-1] == attack.introducer.endpoint


def test_who_proves_itself_gets_all(attack: Attack) -> None:
    """A peer that answers from the socket that it connects from, as ours do."""
    (ping, *_) = [item for item in attack.at_victim if item.type == codec.PING and item.to == attack.victim.endpoint]
    attack.world.send(attack.victim, attack.victim.pong(ping))
    assert attack.publish(300) == 300


def test_it_ends(attack: Attack) -> None:
    """With what the lie's proof is worth, however long the liar goes on."""
    for _ in range(130):
        attack.tick(1)
        attack.forge(attack.victim.connection_ping())
    view = attack.world.view(attack.victim)
    assert view is None or not view["proven"]
    assert attack.publish(10) == 0
