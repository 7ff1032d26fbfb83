"""Datagrams with any source address, and everything that arrives at an address: raw sockets, on loopback only."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from collections import Counter
from typing import Final

Endpoint = tuple[str, int]

SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h; the module does not name it
RECEIVE_BUFFER_BYTES: Final = 8 << 20
IP_HEADER: Final = struct.Struct(">BBHHHBBH4s4s")
UDP_HEADER: Final = struct.Struct(">HHHH")


def loopback(address: str) -> bytes:
    """Its four bytes; ValueError for an address of anybody else."""
    if not ipaddress.IPv4Address(address).is_loopback:
        raise ValueError(f"{address} is not a loopback address")
    return socket.inet_aton(address)


class Forger:
    """Sends UDP datagrams that claim to come from any loopback endpoint. Needs CAP_NET_RAW."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def send(self, source: Endpoint, target: Endpoint, data: bytes) -> None:
        udp = UDP_HEADER.pack(source[1], target[1], UDP_HEADER.size + len(data), 0) + data
        header = IP_HEADER.pack(
            0x45, 0, IP_HEADER.size + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0, loopback(source[0]), loopback(target[0])
        )
        self._socket.sendto(header + udp, (target[0], 0))

    def close(self) -> None:
        self._socket.close()


class Watch:
    """Counts every UDP datagram that arrives at an address from its own /16, whatever the port; keep: its payloads too.

    A silent socket is bound to `port`, so that a sender learns nothing from a refusal there; other ports refuse.
    """

    def __init__(self, address: str, port: int, *, keep: bool = False) -> None:
        self._near = loopback(address)[:2]
        self.endpoint: Endpoint = (address, port)
        self.packets: Counter[str] = Counter()  # by source address
        self.bytes: Counter[str] = Counter()
        self.ports: set[int] = set()
        self.kept: list[tuple[Endpoint, bytes]] = []
        self._keep = keep
        self._silent: socket.socket | None = None
        if not keep:
            self._silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._silent.bind(self.endpoint)
        self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
        self._raw.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        self._raw.bind((address, 0))
        self._raw.settimeout(0.2)
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closing:
            try:
                packet = self._raw.recv(65536)
            except TimeoutError:
                continue
            if packet[12:14] != self._near:  # of another test that runs at the same time
                continue
            source = socket.inet_ntoa(packet[12:16])
            at = (packet[0] & 15) * 4
            source_port, port, _, _ = UDP_HEADER.unpack_from(packet, at)
            data = packet[at + UDP_HEADER.size :]
            self.packets[source] += 1
            self.bytes[source] += len(data)
            self.ports.add(port)
            if self._keep:
                self.kept.append(((source, source_port), data))

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        self._raw.close()
        if self._silent is not None:
            self._silent.close()
