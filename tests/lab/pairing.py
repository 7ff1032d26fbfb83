"""Two clients behind two NATs with the same introducers: what stands between them, and sessions of both."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from .capture import Capture
from .clients import KINDS, Client, ClientHost, Known
from .delay import Delay
from .introducers import NODE_KEEP_ALIVE_S, introducers
from .nat import NatKind, NatOptions
from .world import NO_DELAY, Host, Site, World

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
    delay: Delay = NO_DELAY  # between each site and the internet
    silence_s: float = 0.0  # from the meeting to the texts

    @property
    def name(self) -> str:
        """A short name, for tables."""
        if not self.same_site:
            return " - ".join(self.kinds)
        return f"one {self.kinds[0]} router" + (", hairpin" if self.options.hairpin else "")

    @property
    def circumstances(self) -> str:
        """All but the NATs: what the tries of one table have in common."""
        words = [f"{', '.join(self.clients)} through {self.introducers}"]
        plain = NatOptions()
        lives = (self.options.unreplied_timeout_s, self.options.replied_timeout_s)
        if lives != (plain.unreplied_timeout_s, plain.replied_timeout_s):
            words.append("mappings live {} s, {} s after an answer".format(*lives))
        if self.loss_per_mille:
            words.append(f"{self.loss_per_mille} of 1000 datagrams lost")
        if self.delay:
            words.append(f"{self.delay.base_ms:g} to {self.delay.base_ms + self.delay.jitter_ms:g} ms one way at each site")
        if self.silence_s:
            words.append(f"texts after {self.silence_s:g} s of silence")
        return "; ".join(words)


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
class Session:
    """Both clients of one start. Pairs are (a, b)."""

    clients: tuple[Client, Client]
    started_ns: tuple[int, int]
    introducers: Sequence[Known]

    async def ready(self) -> bool:
        """Wait until both know their NAT types; False when one never does."""
        a, b = self.clients
        return all(
            await asyncio.gather(a.wait(lambda: a.ready is not None, READY_S), b.wait(lambda: b.ready is not None, READY_S))
        )

    async def meet(self) -> bool:
        """Wait until both have the #join of the other; False when one never gets it."""
        a, b = self.clients
        return all(
            await asyncio.gather(a.wait(lambda: b.peer_id in a.joins, MEET_S), b.wait(lambda: a.peer_id in b.joins, MEET_S))
        )

    async def text(self, sender: Client, receiver: Client) -> str | None:
        """Send a text, again if it gets lost. Says how it arrived: direct, by proxy, or (None) not at all."""
        before = len(receiver.messages)

        def arrived() -> str | None:
            for message in receiver.messages[before:]:
                if message.peer_id == sender.peer_id:
                    through = {i.address for i in self.introducers}
                    return "proxy" if message.source[0] in through else "direct"
            return None

        if receiver.peer_id not in sender.joins:
            return None
        for _ in range(TEXT_TRIES):
            await sender.tell("send", {"text": "hello"})
            if await receiver.wait(lambda: arrived() is not None, TEXT_S):
                break
        return arrived()


class Pair:
    """Two sites with a client program each, the introducers and a capture, for any number of tries."""

    def __init__(self, setup: PairSetup, node_keep_alive_s: float = NODE_KEEP_ALIVE_S) -> None:
        self.setup = setup
        self.world = World()
        self._hosts: list[ClientHost] = []
        self._capture: Capture | None = None
        try:
            self.sites = self._build_sites()
            self.machines: list[Host] = [host for site in self.sites for host in site.hosts]
            self.world.lose(setup.loss_per_mille)
            self.introducers = introducers(setup.introducers, self.world, node_keep_alive_s)
        except BaseException:
            self.world.close()
            raise

    def _build_sites(self) -> list[Site]:
        setup = self.setup
        if setup.same_site:
            return [self.world.site("ab", setup.kinds[0], setup.options, hosts=2, delay=setup.delay)]
        return [
            self.world.site(side, kind, NatOptions() if kind is NatKind.NONE else setup.options, delay=setup.delay)
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

    @property
    def capture(self) -> Capture:
        """What the hosts and the introducers send and get."""
        assert self._capture is not None, "a pair works inside `async with`"
        return self._capture

    @asynccontextmanager
    async def session(self, start: Start, keep_alive_ms: int | None = None) -> AsyncIterator[Session]:
        """Both clients from nothing: fresh introducers, routers without mappings, new peers of a new cluster."""
        known = await self.introducers.fresh()
        for site in self.sites:
            site.forget()
        self.capture.take()
        serial = next(_serial)
        names = (f"cluster {serial}", f"subcluster {serial}")
        started_ns = [0, 0]
        clients: dict[int, Client] = {}
        try:
            for side in (start.first, 1 - start.first):
                started_ns[side] = time.monotonic_ns()
                clients[side] = await self._hosts[side].client(known, *names, keep_alive_ms)
                if side == start.first:
                    await asyncio.sleep(start.offset_s)
            yield Session((clients[0], clients[1]), (started_ns[0], started_ns[1]), known)
        finally:
            for client in clients.values():
                await client.stop()
