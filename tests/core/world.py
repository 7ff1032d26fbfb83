"""One Node and the endpoints around it: tests say who sends what, and look at everything that leaves.

Time is the test's: `World.advance` ticks the node when it asks for it. Endpoints that are `alive` answer its pings, as any peer
would; nothing else answers by itself.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from srpnode.core import codec
from srpnode.core.node import Node

MAIN, PROBE = 0, 1
NODE_ID = hashlib.sha256(b"the node").digest()
NODE_ADDRESS = "203.0.113.5"
NODE_PORT, NODE_PROBE_PORT = 3511, 3513
START_US = 1_000_000_000
START_MS = 1_700_000_000_000
KEEP_ALIVE = 30.0

# Small tables: a World costs some megabytes and is made in a millisecond.
SMALL: dict[str, Any] = {
    "peers": 512,
    "gate_entries": 4096,
    "meter_entries": 1024,
    "parked": 64,
    "return_routes": 256,
    "sync_jobs": 16,
    "queue_datagrams": 4096,
    "cache_max_bytes": 1_000_000,
}

Endpoint = tuple[str, int]


def number(address: str) -> int:
    """An IPv4 address as the Node's constructor takes it."""
    return int.from_bytes(bytes(int(part) for part in address.split(".")), "big")


def named(text: str) -> bytes:
    """32 bytes that stand for a name: a peerId, a cluster, a packet."""
    return hashlib.sha256(text.encode()).digest()


@dataclass(frozen=True)
class Sent:
    """A datagram that the node sent."""

    data: bytes
    to: Endpoint
    local: str
    socket: int

    @cached_property
    def frame(self) -> codec.Frame:
        return codec.decode(self.data)

    @property
    def type(self) -> int:
        return self.data[4]

    @cached_property
    def message(self) -> dict[str, Any]:
        return dict(codec.read_message(self.data))


def only(sent: list[Sent], *types: int) -> list[Sent]:
    """Those of certain types."""
    return [item for item in sent if item.type in types]


@dataclass
class Peer:
    """A peer somewhere: where it is, who it says it is, and the datagrams it would send."""

    address: str
    port: int = 9000
    peer_id: bytes = b""
    nat_type: int = 31
    cluster: bytes | None = named("cluster")
    subcluster: bytes | None = None
    alive: bool = True
    uptime_ms: float | None = None  # told in its pongs
    received: list[Sent] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.peer_id:
            self.peer_id = named(f"{self.address}:{self.port}")

    @property
    def endpoint(self) -> Endpoint:
        return self.address, self.port

    def ping(self, *, bare: bool = False, subcluster: bool = False, **message: Any) -> bytes:
        """A ping with what the reference puts into each; bare: with nothing but the peerId and what is given."""
        common = {} if bare else {"uptime": 30000.0, "timestamp": float(START_MS)}
        return codec.encode(
            codec.PING,
            cluster_id=None if bare else self.cluster,
            subcluster_id=self.subcluster if subcluster else None,
            message=codec.write_message(codec.PING, {"requesterPeerId": self.peer_id.hex(), **common, **message}),
        )

    def connection_ping(self, **message: Any) -> bytes:
        """What a client sends once it knows its NAT type."""
        return self.ping(subcluster=True, **{"isConnection": True, "natType": self.nat_type, **message})

    def pong(self, ping: Sent, **message: Any) -> bytes:
        """The answer to a ping of the node."""
        answer: dict[str, Any] = {
            "requesterPeerId": ping.message["requesterPeerId"],
            "responderPeerId": self.peer_id.hex(),
            "pingId": ping.message["pingId"],
            "natType": self.nat_type,
            "isReflection": True,
        }
        if self.uptime_ms is not None:
            answer["uptime"] = self.uptime_ms
        answer.update(message)
        return codec.encode(codec.PONG, message=codec.write_message(codec.PONG, answer))

    def join(self, *, hops: int = 1, packet_id: bytes | None = None, clock: int = 1, **message: Any) -> bytes:
        """A join for its cluster, claiming its true endpoint unless told otherwise. None as a value leaves a key out."""
        claim: dict[str, Any] = {
            "requesterPeerId": self.peer_id.hex(),
            "natType": self.nat_type,
            "address": self.address,
            "port": self.port,
        }
        claim.update(message)
        claim = {key: value for key, value in claim.items() if value is not None}
        return codec.encode(
            codec.JOIN,
            hops=hops,
            clock=clock,
            packet_id=packet_id,
            cluster_id=self.cluster,
            subcluster_id=self.subcluster,
            message=codec.write_message(codec.JOIN, claim),
        )

    def intro(self, about: Peer, *, subcluster: bytes | None = None, hops: int = 1, wall_ms: int = START_MS) -> bytes:
        """An introduction that describes another peer, on behalf of a subcluster of this one's cluster."""
        message = {
            "requesterPeerId": about.peer_id.hex(),
            "responderPeerId": self.peer_id.hex(),
            "natType": about.nat_type,
            "address": about.address,
            "port": about.port,
        }
        return codec.encode(
            codec.INTRO,
            hops=hops,
            cluster_id=self.cluster,
            subcluster_id=named("sub") if subcluster is None else subcluster,
            usr1=str(wall_ms).encode(),
            message=codec.write_message(codec.INTRO, message),
        )

    def publish(self, message: bytes, *, hops: int = 1, ttl: int = codec.TTL_MS, **fields: Any) -> bytes:
        """A packet in one piece, for its cluster. fields: as codec.encode takes them."""
        values: dict[str, Any] = {
            "packet_id": codec.sha256(message),
            "cluster_id": self.cluster,
            "subcluster_id": self.subcluster,
            "usr1": codec.sha256(b"event"),
        }
        values.update(fields)
        return codec.encode(codec.PUBLISH, hops=hops, ttl=ttl, message=message, **values)

    def query(self, packet_id: bytes, query_id: bytes, wall_ms: int, *, hops: int = 1) -> bytes:
        """A question for one packet."""
        return codec.encode(
            codec.QUERY,
            hops=hops,
            cluster_id=self.cluster,
            usr1=str(wall_ms).encode(),
            usr3=query_id,
            usr4=b"1",
            message=b'{"packetId":"' + packet_id.hex().encode() + b'"}',
        )

    def stream(self, to: bytes, message: bytes, *, hops: int = 0) -> bytes:
        """A packet for one peer, to be forwarded."""
        return codec.encode(
            codec.STREAM,
            hops=hops,
            cluster_id=self.cluster,
            subcluster_id=self.subcluster,
            packet_id=codec.sha256(message),
            usr3=to,
            usr4=self.peer_id,
            message=message,
        )

    def summary(self, ids: list[bytes], prefix: str = "", *, wall_ms: int = START_MS) -> bytes:
        """A sync packet: the summary of these ids below the prefix."""
        return self.sync(codec.encode_summary(prefix, *codec.summarize(ids, prefix)), wall_ms=wall_ms)

    def sync(self, message: bytes, *, wall_ms: int = START_MS) -> bytes:
        return codec.encode(codec.SYNC, usr4=str(wall_ms).encode(), message=message)


class World:
    """A node, its time, and the peers that it can reach."""

    def __init__(self, *, siblings: tuple[Peer, ...] = (), **settings: Any) -> None:
        arguments: dict[str, Any] = {
            **SMALL,
            "peer_id": NODE_ID,
            "seed": bytes(32),
            "address": number(NODE_ADDRESS),
            "port": NODE_PORT,
            "probe_port": NODE_PROBE_PORT,
            "mono_us": START_US,
            "wall_ms": START_MS,
            "keep_alive": KEEP_ALIVE,
            "deferred_joins": 0,  # what is passed on leaves at once; test_deferred.py is about the rest
            "indexed_peers": [(number(peer.address), peer.port, peer.peer_id) for peer in siblings],
        }
        arguments.update(settings)
        self.node = Node(**arguments)
        self.keep_alive: float = arguments["keep_alive"]
        self.mono_us: int = arguments["mono_us"]
        self.wall_ms: int = arguments["wall_ms"]
        self.peers: dict[Endpoint, Peer] = {peer.endpoint: peer for peer in siblings}
        self.answers: list[tuple[int, Peer, Sent]] = []  # pongs on their way

    # --- time

    def pass_time(self, seconds: float) -> None:
        """Moves the clocks, without a tick."""
        self.mono_us += round(seconds * 1e6)
        self.wall_ms += round(seconds * 1e3)

    def tick(self) -> list[Sent]:
        self.node.tick(self.mono_us, self.wall_ms)
        return self.take()

    def advance(self, seconds: float) -> list[Sent]:
        """Lets time pass, ticking the node when it is due. Living peers answer its pings 20 ms later. Returns all it sent."""
        end = self.mono_us + round(seconds * 1e6)
        sent: list[Sent] = []
        answers = self.answers
        while True:
            due = max(self.node.next_due_us(), self.mono_us)
            if answers:
                due = min(due, answers[0][0])
            if due > end:
                break
            self.pass_time((due - self.mono_us) / 1e6)
            new = []
            while answers and answers[0][0] <= self.mono_us:
                _, peer, ping = answers.pop(0)
                new += self.send(peer, peer.pong(ping), follow=False)
            new += self.tick()
            for item in only(new, codec.PING):
                asked = self.peers.get(item.to)
                if asked is not None and asked.alive:
                    answers.append((self.mono_us + 20_000, asked, item))
            sent += new
            if due == self.mono_us and self.node.next_due_us() <= self.mono_us:
                self.pass_time(0.001)
        self.pass_time((end - self.mono_us) / 1e6)
        return sent

    # --- traffic

    def take(self) -> list[Sent]:
        sent = [Sent(*item) for item in self.node.take()]
        for item in sent:
            if item.to in self.peers and item.socket == MAIN:
                self.peers[item.to].received.append(item)
        return sent

    def send(
        self, source: Peer | Endpoint, data: bytes, *, socket: int = MAIN, local: str = NODE_ADDRESS, follow: bool = False
    ) -> list[Sent]:
        """One datagram to the node, and what it sends on it. follow: the source answers the node's pings at once."""
        endpoint = source.endpoint if isinstance(source, Peer) else source
        self.node.receive(data, endpoint, local, socket, mono_us=self.mono_us, wall_ms=self.wall_ms)
        sent = self.take()
        if follow and isinstance(source, Peer):
            for ping in only(sent, codec.PING):
                if ping.to == source.endpoint:
                    sent += self.send(source, source.pong(ping), follow=False)
        return sent

    def prove(self, peer: Peer) -> Peer:
        """The peer pings, and answers the ping that comes with the pong: its endpoint is proven."""
        self.peers[peer.endpoint] = peer
        if (self.view(peer) or {}).get("proven"):
            return peer
        before = self.count("proofs")
        self.send(peer, peer.ping(), follow=True)
        assert self.count("proofs") == before + 1, self.changed({})
        return peer

    def connect(self, peer: Peer) -> Peer:
        """Proven, and connected: it has sent a connection ping with its NAT type."""
        self.prove(peer)
        self.send(peer, peer.connection_ping())
        view = self.view(peer)
        assert view is not None, "not known"
        assert view["connected"], view
        return peer

    def connect_many(self, count: int, *, network: str = "198.51.100", **values: Any) -> list[Peer]:
        """So many connected peers, each on an address of its own."""
        return [self.connect(Peer(f"{network}.{i + 1}", **values)) for i in range(count)]

    # --- what can be seen

    def counters(self) -> dict[str, int]:
        return self.node.counters()

    def count(self, name: str) -> int:
        return self.node.counters()[name]

    def changed(self, before: dict[str, int]) -> dict[str, int]:
        """The counters that grew, by how much."""
        return {name: value - before.get(name, 0) for name, value in self.counters().items() if value != before.get(name, 0)}

    def drops(self, before: dict[str, int]) -> dict[str, int]:
        """The drops among them."""
        return {name[5:]: value for name, value in self.changed(before).items() if name.startswith("drop_")}

    def view(self, peer: Peer | Endpoint) -> dict[str, Any] | None:
        """What the node knows of an endpoint, or None."""
        endpoint = peer.endpoint if isinstance(peer, Peer) else peer
        for row in self.node.peers():
            if (row["address"], row["port"]) == endpoint:
                return row
        return None

    def holder(self, peer_id: bytes) -> Endpoint | None:
        """Who goes by that name."""
        for row in self.node.peers():
            if row["peerId"] == peer_id.hex():
                return row["address"], row["port"]
        return None

    def cached(self) -> int:
        packets: int = self.node.gauges()["cache_packets"]
        return packets
