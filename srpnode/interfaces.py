"""IPv4 addresses of the machine by netlink: which one to advertise, and a notice when anything of it changes.

pyroute2 as a whole costs 20 MB and 100 ms at import; only its message types and its plain socket are loaded.
"""

import importlib.util
import ipaddress
import socket
import sys
import types
from dataclasses import dataclass
from typing import Any

from srpnode.schema import Listen

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
EVENT_GROUPS = 0x1 | 0x10 | 0x40  # links, IPv4 addresses, IPv4 routes
IFF_UP, IFF_RUNNING = 0x1, 0x40
LOOPBACK = "127.0.0.1"
OUTSIDE = "1.1.1.1"  # stands for the Internet: only the route to it is looked up, nothing is sent
PRIVATE = [
    ipaddress.IPv4Network(text)
    for text in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "0.0.0.0/8",
    )
]
EVENTS_MAX = 1_000  # messages taken at once


class InterfacesError(Exception):
    """Netlink cannot be used."""


@dataclass(frozen=True, slots=True)
class Address:
    """One IPv4 address of this machine."""

    address: str
    interface: str
    up: bool  # the link is up and has a carrier


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The machine's addresses, and the one that the route to the outside sends from ("" without such a route)."""

    addresses: tuple[Address, ...]
    outside: str

    def has(self, address: str) -> bool:
        """True for an address of the machine itself; False for the mapping of a NAT in front of it."""
        return address.startswith("127.") or any(item.address == address for item in self.addresses)

    def only(self) -> str:
        """The only address of this machine besides 127.0.0.1; "" when there are several, or it is not known."""
        others = {item.address for item in self.addresses} - {LOOPBACK}
        if len(others) > 1 or not self.addresses:
            return ""
        return others.pop() if others else LOOPBACK

    def advertised(self, listen: Listen, seen: str = "") -> str:
        """The address that peers are told for one [[listen]]: as configured, else our own; when that is private, the
        public one as others see us (a 1:1 NAT)."""
        if listen.advertise != "auto":
            return listen.advertise
        own = self.own(listen)
        return seen if seen and is_private(own) and not is_private(seen) else own

    def own(self, listen: Listen) -> str:
        """The bound address, else that of the default route, else the first one that is up, else loopback."""
        if listen.address != "0.0.0.0":
            return listen.address
        if self.outside:
            return self.outside
        usable = [item.address for item in self.addresses if item.up and not item.address.startswith("127.")]
        return usable[0] if usable else LOOPBACK


def is_private(address: str) -> bool:
    """True when the Internet has no way to that address: RFC 1918, carrier NAT, loopback, link-local."""
    return any(ipaddress.IPv4Address(address) in network for network in PRIVATE)


class Netlink:
    """Asks for addresses and hears of changes. Poll fileno(); when it is readable call changed(), then snapshot()."""

    def __init__(self) -> None:
        """Opens two netlink sockets, one for questions and one for events. Raises InterfacesError."""
        try:
            self._parts = _load()
            self._questions = self._parts.socket()
            self._questions.bind()
            self._events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
            self._events.bind((0, EVENT_GROUPS))
        except Exception as error:  # the package raises its own kinds
            raise InterfacesError(f"netlink: {error}") from error

    def fileno(self) -> int:
        """Descriptor of the event socket."""
        return self._events.fileno()

    def changed(self) -> bool:
        """Empties the event socket; True when there was anything. What it was does not matter: the caller asks anew."""
        found = False
        for _ in range(EVENTS_MAX):
            try:
                if not self._events.recv(65_536):
                    break
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: events were lost, so there were some
                pass
            found = True
        return found

    def snapshot(self) -> Snapshot:
        """The present state. Raises InterfacesError."""
        try:
            links = {message["index"]: message["flags"] for message in self._dump(self._parts.ifinfmsg(), RTM_GETLINK)}
            question = self._parts.ifaddrmsg()
            question["family"] = socket.AF_INET
            addresses = []
            for message in self._dump(question, RTM_GETADDR):
                address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
                if not address:
                    continue
                flags = links.get(message["index"], 0)
                name = message.get_attr("IFA_LABEL") or str(message["index"])
                addresses.append(Address(address, name, flags & IFF_UP != 0 and flags & IFF_RUNNING != 0))
            return Snapshot(tuple(addresses), self._outside())
        except Exception as error:
            raise InterfacesError(f"netlink: {error}") from error

    def _dump(self, question: Any, kind: int) -> list[Any]:
        flags = self._parts.NLM_F_REQUEST | self._parts.NLM_F_DUMP
        return list(self._questions.nlm_request(question, kind, flags))

    def _outside(self) -> str:
        question = self._parts.rtmsg()
        question["family"], question["dst_len"] = socket.AF_INET, 32
        question["attrs"].append(("RTA_DST", OUTSIDE))
        try:
            answers = list(self._questions.nlm_request(question, RTM_GETROUTE, self._parts.NLM_F_REQUEST))
        except self._parts.NetlinkError:  # no route
            return ""
        return next((str(answer.get_attr("RTA_PREFSRC") or "") for answer in answers), "")

    def close(self) -> None:
        """Closes both sockets."""
        self._events.close()
        self._questions.close()


def snapshot() -> Snapshot:
    """The present state, asked for once; without netlink what an unconnected socket tells."""
    try:
        netlink = Netlink()
    except InterfacesError:
        return Snapshot((), _route_source())
    try:
        return netlink.snapshot()
    except InterfacesError:
        return Snapshot((), _route_source())
    finally:
        netlink.close()


def _route_source() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((OUTSIDE, 9))  # a route lookup; nothing leaves
            return str(probe.getsockname()[0])
        except OSError:
            return ""


def _load() -> Any:
    """The parts of pyroute2 that are needed, in one namespace; skips the package's __init__, which loads everything."""
    if "pyroute2" not in sys.modules:
        spec = importlib.util.find_spec("pyroute2")
        if spec is None or spec.submodule_search_locations is None:
            raise InterfacesError("pyroute2 is not installed")
        package = types.ModuleType("pyroute2")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["pyroute2"] = package
    from pyroute2.netlink import NETLINK_ROUTE, NLM_F_DUMP, NLM_F_REQUEST  # type: ignore[import-untyped]
    from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]
    from pyroute2.netlink.nlsocket import Marshal, NetlinkSocket  # type: ignore[import-untyped]
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # type: ignore[import-untyped]
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # type: ignore[import-untyped]
    from pyroute2.netlink.rtnl.rtmsg import rtmsg  # type: ignore[import-untyped]

    class RouteMarshal(Marshal):  # type: ignore[misc]
        msg_map = types.MappingProxyType(
            {
                RTM_NEWLINK: ifinfmsg,
                RTM_DELLINK: ifinfmsg,
                RTM_NEWADDR: ifaddrmsg,
                RTM_DELADDR: ifaddrmsg,
                RTM_NEWROUTE: rtmsg,
                RTM_DELROUTE: rtmsg,
            }
        )

    class RouteSocket(NetlinkSocket):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(NETLINK_ROUTE)
            self.marshal = RouteMarshal()

    return types.SimpleNamespace(
        socket=RouteSocket,
        ifaddrmsg=ifaddrmsg,
        ifinfmsg=ifinfmsg,
        rtmsg=rtmsg,
        NetlinkError=NetlinkError,
        NLM_F_REQUEST=NLM_F_REQUEST,
        NLM_F_DUMP=NLM_F_DUMP,
    )
