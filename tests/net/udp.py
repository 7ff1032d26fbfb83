"""cext/udp.c from Python: one sender and one receiver over real sockets, through tests/net/harness.c."""

from __future__ import annotations

import ctypes
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

MAIN, PROBE, POOL = 0, 1, 2
DONE, BLOCKED, STALLED = 0, 1, 2
ANY_LOCAL = "0.0.0.0"


class RawDatagram(ctypes.Structure):
    """srp_datagram of cext/datagram.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("len", ctypes.c_uint32),
        ("addr", ctypes.c_uint32),
        ("local", ctypes.c_uint32),
        ("port", ctypes.c_uint16),
        ("socket", ctypes.c_uint16),
    )


@dataclass(frozen=True)
class Datagram:
    data: bytes
    to: tuple[str, int]  # or from
    local: str = ANY_LOCAL
    socket: int = MAIN


def udp(address: str = "127.0.0.1", receive_bytes: int = 1 << 20) -> socket.socket:
    """A plain bound socket with a timeout, as any program has one."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.bind((address, 0))
    sock.settimeout(10)
    return sock


class Udp:
    """A sender and a receiver with their counters; sockets by their index."""

    def __init__(self, library: ctypes.CDLL, *, batch: int = 64, gro: bool = False) -> None:
        self._library = library
        self._handle = ctypes.c_void_p(library.harness_new(batch, gro))
        self._keep: list[object] = []
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Udp:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._library.harness_free(self._handle)
        for sock in self._sockets:
            sock.close()

    def use(self, sock: socket.socket, index: int = MAIN, *, gro: bool = False) -> socket.socket:
        """Prepares a socket as the product does and puts it at an index. It is closed with this object."""
        self._sockets.append(sock)
        sock.setblocking(False)
        assert self._library.srp_udp_prepare(sock.fileno(), 1 << 20, 1 << 20) == 0
        if gro:
            assert self._library.srp_udp_set_gro(sock.fileno(), True) == 0
        self._library.harness_socket(self._handle, index, sock.fileno())
        return sock

    def _raw(self, items: Sequence[Datagram]) -> ctypes.Array[RawDatagram]:
        raw = (RawDatagram * max(len(items), 1))()
        for i, item in enumerate(items):
            buffer = ctypes.create_string_buffer(item.data, max(len(item.data), 1))
            self._keep.append(buffer)
            raw[i] = RawDatagram(
                ctypes.addressof(buffer),
                len(item.data),
                int(ipaddress.IPv4Address(item.to[0])),
                int(ipaddress.IPv4Address(item.local)),
                item.to[1],
                item.socket,
            )
        self._keep.append(raw)
        return raw

    def send(self, items: Sequence[Datagram]) -> int:
        """One srp_udp_send(); coming back with the same items goes on where it stopped."""
        return int(self._library.harness_send(self._handle, self._raw(items), len(items)))

    def give_up(self, items: Sequence[Datagram]) -> int:
        return int(self._library.harness_give_up(self._handle, self._raw(items), len(items)))

    def receive(self, index: int = MAIN) -> int:
        """One recvmmsg: messages."""
        return int(self._library.harness_receive(self._handle, index))

    def take(self, most: int = 64) -> list[Datagram]:
        """Datagrams of what was received."""
        raw = (RawDatagram * most)()
        count = self._library.harness_take(self._handle, raw, most)
        return [
            Datagram(
                ctypes.string_at(item.data, item.len) if item.len else b"",
                (str(ipaddress.IPv4Address(item.addr)), item.port),
                str(ipaddress.IPv4Address(item.local)),
                item.socket,
            )
            for item in raw[:count]
        ]

    @property
    def trains(self) -> bool:
        """Whether UDP_SEGMENT is in use."""
        return bool(self._library.harness_trains(self._handle))

    @property
    def small_df(self) -> bool:
        """Whether small datagrams go with DF."""
        return bool(self._library.harness_small_df(self._handle))

    def counters(self) -> dict[str, int]:
        """All that are not zero, by name."""
        result, index = {}, 0
        while name := self._library.srp_udp_count_name(index):
            if value := self._library.harness_count(self._handle, index):
                result[name.decode()] = value
            index += 1
        return result
