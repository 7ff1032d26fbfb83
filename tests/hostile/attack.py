"""Attackers that the bench's load does not have: proven peers that send what makes most work.

    python -m tests.hostile.attack sync|collide --to ADDR:PORT,… [--peers N] [--rate N] [--seconds S] [--base 127.200.0.1]

sync: summaries that differ from the node's in every bucket. collide: unique packets whose ids all begin with the same 24 bits, so
that they meet in one place of the cache. Prints {"sent": datagrams, "seconds": …} at the end, which SIGTERM brings early.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import random
import selectors
import signal
import socket
import time
from collections.abc import Callable
from typing import Final

from tests.interop import datagram
from tests.interop.datagram import Packet

VARIANTS: Final = 4096  # datagrams made beforehand; collide gives each a new id when it is sent
HANDSHAKE_S: Final = 20.0
ID_AT: Final = 23 + 2 + 1 + 2 + 1 + 2 + 1 + 2  # of packetId, when the three ids before it are unset
Endpoint = tuple[str, int]


class Crowd:
    """Many proven peers in one thread."""

    def __init__(self, base: str, count: int, targets: list[Endpoint]) -> None:
        self.targets = targets
        self.selector = selectors.DefaultSelector()
        self.sockets: list[socket.socket] = []
        self.names: dict[int, str] = {}
        self.proven: dict[int, set[Endpoint]] = {}
        first = int(ipaddress.IPv4Address(base))
        for i in range(count):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # what is relayed to an attacker is lost
            sock.bind((str(ipaddress.IPv4Address(first + i)), 0))
            sock.setblocking(False)
            self.selector.register(sock, selectors.EVENT_READ)
            self.sockets.append(sock)
            self.names[sock.fileno()] = os.urandom(32).hex()
            self.proven[sock.fileno()] = set()

    def connect(self) -> None:
        """Connection pings until each was asked for its proof by every target and has answered."""
        end = time.monotonic() + HANDSHAKE_S
        while any(len(proven) < len(self.targets) for proven in self.proven.values()):
            if time.monotonic() > end:
                raise SystemExit("the node does not ask for proofs")
            for sock in self.sockets:
                message = {"requesterPeerId": self.names[sock.fileno()], "natType": 31, "isConnection": True}
                ping = Packet(datagram.PING, json=message).encode()
                for target in self.targets:
                    if target not in self.proven[sock.fileno()]:
                        sock.sendto(ping, target)
            for _ in range(10):
                self.answer(0.02)

    def answer(self, timeout_s: float) -> None:
        """Answers the pings that wait; everything else is thrown away."""
        for key, _ in self.selector.select(timeout_s):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            for _ in range(64):
                try:
                    data, source = sock.recvfrom(2048)
                except BlockingIOError:
                    break
                if data[4:5] != b"\1":
                    continue
                ping = datagram.decode(data)
                if ping is None or "pingId" not in ping.json:
                    continue
                message = {
                    "requesterPeerId": ping.json["requesterPeerId"],
                    "responderPeerId": self.names[sock.fileno()],
                    "pingId": ping.json["pingId"],
                }
                if ping.json.get("isReflection"):
                    message["isReflection"] = True
                sock.sendto(Packet(datagram.PONG, json=message).encode(), source)
                self.proven[sock.fileno()].add(source)


def summary() -> bytes:
    buckets = b"".join(bytes([digit]) + os.urandom(20) for digit in range(16))
    stamp = str(time.time_ns() // 1_000_000).encode()
    return Packet(datagram.SYNC, packet_id=os.urandom(32), usr4=stamp, message=b"\0" + os.urandom(20) + buckets).encode()


def colliding() -> bytes:
    message = os.urandom(200)
    return Packet(datagram.PUBLISH, packet_id=bytes.fromhex("abcdef") + os.urandom(29), message=message).encode()


def again(data: bytes, number: int) -> bytes:
    """The same packet under another id that begins as before."""
    return data[: ID_AT + 3] + number.to_bytes(29, "big") + data[ID_AT + 32 :]


KINDS: dict[str, Callable[[], bytes]] = {"sync": summary, "collide": colliding}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=list(KINDS))
    parser.add_argument("--to", required=True)
    parser.add_argument("--peers", type=int, default=100)
    parser.add_argument("--rate", type=int, default=0, help="datagrams a second; 0: as fast as it goes")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--base", default="127.200.0.1")
    options = parser.parse_args()
    if not 0 < options.seconds <= 600 or not ipaddress.IPv4Address(options.base).is_loopback:
        parser.error("--seconds: 0 to 600; --base: a loopback address")
    targets = [(name, int(port)) for name, _, port in (text.partition(":") for text in options.to.split(","))]
    if not all(ipaddress.IPv4Address(address).is_loopback for address, _ in targets):
        parser.error("--to: loopback addresses only")
    crowd = Crowd(options.base, options.peers, targets)
    crowd.connect()
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    made = [KINDS[options.kind]() for _ in range(VARIANTS)]
    number = random.SystemRandom().getrandbits(64) << 40
    start = time.monotonic()
    sent = 0
    while not ended and (now := time.monotonic()) < start + options.seconds:
        due = int((now - start) * options.rate) - sent if options.rate else 256
        for _ in range(min(due, 256)):
            data = made[sent % VARIANTS]
            if options.kind == "collide":
                data = again(data, number + sent)
            try:
                crowd.sockets[sent % options.peers].sendto(data, targets[sent // options.peers % len(targets)])
            except BlockingIOError:
                break
            sent += 1
        crowd.answer(0.0 if due > 0 else 0.001)
    print(json.dumps({"sent": sent, "seconds": time.monotonic() - start}))


if __name__ == "__main__":
    main()
