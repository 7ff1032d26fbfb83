"""Prefixes and clusters that an operator has blocked for a while (`srpnode block`), beside [access]."""

import ipaddress
import os
import re
import time
from dataclasses import dataclass
from typing import Any

from srpnode.config import RULES_MAX
from srpnode.journal import Journal
from srpnode.schema import Access
from srpnode.state import StateFile

DURATION_MAX_S = 366 * 86_400.0


class BlockError(Exception):
    """Not a prefix or cluster, or no room for another block."""


@dataclass(frozen=True, slots=True)
class Block:
    """What is blocked, and until when (Unix time, seconds)."""

    what: str
    until_s: float


class Blocks:
    """Kept over restarts in state_dir/blocks.json."""

    def __init__(self, state_dir: str, tell: Journal) -> None:
        self._file = StateFile(os.path.join(state_dir, "blocks.json"), "blocks", tell)
        self._blocks: dict[str, float] = {}
        data = self._file.read()
        try:
            for what, until_s in (data or {}).items():
                self._blocks[canonical(what)] = float(until_s)
        except (AttributeError, TypeError, ValueError, BlockError):
            self._blocks = {}
            self._file.put_aside("is corrupt")

    def add(self, what: str, duration_s: float, now_s: float | None = None) -> Block:
        """Blocks an IPv4 address, prefix or cluster. Raises BlockError."""
        what = canonical(what)
        if not 0 < duration_s <= DURATION_MAX_S:
            raise BlockError(f"a block lasts up to {DURATION_MAX_S:.0f} seconds")
        self.expire(now_s)
        if len(self._blocks) >= RULES_MAX and what not in self._blocks:
            raise BlockError(f"there are {RULES_MAX} blocks already")
        self._blocks[what] = _now(now_s) + duration_s
        self._file.write(self._blocks)
        return Block(what, self._blocks[what])

    def remove(self, what: str) -> bool:
        """Ends a block; False when there was none. Raises BlockError."""
        found = self._blocks.pop(canonical(what), None) is not None
        self._file.write(self._blocks)
        return found

    def expire(self, now_s: float | None = None) -> bool:
        """Drops what is over; True when that was something."""
        now = _now(now_s)
        over = [what for what, until_s in self._blocks.items() if until_s <= now]
        for what in over:
            del self._blocks[what]
        if over:
            self._file.write(self._blocks)
        return bool(over)

    def rows(self, now_s: float | None = None) -> list[dict[str, Any]]:
        """Blocks in the order of their end: {"what", "seconds"} that are left."""
        now = _now(now_s)
        return [
            {"what": what, "seconds": round(until_s - now, 1)}
            for what, until_s in sorted(self._blocks.items(), key=lambda item: item[1])
        ]

    def merged(self, access: Access) -> Access:
        """[access] with the blocks in it. Raises BlockError when that is more than the core holds."""
        prefixes = [what for what in self._blocks if "/" in what]
        clusters = {what for what in self._blocks if "/" not in what}
        allowed = [cluster for cluster in access.allow_clusters if cluster not in clusters]
        if access.allow_clusters and not allowed:
            raise BlockError("every allowed cluster would be blocked; block prefixes instead, or stop the node")
        made = Access(
            allow_clusters=allowed,
            deny_clusters=sorted({*access.deny_clusters, *clusters}) if not allowed else [],
            allow_prefixes=access.allow_prefixes,
            deny_prefixes=sorted({*access.deny_prefixes, *prefixes}),
        )
        if len(made.allow_prefixes) + len(made.deny_prefixes) > RULES_MAX or len(made.deny_clusters) > RULES_MAX:
            raise BlockError(f"[access] and blocks together are more than {RULES_MAX} rules")
        return made


def canonical(what: str) -> str:
    """An IPv4 prefix without host bits, or the 64 hexadecimal digits of a cluster. Raises BlockError."""
    if re.fullmatch(r"[0-9A-Fa-f]{64}", what):
        return what.lower()
    try:
        return str(ipaddress.IPv4Network(what))
    except ValueError:
        raise BlockError(
            f"{what!r} is neither an IPv4 address or prefix nor a cluster of 64 hexadecimal digits"
        ) from None


def _now(now_s: float | None) -> float:
    return time.time() if now_s is None else now_s
