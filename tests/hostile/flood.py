"""Honest reference peers become ready, meet and exchange events while the node is flooded; what it costs them.

    python -m tests.hostile.flood [--clients N] [--rate N] [--seconds S] [--workload NAME]… [--json]

One `srpnode run`; bench/load is the attacker, from as many forged loopback sources as a workload asks for. The rate is
datagrams a second to the two identities in turn; 0: as fast as the attacker can. Everything stays on loopback.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import programs
from tests.interop import sut
from tests.interop.raw import RawPeer
from tests.interop.reference import Client, Entry, ReferenceProcess

# Options of the load program; `join` and `publish` come from endpoints that proved themselves, as a malicious cluster's would.
WORKLOADS: Final[dict[str, list[str]]] = {
    "none": [],
    "garbage": ["garbage", "--endpoints", "1000"],
    "pings": ["ping", "--endpoints", "1000000"],
    "publishes": ["publish", "--srp", "--endpoints", "200"],
    "joins": ["join", "--srp", "--endpoints", "200", "--cluster-size", "1"],
}
EVENTS: Final = 5  # of each peer
DEADLINE_S: Final = 60.0
PINGS_EVERY_S: Final = 0.05


@dataclass
class Run:
    """What honest peers noticed in one flood. Times in seconds unless named otherwise."""

    workload: str
    clients: int
    flood_sent_per_second: float = 0.0
    ready_s: list[float] = field(default_factory=list)
    pairs_wanted: int = 0
    pairs_met: int = 0
    meeting_s: float = 0.0
    events_wanted: int = 0
    events_arrived: int = 0
    events_s: float = 0.0
    ping_sent: int = 0
    ping_ms: list[float] = field(default_factory=list)
    memory_before_kb: int = 0
    memory_after_kb: int = 0
    node_cpu_us_per_datagram: float = 0.0

    def summary(self) -> dict[str, Any]:
        ordered = sorted(self.ping_ms)
        return {
            "workload": self.workload,
            "clients": self.clients,
            "flood datagrams/s": round(self.flood_sent_per_second),
            "ready, slowest s": round(max(self.ready_s, default=float("nan")), 2),
            "ready": len(self.ready_s),
            "pairs met": f"{self.pairs_met}/{self.pairs_wanted} in {self.meeting_s:.1f} s",
            "events arrived %": round(100 * self.events_arrived / max(self.events_wanted, 1), 2),
            "events took s": round(self.events_s, 2),
            "pings answered": f"{len(ordered)}/{self.ping_sent}",
            "ping p50 ms": round(statistics.median(ordered), 2) if ordered else None,
            "ping p99 ms": round(ordered[int(0.99 * (len(ordered) - 1))], 2) if ordered else None,
            "memory grew kB": self.memory_after_kb - self.memory_before_kb,
            "node CPU us per datagram": round(self.node_cpu_us_per_datagram, 2),
        }


def memory_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Pinger:
    """An honest peer that measures one round trip at a time, until it is stopped."""

    def __init__(self, address: str, entry: Entry) -> None:
        self.peer = RawPeer(address)
        self.entry = entry
        self.sent = 0
        self.times_ms: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(PINGS_EVERY_S):
            start = time.perf_counter()
            self.sent += 1
            before = len(self.peer.arrivals(2))
            self.peer.send(self.peer_ping(), self.entry)
            while time.perf_counter() - start < 1.0:
                if len(self.peer.arrivals(2)) > before:
                    self.times_ms.append(1000 * (time.perf_counter() - start))
                    break
                time.sleep(0.0002)

    def peer_ping(self) -> Any:
        from tests.interop import datagram

        return datagram.Packet(datagram.PING, json={"requesterPeerId": self.peer.peer_id, "natType": 31})

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.peer.close()


def flood(program: Path, options: list[str], entries: list[Entry], rate: int, seconds: float) -> subprocess.Popen[str] | None:
    if not options:
        return None
    targets = ",".join(f"{entry.address}:{entry.port}" for entry in entries)
    speed = ["--rate", str(rate)] if rate else ["--flood"]
    command = [str(program), options[0], "--to", targets, *options[1:], *speed]
    command += ["--seconds", str(seconds), "--warm-seconds", "0.5", "--sockets", "4"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(workload: str, *, clients: int, rate: int, seconds: float, limits: tuple[str, ...] = ()) -> Run:
    """One node, one flood, so many honest peers; everything is started anew and stopped."""
    result = Run(workload, clients)
    net = f"127.{random.SystemRandom().randrange(64, 250)}"
    load = programs.build()["load"]
    node = sut.SrpNode((f"{net}.0.2", f"{net}.0.3"), f"{net}.0.4", sut.Settings(limits=limits))
    process = ReferenceProcess()
    pinger = attacker = None
    try:
        pid = node.pid
        pinger = Pinger(f"{net}.0.5", node.entries[0])
        attacker = flood(load, WORKLOADS[workload], node.entries, rate, seconds)
        time.sleep(1.5)
        result.memory_before_kb = memory_kb(pid)
        cpu, wall = cpu_s(pid), time.monotonic()
        start = time.monotonic()
        honest = [Client(process, f"honest-{i}", f"{net}.{1 + i // 250}.{i % 250 + 1}", node.entries) for i in range(clients)]
        for client in honest:
            client.ready(DEADLINE_S)
            result.ready_s.append(time.monotonic() - start)
        for client in honest:
            client.join("subcluster")
            client.listen("subcluster", "event")
        start = time.monotonic()
        pairs = set(itertools.permutations([client.peer_id for client in honest[:5]], 2))
        result.pairs_wanted = len(pairs)
        while pairs and time.monotonic() - start < DEADLINE_S:
            pairs -= {(a.peer_id, other) for a in honest[:5] for other in a.met()}
            time.sleep(0.1)
        result.pairs_met = result.pairs_wanted - len(pairs)
        result.meeting_s = time.monotonic() - start
        start = time.monotonic()
        texts = [f"{client.name} {i}".encode() for client in honest for i in range(EVENTS)]
        for text in texts:
            sender = next(client for client in honest if client.name == text.decode().split()[0])
            sender.emit("subcluster", "event", text)
        missing = {
            (client.name, text) for client in honest for text in texts if not text.decode().startswith(client.name + " ")
        }
        result.events_wanted = len(missing)
        while missing and time.monotonic() - start < DEADLINE_S:
            missing = {
                (client.name, text)
                for client in honest
                for text in {t for n, t in missing if n == client.name} - arrived(client, texts)
            }
            time.sleep(0.1)
        result.events_arrived = result.events_wanted - len(missing)
        result.events_s = time.monotonic() - start
        used, passed = cpu_s(pid) - cpu, time.monotonic() - wall
        if attacker is not None:
            output, words = attacker.communicate(timeout=seconds + 60)
            if attacker.returncode != 0:
                raise AssertionError(f"load: {words}")
            report = json.loads(output)
            result.flood_sent_per_second = report["sent"] / report["seconds"]
            result.node_cpu_us_per_datagram = 1e6 * used / passed / max(result.flood_sent_per_second, 1)
        result.memory_after_kb = memory_kb(pid)
        pinger.close()
        result.ping_sent, result.ping_ms = pinger.sent, pinger.times_ms
        pinger = None
    finally:
        if attacker is not None and attacker.poll() is None:
            attacker.kill()
            attacker.wait()
        if pinger is not None:
            pinger.close()
        process.close()
        node.close()
    return result


def arrived(client: Client, texts: list[bytes]) -> set[bytes]:
    from tests.interop.reference import sha256_hex

    got = {event.get("sha256") for event in client.events("message")}
    return {text for text in texts if sha256_hex(text) in got}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rate", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the flood lasts")
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS))
    parser.add_argument("--limit", action="append", default=[], help="a line of [limits], such as introductions=4")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for workload in options.workload or list(WORKLOADS):
        result = run(workload, clients=options.clients, rate=options.rate, seconds=options.seconds, limits=tuple(options.limit))
        rows.append(result)
        if not options.json:
            for key, value in result.summary().items():
                print(f"{key:28} {value}")
            print(flush=True)
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))


if __name__ == "__main__":
    main()
