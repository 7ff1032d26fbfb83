"""How much arrives at a victim, for each packet and byte that an attacker spends, by each way there is to name it.

    python -m tests.hostile.weapon [--reference] [--packets N] [--clients N] [--json]

Two introducers (`srpnode run`; --reference: two reference peers), honest reference peers of one cluster, an attacker who can
forge source addresses and is also a proven peer, and for each vector a victim in a /24 of its own that never sends anything.
All addresses are loopback ones. What arrives is told apart: from the introducers, and from the peers that they set upon it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from tests.hostile.forge import Endpoint, Forger, Watch
from tests.interop import datagram, sut
from tests.interop.datagram import Packet
from tests.interop.raw import RawPeer
from tests.interop.reference import Client, Entry, ReferenceProcess

VICTIM_PORT: Final = 9000
CLUSTER: Final = "cluster"
CLUSTER_ID: Final = hashlib.sha256(CLUSTER.encode()).digest()
SETTLE_S: Final = 4.0  # introduced peers try for two seconds
PACE_S: Final = 0.002  # the reference sends one datagram a millisecond at best
DEADLINE_MS: Final = 30_000

Shot = tuple[Endpoint | RawPeer, Packet | bytes]  # from where (forged, or the attacker's own socket), what


STORED: Final = 40  # packets that the introducers hold


@dataclass
class Result:
    """What one vector did. Bytes are UDP payload."""

    vector: str
    sent_packets: int
    sent_bytes: int
    node_packets: int
    node_bytes: int
    peer_packets: int
    peer_bytes: int
    ports: int

    @property
    def node_ratio(self) -> float:
        return self.node_bytes / self.sent_bytes

    @property
    def peer_ratio(self) -> float:
        """Packets at the victim from other peers for each packet spent."""
        return self.peer_packets / self.sent_packets


class Scene:
    """The introducers, the honest peers and the attacker."""

    def __init__(self, *, reference: bool, clients: int) -> None:
        draw = random.SystemRandom()
        self.net = f"127.{draw.randrange(16, 250)}"
        self.stack = contextlib.ExitStack()
        self.reference = reference
        try:
            self._build(clients)
        except BaseException:
            self.stack.close()
            raise

    def _build(self, clients: int) -> None:
        kind = sut.ReferenceIntroducers if self.reference else sut.SrpNode
        pair, pinger = (f"{self.net}.0.2", f"{self.net}.0.3"), f"{self.net}.0.4"
        self.node = kind(pair, pinger, sut.Settings())
        self.stack.callback(self.node.close)
        self.entries: list[Entry] = self.node.entries
        self.forger = Forger()
        self.stack.callback(self.forger.close)
        self.tape = Watch(self.entries[0].address, self.entries[0].port, keep=True)
        self.stack.callback(self.tape.close)
        process = ReferenceProcess()
        self.stack.callback(process.close)
        self.clients = [
            Client(process, f"honest-{i}", f"{self.net}.1.{i + 1}", self.entries, cluster=CLUSTER) for i in range(clients)
        ]
        for client in self.clients:
            client.ready()
            client.join("subcluster")
        self.attacker = RawPeer(f"{self.net}.2.1")
        self.stack.callback(self.attacker.close)
        accomplice = RawPeer(f"{self.net}.2.2")
        self.stack.callback(accomplice.close)
        self.accomplice = accomplice
        for peer in (self.attacker, accomplice):
            for entry in self.entries:
                if self.reference:
                    peer.send(Packet(datagram.PING, json=connection(peer)), entry)
                else:
                    peer.connect(entry)

    def store(self) -> None:
        """Has the introducers hold packets of the cluster, as large as they come."""
        ids = []
        for _ in range(STORED):
            message = os.urandom(1024)
            ids.append(datagram.packet_id(message))
            packet = Packet(datagram.PUBLISH, cluster_id=CLUSTER_ID, packet_id=ids[-1], message=message)
            for entry in self.entries:
                self.accomplice.send(packet, entry)
        self.stored = itertools.cycle(ids)

    def holders(self) -> dict[str, tuple[str, int]]:
        """Where the node sees each honest peer."""
        assert isinstance(self.node, sut.SrpNode)
        known = {peer["peerId"]: (peer["address"], peer["port"]) for peer in self.node.peers()}
        return {client.name: known[client.peer_id] for client in self.clients}

    def close(self) -> None:
        self.stack.close()

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connection(peer: RawPeer) -> dict[str, Any]:
    return {"requesterPeerId": peer.peer_id, "natType": 31, "isConnection": True}


def fresh() -> str:
    return os.urandom(32).hex()


def join(victim: Endpoint, *, hops: int, **keys: Any) -> Packet:
    """A join whose message puts the joiner at the victim; every one has an id of its own."""
    message = {"requesterPeerId": fresh(), "natType": 31, "address": victim[0], "port": victim[1], **keys}
    return Packet(datagram.JOIN, hops=hops, cluster_id=CLUSTER_ID, packet_id=os.urandom(32), json=message)


def stamp(rendezvous: Endpoint) -> dict[str, Any]:
    return {
        "rendezvousAddress": rendezvous[0],
        "rendezvousPort": rendezvous[1],
        "rendezvousType": 31,
        "rendezvousPeerId": fresh(),
        "rendezvousDeadline": time.time_ns() // 1_000_000 + DEADLINE_MS,
    }


def now_text() -> bytes:
    return str(time.time_ns() // 1_000_000).encode()


# --- vectors: each makes one shot at a victim --------------------------------------------------------------------------------


def spoofed_small_ping(scene: Scene, victim: Endpoint) -> Shot:
    return victim, Packet(datagram.PING, json={"requesterPeerId": fresh()})


def spoofed_probing_ping(scene: Scene, victim: Endpoint) -> Shot:
    keys = {"isReflection": True, "reflectionId": os.urandom(6).hex(), "pingId": os.urandom(6).hex()}
    return victim, Packet(datagram.PING, json={"requesterPeerId": fresh(), "probeExternalPort": 9001, **keys})


def spoofed_connection_ping(scene: Scene, victim: Endpoint) -> Shot:
    message = {"requesterPeerId": fresh(), "isConnection": True, "natType": 31, "pingId": os.urandom(6).hex()}
    return victim, Packet(datagram.PING, cluster_id=CLUSTER_ID, json=message)


def spoofed_pong(scene: Scene, victim: Endpoint) -> Shot:
    message = {"requesterPeerId": scene.entries[0].peer_id, "responderPeerId": fresh(), "pingId": os.urandom(6).hex()}
    return victim, Packet(datagram.PONG, json=message)


def spoofed_join(scene: Scene, victim: Endpoint) -> Shot:
    return victim, join(victim, hops=1)


def spoofed_query(scene: Scene, victim: Endpoint) -> Shot:
    asked = {"packetId": fresh()}
    return victim, Packet(datagram.QUERY, cluster_id=CLUSTER_ID, usr1=now_text(), usr3=os.urandom(32), usr4=b"1", json=asked)


def spoofed_sync(scene: Scene, victim: Endpoint) -> Shot:
    summary = b"\0" + os.urandom(20) + b"".join(bytes([i]) + os.urandom(20) for i in range(16))
    return victim, Packet(datagram.SYNC, message=summary, usr4=now_text())


def spoofed_stream(scene: Scene, victim: Endpoint) -> Shot:
    to = bytes.fromhex(scene.clients[0].peer_id)
    return victim, Packet(datagram.STREAM, usr3=to, usr4=os.urandom(32), message=os.urandom(900))


def spoofed_publish(scene: Scene, victim: Endpoint) -> Shot:
    message = os.urandom(900)
    return victim, Packet(datagram.PUBLISH, cluster_id=CLUSTER_ID, packet_id=datagram.packet_id(message), message=message)


def spoofed_intro(scene: Scene, victim: Endpoint) -> Shot:
    message = {"requesterPeerId": fresh(), "responderPeerId": fresh(), "natType": 31, "address": victim[0], "port": victim[1]}
    return victim, Packet(datagram.INTRO, hops=1, cluster_id=CLUSTER_ID, usr1=now_text(), json=message)


def replayed(scene: Scene, victim: Endpoint) -> Shot:
    """What honest peers sent to the first introducer, in order, now from the victim."""
    scene_tape = scene.tape.kept
    index = next(REPLAY)
    return victim, scene_tape[index % len(scene_tape)][1]


def own_ping_with_probe(scene: Scene, victim: Endpoint) -> Shot:
    """The victim is the attacker's own address at most: a ping names no other."""
    message = {"requesterPeerId": scene.attacker.peer_id, "isReflection": True, "probeExternalPort": VICTIM_PORT}
    return scene.attacker, Packet(datagram.PING, json=message)


def claiming_join(scene: Scene, victim: Endpoint) -> Shot:
    return scene.attacker, join(victim, hops=1)


def claiming_join_without_hops(scene: Scene, victim: Endpoint) -> Shot:
    return scene.attacker, join(victim, hops=0)


def introduction_of_the_victim(scene: Scene, victim: Endpoint) -> Shot:
    return scene.attacker, spoofed_intro(scene, victim)[1]


def rendezvous_answer(scene: Scene, victim: Endpoint) -> Shot:
    return scene.attacker, join(victim, hops=0, rendezvousRequesterPeerId=scene.clients[0].peer_id)


def relayed_join_stamped_by_itself(scene: Scene, victim: Endpoint) -> Shot:
    own = (scene.attacker.address, scene.attacker.port)
    return scene.attacker, join(victim, hops=2, **stamp(own))


def relayed_join_of_a_hard_peer(scene: Scene, victim: Endpoint) -> Shot:
    """Peers behind port-restricted NATs would send a thousand openers."""
    own = (scene.attacker.address, scene.attacker.port)
    return scene.attacker, join(victim, hops=2, natType=5, **stamp(own))


def relayed_join_with_the_victim_as_rendezvous(scene: Scene, victim: Endpoint) -> Shot:
    return scene.attacker, join(victim, hops=2, **stamp(victim))


def relayed_join_late(scene: Scene, victim: Endpoint) -> Shot:
    return scene.attacker, join(victim, hops=15, **stamp(victim))


def relayed_join_with_a_foreign_stamp(scene: Scene, victim: Endpoint) -> Shot:
    other = (scene.accomplice.address, scene.accomplice.port)
    return scene.attacker, join(victim, hops=2, **stamp(other))


def spoofed_rename_of_an_honest_peer(scene: Scene, victim: Endpoint) -> Shot:
    """A ping in an honest peer's endpoint gives it another name, so that its own becomes free …"""
    honest = scene.clients[0]
    message = {"requesterPeerId": fresh(), "isConnection": True, "natType": 31}
    return (honest.address, honest.port), Packet(datagram.PING, cluster_id=CLUSTER_ID, json=message)


def claim_of_an_honest_name(scene: Scene, victim: Endpoint) -> Shot:
    """… for the attacker, who claims it."""
    message = {"requesterPeerId": scene.clients[0].peer_id, "isConnection": True, "natType": 31}
    return scene.attacker, Packet(datagram.PING, cluster_id=CLUSTER_ID, json=message)


def relayed_join_in_the_name_of_a_peer(scene: Scene, victim: Endpoint) -> Shot:
    """From an honest proven peer, which it also names as rendezvous peer."""
    honest = (scene.clients[0].address, scene.clients[0].port)
    return honest, join(victim, hops=2, **stamp(honest))


def query_in_its_name(scene: Scene, victim: Endpoint) -> Shot:
    """For a packet that the introducers hold."""
    asked = {"packetId": next(scene.stored).hex()}
    return victim, Packet(datagram.QUERY, cluster_id=CLUSTER_ID, usr1=now_text(), usr3=os.urandom(32), usr4=b"1", json=asked)


def query_for_nothing_in_its_name(scene: Scene, victim: Endpoint) -> Shot:
    """It travels on, and whoever knows the victim may pass it to it."""
    return spoofed_query(scene, victim)


def empty_summary_in_its_name(scene: Scene, victim: Endpoint) -> Shot:
    """It lacks everything, it seems."""
    return victim, Packet(datagram.SYNC, message=b"\0" + os.urandom(20), usr4=now_text())


def full_summary_in_its_name(scene: Scene, victim: Endpoint) -> Shot:
    """It differs everywhere, it seems."""
    return spoofed_sync(scene, victim)


def stream_in_its_name(scene: Scene, victim: Endpoint) -> Shot:
    return spoofed_stream(scene, victim)


def publish_in_its_name(scene: Scene, victim: Endpoint) -> Shot:
    return spoofed_publish(scene, victim)


REPLAY: Iterator[int] = itertools.count()
Vector = Callable[[Scene, Endpoint], Shot]
SPOOFED: Final[list[Vector]] = [
    spoofed_small_ping,
    spoofed_probing_ping,
    spoofed_connection_ping,
    spoofed_pong,
    spoofed_join,
    spoofed_query,
    spoofed_sync,
    spoofed_stream,
    spoofed_publish,
    spoofed_intro,
    replayed,
]
NAMING: Final[list[Vector]] = [
    claiming_join,
    claiming_join_without_hops,
    introduction_of_the_victim,
    rendezvous_answer,
    spoofed_rename_of_an_honest_peer,
    claim_of_an_honest_name,
]
RELAYED: Final[list[Vector]] = [
    relayed_join_stamped_by_itself,
    relayed_join_of_a_hard_peer,
    relayed_join_with_the_victim_as_rendezvous,
    relayed_join_late,
    relayed_join_with_a_foreign_stamp,
    relayed_join_in_the_name_of_a_peer,
]
# And what is counted: heartbeats, introductions and the node's own summaries come without any attack.
IN_ITS_NAME: Final[dict[Vector, tuple[int, ...]]] = {
    query_in_its_name: (datagram.QUERY,),
    query_for_nothing_in_its_name: (datagram.QUERY,),
    empty_summary_in_its_name: (datagram.SYNC, datagram.PUBLISH),
    full_summary_in_its_name: (datagram.SYNC, datagram.PUBLISH),
    stream_in_its_name: (datagram.STREAM,),
    publish_in_its_name: (datagram.PUBLISH,),
}


def run(scene: Scene, vectors: list[Vector], packets: int, victims_from: int = 16) -> list[Result]:
    """Shoots so many packets at a victim by each vector, one after the other in turn, and counts what arrived."""
    watches = [Watch(f"{scene.net}.{victims_from + i}.200", VICTIM_PORT) for i in range(len(vectors))]
    results = [Result(vector.__name__, 0, 0, 0, 0, 0, 0, 0) for vector in vectors]
    try:
        for number in range(packets):
            entry = scene.entries[number % len(scene.entries)]
            for vector, watch, result in zip(vectors, watches, results, strict=True):
                source, what = vector(scene, watch.endpoint)
                data = what.encode() if isinstance(what, Packet) else what
                if isinstance(source, RawPeer):
                    source.send(data, entry)
                else:
                    scene.forger.send(source, (entry.address, entry.port), data)
                result.sent_packets += 1
                result.sent_bytes += len(data)
                time.sleep(PACE_S)
        time.sleep(SETTLE_S)
        own = {entry.address for entry in scene.entries}
        for watch, result in zip(watches, results, strict=True):
            result.node_packets = sum(n for source, n in watch.packets.items() if source in own)
            result.node_bytes = sum(n for source, n in watch.bytes.items() if source in own)
            result.peer_packets = sum(watch.packets.values()) - result.node_packets
            result.peer_bytes = sum(watch.bytes.values()) - result.node_bytes
            result.ports = len(watch.ports)
    finally:
        for watch in watches:
            watch.close()
    return results


def run_on_peers(scene: Scene, vectors: dict[Vector, tuple[int, ...]], packets: int, victims_from: int = 100) -> list[Result]:
    """The same with victims that are proven, connected peers of the cluster, in whose names the attacker sends."""
    results = []
    victims = [RawPeer(f"{scene.net}.{victims_from + i}.200") for i in range(len(vectors))]
    try:
        for peer in victims:
            for entry in scene.entries:
                peer.connect(entry, cluster_id=CLUSTER_ID)
        scene.store()
        for vector, peer in zip(vectors, victims, strict=True):
            time.sleep(SETTLE_S)
            result = Result(vector.__name__, 0, 0, 0, 0, 0, 0, 0)
            before = len(peer.arrivals())
            for number in range(packets):
                entry = scene.entries[number % len(scene.entries)]
                _, what = vector(scene, (peer.address, peer.port))
                data = what.encode() if isinstance(what, Packet) else what
                scene.forger.send((peer.address, peer.port), (entry.address, entry.port), data)
                result.sent_packets += 1
                result.sent_bytes += len(data)
                time.sleep(PACE_S)
            time.sleep(SETTLE_S)
            own = {entry.address for entry in scene.entries}
            came = [(a.source[0] in own, len(a.data)) for a in peer.arrivals()[before:] if a.packet.type in vectors[vector]]
            result.node_packets = sum(1 for from_node, _ in came if from_node)
            result.node_bytes = sum(size for from_node, size in came if from_node)
            result.peer_packets = len(came) - result.node_packets
            result.peer_bytes = sum(size for _, size in came) - result.node_bytes
            results.append(result)
    finally:
        for peer in victims:
            peer.close()
    return results


def table(results: list[Result]) -> str:
    lines = [
        "| vector | packets spent | from the node: packets per packet, bytes per byte "
        "| from its peers: packets per packet, bytes per byte |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {r.vector.replace('_', ' ')} | {r.sent_packets} | {r.node_packets / r.sent_packets:.2f}, {r.node_ratio:.2f} "
        f"| {r.peer_ratio:.2f}, {r.peer_bytes / r.sent_bytes:.2f} |"
        for r in results
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", action="store_true", help="two reference introducers in the node's place")
    parser.add_argument("--packets", type=int, default=200, help="for each vector")
    parser.add_argument("--clients", type=int, default=6, help="honest peers")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with Scene(reference=options.reference, clients=options.clients) as scene:
        single = run(scene, RELAYED, 1, victims_from=200)
        results = run(scene, SPOOFED + NAMING + RELAYED, options.packets)
        results += run_on_peers(scene, IN_ITS_NAME, options.packets)
    if options.json:
        print(json.dumps({"single": [asdict(r) for r in single], "sustained": [asdict(r) for r in results]}))
        return
    print(f"A single packet:\n\n{table(single)}\n\n{options.packets} packets:\n\n{table(results)}")


if __name__ == "__main__":
    main()
