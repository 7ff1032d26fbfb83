"""Every UDP datagram that some hosts send or get, as their interfaces see it, with its time.

Packet sockets of the kernel, one per namespace, read by one thread. Times are nanoseconds of the monotonic clock, so
they compare with what the programs report.
"""

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from .namespaces import Namespace

ETH_P_ALL = 3
PACKET_OUTGOING = 4
SOL_PACKET = 263
PACKET_STATISTICS = 6
SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35
BUFFER_BYTES = 16 << 20
FRAME_BYTES = 2048
POLL_S = 0.05

Endpoint = tuple[str, int]


@dataclass(frozen=True)
class Datagram:
    """One UDP datagram seen at one host. `at_ns` is monotonic; `sent` is false when the host received it."""

    at_ns: int
    host: str
    sent: bool
    source: Endpoint
    target: Endpoint
    payload: bytes


def parse(frame: bytes) -> tuple[Endpoint, Endpoint, bytes] | None:
    """Source, target and payload of an Ethernet frame that holds an unfragmented IPv4 UDP datagram."""
    if len(frame) < 42 or frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_UDP:
        return None
    udp = 14 + (frame[14] & 15) * 4
    if len(frame) < udp + 8:
        return None
    source_port, target_port, length = struct.unpack_from("!HHH", frame, udp)
    source, target = socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])
    return (source, source_port), (target, target_port), frame[udp + 8 : udp + length]


class Capture:
    """Watches namespaces from start to close; a context manager.

    Taps sit between the host and its cable: what nftables of a router drops is seen at the sender only.
    """

    def __init__(self, hosts: Mapping[str, Namespace]) -> None:
        self._taps: dict[int, tuple[str, socket.socket]] = {}
        self._seen: list[Datagram] = []
        self._lock = threading.Lock()
        self._ending = False
        # The kernel stamps frames with the wall clock.
        self._wall_minus_monotonic_ns = time.time_ns() - time.monotonic_ns()
        for host, namespace in hosts.items():
            tap = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            tap.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
            tap.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            tap.setblocking(False)
            self._taps[tap.fileno()] = (host, tap)
        self._thread = threading.Thread(target=self._read, name="capture", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Capture":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        poll = select.poll()
        for descriptor in self._taps:
            poll.register(descriptor, select.POLLIN)
        while not self._ending:
            for descriptor, _ in poll.poll(POLL_S * 1000):
                self._drain(*self._taps[descriptor])

    def _drain(self, host: str, tap: socket.socket) -> None:
        with self._lock, contextlib.suppress(BlockingIOError):
            while True:
                frame, ancillary, _, address = tap.recvmsg(FRAME_BYTES, 64)
                found = parse(frame)
                if found is None or address[0] == "lo":
                    continue
                seconds, nanoseconds = struct.unpack("@qq", ancillary[0][2])
                at_ns = seconds * 1_000_000_000 + nanoseconds - self._wall_minus_monotonic_ns
                self._seen.append(Datagram(at_ns, host, address[2] == PACKET_OUTGOING, *found))

    def take(self) -> list[Datagram]:
        """All datagrams since the last call, by time. Raises when the kernel had to drop some of them."""
        dropped = 0
        for host, tap in self._taps.values():
            self._drain(host, tap)
            _, drops = struct.unpack("@II", tap.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
            dropped += drops
        if dropped:
            raise RuntimeError(f"the capture lost {dropped} frames")
        with self._lock:
            seen, self._seen = self._seen, []
        return sorted(seen, key=lambda datagram: datagram.at_ns)

    def close(self) -> None:
        """Stop watching."""
        self._ending = True
        self._thread.join()
        for _, tap in self._taps.values():
            tap.close()
        self._taps.clear()
