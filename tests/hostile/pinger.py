"""An honest peer that measures round trips, in a process of its own: prints [sent, [milliseconds, …]] as JSON when its stdin ends.

    python -m tests.hostile.pinger ADDRESS TARGET:PORT [EVERY_S]

Its pings leave at random moments, EVERY_S apart in the mean, whether or not those before were answered; one that is answered later than
a second is lost. It answers the node's pings, so it is known there, but it never asks to be connected, so nothing is relayed to it.
What is measured is the node, not the wait of this process for its core: it runs before all others there (SCHED_FIFO, where it
may), and a pong arrives when the kernel says so (SO_TIMESTAMPNS).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import selectors
import socket
import struct
import subprocess
import sys
import time
from typing import Final

from tests.interop import datagram
from tests.interop.datagram import Packet
from tests.interop.reference import Entry

EVERY_S: Final = 0.01
PATIENCE_S: Final = 1.0
SO_TIMESTAMPNS: Final = 35  # not in the module
TIMESPEC: Final = struct.Struct("@qq")


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


def first_on_its_core() -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        with contextlib.suppress(PermissionError):
            os.nice(-10)


def receive(sock: socket.socket) -> tuple[bytes, tuple[str, int], int]:
    """A datagram, its source, and when it arrived, in nanoseconds of the wall clock."""
    data, control, _, source = sock.recvmsg(2048, socket.CMSG_SPACE(TIMESPEC.size))
    at = [TIMESPEC.unpack(value) for level, kind, value in control if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS)]
    return data, source, at[0][0] * 1_000_000_000 + at[0][1] if at else time.time_ns()


def main() -> None:
    address, target, every = sys.argv[1], sys.argv[2].split(":"), float(sys.argv[3]) if len(sys.argv) > 3 else EVERY_S
    to = (target[0], int(target[1]))
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.bind((address, 0))
    sock.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(sock, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    first_on_its_core()
    rng = random.Random(24)
    own = os.urandom(32).hex()
    times_ms: list[float] = []
    waiting: dict[str, int] = {}  # pingId: when it left
    sent, next_ping = 0, time.monotonic()
    while True:
        now = time.monotonic()
        if now >= next_ping:
            next_ping = now + rng.uniform(0, 2 * every)
            name = os.urandom(6).hex()
            # As long as a client's: to a shorter one the node's question for a proof would be more than three bytes for one.
            message = {"requesterPeerId": own, "cacheSummaryHash": "0" * 40, "isReflection": False, "pingId": name}
            data = Packet(datagram.PING, json={**message, "uptime": 30_000, "cacheSize": 0}).encode()
            waiting[name] = time.time_ns()
            sock.sendto(data, to)
            sent += 1
        for key, _ in selector.select(max(next_ping - time.monotonic(), 0.0)):
            if key.fileobj is sys.stdin:
                print(json.dumps([sent, times_ms]))
                return
            while True:
                try:
                    data, source, at = receive(sock)
                except BlockingIOError:
                    break
                packet = datagram.decode(data)
                if packet is None or "pingId" not in packet.json:
                    continue
                if packet.type == datagram.PONG and packet.json["pingId"] in waiting:
                    took_ms = (at - waiting.pop(packet.json["pingId"])) / 1e6
                    if took_ms <= 1000 * PATIENCE_S:
                        times_ms.append(took_ms)
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
