"""Peers known before a restart: state_dir/NAME.peers, endpoints and peerIds only, never a packet.

What is read there is not believed: the core pings each endpoint, and whoever answers proves itself as any peer does.
The pings are spread at random over half a keep-alive, so that a restart is no burst. Peers that have fallen silent are
remembered for a day: a node that starts before its network does must not forget everybody.
"""

import heapq
import os
import random
import re
import time
from collections.abc import Container, Iterable
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from typing import Any

from srpnode.journal import Journal
from srpnode.state import StateFile

KEPT_S = 86_400
HEARD_STEP_S = 3_600  # times are written that exact, so that the file of a steady set of peers does not change


@dataclass(frozen=True, slots=True)
class Known:
    """One peer, and when it was heard last: Unix time in seconds, a multiple of HEARD_STEP_S."""

    address: str
    port: int
    peerId: str  # noqa: N815  the name that `srpnode peers --json` has
    heard: int

    def __post_init__(self) -> None:
        """Raises TypeError or ValueError."""
        address = IPv4Address(self.address)
        if address.is_unspecified or address.is_multicast or address.is_reserved:
            raise ValueError("not the address of a peer")
        if type(self.port) is not int or not 1 <= self.port <= 65535 or type(self.heard) is not int:
            raise ValueError("not a port or time")
        if not re.fullmatch(r"[0-9a-f]{64}", self.peerId):
            raise ValueError("not a peerId")


class KnownPeers:
    """The peers of one identity that a restart should find again."""

    def __init__(self, state_dir: str, name: str, own: Container[str], tell: Journal) -> None:
        """`own`: peerIds of this process, which are no peers of it."""
        self._file = StateFile(os.path.join(state_dir, name + ".peers"), "peers", tell)
        self._own = own
        self._known: dict[str, Known] | None = None  # by peerId; None before read()
        self._due: list[tuple[float, Known]] = []  # (monotonic seconds, whom to greet), the latest first

    def read(self, most: int, span_s: float) -> int:
        """Plans greetings of at most so many of those in the file, within span_s; how many."""
        try:
            found = [Known(**row) for row in self._file.read() or []]
        except (TypeError, ValueError):
            self._file.put_aside("is corrupt")
            found = []
        self._known = {known.peerId: known for known in found}
        now = time.monotonic()
        greeted = heapq.nlargest(most, found, key=lambda known: known.heard)
        self._due = sorted(((now + random.uniform(0, span_s), known) for known in greeted), key=lambda due: -due[0])
        return len(self._due)

    @property
    def waiting(self) -> bool:
        """Whether there is anybody left to greet."""
        return bool(self._due)

    def due(self) -> list[Known]:
        """Whose time has come; each is named once."""
        now = time.monotonic()
        found = []
        while self._due and self._due[-1][0] <= now:
            found.append(self._due.pop()[1])
        return found

    def write(self, rows: Iterable[dict[str, Any]], most: int) -> None:
        """Keeps the `most` peers that were heard last: proven ones of `rows`, as Worker.each_peer() yields them, then
        those of before. Does nothing before read(): a start that fails must not empty the file."""
        if self._known is None:
            return
        now = int(time.time())
        proven = (row for row in rows if row["proven"] and row["peerId"] and row["peerId"] not in self._own)
        kept = {
            row["peerId"]: Known(row["address"], row["port"], row["peerId"], now - now % HEARD_STEP_S)
            for row in heapq.nsmallest(most, proven, key=lambda row: row["age"])
        }
        silent = [old for old in self._known.values() if old.peerId not in kept and now - KEPT_S < old.heard <= now]
        for old in heapq.nlargest(most - len(kept), silent, key=lambda known: known.heard):
            kept[old.peerId] = old
        self._known = kept
        self._file.write([asdict(kept[peer_id]) for peer_id in sorted(kept)])
