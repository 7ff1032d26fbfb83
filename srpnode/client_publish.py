"""The command `srpnode publish`: one event, or what comes through a pipe as a train of them."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import stat
import sys
from collections.abc import AsyncIterator
from typing import Any

from srpnode import train
from srpnode.client import Clock, Progress, joined, opened, show

READ_BYTES = 1 << 16


async def _standard_input() -> AsyncIterator[bytes]:
    """What comes, in pieces; reads no more than is wanted."""
    while data := await asyncio.to_thread(os.read, sys.stdin.fileno(), READ_BYTES):
        yield data


def _size() -> int | None:
    """Of what comes, when that is a file."""
    said = os.fstat(sys.stdin.fileno())
    return said.st_size if stat.S_ISREG(said.st_mode) else None


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def publish(options: argparse.Namespace) -> int:
    """Publishes, and waits until somebody else has the last packet. Raises NetworkError, ClientError."""
    clock = Clock(options.timeout)
    piped = options.data in (None, "-")
    progress = Progress(_size() if piped else None)
    given = _standard_input() if piped else _one(options.data.encode())
    told: dict[str, Any] = {"event": options.event, "events": 0, "packets": 0, "bytes": 0, "held": False}
    async with opened(options, clock, publish_per_minute=options.per_minute) as net:
        sub = await joined(net, options)
        ids: list[bytes] = []
        async with contextlib.aclosing(train.split(given)) as payloads:
            async for payload, size in payloads:
                ids = await sub.emit(options.event, payload, ttl_s=options.ttl, timeout_s=options.timeout)
                told["events"] += 1
                told["packets"] += len(ids)
                told["bytes"] += size
                progress("published", told["bytes"])
        progress("published", told["bytes"], last=True)
        # Who can give it back to us has it.
        await net.fetch(ids[-1], options.timeout)
        told["held"] = True
        told["packetId"] = ids[-1].hex()
    show(
        options,
        told,
        f"published {told['bytes']:,} bytes as {told['events']} event{'s' if told['events'] != 1 else ''} in "
        f"{told['packets']} packet{'s' if told['packets'] != 1 else ''}; the network holds it",
    )
    return 0
