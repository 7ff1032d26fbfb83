"""One try: two clients become ready, meet, and exchange a text; what it showed, and the evidence."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from . import trace
from .capture import Datagram
from .pairing import INTRODUCERS, SIDES, Pair, PairSetup, Session, Start


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
    by_proxy: tuple[bool | None, ...] = (None, None)  # whether the first #join was of a peer behind a proxy
    packets: tuple[int, ...] = (0, 0, 0)  # sent by a, by b, by the introducers, until both had joined or gave up
    openers: int = 0  # one-byte datagrams that both sent in the whole try; one attempt sends at most 1024
    errors: tuple[str, ...] = ()
    evidence: str = field(default="", repr=False)

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


async def attempt(pair: Pair, start: Start) -> Try:
    """Make a try from nothing."""
    async with pair.session(start) as session:
        a, b = session.clients
        result = Try(start)
        if await session.ready():
            await session.meet()
        readies = [a.ready, b.ready]
        result.nat_types = tuple(ready.nat_type if ready else None for ready in readies)
        result.ready_ms = tuple(
            (ready.at_ns - at_ns) / 1e6 if ready else None for ready, at_ns in zip(readies, session.started_ns, strict=True)
        )
        result.zero_ns = max([ready.at_ns for ready in readies if ready is not None], default=time.monotonic_ns())
        joins = [a.joins.get(b.peer_id), b.joins.get(a.peer_id)]
        result.by_proxy = tuple(joined.proxy if joined else None for joined in joins)
        result.joined_ms = tuple((joined.at_ns - result.zero_ns) / 1e6 if joined else None for joined in joins)
        end_ns = max(joined.at_ns for joined in joins if joined) if all(joins) else time.monotonic_ns()
        if all(joins):
            await asyncio.sleep(pair.setup.silence_s)
        result.path = (await session.text(b, a), await session.text(a, b))
        datagrams = pair.capture.take()
        introduced_ns = _first_introduction_ns(datagrams, (a.peer_id, b.peer_id))
        if introduced_ns is not None:
            result.introduced_ms = (introduced_ns - result.zero_ns) / 1e6
        spent = [d.host for d in datagrams if d.sent and d.at_ns <= end_ns]
        result.packets = tuple(spent.count(host) for host in (*SIDES, INTRODUCERS))
        result.openers = sum(d.sent and len(d.payload) == 1 for d in datagrams)
        result.errors = tuple(f"{side}: {e}" for side, c in zip(SIDES, (a, b), strict=True) for e in c.errors)
        result.evidence = evidence(session, datagrams, result.zero_ns)
        return result


async def try_all(jobs: Sequence[tuple[PairSetup, Sequence[Start]]], worlds: int) -> list[list[Try]]:
    """The tries of every job in their order, that many worlds at a time."""
    results: list[list[Try]] = [[] for _ in jobs]
    waiting = list(reversed(list(enumerate(jobs))))

    async def work() -> None:
        while waiting:
            at, (setup, starts) = waiting.pop()
            async with Pair(setup) as pair:
                results[at] = [await attempt(pair, start) for start in starts]

    async with asyncio.TaskGroup() as group:
        for _ in range(worlds):
            group.create_task(work())
    return results


def evidence(session: Session, datagrams: Sequence[Datagram], zero_ns: int) -> str:
    """A trace in milliseconds since zero, with what the applications were told between the datagrams."""
    names = {client.peer_id: side for side, client in zip(SIDES, session.clients, strict=True)}
    names |= {known.peer_id: f"{INTRODUCERS}{n}" for n, known in enumerate(session.introducers)}
    entries = trace.lines(datagrams, names)
    for side, client in zip(SIDES, session.clients, strict=True):
        if client.ready is not None:
            ready = client.ready
            entries.append((ready.at_ns, f"{side} ** ready: type {ready.nat_type}, {ready.address}:{ready.port}"))
        for peer_id, joined in client.joins.items():
            how = " by proxy" if joined.proxy else ""
            told = f"{side} ** #join of {names.get(peer_id, peer_id[:6])} at {joined.address}:{joined.port}{how}"
            entries.append((joined.at_ns, told))
        entries += [(m.at_ns, f"{side} ** text from {m.source[0]}:{m.source[1]}") for m in client.messages]
    entries.sort(key=lambda entry: entry[0])
    return "".join(f"{(at_ns - zero_ns) / 1e6:10.3f}  {text}\n" for at_ns, text in entries)
