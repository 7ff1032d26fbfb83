"""Start and memory of a node: what it takes before any datagram, for each peer and for each cached byte."""

import json
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import servers
from bench.measure import run_load
from bench.servers import Server

NAME = "footprint"
READY_TIMEOUT_S = 10.0
SETTLE_S = 1.0
IDLE_S = 2.0
PEERS = 20_000
CACHE_BYTES = 256_000_000
PACKET_BYTES = 1421
BARS = {  # figure -> (unit, at most)
    "start to READY": ("s", 0.3),
    "idle resident, two identities": ("MB", 40.0),
    "idle CPU": ("ms/s", None),
    "memory of a peer": ("bytes", 400.0),
    "cache overhead": ("%", 15.0),
}


def measure(load: Path, port: int, core: int | None, repetitions: int) -> dict[str, list[float]]:
    """Figure -> repeated measurements, in the units of BARS. Raises RuntimeError when the node does not start."""
    found: dict[str, list[float]] = {name: [] for name in BARS}
    for _ in range(repetitions):
        ready_s, resident_mb, idle_ms = start(port, core)
        found["start to READY"].append(ready_s)
        found["idle resident, two identities"].append(resident_mb)
        found["idle CPU"].append(idle_ms)
        found["memory of a peer"].append(peer_bytes(load, port, core))
        found["cache overhead"].append(cache_overhead(load, port, core))
    return found


def start(port: int, core: int | None) -> tuple[float, float, float]:
    """Seconds until READY=1, resident MB when idle, CPU milliseconds spent in an idle second."""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hears:
        path = f"{directory}/notify"
        hears.bind(path)
        hears.settimeout(READY_TIMEOUT_S)
        begin = time.monotonic()
        with Server(servers.node(identities=2), port, core, env={"NOTIFY_SOCKET": path}) as server:
            try:
                while b"READY=1" not in hears.recv(4096):
                    pass
            except TimeoutError:
                raise RuntimeError("srpnode did not say READY=1") from None
            ready_s = time.monotonic() - begin
            time.sleep(SETTLE_S)
            before = server.cpu_s()
            time.sleep(IDLE_S)
            return ready_s, server.resident_kb() * 1024 / 1e6, (server.cpu_s() - before) * 1e3 / IDLE_S


def growth(
    load: Path, port: int, core: int | None, spec: servers.Spec, endpoints: int, *options: str
) -> tuple[int, dict[str, Any]]:
    """Bytes by which a node's resident memory grows while the load makes itself known and does what the options say; and
    what the node's status says of its identity then."""
    with Server(spec, port, core) as server:
        time.sleep(SETTLE_S)
        before = server.resident_kb()
        fixed = ["--endpoints", str(endpoints), "--count", "100", "--window", "64", *options]
        run_load(load, None, server, "ping", fixed, fanout=1, silent=False)
        grown = (server.resident_kb() - before) * 1024
        config = str(server.directory / "srpnode.toml")
        asked = [*servers.srpnode_command(), "status", "--json", "-c", config]
        done = subprocess.run(asked, capture_output=True, text=True, check=True)
        return grown, json.loads(done.stdout)["identities"][0]


def peer_bytes(load: Path, port: int, core: int | None) -> float:
    """Bytes for each peer of a peer table that is full."""
    grown, status = growth(load, port, core, servers.node(peers=PEERS), PEERS)
    return grown / int(status["peers"]["known"])


def cache_overhead(load: Path, port: int, core: int | None) -> float:
    """Per cent that a node with a full cache takes beyond the bytes of the packets that are in it, as they were received."""
    fill = CACHE_BYTES * 6 // 5 // PACKET_BYTES
    spec = servers.node(cache_bytes=CACHE_BYTES)
    grown, status = growth(load, port, core, spec, 100, "--fill", str(fill))
    held = int(status["cache"]["packets"]) * PACKET_BYTES
    if held < CACHE_BYTES // 2:
        raise RuntimeError(f"the cache holds {held} bytes of packets only, it was to be full")
    return (grown / held - 1) * 100


def text(found: dict[str, list[float]]) -> str:
    """The figures as a markdown table."""
    lines = ["| figure | median | range | bar |", "|---|---:|---:|---|"]
    for name, (unit, bar) in BARS.items():
        values = found[name]
        limit = "" if bar is None else f"at most {bar:g} {unit}"
        lines.append(
            f"| {name} | {statistics.median(values):.3g} {unit} | {min(values):.3g} to {max(values):.3g} | {limit} |"
        )
    return "\n".join(lines)


def as_dict(found: dict[str, list[float]]) -> dict[str, Any]:
    return {name: {"unit": BARS[name][0], "at_most": BARS[name][1], "values": values} for name, values in found.items()}
