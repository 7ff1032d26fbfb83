"""A cable on which frames take their time: this kernel need not have netem.

Two ends of cables meet in a namespace of their own, and a thread carries every frame from one to the other.
"""

import contextlib
import ctypes
import fcntl
import heapq
import itertools
import random
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass

from .namespaces import Namespace

ETH_P_ALL = 3
PACKET_OUTGOING = 4
SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM = 0x17
FRAME_BYTES = 4096
BATCH = 64
IDLE_MS = 50


@dataclass(frozen=True)
class Delay:
    """One way: `base_ms`, and for each frame by itself up to `jitter_ms` more; frames can overtake each other."""

    base_ms: float = 0.0
    jitter_ms: float = 0.0

    def __bool__(self) -> bool:
        return self.base_ms > 0 or self.jitter_ms > 0


def send_full_checksums(namespace: Namespace, name: str) -> None:
    """Make an interface send finished checksums: frames that we carry get no other chance."""
    value = ctypes.create_string_buffer(struct.pack("II", ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sP16x", name.encode(), ctypes.addressof(value))
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, SIOCETHTOOL, request)


class DelayLine:
    """Carries frames between two interfaces of a namespace until it is closed."""

    def __init__(self, namespace: Namespace, names: tuple[str, str], delay: Delay, seed: int) -> None:
        self._delay = delay
        self._chance = random.Random(seed)
        self._ends: list[socket.socket] = []
        self._ending = False
        for name in names:
            end = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            end.bind((name, ETH_P_ALL))
            end.setblocking(False)
            self._ends.append(end)
        self._thread = threading.Thread(target=self._carry, name="delay", daemon=True)
        self._thread.start()

    def _carry(self) -> None:
        poll = select.poll()
        other = {}
        for end, opposite in zip(self._ends, reversed(self._ends), strict=True):
            poll.register(end, select.POLLIN)
            other[end.fileno()] = (end, opposite)
        serial = itertools.count()
        under_way: list[tuple[float, int, socket.socket, bytes]] = []
        while not self._ending:
            wait_ms = (under_way[0][0] - time.monotonic()) * 1000 if under_way else IDLE_MS
            for descriptor, _ in poll.poll(min(max(wait_ms, 0), IDLE_MS)):
                end, opposite = other[descriptor]
                for frame in self._arrived(end):
                    late_ms = self._delay.base_ms + self._chance.uniform(0, self._delay.jitter_ms)
                    heapq.heappush(under_way, (time.monotonic() + late_ms / 1000, next(serial), opposite, frame))
            while under_way and under_way[0][0] <= time.monotonic():
                _, _, end, frame = heapq.heappop(under_way)
                with contextlib.suppress(BlockingIOError):  # a full queue loses frames, as queues do
                    end.send(frame)

    @staticmethod
    def _arrived(end: socket.socket) -> list[bytes]:
        frames = []
        with contextlib.suppress(BlockingIOError):
            for _ in range(BATCH):
                frame, address = end.recvfrom(FRAME_BYTES)
                if address[2] != PACKET_OUTGOING:
                    frames.append(frame)
        return frames

    def close(self) -> None:
        """Frames under way are lost."""
        self._ending = True
        self._thread.join()
        for end in self._ends:
            end.close()
