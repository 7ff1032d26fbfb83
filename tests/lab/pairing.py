"""One try: two clients behind two NATs become ready through the same introducers, meet, and exchange a text."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from . import trace
from .capture import Capture, Datagram
from .clients import KINDS, Client, ClientHost
from .introducers import introducers
from .nat import NatKind, NatOptions
from .world import Host, Site, World

READY_S = 10.0
MEET_S = 6.0
TEXT_S = 0.7
TEXT_TRIES = 3
SIDES = ("a", "b")
INTRODUCERS = "i"  # the introducers' host in a trace

_serial = itertools.count()


@dataclass(frozen=True)
class PairSetup:
    """What stands between two clients. `same_site` puts both behind one router, of kind `kinds[0]`."""

    kinds: tuple[NatKind, NatKind]
    clients: tuple[str, str] = ("reference", "reference")
    introducers: str = "srpnode"
    options: NatOptions = field(default_factory=NatOptions)
    same_site: bool = False
    loss_per_mille: int = 0

    @property
    def name(self) -> str:
        """A short name, for tables."""
        if not self.same_site:
            return " - ".join(self.kinds)
        return f"one {self.kinds[0]} router" + (", hairpin" if self.options.hairpin else "")


class Mode(StrEnum):
    """How far apart two clients start. A reference peer joins again about a second after it became ready, and then not
    before its next keep-alive: who comes after that second join meets a silent peer."""

    TOGETHER = "together"
    SOON = "soon"
    LATER = "later"


# The bounds of the offset of each mode, in seconds.
OFFSETS_S = {Mode.TOGETHER: (0.0, 0.05), Mode.SOON: (0.05, 0.95), Mode.LATER: (1.2, 2.0)}


@dataclass(frozen=True)
class Start:
    """Which side starts first (0 or 1), and how much later the other one does."""

    first: int
    mode: Mode
    offset_s: float

    @property
    def name(self) -> str:
        """A short name, for tables."""
        return f"{self.mode}, {SIDES[self.first]} first"


@dataclass
class Try:
    """What one try showed. Pairs are (a, b). `zero_ns` is when the later of both clients became ready."""

    start: Start
    zero_ns: int = 0
    nat_types: tuple[int | None, ...] = (None, None)
    ready_ms: tuple[float | None, ...] = (None, None)  # since the client's own start
    introduced_ms: float | None = None  # since zero: the first introduction of one to the other arrived
    joined_ms: tuple[float | None, ...] = (None, None)  # since zero: #join of the other
    path: tuple[str | None, ...] = (None, None)  # how a text reached a, reached b: direct, proxy or not at all
    packets: tuple[int, ...] = (0, 0, 0)  # sent by a, by b, by the introducers, until both had joined or gave up
    errors: tuple[str, ...] = ()
    evidence: str = ""

    @property
    def both_joined_ms(self) -> float | None:
        """When the later of both had its #join, or None."""
        joined = [ms for ms in self.joined_ms if ms is not None]
        return max(joined) if len(joined) == len(self.joined_ms) else None


def _first_introduction_ns(datagrams: Sequence[Datagram], peer_ids: Sequence[str]) -> int | None:
    """When an introduction of one of the peers first arrived at the host of the other one."""
    for datagram in datagrams:
        if datagram.sent or datagram.host == INTRODUCERS:
            continue
        packet = trace.decode(datagram.payload)
        other = peer_ids[1 - SIDES.index(datagram.host)]
        if packet is not None and packet.kind == "intro" and packet.message.get("requesterPeerId") == other:
            return datagram.at_ns
    return None


class Pair:
    """Two sites with a client program each, the introducers and a capture, for any number of tries."""

    def __init__(self, setup: PairSetup) -> None:
        self.setup = setup
        self.world = World()
        self._hosts: list[ClientHost] = []
        self._capture: Capture | None = None
        try:
            self.sites = self._build_sites()
            self.machines: list[Host] = [host for site in self.sites for host in site.hosts]
            self.world.lose(setup.loss_per_mille)
            self.introducers = introducers(setup.introducers, self.world)
        except BaseException:
            self.world.close()
            raise

    def _build_sites(self) -> list[Site]:
        setup = self.setup
        if setup.same_site:
            return [self.world.site("ab", setup.kinds[0], setup.options, hosts=2)]
        return [
            self.world.site(side, kind, NatOptions() if kind is NatKind.NONE else setup.options)
            for side, kind in zip(SIDES, setup.kinds, strict=True)
        ]

    async def __aenter__(self) -> "Pair":
        try:
            for side, kind, machine in zip(SIDES, self.setup.clients, self.machines, strict=True):
                self._hosts.append(await ClientHost.start(KINDS[kind], side, machine.namespace))
            watched = {side: machine.namespace for side, machine in zip(SIDES, self.machines, strict=True)}
            self._capture = Capture({**watched, INTRODUCERS: self.world.introducers})
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Programs end, then the world."""
        if self._capture is not None:
            self._capture.close()
        for host in self._hosts:
            await host.stop()
        await self.introducers.stop()
        self.world.close()

    async def attempt(self, start: Start) -> Try:
        """One try from nothing: fresh introducers, routers without mappings, new peers of a new cluster."""
        assert self._capture is not None
        known = await self.introducers.fresh()
        for site in self.sites:
            site.forget()
        self._capture.take()
        serial = next(_serial)
        names = (f"cluster {serial}", f"subcluster {serial}")
        started_ns = [0, 0]
        clients: dict[int, Client] = {}
        for side in (start.first, 1 - start.first):
            started_ns[side] = time.monotonic_ns()
            clients[side] = await self._hosts[side].client(known, *names)
            if side == start.first:
                await asyncio.sleep(start.offset_s)
        a, b = clients[0], clients[1]
        try:
            return await self._observe(start, started_ns, (a, b), [i.peer_id for i in known])
        finally:
            for client in (a, b):
                await client.stop()

    async def _observe(
        self, start: Start, started_ns: Sequence[int], clients: tuple[Client, Client], introducer_ids: Sequence[str]
    ) -> Try:
        assert self._capture is not None
        a, b = clients
        result = Try(start)
        await asyncio.gather(a.wait(lambda: a.ready is not None, READY_S), b.wait(lambda: b.ready is not None, READY_S))
        readies = [client.ready for client in clients]
        result.nat_types = tuple(ready.nat_type if ready else None for ready in readies)
        result.ready_ms = tuple(
            (ready.at_ns - at_ns) / 1e6 if ready else None for ready, at_ns in zip(readies, started_ns, strict=True)
        )
        result.zero_ns = max([ready.at_ns for ready in readies if ready is not None], default=time.monotonic_ns())
        if all(readies):
            await asyncio.gather(
                a.wait(lambda: b.peer_id in a.joins, MEET_S), b.wait(lambda: a.peer_id in b.joins, MEET_S)
            )
        joins = [a.joins.get(b.peer_id), b.joins.get(a.peer_id)]
        result.joined_ms = tuple((joined.at_ns - result.zero_ns) / 1e6 if joined else None for joined in joins)
        end_ns = max(joined.at_ns for joined in joins if joined) if all(joins) else time.monotonic_ns()
        result.path = (await self._text(b, a), await self._text(a, b))
        datagrams = self._capture.take()
        introduced_ns = _first_introduction_ns(datagrams, (a.peer_id, b.peer_id))
        if introduced_ns is not None:
            result.introduced_ms = (introduced_ns - result.zero_ns) / 1e6
        spent = [d.host for d in datagrams if d.sent and d.at_ns <= end_ns]
        result.packets = tuple(spent.count(host) for host in (*SIDES, INTRODUCERS))
        result.errors = tuple(f"{side}: {error}" for side, c in zip(SIDES, clients, strict=True) for error in c.errors)
        result.evidence = self._evidence(result, datagrams, clients, introducer_ids)
        return result

    async def _text(self, sender: Client, receiver: Client) -> str | None:
        """Send a text, again if it gets lost; says how it arrived."""
        if receiver.peer_id not in sender.joins:
            return None

        def arrived() -> str | None:
            for message in receiver.messages:
                if message.peer_id == sender.peer_id:
                    return "proxy" if message.source[0] in self.introducers.addresses else "direct"
            return None

        for _ in range(TEXT_TRIES):
            await sender.tell("send", {"text": "hello"})
            if await receiver.wait(lambda: arrived() is not None, TEXT_S):
                break
        return arrived()

    def _evidence(
        self, result: Try, datagrams: Sequence[Datagram], clients: Sequence[Client], introducer_ids: Sequence[str]
    ) -> str:
        """A trace with what the applications were told between the datagrams."""
        names = {client.peer_id: side for side, client in zip(SIDES, clients, strict=True)}
        names |= {peer_id: f"{INTRODUCERS}{n}" for n, peer_id in enumerate(introducer_ids)}
        entries = trace.lines(datagrams, names)
        for side, client in zip(SIDES, clients, strict=True):
            if client.ready is not None:
                ready = client.ready
                entries.append((ready.at_ns, f"{side} ** ready: type {ready.nat_type}, {ready.address}:{ready.port}"))
            for peer_id, joined in client.joins.items():
                how = " by proxy" if joined.proxy else ""
                told = f"{side} ** #join of {names.get(peer_id, peer_id[:6])} at {joined.address}:{joined.port}{how}"
                entries.append((joined.at_ns, told))
            entries += [(m.at_ns, f"{side} ** text from {m.source[0]}:{m.source[1]}") for m in client.messages]
        entries.sort(key=lambda entry: entry[0])
        return "".join(f"{(at_ns - result.zero_ns) / 1e6:10.3f}  {text}\n" for at_ns, text in entries)
