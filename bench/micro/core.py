"""Nanoseconds that the core alone spends on a datagram, without sockets: median and range of several rounds.

    python -m bench.micro.core [--rows ping,join] [--peers 1000,100000] [--against OTHER_CHECKOUT]

--against measures another built checkout too, in turns with this one, and prints the ratio. --cold KB of other memory are
written before each batch of 64, as the kernel does in a node that is loaded; 0: everything stays in the processor's caches.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from srpnode.core import codec
from tests.core.build import ensure
from tests.core.world import Peer, World, named, number

FIRST = number("11.0.0.1")
CLUSTER_SIZE = 20
ROWS = ("ping", "connection", "publish-room", "publish-full", "duplicate", "stream", "join", "garbage")
COUNT = {"join": 6_400, "publish-room": 25_600, "publish-full": 25_600}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--peers", default="1000,100000")
    parser.add_argument("--cold", type=int, default=256, help="KB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=64_000, help="datagrams in a round")
    parser.add_argument("--against", type=Path, help="another checkout, built")
    parser.add_argument("--json", action="store_true", help="one process, one JSON line")
    return parser.parse_args()


def crowd(peers: int, cache_bytes: int) -> tuple[World, Any]:
    """A node that knows so many peers, in clusters of twenty, and a stopwatch for it."""
    from tests.core import inside  # built when it is first needed

    world = World(
        peers=min(max(2 * peers, 100_000), 1_000_000),
        cache_max_bytes=cache_bytes,
        gate_entries=262_144,
        meter_entries=65_536,
        queue_datagrams=16_384,
        unproven_per_second=0,
        replicated_per_minute=0,
        control_per_minute=0,
        address_per_minute=0,
        prefix_per_minute=0,
        introductions_per_minute=0,
        sync_per_minute=0,
        carried_per_minute=0,
        peers_per_address=0,
        peers_per_prefix=0,
    )
    clusters = max(peers // CLUSTER_SIZE, 1)
    made = inside.crowd(world.node, peers, FIRST, clusters, world.mono_us, world.wall_ms)
    assert made == peers
    return world, inside.Stopwatch(world.node, peers, FIRST, clusters, world.mono_us, world.wall_ms)


def template(row: str, peers: int) -> tuple[bytes, dict[str, Any]]:
    """A datagram of any peer, and where it differs from peer to peer."""
    mark = bytes(4) + b"\1" * 28
    peer = Peer("11.0.0.1", 9000, peer_id=mark, cluster=bytes(4) + b"\7" * 28)
    if row in ("ping", "connection"):
        extra: dict[str, Any] = {"isConnection": True} if row == "connection" else {}
        data = peer.ping(natType=31, pingId="0123456789abc", **extra)
        return data, {"hex_at": data.index(mark.hex().encode())}
    if row == "join":
        peer.subcluster = named("subcluster")
        data = peer.join(key="A" * 43 + "=:" + "B" * 43 + "=")
        packet_id = codec.decode(data)["packet_id"]
        return data, {
            "hex_at": data.index(mark.hex().encode()),
            "fresh": (data.index(named("subcluster")), data.index(packet_id)),
        }
    if row == "garbage":
        return b"\xff" + bytes(199), {"cluster": False}
    fields = ("subcluster_id", "previous_id", "packet_id", "next_id", "usr1", "usr2", "usr3")
    everything: dict[str, Any] = {name: named(name) for name in fields}
    everything["usr4"] = mark
    everything["cluster_id"] = named("published")
    if row == "stream":
        everything["usr3"] = (FIRST + peers - 1).to_bytes(4, "little") + b"\1" * 28
        data = codec.encode(codec.STREAM, hops=1, message=bytes(1024), sig=bytes(64), **everything)
        return data, {"cluster": False, "id_at": data.index(mark)}
    data = codec.encode(codec.PUBLISH, hops=1, message=bytes(1024), sig=bytes(64), **everything)
    fresh = () if row == "duplicate" else (data.index(everything["packet_id"]),)
    return data, {"cluster": False, "id_at": data.index(mark), "fresh": fresh}


def measure(row: str, peers: int, count: int, cold_kb: int) -> float:
    """Nanoseconds for each datagram, once."""
    room = 100_000_000 if row == "publish-room" else 16_000_000
    world, watch = crowd(peers, room)
    data, places = template(row, peers)
    count = min(count, COUNT.get(row, count))
    warm = 20_480 if row == "publish-full" else count // 4
    watch.run(data, warm, **places)
    ns, _sent = watch.run(data, count, cold_bytes=cold_kb * 1024, **places)
    assert world.node.counters()["in_datagrams"] >= count
    return float(ns)


def once(args: argparse.Namespace) -> dict[str, float]:
    ensure()
    return {
        f"{row} {peers}": measure(row, int(peers), args.count, args.cold)
        for row in args.rows.split(",")
        for peers in args.peers.split(",")
    }


def child(checkout: Path, args: argparse.Namespace) -> dict[str, float]:
    command = [str(checkout / ".venv" / "bin" / "python"), "-m", "bench.micro.core", "--json"]
    for name in ("rows", "peers", "cold", "count"):
        command += [f"--{name}", str(getattr(args, name))]
    done = subprocess.run(command, cwd=checkout, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout))


def line(values: list[float]) -> str:
    return f"{statistics.median(values):8.0f}  {min(values):7.0f} to {max(values):7.0f}"


def main() -> None:
    args = options()
    if args.json:
        print(json.dumps(once(args)))
        return
    here = Path(__file__).parents[2]
    checkouts = [here] if args.against is None else [args.against.resolve(), here]
    found: list[dict[str, list[float]]] = [{} for _ in checkouts]
    for turn in range(args.rounds):
        for figures, checkout in zip(found, checkouts, strict=True):
            for name, ns in child(checkout, args).items():
                figures.setdefault(name, []).append(ns)
        print(f"round {turn + 1} of {args.rounds}", file=sys.stderr)
    print(f"ns for each datagram, median and range of {args.rounds}, {args.cold} KB between batches")
    for name, values in found[-1].items():
        if len(found) == 1:
            print(f"{name:22} {line(values)}")
        else:
            ratio = statistics.median(v / b for v, b in zip(values, found[0][name], strict=True))
            print(f"{name:22} {line(found[0][name])}   {line(values)}   {ratio:.2f}")


if __name__ == "__main__":
    main()
