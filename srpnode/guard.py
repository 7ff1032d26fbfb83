"""When the kernel is to drop what is no packet (`kernel_filter = "auto"`): while garbage makes the receive buffer run over.

Otherwise garbage goes through to the core, which tells in its counters what was wrong with it.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOOD = 1000  # datagrams between two looks, about a second apart, that are worth it
CALM_LOOKS = 60  # with less than that, until the filter goes


@dataclass(frozen=True)
class Seen:
    """Counts of one identity since its start."""

    handled: int  # datagrams that reached the core
    garbage: int  # of them: no magic, or too short
    lost: int  # dropped by the kernel: buffer full, or filtered


class Guard:
    """Looks at the counts of one identity about once a second."""

    def __init__(self) -> None:
        self._before: Seen | None = None
        self._calm = 0

    def wants_filter(self, now: Seen, filtered: bool) -> bool:
        """Whether the filter should be there from now on; filtered: it is there."""
        before, self._before = self._before or now, now
        lost, garbage = now.lost - before.lost, now.garbage - before.garbage
        if not filtered:
            self._calm = 0
            return lost > 0 and garbage >= FLOOD and 2 * garbage >= now.handled - before.handled
        self._calm = 0 if lost >= FLOOD else self._calm + 1
        return self._calm < CALM_LOOKS
