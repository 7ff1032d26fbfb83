"""How long two peers that met need to talk again after the public address of one has changed."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from .pairing import Mode, Pair, PairSetup, Session, Start

SEND_EVERY_S = 0.25
KEEP_ALIVES = 2.0  # how many to wait


@dataclass(frozen=True)
class Recovery:
    """Milliseconds from the change of a's address to the first text that arrived, in each direction; None: none did."""

    setup: PairSetup
    keep_alive_ms: int
    a_to_b_ms: float | None
    b_to_a_ms: float | None

    def line(self) -> str:
        """One line for people."""
        times = (self.a_to_b_ms, self.b_to_a_ms)
        told = ["not within two keep-alives" if ms is None else f"{ms / 1000:.1f} s" for ms in times]
        return f"{self.setup.name:<40} a to b: {told[0]}, b to a: {told[1]}"


async def _send_until_it_arrives(session: Session, sender: int, deadline_ns: int) -> int | None:
    """When the first text arrived, in monotonic nanoseconds."""
    speaker, listener = session.clients[sender], session.clients[1 - sender]
    before = len(listener.messages)
    while time.monotonic_ns() < deadline_ns:
        await speaker.tell("send", {"text": "again"})
        if await listener.wait(lambda: len(listener.messages) > before, SEND_EVERY_S):
            return listener.messages[before].at_ns
    return None


async def recover(setup: PairSetup, keep_alive_ms: int) -> Recovery | None:
    """Let two peers meet, change the address of a's site, and wait for texts. None when they did not even meet."""
    async with Pair(setup) as pair, pair.session(Start(0, Mode.TOGETHER, 0.01), keep_alive_ms) as session:
        if not (await session.ready() and await session.meet()):
            return None
        changed_ns = time.monotonic_ns()
        pair.sites[0].change_address()
        deadline_ns = changed_ns + int(KEEP_ALIVES * keep_alive_ms * 1e6)
        arrivals = await asyncio.gather(*(_send_until_it_arrives(session, sender, deadline_ns) for sender in (0, 1)))
        a_to_b_ms, b_to_a_ms = (None if at_ns is None else (at_ns - changed_ns) / 1e6 for at_ns in arrivals)
        return Recovery(setup, keep_alive_ms, a_to_b_ms, b_to_a_ms)


async def run(setups: Sequence[PairSetup], keep_alive_ms: int, worlds: int) -> list[Recovery | None]:
    """Every setup once, that many worlds at a time."""
    limit = asyncio.Semaphore(worlds)

    async def one(setup: PairSetup) -> Recovery | None:
        async with limit:
            return await recover(setup, keep_alive_ms)

    return await asyncio.gather(*(one(setup) for setup in setups))
