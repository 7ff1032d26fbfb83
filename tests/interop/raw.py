"""A minimal honest peer on one UDP socket: it answers pings, so it can be proven, and otherwise sends only what a test
tells it to send, byte for byte. It relays nothing, so what it receives came from the node under test."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from tests.interop import datagram
from tests.interop.datagram import Packet
from tests.interop.experiment import REFERENCE
from tests.interop.reference import Entry
from tests.interop.waiting import DEADLINE_S, eventually

EMPTY_SUMMARY: Final = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
RETRY_S: Final = 0.5
RECEIVE_BUFFER_BYTES: Final = 4 << 20


@dataclass(frozen=True)
class Arrival:
    packet: Packet
    source: tuple[str, int]
    data: bytes

    @property
    def endpoint(self) -> str:
        return f"{self.source[0]}:{self.source[1]}"


class RawPeer:
    """Bound to `address` (a loopback address), port chosen by the kernel."""

    def __init__(self, address: str, *, nat_type: int = 31, answers: bool = True) -> None:
        self.peer_id = os.urandom(32).hex()
        self.nat_type = nat_type
        self.answers = answers  # False: never answers a ping, so it can never be proven
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self._socket.bind((address, 0))
        self._socket.settimeout(0.2)
        self.address, self.port = self._socket.getsockname()
        self._arrivals: list[Arrival] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        self._socket.close()

    def _receive(self) -> None:
        while not self._closing:
            try:
                data, source = self._socket.recvfrom(65536)
            except (TimeoutError, ConnectionRefusedError):
                continue
            packet = datagram.decode(data)
            if packet is None:
                continue
            if packet.type == datagram.PING and self.answers:
                self._pong(packet.json, source)
            with self._changed:
                self._arrivals.append(Arrival(packet, source, data))
                self._changed.notify_all()

    def _pong(self, ping: dict[str, Any], source: tuple[str, int]) -> None:
        message = {
            "requesterPeerId": ping.get("requesterPeerId"),
            "responderPeerId": self.peer_id,
            "cacheSummaryHash": EMPTY_SUMMARY,
            "port": source[1],
            "address": source[0],
            "uptime": 30_000,
            "cacheSize": 0,
        }
        if ping.get("isReflection"):
            message["isReflection"] = True
        else:
            message["natType"] = self.nat_type
        for key in ("isProbe", "reflectionId", "pingId"):
            if key in ping:
                message[key] = ping[key]
        self._socket.sendto(Packet(datagram.PONG, json=message).encode(), source)

    def send(self, packet: Packet | bytes, to: Entry) -> None:
        data = packet.encode() if isinstance(packet, Packet) else packet
        self._socket.sendto(data, (to.address, to.port))

    def arrivals(self, type_: int | None = None, source: Entry | None = None) -> list[Arrival]:
        with self._changed:
            return [
                a
                for a in self._arrivals
                if type_ in (None, a.packet.type) and (source is None or a.source == (source.address, source.port))
            ]

    def wait(self, match: Callable[[Arrival], bool], what: str, deadline_s: float = DEADLINE_S) -> Arrival:
        """The first arrival, past or coming, that matches; AssertionError after the deadline."""
        found = self._poll(match, deadline_s)
        if found is None:
            raise AssertionError(f"not within {deadline_s:g} s: {what}")
        return found

    def _poll(self, match: Callable[[Arrival], bool], wait_s: float) -> Arrival | None:
        end = time.monotonic() + wait_s
        with self._changed:
            while True:
                for arrival in self._arrivals:
                    if match(arrival):
                        return arrival
                left = end - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(left)

    def ping(
        self, to: Entry, *, cluster_id: bytes = datagram.UNSET, deadline_s: float = DEADLINE_S, **extra: Any
    ) -> dict[str, Any]:
        """Pings (again every half second: datagrams may be lost) and returns the message of the pong."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            ping_id = os.urandom(6).hex()
            message = {"requesterPeerId": self.peer_id, "pingId": ping_id, **extra}
            self.send(Packet(datagram.PING, cluster_id=cluster_id, json=message), to)

            def mine(arrival: Arrival, ping_id: str = ping_id) -> bool:
                json = arrival.packet.json
                return (
                    arrival.packet.type == datagram.PONG
                    and json.get("pingId") == ping_id
                    and json.get("responderPeerId") == to.peer_id
                    and arrival.source == (to.address, to.port)
                )

            found = self._poll(mine, RETRY_S)
            if found is not None:
                return found.packet.json
        raise AssertionError(f"{to.endpoint} did not answer a ping within {deadline_s:g} s")

    def hear(self, to: Entry, wait_s: float) -> bool:
        """Pings once; whether a pong comes from that endpoint, whoever answers there."""
        self.send(Packet(datagram.PING, json={"requesterPeerId": self.peer_id}), to)
        source = (to.address, to.port)
        return self._poll(lambda a: a.source == source and a.packet.type == datagram.PONG, wait_s) is not None

    def connect(self, to: Entry, *, cluster_id: bytes = datagram.UNSET) -> None:
        """Becomes a connected peer: connection pings until the pong says isConnection, and until the node's own ping,
        the proof that it wants first, is answered."""
        eventually(partial(self._connects, to, cluster_id), f"a connection with {to.endpoint}", nap_s=RETRY_S / 5)
        self.ping(to)  # our answer to its ping was before this one

    def _connects(self, to: Entry, cluster_id: bytes) -> bool:
        pong = self.ping(to, cluster_id=cluster_id, natType=self.nat_type, isConnection=True)
        return bool(pong.get("isConnection")) and (REFERENCE or bool(self.arrivals(datagram.PING, to)))

    def query(self, packet_id: bytes, to: Entry) -> bytes:
        """Asks for one packet; returns the query's id."""
        query_id = os.urandom(32)
        question = Packet(
            datagram.QUERY,
            usr1=str(time.time_ns() // 1_000_000).encode("ascii"),
            usr3=query_id,
            usr4=b"1",
            json={"packetId": packet_id.hex()},
        )
        self.send(question, to)
        return query_id

    def cache_size(self, of: Entry) -> int:
        """How many packets the node says it holds (in its pongs)."""
        size: int = self.ping(of)["cacheSize"]
        return size

    def wait_cache_size(self, count: int, *of: Entry) -> None:
        """Waits until each of these holds that many packets."""
        for entry in of:
            eventually(partial(self._holds, count, entry), f"{count} packets at {entry.name}")

    def _holds(self, count: int, entry: Entry) -> bool:
        return self.cache_size(entry) == count
