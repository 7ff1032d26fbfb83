"""Honest reference peers become ready, meet and exchange events while the node is flooded; what it costs them.

    python -m tests.hostile.flood [--runs N] [--clients N] [--times T | --rate N] [--share S] [--workload NAME]… [--limit LINE]…
                                  [--json FILE]
    python -m tests.hostile.figures FILE…            the runs of such files as tables

One `srpnode run` of two identities is held to a share S of one core (a cgroup's quota, in turns of 5 ms): a slower machine. The
attacker has what nobody else wants of that core; honest peers and this program have another. First the flood runs alone
as fast as the attacker can (summaries: at a rate that the node's bounded work allows), against a node without limits: S divided by the
CPU time that it spends on each datagram is its capacity for that flood. Then against the node as it is, which refuses most of it; and
then, while the honest peers are there, at T times the capacity, or as near as the attacker comes, until the last event has arrived or a
minute is over. Pings are timed three times: of the idle node, beside the honest peers, and (the workload `none`) beside honest peers
without a flood. Everything stays on loopback.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import programs
from tests.hostile import machine
from tests.hostile.pinger import Pinger, quantile
from tests.interop import sut
from tests.interop.reference import Client, Entry, ReferenceProcess, sha256_hex

LOAD: Final = ["{load}", "--to", "{targets}", "--sockets", "4", "--warm-seconds", "0.1", "--seconds", "{seconds}"]
ATTACK: Final = [sys.executable, "-m", "tests.hostile.attack", "--to", "{targets}", "--seconds", "{seconds}"]
# Of two programs; peers of `publish`, `join`, `sync` and `collide` proved themselves, as a malicious cluster's would.
WORKLOADS: Final[dict[str, list[str]]] = {
    "none": [],
    "garbage": ["garbage", "--endpoints", "1000"],
    "pings": ["ping", "--endpoints", "1000000"],
    "publishes": ["publish", "--srp", "--endpoints", "200"],
    "joins": ["join", "--srp", "--endpoints", "200", "--cluster-size", "1"],
    "syncs": ["sync", "--peers", "100"],
    "collisions": ["collide", "--peers", "100"],
}
# Where a node refuses without limits as well, for its work in a second is bounded: datagrams a second that it still serves.
SERVED_AT: Final = {"syncs": 1_500}
EVENTS: Final = 2  # of each peer
PEERS_PER_PROCESS: Final = 10
DEADLINE_S: Final = 60.0
ALONE_S: Final = 5.0
QUOTAS_S: Final = 25.0
QUOTED: Final = {"publishes": "publish", "joins": "join", "collisions": "publish"}  # their types have a quota each minute
IDLE_EVERY_S: Final = 0.002
PINGED_S: Final = 25.0
FLOOD_MAX_S: Final = 300.0
PAIRS_AMONG: Final = 5
ATTACKER_NICE: Final = 19
UNLIMITED: Final = tuple(
    f"{name} = 0"
    for name in (
        "unproven_per_second",
        "replicated_per_minute",
        "address_per_minute",
        "prefix_per_minute",
        "introductions_per_minute",
        "relayed_joins_per_minute",
        "sync_per_minute",
        "carried_per_minute",
        "sync_summaries_per_minute",
    )
)
NO_FILTER: Final = 'kernel_filter="off"'
ENOUGH: Final = 0.99  # of the events


@dataclass
class Run:
    """What honest peers noticed in one flood. Times in seconds unless named otherwise."""

    workload: str
    clients: int
    share: float
    limits: list[str] = field(default_factory=list)  # other than the defaults
    capacity: float = 0.0  # datagrams a second
    flood: float = 0.0  # datagrams a second that the attacker sent while honest peers were served
    lost_in_kernel: float = 0.0  # part of all that arrived: the receive buffer was full, or the kernel's filter refused it
    used: float = 0.0  # part of its share that the node used meanwhile
    ready_s: list[float] = field(default_factory=list)
    pairs_wanted: int = 0
    pairs_met: int = 0
    meeting_s: float = 0.0
    events_wanted: int = 0
    events_arrived: int = 0
    events_s: float = 0.0
    enough_s: float = float("nan")  # until 99 % of the events had arrived
    idle_ms: list[float] = field(default_factory=list)
    ping_sent: int = 0
    ping_ms: list[float] = field(default_factory=list)
    memory_kb: list[int] = field(default_factory=list)  # before the flood, after it alone, at the end
    served_us: float = 0.0  # CPU of a node without limits for each datagram of the flood alone, kernel included
    alone_us: float = 0.0  # and of the node as it is
    others_idle: float = 0.0  # part of the time that the honest peers' core had nothing to do
    drops: dict[str, int] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        return {
            "workload": self.workload,
            "clients": self.clients,
            "node has of a core": self.share,
            "capacity/s": round(self.capacity),
            "flood/s": f"{self.flood:.0f} ({self.flood / max(self.capacity, 1):.2f} x), {self.lost_in_kernel:.1%} lost in kernel",
            "node used of its share": f"{self.used:.0%}",
            "ready": f"{len(self.ready_s)}, slowest {max(self.ready_s, default=float('nan')):.1f} s",
            "pairs met": f"{self.pairs_met}/{self.pairs_wanted} in {self.meeting_s:.1f} s",
            "events": f"{100 * self.events_arrived / max(self.events_wanted, 1):.2f} % of {self.events_wanted} in {self.events_s:.1f} s, 99 % in {self.enough_s:.1f} s",
            "pings answered": f"{len(self.ping_ms)}/{self.ping_sent}",
            "ping p50, p99 ms": f"{quantile(self.ping_ms, 0.5):.2f}, {quantile(self.ping_ms, 0.99):.2f}",
            "idle p50, p99 ms": f"{quantile(self.idle_ms, 0.5):.2f}, {quantile(self.idle_ms, 0.99):.2f} of {len(self.idle_ms)}",
            "memory MB": ", ".join(f"{kb / 1024:.1f}" for kb in self.memory_kb),
            "flood alone, CPU us each": f"{self.served_us:.2f} without limits, {self.alone_us:.2f} with",
            "honest peers' core idle": f"{self.others_idle:.0%}",
            "drops": ", ".join(f"{name} {n}" for name, n in sorted(self.drops.items(), key=lambda item: -item[1])[:6]),
        }


def flood(workload: str, entries: list[Entry], rate: float, seconds: float, *, known: bool = False) -> subprocess.Popen[str]:
    """Starts the attacker; rate: datagrams a second, 0: as fast as it can. known: its peers have proved themselves before."""
    options = WORKLOADS[workload]
    words = ATTACK if options[0] in ("sync", "collide") else LOAD
    targets = ",".join(entry.endpoint for entry in entries)
    names = {"load": programs.build()["load"], "targets": targets, "seconds": seconds}
    command = [word.format(**names) for word in words]
    at = 3 if words is ATTACK else 1
    command[at:at] = options
    if rate:
        command += ["--rate", str(max(int(rate), 1))]
    elif words is LOAD:
        command += ["--flood"]
    if known and "--srp" in options:
        command += ["--known"]
    return subprocess.Popen(  # should this program be killed, the attacker goes with it
        ["setpriv", "--pdeathsig", "KILL", "nice", "-n", str(ATTACKER_NICE), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(attacker: subprocess.Popen[str]) -> float:
    """It must have been at work until now; how many datagrams it sent in a second."""
    early = attacker.poll() is not None
    attacker.terminate()
    output, words = attacker.communicate(timeout=60)
    if early:
        raise AssertionError(f"the attacker ended: {output} {words}")
    told = json.loads(output)
    return float(told["sent"]) / float(told["seconds"])


def received(node: sut.SrpNode, kind: str) -> int:
    """Packets of a type that were taken in."""
    return sum(int(identity["received"][kind]) for identity in node.status()["identities"])


class Counted:
    """What reached the node since it was made."""

    def __init__(self, node: sut.SrpNode) -> None:
        self.node = node
        self.at, self.cpu = time.monotonic(), machine.cpu_s(node.pid)
        self.handled, self.lost = self._read()

    def _read(self) -> tuple[int, int]:
        udp = [identity["udp"] for identity in self.node.status()["identities"]]
        return sum(u["in_datagrams"] for u in udp), sum(u["in_kernel_drops_now"] for u in udp)

    def since(self) -> tuple[float, float, int, int]:
        """Seconds, CPU seconds, datagrams handled, datagrams that the kernel dropped."""
        handled, lost = self._read()
        return time.monotonic() - self.at, machine.cpu_s(self.node.pid) - self.cpu, handled - self.handled, lost - self.lost


def cost_us(workload: str, node: sut.SrpNode, rate: float = 0, *, refused: bool = False, filtered: bool = False) -> float:
    """CPU time for each datagram of a flood alone, at the rate or as fast as it goes. refused: when quotas are used up, so that nearly
    all are. filtered: those that the kernel dropped were refused, too."""
    attacker = flood(workload, node.entries, rate, FLOOD_MAX_S)
    with contextlib.ExitStack() as stack:
        stack.callback(end, attacker)
        stack.enter_context(machine.last(attacker.pid))
        before = Counted(node)
        while sum(before.since()[2:]) < 1000:  # its peers prove themselves first
            time.sleep(0.1)
        time.sleep(1.0)
        start = time.monotonic()
        while refused and workload in QUOTED and time.monotonic() < start + QUOTAS_S:
            before, taken = Counted(node), received(node, QUOTED[workload])
            time.sleep(1.0)
            if received(node, QUOTED[workload]) - taken < 0.01 * before.since()[2]:
                break
        before = Counted(node)
        time.sleep(ALONE_S)
        _, used, handled, lost = before.since()
        return 1e6 * used / max(handled + lost if filtered else handled, 1)


def measure_capacity(result: Run, net: str) -> None:
    """What a node that refuses nothing would serve in a second."""
    node = sut.SrpNode((f"{net}.0.6", f"{net}.0.7"), f"{net}.0.8", sut.Settings(limits=(*UNLIMITED, NO_FILTER)))
    try:
        with machine.share(node.pid, result.share):
            result.served_us = cost_us(result.workload, node, SERVED_AT.get(result.workload, 0))
            result.capacity = result.share * 1e6 / result.served_us
    finally:
        node.close()


def run(
    workload: str,
    *,
    clients: int,
    times: float = 2.0,
    rate: float = 0.0,
    share: float = 1.0,
    limits: tuple[str, ...] = (),
    least_s: float = 0.0,
    compared: bool = True,
) -> Run:
    """One node, one flood, so many honest peers; everything is started anew and stopped. least_s: pings are timed so long. compared:
    without it (and with a rate) neither the idle node is measured nor the flood alone."""
    result = Run(workload, clients, share, list(limits))
    net = f"127.{random.SystemRandom().randrange(64, 190)}"
    nodes_core, others_core = machine.cores()
    with contextlib.ExitStack() as stack:
        with machine.on(nodes_core):
            if compared and WORKLOADS[workload]:
                measure_capacity(result, net)
            node = sut.SrpNode((f"{net}.0.2", f"{net}.0.3"), f"{net}.0.4", sut.Settings(limits=limits))
        stack.callback(node.close)
        stack.enter_context(machine.share(node.pid, share))
        stack.enter_context(machine.on(others_core))
        if compared:
            pinger = Pinger(f"{net}.0.5", node.entries[0], IDLE_EVERY_S)
            time.sleep(ALONE_S)
            _, result.idle_ms = pinger.close()
        result.memory_kb = [machine.memory_kb(node.pid)]
        if WORKLOADS[workload]:
            with machine.on(nodes_core):
                if compared:
                    result.alone_us = cost_us(
                        workload, node, refused=True, filtered=workload == "garbage" and NO_FILTER not in limits
                    )
                    result.memory_kb.append(machine.memory_kb(node.pid))
                attacker = flood(workload, node.entries, rate or times * result.capacity, FLOOD_MAX_S, known=compared)
            stack.callback(attacker.wait)
            stack.callback(attacker.kill)
            stack.enter_context(machine.last(attacker.pid))
            time.sleep(2.0)
        counted, idle = Counted(node), machine.idle_s(others_core)
        pinger = Pinger(f"{net}.0.5", node.entries[0])
        serve(result, node, net, stack)
        time.sleep(max(counted.at + least_s - time.monotonic(), 0.0))
        result.ping_sent, result.ping_ms = pinger.close()
        seconds, used, handled, lost = counted.since()
        result.others_idle = (machine.idle_s(others_core) - idle) / seconds
        result.used = used / seconds / share
        result.lost_in_kernel = lost / max(handled + lost, 1)
        result.drops = {name: count for name, count in node.drops().items() if count}
        result.memory_kb.append(machine.memory_kb(node.pid))
        if WORKLOADS[workload]:
            result.flood = end(attacker)
    return result


def serve(result: Run, node: sut.SrpNode, net: str, stack: contextlib.ExitStack) -> None:
    """The honest peers: they start, become ready, join one subcluster, meet, and emit their events."""
    count = result.clients
    processes = [ReferenceProcess() for _ in range((count + PEERS_PER_PROCESS - 1) // PEERS_PER_PROCESS)]
    for process in processes:
        stack.callback(process.close)
    start = time.monotonic()
    honest = [
        Client(processes[i % len(processes)], f"honest-{i}", f"{net}.{1 + i // 250}.{i % 250 + 1}", node.entries)
        for i in range(count)
    ]
    waiting = list(honest)
    while waiting and time.monotonic() - start < DEADLINE_S:
        for client in [client for client in waiting if client.events("ready")]:
            result.ready_s.append(time.monotonic() - start)
            waiting.remove(client)
        time.sleep(0.1)
    honest = [client for client in honest if client not in waiting]
    for client in honest:
        client.join("subcluster")
        client.listen("subcluster", "event")
    start = time.monotonic()
    pairs = set(itertools.permutations([client.peer_id for client in honest[:PAIRS_AMONG]], 2))
    result.pairs_wanted = len(pairs)
    while pairs and time.monotonic() - start < DEADLINE_S:
        pairs -= {(a.peer_id, other) for a in honest[:PAIRS_AMONG] for other in a.met()}
        time.sleep(0.2)
    result.pairs_met = result.pairs_wanted - len(pairs)
    result.meeting_s = time.monotonic() - start
    start = time.monotonic()
    hashes = {}
    for client in honest:
        texts = [f"{client.name} {i} {os.urandom(8).hex()}".encode() for i in range(EVENTS)]
        hashes[client.name] = {sha256_hex(text) for text in texts}
        for text in texts:
            client.emit("subcluster", "event", text)
    every = set().union(*hashes.values()) if hashes else set()
    result.events_wanted = len(honest) * max(len(every) - EVENTS, 0)
    while time.monotonic() - start < DEADLINE_S:
        got = {client.name: {event.get("sha256") for event in client.events("message")} for client in honest}
        result.events_arrived = sum(len(got[name] & (every - own)) for name, own in hashes.items())
        result.events_s = time.monotonic() - start
        if result.events_arrived >= ENOUGH * result.events_wanted and result.enough_s != result.enough_s:
            result.enough_s = result.events_s
        if result.events_arrived == result.events_wanted:
            break
        time.sleep(1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--times", type=float, default=2.0, help="of the capacity")
    parser.add_argument("--rate", type=float, default=0.0, help="datagrams a second instead")
    parser.add_argument("--share", type=float, default=0.25, help="of a core, for the node")
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS))
    parser.add_argument("--limit", action="append", default=[], help="a line of [limits], such as introductions=4")
    parser.add_argument("--runs", type=int, default=1, help="of each workload")
    parser.add_argument("--json", type=Path, help="a line for each run is added there")
    options = parser.parse_args()
    if not 0.05 <= options.share <= 1:
        parser.error("--share: 0.05 to 1")
    for workload in options.runs * (options.workload or list(WORKLOADS)):
        result = run(
            workload,
            clients=options.clients,
            times=options.times,
            rate=options.rate,
            share=options.share,
            limits=tuple(line.replace(" ", "") for line in options.limit),
            least_s=PINGED_S,
        )
        for key, value in result.summary().items():
            print(f"{key:28} {value}")
        print(flush=True)
        if options.json:
            with options.json.open("a") as file:
                file.write(json.dumps(asdict(result)) + "\n")


if __name__ == "__main__":
    main()
