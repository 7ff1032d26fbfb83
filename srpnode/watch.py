"""What the daemon notices by itself and tells: events of the cores, drops, a receive buffer that ran over."""

import time
from typing import Any

from srpnode import journal
from srpnode.journal import Journal, Kind, Level
from srpnode.net import filter as kernel_filter
from srpnode.worker import StartError, Worker

DROPS_S = 60.0  # how often drops are summed up
TOLD_DROPS = 6  # reasons in one line

# event of the core -> kind of entry, words
EVENTS: dict[str, tuple[Kind, str]] = {
    "proven": (journal.PEER, "proved its address"),
    "connected": (journal.PEER, "connected"),
    "gone": (journal.PEER, "has not been heard for four keep-alives"),
    "name_moved": (journal.PEER, "moved to a new address"),
    "name_taken": (journal.CLAIM, "claims the peerId of another peer that answers"),
    "refused": (journal.REFUSAL, "refused"),
    "limited": (journal.REFUSAL, "sent too much"),
}


class Watch:
    """Looks at the workers now and then; remembers what it has told."""

    def __init__(self, tell: Journal) -> None:
        self._tell = tell
        self._drops: dict[str, dict[str, int]] = {}
        self._overruns: dict[str, int] = {}
        self._machine_overruns = kernel_filter.overruns()
        self._next_drops = time.monotonic() + DROPS_S

    def look(self, workers: list[Worker]) -> None:
        """Tells what is new."""
        before, self._machine_overruns = self._machine_overruns, kernel_filter.overruns()
        most = None if before is None or self._machine_overruns is None else self._machine_overruns - before
        for worker in workers:
            try:
                for event in worker.events():
                    self._event(worker, event)
            except StartError:  # told by the heartbeat
                continue
            self._overrun(worker, most)
        if time.monotonic() >= self._next_drops:
            self._next_drops = time.monotonic() + DROPS_S
            for worker in workers:
                self._sum(worker)

    def _event(self, worker: Worker, event: dict[str, Any]) -> None:
        kind, words = EVENTS.get(event["event"], (journal.PEER, event["event"]))
        where = self._tell.addresses.show(event["address"], event["port"])
        named = bool(event["peerId"].strip("0"))
        who = f"peer {event['peerId'][:16]} at {where}" if named else where
        reason = event["reason"] or ""
        self._tell.tell(
            kind,
            f"{worker.listen.name}: {who} {words}{': ' + reason if reason else ''}",
            source=event["address"],
            fields={"peer": event["peerId"] if named else "", "address": where, "reason": reason},
        )

    def _overrun(self, worker: Worker, most: int | None) -> None:
        """With a filter the socket's count has its drops too: at most `most` found a buffer full on the whole machine."""
        name = worker.listen.name
        drops = worker.loop.counters()["in_kernel_drops_now"]
        new = drops - self._overruns.get(name, 0)
        self._overruns[name] = drops
        if worker.filter == "on" and most is not None:
            new = min(new, most)
        if new > 0:
            self._tell.tell(
                journal.OVERRUN,
                f"{name}: the kernel dropped {new} datagrams, the receive buffer was full; raise net.core.rmem_max "
                "(sysctl) and restart, or move to a faster machine",
                source=name,
            )

    def _sum(self, worker: Worker) -> None:
        name = worker.listen.name
        now = worker.drops()
        before = self._drops.get(name, {})
        new = {reason: count - before.get(reason, 0) for reason, count in now.items()}
        self._drops[name] = now
        total = sum(new.values())
        if total and self._tell.level >= Level.INFO:
            most = sorted(((count, reason) for reason, count in new.items() if count), reverse=True)[:TOLD_DROPS]
            text = ", ".join(f"{reason} {count}" for count, reason in most)
            self._tell.tell(journal.DROPS, f"{name}: dropped {total} packets in a minute: {text}")
