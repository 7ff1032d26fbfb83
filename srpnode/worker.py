"""One identity at work: its sockets, its core and the loop that drives it in a thread of its own."""

import ipaddress
import os
import time
from collections.abc import Iterator
from typing import Any

from srpnode import info, service
from srpnode.core import node
from srpnode.core.node import Node
from srpnode.guard import Guard, Seen
from srpnode.identity import Identity
from srpnode.interfaces import Snapshot
from srpnode.net import filter as kernel_filter
from srpnode.net.loop import Loop
from srpnode.net.sockets import Inherited, SocketError
from srpnode.schema import Access, Config, Limits, Listen, entries

COMMAND_TIMEOUT_S = 1.0
NAT_UNKNOWN = 0
APP_BYTES = 16_384  # room for what the core tells an application; here only that its NAT is found
GAUGE_PEERS = {"known": "peers", "connected": "connected", "indexed": "indexed"}
GAUGE_CACHE = {
    "packets": "cache_packets",
    "bytes": "cache_bytes",
    "max_bytes": "cache_max_bytes",
    "clusters": "clusters",
    "sync_jobs": "sync_jobs",
}
PACKET_TYPES = ("ping", "pong", "intro", "join", "publish", "stream", "sync", "query")


class StartError(Exception):
    """The identity cannot start, or does not answer; the text is for the operator."""


class Worker:
    """Made and used by the daemon's thread. The loop's thread runs between start() and stop()."""

    def __init__(
        self,
        config: Config,
        listen: Listen,
        key: Identity,
        siblings: list[Identity],
        addresses: Snapshot,
        kept: Inherited,
        policy: tuple[Limits, Access],
    ) -> None:
        """Binds the sockets, or takes them out of `kept`, and makes the core. Raises StartError."""
        limits, access = policy
        self.listen = listen
        self.key = key
        self.advertised = addresses.advertised(listen)
        self.nat_type = info.NAT_UNRESTRICTED if listen.nat == "static" else NAT_UNKNOWN
        self._reflected = ""
        self._only = ""
        try:
            main = kept.open_udp(listen.address, listen.port)
            probe = kept.open_udp(listen.address, listen.probe_port)
        except SocketError as error:
            raise StartError(f"listen {listen.name}: {error.strerror}") from None
        # With nat = "auto" the core asks those it is configured with how they see it: a sibling would see too little.
        known = [
            (number(addresses.advertised(other)), other.port, sibling.peer_id)
            for other, sibling in zip(config.listen, siblings, strict=True)
            if sibling is not key and listen.nat == "static"
        ]
        known += [(number(peer.address), peer.port, bytes.fromhex(peer.peer_id)) for peer in config.peer]
        try:
            self.node = Node(
                peer_id=key.peer_id,
                seed=os.urandom(32),
                address=number(self.advertised),
                port=listen.port,
                probe_port=listen.probe_port,
                nat_type=self.nat_type,
                app_bytes=APP_BYTES if listen.nat == "auto" else 0,
                keep_alive=config.keep_alive,
                mono_us=time.monotonic_ns() // 1000,
                wall_ms=time.time_ns() // 1_000_000,
                indexed_peers=known,
                cache_max_bytes=config.cache.max_bytes,
                cache_ttl=config.cache.ttl,
                **_limits(limits, sizes=True),
                **_limits(limits, sizes=False),
            )
            self.node.set_rules(**_rules(access))
        except MemoryError:
            raise StartError(
                f"listen {listen.name}: not enough memory for its tables; lower [limits] or [cache]"
            ) from None
        self._sockets = (main, probe)
        self.filter = "off"
        self._guard = Guard()
        self.loop = Loop(self.node, main, probe)
        for sock in (main, probe):
            service.store(sock)

    def start(self) -> None:
        """Starts the loop's thread."""
        self.loop.start(f"srp-{self.listen.name}")

    def follow(self, addresses: Snapshot) -> None:
        """Tells the loop whether this machine has one address or several. Raises StartError."""
        only = addresses.only()
        if only == self._only:
            return
        try:
            self.loop.only_address(number(only) if only else 0, COMMAND_TIMEOUT_S)
        except (TimeoutError, RuntimeError, OSError) as error:
            raise StartError(f"{self.listen.name}: the loop does not answer: {error}") from None
        self._only = only

    def check(self, timeout_s: float) -> None:
        """Sees that the loop handles datagrams, its own one or others. Raises StartError when it does not in time."""
        if not self.loop.serves(timeout_s):
            raise StartError(
                f"{self.listen.name}: port {self.listen.port} heard neither its own datagram nor any other in {timeout_s:g} s; "
                "a firewall that drops what the machine sends to itself can do that"
            )

    def wants_filter(self) -> bool:
        """Whether a flood of garbage, or its end, calls for another state of the filter than it has."""
        drops, udp = self.drops(), self.loop.counters()
        seen = Seen(udp["in_datagrams"], drops["magic"] + drops["short"], udp["in_kernel_drops_now"])
        return self._guard.wants_filter(seen, self.filter == "on")

    def use_filter(self, wanted: bool) -> str:
        """Has the kernel drop what is no packet, or not any more; why it cannot, "" otherwise. What was there stays then."""
        try:
            for sock in self._sockets:
                (kernel_filter.attach if wanted else kernel_filter.detach)(sock.fileno())
        except OSError as error:
            self.filter = f"refused: {error.strerror}"
            return f"{self.listen.name}: works without the filter in the kernel: {error.strerror}"
        self.filter = "on" if wanted else "off"
        return ""

    def stop(self, timeout_s: float) -> bool:
        """Sends what is queued and ends the thread; False when it did not end in time."""
        return bool(self.loop.stop(timeout_s))

    def entry(self) -> dict[str, Any]:
        """This identity as an application lists it."""
        return info.entry(self.listen, self.advertised, self.key.peer_id, self.nat_type or info.NAT_UNRESTRICTED)

    def apply(self, commands: list[tuple[int, bytes]]) -> None:
        """Posts what rules_of() made. Raises StartError when the loop does not take it."""
        for kind, data in commands:
            self._command(kind, data)

    def advertise(self, addresses: Snapshot, seen: str) -> bool:
        """Follows the machine's addresses and how others see it; True when the advertised one is another now."""
        address = self._reflected or addresses.advertised(self.listen, seen)
        if address == self.advertised:
            return False
        self._command(node.ADDRESS, node.pack_address(address))
        self.advertised = address
        return True

    def reflect(self) -> None:
        """With nat = "auto": has the core find out its NAT again. Raises StartError."""
        if self.listen.nat == "auto":
            self._command(node.REFLECT)

    def reflected(self) -> bool:
        """With nat = "auto": True when the core has found out its NAT since the last call. Raises StartError."""
        if self.listen.nat != "auto":
            return False
        found = False
        result, answer = self._ask(node.APP, size=APP_BYTES)
        for record in node.unpack_app(answer[:result]):
            if record[0] == "ready":
                self.nat_type = int(record[1])
                self._reflected = str(record[2]) if self.listen.advertise == "auto" else ""
                found = True
        return found

    def _command(self, kind: int, data: bytes = b"", size: int = 0) -> bytes:
        return self._ask(kind, data, size)[1]

    def _ask(self, kind: int, data: bytes = b"", size: int = 0) -> tuple[int, bytes]:
        try:
            result, answer = self.loop.command(kind, data, size, COMMAND_TIMEOUT_S)
        except (TimeoutError, RuntimeError, BlockingIOError) as error:
            raise StartError(f"{self.listen.name}: the loop does not answer: {error}") from None
        if result < 0:
            raise StartError(f"{self.listen.name}: command {kind} refused: {os.strerror(-result)}")
        return result, answer

    def greet(self, address: str, port: int) -> None:
        """Has the core ping an endpoint; whoever is there proves itself by the answer. Raises StartError."""
        self._command(node.GREET, node.pack_greeting(address, port))

    def each_peer(self) -> Iterator[dict[str, Any]]:
        """All known peers, in slices between batches of datagrams. Raises StartError."""
        question = bytes(node.PEERS_BYTES)
        more = 1
        while more:
            more, question = self._ask(node.PEERS, question)
            for row in node.unpack_peers(question):
                yield {"identity": self.listen.name, **row}

    def events(self) -> list[dict[str, Any]]:
        """What happened in the core since the last call, oldest first, at most 256. Raises StartError."""
        return list(node.unpack_events(self._command(node.EVENTS, size=node.EVENTS_BYTES)))

    def drops(self) -> dict[str, int]:
        """Dropped packets by reason."""
        return {
            name.removeprefix("drop_"): count
            for name, count in self.node.counters().items()
            if name.startswith("drop_")
        }

    def traffic(self) -> int:
        """Bytes of UDP payload so far, both ways."""
        counters = self.loop.counters()
        return int(counters["in_bytes"] + counters["out_bytes"])

    def status(self) -> dict[str, Any]:
        """Everything counted so far. A loop that does not answer still shows its counters."""
        counters = self.node.counters()
        received = {kind: counters.pop(f"in_{kind}") for kind in PACKET_TYPES}
        sent = {kind: counters.pop(f"out_{kind}") for kind in PACKET_TYPES}
        counters = {name: value for name, value in counters.items() if not name.startswith("drop_")}
        try:
            gauges = node.unpack_gauges(self._command(node.GAUGES, size=node.GAUGES_BYTES))
        except StartError:
            gauges = {}
        return {
            **self.entry(),
            "natType": self.nat_type,
            "received": received,
            "sent": sent,
            "drops": self.drops(),
            "events": counters,
            "peers": {name: gauges.get(key, 0) for name, key in GAUGE_PEERS.items()},
            "cache": {name: gauges.get(key, 0) for name, key in GAUGE_CACHE.items()},
            "strangersPerSecond": gauges.get("strangers_per_second", 0),
            "summary": gauges.get("summary", ""),
            "udp": self.loop.counters(),
            "handling_us": self.loop.handling_times(),
            "features": self.loop.features(),
            "filter": self.filter,
        }


def number(address: str) -> int:
    """An IPv4 address as the number that the core works with."""
    return int(ipaddress.IPv4Address(address))


def rules_of(limits: Limits, access: Access) -> list[tuple[int, bytes]]:
    """The commands that give a running core these limits and rules."""
    return [
        (node.LIMITS, node.pack_limits(**_limits(limits, sizes=False))),
        (node.RULES, node.pack_rules(**_rules(access))),
    ]


def _limits(table: Limits, sizes: bool) -> dict[str, Any]:
    """The keys of [limits] by their names: those of tables that are made at the start, or those that may change."""
    return {
        entry.name: getattr(table, entry.name)
        for entry in entries(Limits)
        if entry.known.core and entry.known.restart == sizes
    }


def _rules(access: Access) -> dict[str, Any]:
    """[access] as the core takes it: the first prefix that fits decides, so denials go first."""
    prefixes = []
    for allow, texts in ((False, access.deny_prefixes), (True, access.allow_prefixes)):
        for network in map(ipaddress.IPv4Network, texts):
            prefixes.append((str(network.network_address), network.prefixlen, allow))
    return {
        "prefixes": prefixes,
        "default_allow": not access.allow_prefixes,
        "clusters": [bytes.fromhex(cluster) for cluster in access.allow_clusters or access.deny_clusters],
        "clusters_allow": bool(access.allow_clusters),
    }
