"""What the commands publish, listen, nat and trace share: a peer made from their options, results and failures."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from srpnode.crypto import Encryption
from srpnode.errors import NetworkError
from srpnode.events import Message
from srpnode.find import find_peers
from srpnode.peer import Network, network
from srpnode.subcluster import Subcluster


class ClientError(Exception):
    """The thing asked for failed; the text is for the operator."""


class Clock:
    """The time that one command has for what must happen before it can work."""

    def __init__(self, timeout_s: float) -> None:
        self._end_s = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """What is left of it; never nothing, so that what is there already is found."""
        return max(0.05, self._end_s - time.monotonic())


def run(work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Runs a command to its end; SIGINT and SIGTERM end it as soon as its peer is closed. Raises ClientError."""

    async def whole() -> int:
        task = asyncio.ensure_future(work())
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            return 130

    try:
        return asyncio.run(whole())
    except (NetworkError, ValueError) as error:
        raise ClientError(str(error)) from None


@asynccontextmanager
async def opened(options: argparse.Namespace, clock: Clock, **more: Any) -> AsyncIterator[Network]:
    """A peer of the cluster that the options name, through the peers that they name."""
    peers = await find_peers(options.via, clock.left_s())
    if len(peers) < 2:
        raise ClientError("two different peers are needed: name a second one with --via HOST:PORT")
    cluster_id = Encryption.create_cluster_id(options.cluster)
    async with await network(cluster_id=cluster_id, peers=peers, **more) as net:
        yield net


async def joined(net: Network, options: argparse.Namespace) -> Subcluster:
    """The subcluster that the options name."""
    return await net.subcluster(Encryption.create_shared_key(options.subcluster))


def describe(message: Message) -> dict[str, Any]:
    """An event as one JSON object. data: the JSON that it holds, its text, or (as dataHex) its bytes."""
    said: dict[str, Any] = {
        "event": message.event or None,
        "eventId": message.event_id.hex(),
        "verified": message.verified,
        "publicKey": message.public_key.hex(),
        "packetId": message.packet_id.hex(),
        "peerId": message.peer_id or None,
        "hops": message.hops,
        "from": f"{message.source[0]}:{message.source[1]}",
        "bytes": len(message),
    }
    try:
        said["data"] = message.decode()
    except UnicodeDecodeError:
        said["dataHex"] = message.hex()
        return said
    try:
        value = message.json()
    except (ValueError, RecursionError):
        return said
    if isinstance(value, dict | list):
        said["data"] = value
    return said


def line(value: Any) -> None:
    """Prints one line of JSON, at once."""
    print(json.dumps(value, allow_nan=True), flush=True)


def show(options: argparse.Namespace, value: Any, text: str) -> None:
    """The result of a command, as JSON or for people."""
    print(json.dumps(value, indent=2) if options.json else text, flush=True)


class Progress:
    """What long work has done so far: one line on standard error, when that is a terminal.

    total: bytes that there are to do, when that is known; then it tells how long the rest will take.
    """

    def __init__(self, total: int | None = None) -> None:
        self._total = total
        self._shown = sys.stderr.isatty()
        self._at_s = 0.0
        self._started_s = time.monotonic()

    def __call__(self, what: str, amount: int, *, last: bool = False) -> None:
        now_s = time.monotonic()
        if not self._shown or (not last and now_s - self._at_s < 0.2):
            return
        self._at_s = now_s
        rate = amount / max(now_s - self._started_s, 1e-3)
        text = f"{what}: {amount:,} bytes"
        if self._total:
            text += f" of {self._total:,}"
        text += f", {rate:,.0f} bytes/s"
        if self._total and rate and not last:
            text += f", {(self._total - amount) / rate:,.0f} s left"
        print(f"\r{text}\x1b[K", end="\n" if last else "", file=sys.stderr, flush=True)
