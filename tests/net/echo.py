"""A node in its loop, and clients that ask it: real cores, real sockets, pings and pongs."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

from srpnode.core import codec
from srpnode.core.node import Node
from srpnode.net import sockets
from srpnode.net.loop import Loop

DEADLINE_S = 30.0
CAPSULE_NAME = b"srp_udp_calls"


def calls_of(library: ctypes.CDLL) -> Any:
    """The injecting table of tests/net/inject.c, as Loop takes it."""
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(ctypes.addressof(ctypes.c_char.in_dll(library, "inject_calls")), CAPSULE_NAME, None)


def ping(number: int, **keys: str | bool | int) -> bytes:
    """A ping whose pong names the number, with about what real clients put in. All have one size."""
    message: dict[str, str | bool | int | float] = {
        "requesterPeerId": f"{number:064x}",
        "cacheSummaryHash": codec.EMPTY_SUMMARY.hex(),
        "reflectionId": f"{number:012x}",
        "pingId": f"{number:012x}",
        "uptime": 30000,
        "cacheSize": 0,
        "isReflection": True,
        "timestamp": 1700000000000,
        **keys,
    }
    return codec.encode(codec.PING, message=codec.write_message(codec.PING, message))


def ponged(data: bytes) -> int | None:
    """Which ping this answers; None: it is no pong."""
    frame = codec.decode(data)
    return int(json.loads(frame["message"])["pingId"], 16) if frame["type"] == codec.PONG else None


def until(done: Any, what: str) -> None:
    """Waits until done() is true; the deadline is only for a test that fails."""
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


class Client:
    """One endpoint that sends pings and collects pongs; with `address` a client of another loopback address."""

    def __init__(self, to: tuple[str, int], address: str = "127.0.0.1") -> None:
        self.to = to
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.sock.bind((address, 0))
        self.sock.settimeout(0.05)
        self.waiting: set[int] = set()
        self.answered: dict[int, tuple[str, int]] = {}  # and from where

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.sock.close()

    def send(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.waiting.add(number)
            self.sock.sendto(ping(number), self.to)

    def listen(self, at_most: int = 0) -> None:
        """Until no more pings than that wait for their pong. Each pong must have been asked for, and come once."""
        deadline = time.monotonic() + DEADLINE_S
        while len(self.waiting) > at_most:
            assert time.monotonic() < deadline, f"{len(self.waiting)} pings were not answered: {sorted(self.waiting)[:9]}"
            with contextlib.suppress(TimeoutError):
                data, source = self.sock.recvfrom(65536)
                number = ponged(data)
                if number is not None:
                    self.waiting.remove(number)
                    self.answered[number] = source

    def ask(self, numbers: Iterable[int], window: int = 64) -> None:
        """Sends all, never more than `window` unanswered, and waits for all the answers."""
        for number in numbers:
            self.send([number])
            self.listen(window - 1)
        self.listen()


def proven(client: Client, peer_id: bytes) -> None:
    """Has the client answer the node's proof ping, so that the node believes its address."""
    client.sock.sendto(ping(0), client.to)
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            frame = codec.decode(client.sock.recv(2048))
            asked = json.loads(frame["message"])
            if frame["type"] == codec.PING:
                answer = {name: asked[name] for name in ("requesterPeerId", "pingId", "isReflection")}
                answer |= {"responderPeerId": peer_id.hex(), "address": "127.0.0.1", "port": client.to[1]}
                pong = codec.write_message(codec.PONG, answer)
                client.sock.sendto(codec.encode(codec.PONG, message=pong), client.to)
                return
    raise AssertionError("no proof ping")


class Running:
    """A node with its sockets in a loop that runs."""

    def __init__(self, address: str = "127.0.0.1", *, start: bool = True, node: dict[str, Any] | None = None, **settings: Any):
        self.main = settings.pop("main", None) or sockets.open_udp(address, 0)
        self.probe = sockets.open_udp(address, 0)
        port = self.main.getsockname()[1]
        self.peer_id = os.urandom(32)
        self.node = Node(
            peer_id=self.peer_id,
            seed=bytes(32),
            address=0x7F000001,
            port=port,
            probe_port=self.probe.getsockname()[1],
            mono_us=time.monotonic_ns() // 1000,
            wall_ms=time.time_ns() // 1_000_000,
            peers=1000,
            **({"unproven_per_second": 0} | (node or {})),  # its clients do not prove themselves
        )
        self.loop = Loop(self.node, self.main, self.probe, **settings)
        self.to = ("127.0.0.1", port)
        if start:
            self.loop.start("srp-test")

    def count(self, name: str) -> int:
        return self.loop.counters()[name]

    def close(self) -> None:
        """Also shows that the loop still obeys."""
        try:
            if self.loop.alive():
                assert self.loop.stop(DEADLINE_S), "the loop did not stop"
            assert self.loop.failure == ""
        finally:
            self.main.close()
            self.probe.close()


@contextlib.contextmanager
def running(address: str = "127.0.0.1", **settings: Any) -> Iterator[Running]:
    made = Running(address, **settings)
    try:
        yield made
    finally:
        made.close()
