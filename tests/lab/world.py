"""An internet in namespaces: one bridge, a host with two public addresses for introducers, and sites behind NATs.

    host a ── router ──┐
                       ├── bridge (the internet, 198.51.100.0/24) ── introducers (two addresses)
    host b ── router ──┘

Nothing routes beyond the bridge. The addresses are of a network reserved for documentation, so that even a mistake
could reach nobody.
"""

import ipaddress
from types import TracebackType

from .delay import Delay, DelayLine, send_full_checksums
from .namespaces import Namespace, Namespaces
from .nat import NatKind, NatOptions, loss_rules, parted_rules, rules

INTERNET = ipaddress.IPv4Network("198.51.100.0/24")
INTRODUCERS = (str(INTERNET[10]), str(INTERNET[11]))
FIRST_SITE = 20
LAN_ROUTER = "192.168.1.1"
PROVIDER = "100.64.0"  # between the two routers of a double NAT
FORWARD = {"ipv4/ip_forward": 1}
# A bridge must not hand its frames to the IP rules of the namespace.
PLAIN_BRIDGE = {"bridge/bridge-nf-call-iptables": 0}
NO_DELAY = Delay()


class Host:
    """A machine on which peers run: its namespace and its own address, private behind a NAT."""

    def __init__(self, namespace: Namespace, address: str) -> None:
        self.namespace = namespace
        self.address = address


class Site:
    """One or more hosts behind a NAT of some kind, with one public address."""

    def __init__(self, world: "World", name: str, kind: NatKind, options: NatOptions, hosts: int, delay: Delay) -> None:
        if kind is NatKind.NONE and (hosts != 1 or options != NatOptions()):
            raise ValueError("without a NAT a site is one host on the internet")
        self.world = world
        self.name = name
        self.kind = kind
        self.options = options
        self.address = world.allocate()
        self.edge = world.namespaces.add(name if kind is NatKind.NONE else f"{name}-router")  # holds the public address
        self.routers: list[Namespace] = []
        self.hosts: list[Host] = []
        world.attach(self.edge, "wan", self.address, delay=delay)
        if kind is NatKind.NONE:
            self.hosts.append(Host(self.edge, self.address))
            return
        inner = self.edge
        if kind is NatKind.DOUBLE:
            inner = world.namespaces.add(f"{name}-inner")
            self._make_router(self.edge)
            world.namespaces.link(inner, "wan", self.edge, "lan")
            self.edge.ip(f"addr add {PROVIDER}.1/24 dev lan")
            inner.ip(f"addr add {PROVIDER}.2/24 dev wan", f"route add default via {PROVIDER}.1")
        self._make_router(inner)
        inner.ip("link add lan type bridge", "link set lan up", f"addr add {LAN_ROUTER}/24 dev lan")
        inner.sysctl(PLAIN_BRIDGE)
        for index in range(hosts):
            self._add_host(inner, index)
        self._load_rules()

    def _make_router(self, namespace: Namespace) -> None:
        unreplied, replied = self.options.unreplied_timeout_s, self.options.replied_timeout_s
        timeouts = {
            "netfilter/nf_conntrack_udp_timeout": unreplied,
            "netfilter/nf_conntrack_udp_timeout_stream": replied,
        }
        namespace.sysctl(FORWARD | timeouts)
        self.routers.append(namespace)

    def _add_host(self, router: Namespace, index: int) -> None:
        host = self.world.namespaces.add(f"{self.name}-host{index}")
        address = f"192.168.1.{2 + index}"
        self.world.namespaces.link(host, "lan", router, f"port{index}")
        router.ip(f"link set port{index} master lan")
        host.ip(f"addr add {address}/24 dev lan", f"route add default via {LAN_ROUTER}")
        self.hosts.append(Host(host, address))

    def _load_rules(self) -> None:
        kind = NatKind.PORT_RESTRICTED if self.kind is NatKind.DOUBLE else self.kind
        for router in self.routers:
            wan = self.address if router is self.edge else f"{PROVIDER}.2"
            router.nft(rules(kind, wan, self.options))

    def forget(self) -> None:
        """Every mapping of the routers is gone, as after a power cut."""
        if self.routers:
            self._load_rules()
        for router in self.routers:
            router.forget_connections()

    def change_address(self) -> str:
        """Give the site another public address, as a provider does in mid-session; mappings are lost. Returns it."""
        old, self.address = self.address, self.world.allocate()
        prefix = INTERNET.prefixlen
        self.edge.ip(f"addr del {old}/{prefix} dev wan", f"addr add {self.address}/{prefix} dev wan")
        if self.kind is NatKind.NONE:
            self.hosts[0].address = self.address
        self.forget()
        return self.address


class World:
    """An internet with introducers and sites; a context manager. Building one takes about a quarter of a second."""

    def __init__(self) -> None:
        self.namespaces = Namespaces()
        self._next_address = FIRST_SITE
        self._next_port = 0
        self._lines: list[DelayLine] = []
        try:
            self.internet = self.namespaces.add("internet")
            self.internet.ip("link add internet type bridge", "link set internet up")
            self.internet.sysctl(PLAIN_BRIDGE)
            self.introducers = self.namespaces.add("introducers")
            self.attach(self.introducers, "wan", *INTRODUCERS)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "World":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def allocate(self) -> str:
        """A public address that was never used in this world."""
        self._next_address += 1
        return str(INTERNET[self._next_address - 1])

    def attach(self, namespace: Namespace, name: str, *addresses: str, delay: Delay = NO_DELAY) -> None:
        """Connect a namespace to the internet under some public addresses."""
        port = f"port{self._next_port}"
        self._next_port += 1
        if delay:
            wire = self.namespaces.add(f"wire-{port}")
            self.namespaces.link(namespace, name, wire, "near")
            self.namespaces.link(wire, "far", self.internet, port)
            send_full_checksums(namespace, name)
            send_full_checksums(self.internet, port)
            self._lines.append(DelayLine(wire, ("near", "far"), delay, self._next_port))
        else:
            self.namespaces.link(namespace, name, self.internet, port)
        self.internet.ip(f"link set {port} master internet")
        namespace.ip(*(f"addr add {address}/{INTERNET.prefixlen} dev {name}" for address in addresses))

    def site(
        self,
        name: str,
        kind: NatKind,
        options: NatOptions | None = None,
        hosts: int = 1,
        delay: Delay = NO_DELAY,
    ) -> Site:
        """A new site; `hosts` machines share its router, and all its traffic takes its time."""
        return Site(self, name, kind, options or NatOptions(), hosts, delay)

    def lose(self, per_mille: int) -> None:
        """From now on this many of every thousand UDP datagrams that cross the internet are lost."""
        self.internet.nft(loss_rules(per_mille))

    def part(self, one: Site, other: Site) -> None:
        """From now on the two sites cannot reach each other; everybody else can reach both. mend() ends it."""
        self.internet.nft(parted_rules(one.address, other.address))

    def mend(self) -> None:
        """Nothing is lost any more, nobody parted."""
        self.internet.nft("")

    def close(self) -> None:
        """Everything ends."""
        while self._lines:
            self._lines.pop().close()
        self.namespaces.close()
