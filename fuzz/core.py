"""Whatever anybody sends, in whatever order: after every datagram, tick and command the node's tables are consistent, every
datagram is handled or dropped exactly once, nobody unproven makes it send more than three bytes for one or to anybody else, and
what it relays is what it got, one hop older.

    python -m fuzz.core [SEED [SEQUENCES [STEPS]]]

One seed, one world: sizes of tables, limits, honest peers, liars, commands and time all come from it. A failure prints the seed
and the step and can be run again. fuzz/run works on the C files below.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, field
from typing import Any

from srpnode.core import codec
from tests.core import inside
from tests.core.world import MAIN, NODE_ADDRESS, NODE_ID, NODE_PORT, PROBE, Endpoint, Peer, Sent, World, named, number

TYPES = ("ping", "pong", "intro", "join", "publish", "stream", "sync", "query")
# Drops that come before a datagram is counted by its type, and never after.
EARLY = {
    *(name for name in codec.VERDICTS if name != "ok"),
    "port_zero",
    "probe_socket",
    "denied_prefix",
    "denied_cluster",
    "own_source",
    "rate_address",
    "rate_prefix",
    "rate_unproven",
}
CLUSTERS = [named(f"cluster {i}") for i in range(6)]
SUBCLUSTERS = [named(f"sub {i}") for i in range(3)]
NAMES = [named(f"name {i}") for i in range(14)]
NAT_TYPES = [5, 7, 13, 15, 29, 31]


@dataclass
class Liar(Peer):
    """A peer of the sequence: some answer honestly, some never, all send whatever comes into the generator's mind."""

    honest: bool = True
    pings: list[Sent] = field(default_factory=list)  # what the node asked this endpoint


def lasting(data: bytes) -> bytes:
    """A publish without what may change on its way: its hops and its ttl."""
    return data[:11] + data[15:19] + data[23:]


class Sequence:
    """One run."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.client = rng.random() < 0.3
        self.siblings = tuple(
            Liar(f"203.0.113.{10 + i}", 3511, peer_id=named(f"sibling {i}"), cluster=None) for i in range(rng.randrange(3))
        )
        settings: dict[str, Any] = {
            "peers": rng.choice([1, 4, 16, 64]),
            "gate_entries": rng.choice([8, 64, 4096]),
            "meter_entries": rng.choice([8, 64, 1024]),
            "parked": rng.choice([0, 1, 4, 64]),
            "return_routes": rng.choice([8, 64]),
            "sync_jobs": rng.choice([0, 1, 4, 16]),
            "deferred_joins": rng.choice([0, 1, 8]),
            "queue_datagrams": rng.choice([64, 64, 4096]),
            "cache_max_bytes": rng.choice([16_384, 16_384, 50_000, 1_100_000]),
            "cache_ttl": rng.choice([5, 21_600]),
            "keep_alive": rng.choice([1.0, 30.0]),
            "seed": rng.randbytes(32),
            "selection": rng.choice(["weighed", "weighed", "weighed", "reference"]),
            "address": rng.choice([0, number(NODE_ADDRESS)]),
            **self.limits(),
        }
        if self.client:
            settings.update(
                nat_type=rng.choice([0, 5, 7, 31]), attempts=rng.choice([1, 8]), app_bytes=rng.choice([256, 20_000])
            )
            settings.update(pool_open=rng.choice([0, 16, 256]))
        self.fanout = {"weighed": settings.get("publish_fan_out", 108) + 4, "reference": 6}[settings["selection"]]
        self.selection = settings["selection"]
        self.world = World(siblings=self.siblings, **settings)
        self.node = self.world.node
        networks = rng.choice([["198.51.100"], ["198.51.100", "198.51.101", "10.0.0", "127.0.0"]])
        self.peers: list[Liar] = [*self.siblings]
        crowd = rng.random() < 0.15  # more than a small table holds
        for i in range(rng.randrange(70, 140) if crowd else rng.randrange(3, 24)):
            self.peers.append(
                Liar(
                    f"{rng.choice(networks)}.{i // 2 + 1}",
                    rng.choice([9000, 9001, 53]) + i % 2,
                    peer_id=named(f"one of many {i}") if crowd else rng.choice([*NAMES, *NAMES, NODE_ID]),
                    nat_type=rng.choice(NAT_TYPES),
                    cluster=rng.choice(CLUSTERS),
                    subcluster=rng.choice([None, *SUBCLUSTERS]),
                    honest=rng.random() < 0.8,
                )
            )
        self.published: dict[bytes, bytes] = {}  # datagrams that may be in the cache, by packetId: the latest sent
        self.whole: set[bytes] = set()  # every publish ever sent
        self.sent_once: dict[bytes, int] = {}  # the same without their hops and ttl, with the longest ttl
        self.questions: list[bytes] = []
        for peer in self.peers if crowd else []:
            self.keep(self.world.send(peer, peer.ping()))
            self.answer()

    def limits(self) -> dict[str, Any]:
        """Limits as an operator might set them: usual ones, tight ones, none."""
        rng = self.rng
        if rng.random() < 0.4:
            return {}
        return {
            "replicated_per_minute": rng.choice([0, 20, 1024]),
            "control_per_minute": rng.choice([0, 100, 1_048_576]),
            "address_per_minute": rng.choice([0, 500, 5000, 4_194_304]),
            "prefix_per_minute": rng.choice([0, 1500, 20_000]),
            "unproven_per_second": rng.choice([0, 5, 100_000]),
            "introductions": rng.choice([0, 1, 16]),
            "introductions_per_minute": rng.choice([0, 5, 600]),
            "relayed_joins_per_minute": rng.choice([0, 1, 1, 60]),
            "peers_per_address": rng.choice([0, 1, 4096]),
            "peers_per_prefix": rng.choice([0, 3, 16_384]),
            "sync_per_minute": rng.choice([0, 1, 10, 512]),
            "sync_summaries_per_minute": rng.choice([0, 3, 2048]),
            "privileged_ports": rng.random() < 0.3,
            "bandwidth_out_bytes_per_second": rng.choice([0, 0, 0, 2000]),
            "publish_fan_out": rng.choice([3, 12, 108]),
            "fan_out_packets_per_second": rng.choice([0, 10, 5000]),
            "carried_per_minute": rng.choice([0, 1, 120]),
        }

    # --- datagrams

    def ping(self, peer: Liar) -> bytes:
        rng = self.rng
        keys: dict[str, Any] = {
            "natType": peer.nat_type,
            "isConnection": rng.random() < 0.8,
            "isReflection": rng.random() < 0.5,
            "isProbe": rng.random() < 0.5,
            "pingId": f"{rng.getrandbits(48):012x}",
            "reflectionId": f"{rng.getrandbits(48):012x}",
            "probeExternalPort": rng.randrange(1, 65536),
            "cacheSize": float(rng.randrange(1000)),
        }
        chosen = {key: value for key, value in keys.items() if rng.random() < 0.4}
        return peer.ping(bare=rng.random() < 0.2, subcluster=rng.random() < 0.5, **chosen)

    def pong(self, peer: Liar) -> bytes:
        rng = self.rng
        asked = rng.choice(self.peers) if rng.random() < 0.2 else peer
        if asked.pings and rng.random() < 0.9:
            return peer.pong(rng.choice(asked.pings[-3:]), **({"isConnection": True} if rng.random() < 0.3 else {}))
        message: dict[str, Any] = {
            "requesterPeerId": NODE_ID.hex(),
            "responderPeerId": peer.peer_id.hex(),
            "pingId": f"{rng.getrandbits(48):012x}",
            "reflectionId": f"{rng.getrandbits(48):012x}",
            "address": "198.51.100.7",
            "port": 9000,
        }
        return codec.encode(codec.PONG, message=codec.write_message(codec.PONG, message))

    def join(self, peer: Liar) -> bytes:
        rng = self.rng
        keys: dict[str, Any] = {
            "address": rng.choice([peer.address, "192.88.99.1", "10.0.0.1", "127.0.0.1", NODE_ADDRESS]),
            "port": rng.choice([peer.port, 22, 7777]),
            "rendezvousAddress": rng.choice([other.address for other in self.peers] + ["192.88.99.2"]),
            "rendezvousPort": rng.choice([9000, 3511, 53]),
            "rendezvousType": 31,
            "rendezvousPeerId": rng.choice([NODE_ID, *NAMES]).hex(),
            "rendezvousDeadline": float(self.world.wall_ms + rng.choice([-1, 10_000])),
            "rendezvousRequesterPeerId": rng.choice(NAMES).hex(),
            "key": "abc",
        }
        chosen = {key: value for key, value in keys.items() if rng.random() < 0.3}
        if rng.random() < 0.3:  # stamped, as another node relays it
            chosen = {key: keys[key] for key in ("rendezvousAddress", "rendezvousPort", "rendezvousPeerId")}
        asked = Peer(peer.address, peer.port, rng.choice(NAMES), peer.nat_type, rng.choice(CLUSTERS), peer.subcluster)
        return (asked if rng.random() < 0.3 else peer).join(
            hops=rng.choice([0, 1, 1, 1, 2, 2, 3, 15, 16, 2**32 - 1]),
            packet_id=rng.choice([None, named(f"join {rng.randrange(20)}")]),
            **chosen,
        )

    def intro(self, peer: Liar) -> bytes:
        rng = self.rng
        message = {
            "requesterPeerId": rng.choice(NAMES).hex(),
            "responderPeerId": peer.peer_id.hex(),
            "natType": rng.choice(NAT_TYPES),
            "address": rng.choice([other.address for other in self.peers] + ["192.88.99.3", "10.1.1.1"]),
            "port": rng.choice([9000, 9001, 22]),
        }
        return codec.encode(
            codec.INTRO,
            hops=rng.choice([1, 2, 16]),
            cluster_id=rng.choice(CLUSTERS),
            subcluster_id=rng.choice([None, *SUBCLUSTERS]),
            usr1=str(self.world.wall_ms - rng.choice([0, 10**6])).encode(),
            message=codec.write_message(codec.INTRO, message),
        )

    def packet_id(self) -> bytes:
        rng = self.rng
        which = named(f"packet {rng.randrange(400)}")
        return which if rng.random() < 0.7 else b"\xab\xcd" + which[2:]

    def publish(self, peer: Liar) -> bytes:
        rng = self.rng
        packet_id = self.packet_id()
        return peer.publish(
            rng.randbytes(rng.choice([1, 30, 300, 1024])),
            packet_id=packet_id if rng.random() < 0.95 else packet_id[: rng.randrange(32)],
            hops=rng.choice([0, 1, 5, 15, 16, 300]),
            ttl=rng.choice([0, 1000, 60_000, 21_600_000, 2**32 - 1]),
            clock=rng.choice([1, 2_000_000_000, 2**32 - 1]),
            index=rng.choice([-1, -1, 1, 7]),
            cluster_id=rng.choice([None, *CLUSTERS, rng.randbytes(32)]),
            sig=rng.choice([None, bytes(64)]),
        )

    def stream(self, peer: Liar) -> bytes:
        rng = self.rng
        return peer.stream(rng.choice([NODE_ID, *NAMES]), rng.randbytes(40), hops=rng.choice([0, 1, 15, 16]))

    def sync(self, peer: Liar) -> bytes:
        rng = self.rng
        prefix = self.packet_id().hex()[: rng.choice([0, 0, 0, 1, 2, 3, 4, 64])]
        part = rng.choice([0.0, 0.45, 0.9])
        ids = [packet_id for packet_id in self.published if rng.random() < part]
        digest, buckets = codec.summarize(ids, prefix)
        if rng.random() < 0.3:
            buckets = [rng.choice([None, bucket, rng.randbytes(20)]) for bucket in buckets]
            digest = rng.randbytes(20)
        return peer.sync(codec.encode_summary(prefix, digest, buckets)[: rng.choice([None, None, None, -5])])

    def query(self, peer: Liar) -> bytes:
        rng = self.rng
        if self.questions and rng.random() < 0.4:
            return codec.encode(
                codec.QUERY,
                hops=rng.choice([1, 16]),
                packet_id=self.packet_id(),
                usr3=codec.decode(rng.choice(self.questions))["usr3"],
                usr4=b"2",
                message=rng.randbytes(20),
            )
        when = self.world.wall_ms - rng.choice([0, 5000])
        data = peer.query(self.packet_id(), named(f"query {rng.randrange(50)}"), when, hops=rng.choice([1, 16]))
        self.questions = [*self.questions[-5:], data]
        return data

    def datagram(self, peer: Liar) -> bytes:
        """Anything, sometimes damaged."""
        rng = self.rng
        make = rng.choices(
            [self.ping, self.pong, self.join, self.intro, self.publish, self.stream, self.sync, self.query],
            weights=[4, 5, 4, 1, 8, 2, 4, 4],
        )[0]
        data = make(peer)
        luck = rng.random()
        if luck < 0.06:
            at = rng.randrange(len(data))
            data = data[:at] + rng.randbytes(1) + data[at + 1 :]
        elif luck < 0.08:
            data = data[: rng.randrange(len(data))]
        elif luck < 0.12:
            data += rng.randbytes(rng.randrange(1, 200))
        elif luck < 0.13:
            data = rng.randbytes(rng.randrange(200))
        elif luck < 0.14:
            data = codec.encode(
                data[4] if len(data) > 4 and 0 < data[4] < 9 else 1,
                message=rng.choice([b"{}", b'{"address":' + b"[" * 900, b'{"port":0}', b"\xef\xbb\xbf{}"]),
            )
        return data

    # --- what must hold

    def proven(self) -> set[Endpoint]:
        """Endpoints that packets may be sent to. The reference's selection, which is there to compare with, takes those that it heard."""
        known = "connected" if self.selection == "reference" else "proven"
        return {(row["address"], row["port"]) for row in self.node.peers() if row["proven"] or row[known]}

    def note(self, data: bytes) -> None:
        """Remembers a publish that the node may now hold."""
        if data[4:5] == b"\5" and codec.verdict(data) == "ok":
            frame = codec.decode(data)
            data = data[: frame["size"]]
            self.published[frame["packet_id"]] = data
            self.whole.add(data[:19] + data[23:])
            self.sent_once[lasting(data)] = max(frame["ttl"], self.sent_once.get(lasting(data), 1))

    def check_counts(self, before: dict[str, int], received: int, sent: list[Sent]) -> None:
        """Every datagram is handled by its type or dropped before, once; what leaves is counted."""
        changed = self.world.changed(before)
        assert changed.get("in_datagrams", 0) == received
        typed = sum(changed.get(f"in_{name}", 0) for name in TYPES)
        drops = {name[5:]: count for name, count in changed.items() if name.startswith("drop_")}
        early = sum(count for name, count in drops.items() if name in EARLY)
        if received == 1:
            assert typed + early <= 1, (changed, "counted twice")
            assert typed == 1 or sum(drops.values()) == 1, (changed, "neither handled nor dropped once")
        assert typed + sum(drops.values()) >= received, changed
        assert changed.get("out_datagrams", 0) == len(sent)
        assert changed.get("out_bytes", 0) == sum(len(item.data) for item in sent)
        for i, name in enumerate(TYPES, 1):
            assert changed.get(f"out_{name}", 0) == sum(1 for item in sent if len(item.data) > 1 and item.type == i), name

    def check_sent(self, sent: list[Sent], allowed: set[Endpoint], source: Endpoint | None) -> None:
        """What leaves is well-formed, and goes to proven endpoints, configured ones or the source's address."""
        for item in sent:
            if item.data == b"\1":
                assert self.client
                continue
            verdict = codec.verdict(item.data)
            assert verdict == "ok" or item.type in (codec.PUBLISH, codec.STREAM, codec.SYNC, codec.QUERY), (verdict, item)
            assert item.socket in (MAIN, PROBE) or self.client
            assert item.to != (NODE_ADDRESS, NODE_PORT)
            assert item.to[1] != 0
            if not self.client:
                assert item.to in allowed or (source is not None and item.to[0] == source[0]), (item, "to a stranger")
            if item.type == codec.INTRO and not self.client:
                assert (item.message["address"], item.message["port"]) in allowed, (item, "introduces a stranger")
                assert item.frame["hops"] >= 1
            if item.type == codec.PUBLISH:
                frame = item.frame
                assert 1 <= frame["hops"] <= 16 or self.client or item.data[:19] + item.data[23:] in self.whole  # by sync: as it came
                assert lasting(item.data) in self.sent_once, (item, "was never sent")
                assert frame["ttl"] <= self.sent_once[lasting(item.data)], (item, "would live longer")

    def bound(self, data: bytes, changed: dict[str, int]) -> int:
        """How many datagrams one may lead to, by its type."""
        gone = changed.get("cache_ejected", 0) + changed.get("cache_bucket_full", 0)
        kind = data[4] if len(data) > 4 else 0
        proof = changed.get("unparked", 0) * 50
        return {
            codec.PING: 3 + 1,
            codec.PONG: 2 + proof,
            codec.JOIN: 2 * (16 + 3) + 4 + 2,
            codec.PUBLISH: self.fanout * (1 + gone),
            codec.STREAM: 1,
            codec.SYNC: 16 * 8 + 16,
            codec.QUERY: self.fanout,
            codec.INTRO: 1,
        }.get(kind, 0) + (2 if self.client else 0)

    # --- steps

    def receive(self) -> None:
        """One datagram, honest or not, from where it claims to be or from elsewhere."""
        rng, world = self.rng, self.world
        peer = rng.choice(self.peers)
        data = self.datagram(peer)
        source = peer.endpoint if rng.random() < 0.93 else rng.choice([rng.choice(self.peers).endpoint, ("192.88.99.9", 4000)])
        if rng.random() < 0.01:
            source = rng.choice([(source[0], 0), (NODE_ADDRESS, NODE_PORT), ("255.255.255.255", 1)])
        proven = self.proven()
        before = world.counters()
        self.note(data)
        socket = rng.choice([MAIN] * 30 + [PROBE] + ([2, 5] if self.client else []))
        sent = world.send(source, data, socket=socket)
        self.check_counts(before, 1, sent)
        after = self.proven()
        self.check_sent(sent, proven | after | {sibling.endpoint for sibling in self.siblings}, source)
        if source not in proven and source not in after:
            size = sum(len(item.data) for item in sent)
            assert size <= 3 * len(data), (len(data), sent)
            assert all(item.to[0] == source[0] for item in sent), sent
            # A stream: one ping, when it names a peer behind a hard NAT at the same address.
            assert not sent or data[4] in (codec.PING, codec.JOIN) or (data[4] == codec.STREAM and len(sent) == 1)
        changed = world.changed(before)
        assert len(sent) <= self.bound(data, changed), (data[4], changed)
        self.relayed_intact(data, sent)
        self.keep(sent)

    def relayed_intact(self, data: bytes, sent: list[Sent]) -> None:
        """A stream, a question or an answer leaves as it came, one hop older."""
        if len(data) < 23 or data[4] not in (codec.STREAM, codec.QUERY) or codec.verdict(data) != "ok":
            return
        frame = codec.decode(data)
        for item in sent:
            if item.type == data[4] and item.frame["usr4"] == frame["usr4"]:
                assert item.data == data[:11] + (frame["hops"] + 1).to_bytes(4, "big") + data[15 : frame["size"]]

    def keep(self, sent: list[Sent]) -> None:
        """The honest answer our pings soon; all remember them."""
        at = {peer.endpoint: peer for peer in self.peers}
        for item in sent:
            if len(item.data) > 1 and item.type == codec.PING and item.to in at and item.socket == MAIN:
                at[item.to].pings.append(item)
                del at[item.to].pings[:-8]

    def answer(self) -> None:
        """An honest peer answers what it was asked last."""
        peers = [peer for peer in self.peers if peer.honest and peer.pings]
        if not peers:
            return
        peer = self.rng.choice(peers)
        before = self.world.counters()
        sent = self.world.send(peer, peer.pong(peer.pings.pop()))
        self.check_counts(before, 1, sent)
        self.keep(sent)

    def batch(self) -> None:
        """Many datagrams at once: the output points into them until it is taken."""
        rng, world = self.rng, self.world
        received = []
        for _ in range(rng.randrange(1, 40)):
            peer = rng.choice(self.peers)
            data = self.datagram(peer)
            self.note(data)
            received.append((data, number(peer.address), peer.port, MAIN))
        before = world.counters()
        proven = self.proven()
        out = inside.receive_batch(self.node, received, world.mono_us, world.wall_ms)
        sent = []
        for data, addr, port, local, socket, _ in out:
            to = (".".join(str(addr >> shift & 255) for shift in (24, 16, 8, 0)), port)
            sent.append(Sent(data, to, str(local), socket))
        self.check_counts(before, len(received), sent)
        sources = {peer.address for peer in self.peers}
        allowed = proven | self.proven() | {item.to for item in sent if item.to[0] in sources}
        self.check_sent(sent, allowed, None)
        self.keep(sent)

    def time(self) -> None:
        """Time passes: a moment, a heartbeat, days. The clock of the wall may jump anywhere."""
        rng, world = self.rng, self.world
        world.pass_time(
            rng.choice([0.0, 0.001, 0.01, 0.01, 0.2, 1.0, 1.0, 7.0, world.keep_alive, rng.choice([100.0, 5000.0, 10**7])])
        )
        if rng.random() < 0.02:
            world.wall_ms = rng.choice([0, 1, 1_700_000_000_000, 2**52])
        before = world.counters()
        proven = self.proven()
        sent = world.tick()
        self.check_counts(before, 0, sent)
        self.check_sent(sent, proven | self.proven() | {sibling.endpoint for sibling in self.siblings}, None)
        assert len(sent) <= 256 + 64 * self.fanout + 64 * 64 + (4000 if self.client else 0)
        if not self.client:
            assert self.node.next_due_us() > world.mono_us or world.cached()
        if rng.random() < 0.1:
            self.node.pressed(world.mono_us, world.wall_ms)
        self.keep(sent)

    def command(self) -> None:
        """The operator, and the application of a client."""
        rng, world = self.rng, self.world
        choice = rng.randrange(9 if self.client else 4)
        peer = rng.choice(self.peers)
        if choice == 0:
            self.node.set_limits(**self.limits())
        elif choice == 1:
            rules = [
                (rng.choice(self.peers).address, rng.choice([0, 8, 24, 32]), rng.random() < 0.8)
                for _ in range(rng.randrange(3))
            ]
            self.node.set_rules(rules, rng.random() < 0.9, rng.sample(CLUSTERS, rng.randrange(3)), rng.random() < 0.3)
        elif choice == 2:
            self.node.set_rules()
            self.node.set_limits()
        elif choice == 3:
            self.node.events()
            self.node.gauges()
        else:
            try:
                if choice == 4:
                    self.node.join(rng.choice(CLUSTERS), rng.choice(SUBCLUSTERS))
                elif choice == 5:
                    self.node.leave(rng.choice(CLUSTERS), rng.choice(SUBCLUSTERS))
                elif choice == 6:
                    data = self.publish(peer)
                    self.note(data)
                    self.node.publish(data)
                elif choice == 7:
                    self.node.stream(self.stream(peer))
                else:
                    self.node.query(self.query(peer))
                    self.node.app_events()
            except OSError:
                pass
            self.keep(world.take())
        if self.client and rng.random() < 0.1:
            self.node.reflect()
            self.keep(world.take())

    def settle(self) -> None:
        """A quiet moment: the summary that pongs carry is that of the cache."""
        held: dict[bytes, bytes] = {}
        for i in range(200):
            self.world.pass_time(0.05)
            self.keep(self.world.tick())
            held, before = inside.packets(self.node), held
            right = self.node.gauges()["summary"] == codec.summarize(inside.ids(self.node))[0].hex()
            if i > 20 and right:
                break
            assert i < 20 or right or held != before or i < 199, "the summary stays wrong"
        for packet_id, data in held.items():
            assert lasting(data) in self.sent_once
            assert codec.decode(data)["packet_id"] == packet_id

    def step(self) -> None:
        what = self.rng.random()
        if what < 0.62:
            self.receive()
        elif what < 0.76:
            self.answer()
        elif what < 0.82:
            self.batch()
        elif what < 0.97:
            self.time()
        elif what < 0.995:
            self.command()
        else:
            self.settle()
        inside.check(self.node)
        assert self.world.holder(NODE_ID) is None
        for sibling in self.siblings:
            assert self.world.holder(sibling.peer_id) == sibling.endpoint


def run(seed: int, steps: int) -> dict[str, int]:
    """One sequence; its counters. AssertionError with seed and step when something does not hold."""
    sequence = Sequence(seed)
    for step in range(steps):
        try:
            sequence.step()
        except Exception as error:
            raise AssertionError(f"seed {seed}, step {step}: {error}") from error
    return sequence.world.counters()


def main() -> None:
    """Runs many sequences and tells which counters none of them moved."""
    first, count, steps = [int(text) for text in sys.argv[1:]] + [0, 100, 1000][len(sys.argv) - 1 :]
    total: dict[str, int] = {}
    for seed in range(first, first + count):
        for name, value in run(seed, steps).items():
            total[name] = total.get(name, 0) + value
        print(f"\rseed {seed}", end="", flush=True)
    print()
    print("never counted:", " ".join(name for name, value in total.items() if value == 0))


if __name__ == "__main__":
    main()
