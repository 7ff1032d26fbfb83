"""One run of a scenario: who comes and goes, who publishes, what breaks, and what came of it."""

from __future__ import annotations

import functools
import resource
import time
from array import array
from collections.abc import Callable
from typing import Any

from srpnode.core import codec
from srpnode.sim import quantiles
from srpnode.sim.scenario import NAT_KINDS, Scenario
from srpnode.sim.world import World

INTRODUCERS, PEERS, SILENT, FLOODERS = range(4)  # groups of hosts
GROUP_NAMES = ("introducers", "peers", "silent", "flooders")
CLUSTER = codec.sha256(b"cluster of the simulation")
SUBCLUSTER = codec.sha256(b"subcluster of the simulation")
# Of the reach curves.
GRID_MS = (*range(0, 1000, 20), *range(1000, 5000, 100), *range(5000, 60000, 1000), *range(60000, 600001, 10000))
NEW_US = 30_000_000  # newcomers have been ready for less than that

Progress = Callable[[float], None]


def us(seconds: float) -> int:
    """Whole microseconds."""
    return round(seconds * 1_000_000)


def millionths(part: float) -> int:
    """A part of one as a whole number."""
    return round(part * 1_000_000)


class Experiment:
    """Sets a scenario up in a World of its own; run() lets it happen, result() tells what did."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        network, peers = scenario["network"], scenario["peers"]
        self.scenario = scenario
        self.seed = seed
        self.world = World(
            seed=seed,
            latency=quantiles.log_normal(round(network["latency_median_ms"] * 1000), round(network["latency_p99_ms"] * 1000)),
            jitter=round(network["jitter"] * 1000),
            loss=millionths(network["loss"]),
            duplicate=millionths(network["duplicate"]),
            reorder=millionths(network["reorder"]),
            up_bytes_per_s=network["up_bytes_per_s"],
            up_queue_us=round(network["up_queue_ms"] * 1000),
        )
        self.settings: dict[int, dict[str, Any]] = {}
        self.lifetime = self._lifetimes()
        self.attackers_life = quantiles.exponential(us(scenario["attackers"]["lifetime_s"]))
        self.gap = quantiles.exponential(max(1, us(peers["lifetime_s"]) // peers["count"]))
        self.identity: dict[int, tuple[bytes, bytes]] = {}
        self.introducers: list[int] = []
        self.boxes: dict[str, tuple[int, int]] = {}
        self.packets: list[int] = []
        self.sizes: list[tuple[int, int, int]] = []
        self.joins = self.leaves = 0
        self.slept: list[tuple[float, int, int, int]] = []  # for how long (as planned), host, from, until
        self.flooders: list[int] = []
        self.shouts = 0
        self.wall_s = 0.0
        self.interrupted = False
        self.offset = us(scenario["until_ready_s"])
        self._set_up()

    # --- hosts ------------------------------------------------------------------------------------------------------------

    def _lifetimes(self) -> array[int] | None:
        peers = self.scenario["peers"]
        if peers["lifetime"] == "none":
            return None
        make = {"exponential": quantiles.exponential, "uniform": quantiles.uniform, "fixed": quantiles.fixed}
        return make[peers["lifetime"]](us(peers["lifetime_s"]))

    def _set_up(self) -> None:
        s, world = self.scenario, self.world
        peers = s["peers"]
        for _ in range(s["introducers"]["count"]):
            host = world.add_host(INTRODUCERS)
            self.identity[host] = (world.draw_bytes(32), world.draw_bytes(32))
            self.introducers.append(host)
        for host in self.introducers:
            self.start(host)
        first = self.first = max(1, peers["count"] if peers["initial"] < 0 else peers["initial"])
        for i in range(first):
            world.at(us(peers["start_over_s"]) * i // first, self.arrive)
        if self.lifetime is not None:
            world.at(world.draw_from(self.gap), self.next_arrival)
        world.at(0, self.every_second)
        publish = s["publish"]
        world.at(self.offset + us(publish["start_s"]), self.publish)
        if publish["flood_per_s"] > 0:
            world.at(self.offset + us(publish["start_s"]), self.flood)
        attackers = s["attackers"]
        for i in range(attackers["count"]):  # all of them within ten seconds
            world.at(self.offset + us(attackers["start_s"]) + us(10) * i // attackers["count"], self.attack)
        for fault in s["fault"]:
            world.at(self.offset + us(fault["at_s"]), functools.partial(self.fail, fault))

    def _core(self, group: int) -> dict[str, Any]:
        """Settings of a core: small ones for peers, so that many of them fit."""
        s = self.scenario
        if group == INTRODUCERS:
            table = s["introducers"]["table"]
            return {
                "nat_type": 31, "peers": table, "gate_entries": max(4 * table, 4096), "meter_entries": max(table, 256),
                "parked": max(64, table // 8), "return_routes": max(64, table // 8), "sync_jobs": 64, "queue_datagrams": 512,
                "cache_max_bytes": s["introducers"]["cache_bytes"], "introductions": s["introducers"]["introductions"],
                "publish_fan_out": s["introducers"]["publish_fan_out"],
                "relayed_joins_per_minute": s["introducers"]["relayed_joins_per_minute"],
            }  # fmt: skip
        table = s["peers"]["table"]
        packets = s["peers"]["cache_bytes"] // 256
        return {
            "nat_type": 0, "peers": table, "spare_peers": 0, "clusters": 16, "gate_entries": max(256, min(16384, 4 * packets)),
            "meter_entries": 16, "parked": max(4, table // 32), "return_routes": 16, "sync_jobs": max(2, table // 32),
            "deferred_joins": max(2, table // 16), "queue_datagrams": 64, "queue_bytes": min(16384, max(8192, 256 * table)),
            "subclusters": 1, "unpublished": 16, "challenges": 8, "events": 1, "access_rules": 0,
            "cache_max_bytes": s["peers"]["cache_bytes"], "app_bytes": 2048, "attempts": max(16, table // 8),
        }  # fmt: skip

    def start(self, host: int) -> None:
        """Switches a host on, with a core that remembers nothing."""
        peer_id, seed = self.identity[host]
        group = INTRODUCERS if host in self.introducers else PEERS
        settings = self.settings.setdefault(group, self._core(group))
        listed = [other for other in self.introducers if other != host]
        if group == PEERS and 0 < self.scenario["introducers"]["listed"] < len(listed):
            listed = self._some(listed, self.scenario["introducers"]["listed"] / len(listed))
        others = [(*self.world.endpoint(other), self.identity[other][0]) for other in listed]
        extra: dict[str, Any] = {}
        if group == INTRODUCERS:
            extra["address"] = self.world.endpoint(host)[0]
        self.world.start(
            host,
            peer_id,
            seed,
            [(CLUSTER, SUBCLUSTER)] if group == PEERS else [],
            keep_alive=self.scenario["peers"]["keep_alive_s"],
            selection=self.scenario["peers"]["selection"],
            indexed_peers=others,
            **settings,
            **extra,
        )

    def _nat(self) -> int | None:
        """A place behind a box of a kind that the scenario's mix gives, None: in the open."""
        nat = self.scenario["nat"]
        kind, at = NAT_KINDS[0], self.world.draw_below(1_000_000)
        for kind in NAT_KINDS:
            at -= millionths(nat[kind])
            if at < 0:
                break
        if kind == "none":
            return None
        box, used = self.boxes.get(kind, (-1, int(nat["hosts"])))
        if used >= nat["hosts"]:
            box, used = self.world.add_box(
                NAT_KINDS.index(kind), timeout_us=us(nat["timeout_s"]), ports=nat["ports"], hairpin=nat["hairpin"]
            ), 0  # fmt: skip
        self.boxes[kind] = (box, used + 1)
        return box

    def arrive(self) -> None:
        """A new peer comes, and its leaving is fixed."""
        s, world = self.scenario, self.world
        group, dice = PEERS, world.draw_below(1_000_000)
        if dice < millionths(s["peers"]["silent"]):
            group = SILENT
        elif dice < millionths(s["peers"]["silent"] + s["publish"]["flooders"]):
            group = FLOODERS
        host = world.add_host(group, self._nat(), subscribed=group == PEERS, silent=group == SILENT)
        if group == FLOODERS:
            self.flooders.append(host)
        self.identity[host] = (world.draw_bytes(32), world.draw_bytes(32))
        self.start(host)
        self.joins += 1
        if self.lifetime is not None:
            world.at(world.now_us + world.draw_from(self.lifetime), lambda: self.leave(host))

    def attack(self) -> None:
        """An attacker comes; when it goes, the next one takes its place."""
        world, attackers = self.world, self.scenario["attackers"]
        host = world.add_host(SILENT, silent=True, close=attackers["close"])
        self.identity[host] = (world.draw_bytes(32), world.draw_bytes(32))
        self.start(host)

        def again() -> None:
            world.stop(host)
            self.identity.pop(host, None)
            self.attack()

        world.at(world.now_us + world.draw_from(self.attackers_life), again)

    def leave(self, host: int) -> None:
        """A peer goes for good."""
        self.world.stop(host)
        self.identity.pop(host, None)
        self.leaves += 1

    def next_arrival(self) -> None:
        """The arrivals are a Poisson process."""
        self.arrive()
        self.world.at(self.world.now_us + self.world.draw_from(self.gap), self.next_arrival)

    # --- what happens -------------------------------------------------------------------------------------------------------

    def every_second(self) -> None:
        """Notes the size of the network."""
        self.sizes.append((self.size(), self.joins, self.leaves))
        self.world.at(self.world.now_us + 1_000_000, self.every_second)

    def size(self) -> int:
        """Peers of all kinds that are on."""
        return sum(self.world.count_on(group) for group in (PEERS, SILENT, FLOODERS))

    def publish(self) -> None:
        """A random ready peer publishes; again after the scenario's interval."""
        publish = self.scenario["publish"]
        end = us(publish["end_s"] or self.scenario["duration_s"] - publish["watch_s"]) + self.offset
        publisher = self.world.choose_ready(PEERS)
        if publisher is not None:
            self.packets.append(self.world.publish(publisher, CLUSTER, SUBCLUSTER, publish["bytes"]))
        again = self.world.now_us + us(publish["every_s"])
        if again <= end:
            self.world.at(again, self.publish)

    def flood(self) -> None:
        """A flooding peer publishes something of its own cluster."""
        self.flooders = [host for host in self.flooders if self.world.is_on(host)]
        if self.flooders:
            host = self.flooders[self.world.draw_below(len(self.flooders))]
            self.shouts += 1
            text = b"flood %d" % self.shouts
            junk = text.ljust(1024, b"!")
            self.world.shout(
                host,
                codec.encode(
                    codec.PUBLISH,
                    cluster_id=codec.sha256(b"flood"),
                    subcluster_id=codec.sha256(b"flood sub"),
                    packet_id=codec.sha256(text),
                    message=junk,
                ),
            )
        self.world.at(self.world.now_us + us(1 / self.scenario["publish"]["flood_per_s"]), self.flood)

    def _some(self, hosts: list[int], share: float) -> list[int]:
        """A random part of these hosts."""
        left, chosen = list(hosts), []
        for _ in range(round(len(hosts) * share)):
            chosen.append(left.pop(self.world.draw_below(len(left))))
        return chosen

    def fail(self, fault: dict[str, Any]) -> None:
        """Something breaks; what has a duration heals by itself."""
        world, until = self.world, self.world.now_us + us(fault["for_s"])
        kind = fault["kind"]
        if kind == "partition":
            world.partition(millionths(fault["share"]))
            if fault["for_s"] > 0:
                world.at(until, lambda: world.partition(0))
            return
        pool = self.introducers if kind == "introducers" else [host for host in self.identity if host not in self.introducers]
        victims = self._some([host for host in pool if world.is_on(host)], fault["share"])
        for host in victims:
            world.stop(host, away=kind in ("away", "restart"))
        if kind == "restart" or fault["for_s"] > 0:
            for i, host in enumerate(victims):
                # Who slept wakes up within a tenth of the time; who restarts is back at once.
                spread = us(fault["for_s"]) * i // (10 * len(victims)) if kind == "away" else 0
                world.at(until + spread, functools.partial(self.back, host))
                if kind == "away":
                    self.slept.append((fault["for_s"], host, world.now_us, until + spread))

    def back(self, host: int) -> None:
        """A host that was off comes back, unless it has left for good meanwhile."""
        if host in self.identity and not self.world.is_on(host):
            self.start(host)

    # --- running --------------------------------------------------------------------------------------------------------------

    def run(self, progress: Progress | None = None) -> None:
        """Runs to the end. An interrupt ends it early, and result() tells what there is."""
        started = time.monotonic()
        end = self.offset + us(self.scenario["duration_s"])
        steps = 100
        try:
            for step in range(1, steps + 1):
                self.world.run(end * step // steps)
                if progress is not None:
                    progress(step / steps)
        except KeyboardInterrupt:
            self.interrupted = True
        self.wall_s = time.monotonic() - started

    def result(self) -> dict[str, Any]:
        """All figures of the run, ready for JSON."""
        counters: dict[str, dict[str, int]] = {}
        figures = self.world.figures()
        watch_us = us(self.scenario["publish"]["watch_s"])
        whole = [n for n in self.packets if self.world.reach(n)["at_us"] + watch_us <= self.world.now_us]
        packets = [reach(self.world.reach(n), watch_us) for n in whole]
        for group in (INTRODUCERS, PEERS):
            counters[GROUP_NAMES[group]] = self._counters(group)
        traffic = {name: self.world.traffic(group) for group, name in enumerate(GROUP_NAMES)}
        return {
            "seed": self.seed,
            "interrupted": self.interrupted,
            "wall_s": round(self.wall_s, 2),
            "events_per_s": round(figures["events"] / self.wall_s) if self.wall_s > 0 else 0,
            **figures,
            "sizes": self.sizes,
            "initial": self.first,
            "joins": self.joins,
            "leaves": self.leaves,
            "traffic": traffic,
            "core_bytes": {GROUP_NAMES[group]: self._core_bytes(group) for group in (INTRODUCERS, PEERS)},
            "peak_memory_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            "counters": counters,
            "away": self._missed(),
            "packets_published": packets,
            "recovery": [self._recovery(fault, packets) for fault in self.scenario["fault"] if fault["kind"] != "away"],
        }

    def _recovery(self, fault: dict[str, Any], packets: list[dict[str, Any]]) -> dict[str, Any]:
        """How a network got over a fault. Seconds count from its healing, or from the fault itself when that is for good.

        lowest_720_ms: least reach in 0.72 s since the fault. usual_after_s: from then on each packet has 95 % in 0.72 s.
        caught_up_after_s: 99 % have each packet that was published meanwhile. None: not while it was watched.
        """
        start = self.offset / 1e6 + fault["at_s"]
        healed = start + (0 if fault["kind"] == "restart" else fault["for_s"])
        since = [packet for packet in packets if packet["at_s"] >= start]
        below = [packet["at_s"] for packet in since if packet["in_720_ms"] < 0.95]
        usual = [packet["at_s"] for packet in since if not below or packet["at_s"] > below[-1]]
        caught: list[float | None] = []
        for packet in packets:
            if start <= packet["at_s"] < healed:
                caught.append(max(0.0, packet["at_s"] + packet["t99_s"] - healed) if packet["t99_s"] is not None else None)
        return {
            "kind": fault["kind"],
            "lowest_720_ms": min((packet["in_720_ms"] for packet in since), default=None),
            "usual_after_s": max(0.0, usual[0] - healed) if usual else None,
            "caught_up_after_s": None if None in caught else max((at for at in caught if at is not None), default=0.0),
        }

    def _core_bytes(self, group: int) -> int:
        """Memory of one core of a group, 0 when none is on."""
        for host in self.introducers if group == INTRODUCERS else self.identity:
            node = self.world.node(host)
            if node is not None and (host in self.introducers) == (group == INTRODUCERS):
                return node.table_bytes
        return 0

    def _missed(self) -> list[dict[str, Any]]:
        """For each sleep: what was published meanwhile, and what part of it arrived how long after waking."""
        rows = []
        for for_s in sorted({for_s for for_s, *_ in self.slept}):
            wanted, late_s = 0, []
            for _, host, since_us, until_us in (sleep for sleep in self.slept if sleep[0] == for_s):
                for number in self.packets:
                    at_us = self.world.published_at(number)
                    if since_us <= at_us < until_us and until_us < self.world.now_us:
                        delay_us = self.world.delay_of(number, host)
                        wanted += delay_us is not None
                        if delay_us is not None and delay_us >= 0:
                            late_s.append((at_us + delay_us - until_us) / 1e6)
            late_s.sort()
            rows.append(
                {
                    "for_s": for_s,
                    "wanted": wanted,
                    "got": len(late_s),
                    "half_after_s": late_s[len(late_s) // 2] if late_s else None,
                    "last_after_s": late_s[-1] if late_s else None,
                }
            )
        return rows

    def _counters(self, group: int) -> dict[str, int]:
        """Counters of the cores of a group that are on now."""
        total: dict[str, int] = {}
        hosts = self.introducers if group == INTRODUCERS else [host for host in self.identity if host not in self.introducers]
        for host in hosts:
            node = self.world.node(host)
            if node is not None:
                for name, value in node.counters().items():
                    if value:
                        total[name] = total.get(name, 0) + value
        return total


def reach(packet: dict[str, Any], watch_us: int) -> dict[str, Any]:
    """A packet's figures, and its curves over GRID_MS.

    ready: the part that has the packet, of those who were ready when it was published and did not leave before they got it;
    strict: the same of all who were on or away at that moment, ready or not.
    """
    ready, strict = _curve(packet, ready_only=True), _curve(packet, ready_only=False)
    return {
        "at_s": packet["at_us"] / 1e6,
        "bytes": packet["bytes"],
        "wanted": packet["wanted"],
        "copies_sent": packet["sent"],
        "copies_sent_early": packet["sent_early"],
        "copies_received": packet["received"],
        "delivered": packet["delivered"],
        "late": packet["late"],
        "again": packet["again"],
        "hops": packet["hops"],
        "ready": ready,
        "strict": strict,
        "wanted_ready": sum(since >= 0 for since in packet["ready"]),
        "in_720_ms": _part(packet, 720_000, ready_only=True),
        "in_720_ms_new": _part(packet, 720_000, ready_only=True, new=True),
        "in_watch_new": _part(packet, watch_us, ready_only=True, new=True),
        "t99_s": next((at_ms / 1000 for at_ms, part in zip(GRID_MS, ready, strict=True) if part >= 0.99), None),
        "in_720_ms_strict": _part(packet, 720_000, ready_only=False),
        "in_watch": _part(packet, watch_us, ready_only=True),
        "in_watch_strict": _part(packet, watch_us, ready_only=False),
        "median_ms": _quantile_ms(packet, 0.5),
        "p99_ms": _quantile_ms(packet, 0.99),
    }


def _part(packet: dict[str, Any], at_us: int, *, ready_only: bool, new: bool = False) -> float:
    """The part that has it at that time; new: of those who had been ready for less than NEW_US."""
    have = want = 0
    for delay, since, gone in zip(packet["delay"], packet["ready"], packet["gone"], strict=True):
        if (ready_only and since < 0) or (new and since >= NEW_US):
            continue
        if 0 <= delay <= at_us:
            have += 1
            want += 1
        elif gone < 0 or gone > at_us:
            want += 1
    return have / want if want else 1.0


def _curve(packet: dict[str, Any], *, ready_only: bool) -> list[float]:
    """_part() at every place of GRID_MS, in one pass."""
    got: list[int] = []
    lost: list[int] = []
    never = 0
    for delay, since, gone in zip(packet["delay"], packet["ready"], packet["gone"], strict=True):
        if ready_only and since < 0:
            continue
        if delay >= 0:
            got.append(delay)
        elif gone >= 0:
            lost.append(gone)
        else:
            never += 1
    got.sort()
    lost.sort()
    curve, i, j = [], 0, 0
    for at_ms in GRID_MS:
        while i < len(got) and got[i] <= 1000 * at_ms:
            i += 1
        while j < len(lost) and lost[j] <= 1000 * at_ms:
            j += 1
        want = len(got) + never + len(lost) - j
        curve.append(round(i / want, 6) if want else 1.0)
    return curve


def _quantile_ms(packet: dict[str, Any], part: float) -> float | None:
    delays: list[int] = sorted(delay for delay in packet["delay"] if delay >= 0)
    return delays[int(part * len(delays))] / 1000 if delays else None


def simulate(scenario: Scenario, seed: int, progress: Progress | None = None) -> dict[str, Any]:
    """One run, from setting up to its figures."""
    experiment = Experiment(scenario, seed)
    experiment.run(progress)
    return experiment.result()
