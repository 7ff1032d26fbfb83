"""An honest peer that measures round trips, in a process of its own: prints [sent, [milliseconds, …]] as JSON when its stdin ends.

    python -m tests.hostile.pinger ADDRESS TARGET:PORT [EVERY_S]

It pings one at a time and waits a second for the pong; it answers the node's pings, so it is known there, but it never asks to
be connected, so nothing is relayed to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from typing import Final

from tests.interop import datagram
from tests.interop.datagram import Packet
from tests.interop.reference import Entry

EVERY_S: Final = 0.05
PATIENCE_S: Final = 1.0


class Pinger:
    """The process from outside."""

    def __init__(self, address: str, entry: Entry, every_s: float = EVERY_S) -> None:
        command = [sys.executable, "-m", "tests.hostile.pinger", address, entry.endpoint, str(every_s)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def close(self) -> tuple[int, list[float]]:
        """Ends it; how many pings it sent, and the times of those that were answered."""
        output, _ = self._process.communicate(timeout=900)  # it may be stopped meanwhile, with this program
        if self._process.returncode != 0:
            raise AssertionError("the pinger failed")
        sent, times_ms = json.loads(output)
        return sent, times_ms


def quantile(times_ms: list[float], part: float) -> float:
    """NaN of nothing."""
    ordered = sorted(times_ms)
    return ordered[int(part * (len(ordered) - 1))] if ordered else float("nan")


def main() -> None:
    address, target, every = sys.argv[1], sys.argv[2].split(":"), float(sys.argv[3]) if len(sys.argv) > 3 else EVERY_S
    to = (target[0], int(target[1]))
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, 0))
    sock.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(sock, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    with contextlib.suppress(PermissionError):
        os.nice(-10)  # what is measured is the node, not the wait of this process for its core
    own = os.urandom(32).hex()
    times_ms: list[float] = []
    waiting, at, sent, next_ping = "", 0.0, 0, time.perf_counter()
    while True:
        now = time.perf_counter()
        if waiting and now - at > PATIENCE_S:
            waiting = ""
        if not waiting and now >= next_ping:
            waiting = os.urandom(6).hex()
            # As long as a client's: to a shorter one the node's question for a proof would be more than three bytes for one.
            message = {"requesterPeerId": own, "cacheSummaryHash": "0" * 40, "isReflection": False, "pingId": waiting}
            data = Packet(datagram.PING, json={**message, "uptime": 30_000, "cacheSize": 0}).encode()
            next_ping = max(next_ping + every, now)
            at = time.perf_counter()
            sock.sendto(data, to)
            sent += 1
        for key, _ in selector.select(max(min(next_ping, at + PATIENCE_S if waiting else next_ping) - now, 0.0)):
            if key.fileobj is sys.stdin:
                print(json.dumps([sent, times_ms]))
                return
            received = time.perf_counter()
            while True:
                try:
                    data, source = sock.recvfrom(2048)
                except BlockingIOError:
                    break
                packet = datagram.decode(data)
                if packet is None or "pingId" not in packet.json:
                    continue
                if packet.type == datagram.PONG and packet.json["pingId"] == waiting:
                    times_ms.append(1000 * (received - at))
                    waiting = ""
                    next_ping = max(next_ping, received + every / 2)
                elif packet.type == datagram.PING:
                    message = {
                        "requesterPeerId": packet.json["requesterPeerId"],
                        "responderPeerId": own,
                        "pingId": packet.json["pingId"],
                        "isReflection": True,
                    }
                    sock.sendto(Packet(datagram.PONG, json=message).encode(), source)


if __name__ == "__main__":
    main()
