"""The command `srpnode listen`: one line of JSON for each event, or the bytes themselves."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from srpnode import train
from srpnode.client import ClientError, Clock, Progress, describe, joined, line, opened
from srpnode.events import Events, Message

CALLS = {"#join": "join", "#leave": "leave"}


async def listen(options: argparse.Namespace) -> int:
    """Tells what comes until it is ended, --count events have come, or none for --timeout seconds.

    Raises NetworkError, ClientError.
    """
    clock = Clock(options.timeout or 30.0)
    async with opened(options, clock) as net:
        sub = await joined(net, options)
        events = sub.events(options.event or "#message")
        info = await net.ready(clock.left_s())
        if not options.raw:
            line(
                {
                    "ready": True,
                    "peerId": info.peer_id,
                    "address": info.address,
                    "port": info.port,
                    "natType": info.nat_type,
                }
            )
            for name, word in CALLS.items():
                sub.on(name, lambda peer, word=word: line({word: peer.peer_id, "direct": peer.direct}))
        await (_raw if options.raw else _lines)(options, events)
    return 0


async def _next(options: argparse.Namespace, events: Events) -> Message:
    try:
        async with asyncio.timeout(options.timeout):
            async for message in events:
                assert isinstance(message, Message)
                return message
    except TimeoutError:
        raise ClientError(f"nothing came within {options.timeout:g} s") from None
    raise ClientError("the peer ended")


async def _lines(options: argparse.Namespace, events: Events) -> None:
    told = 0
    while told != options.count:
        message = await _next(options, events)
        said = describe(message)
        car = train.read(message)
        if car is not None:
            said |= {"train": car.train.hex(), "number": car.number, "last": car.last}
        line(said)
        told += 1


async def _raw(options: argparse.Namespace, events: Events) -> None:
    """Writes what came, trains in their order; a train counts as one event."""
    yard = train.Yard()
    progress = Progress()
    written = whole = 0
    while whole != options.count:
        message = await _next(options, events)
        car = train.read(message)
        cars = [train.Car(b"", 0, True, message)] if car is None else yard.add(message.public_key, car)
        for each in cars:
            await asyncio.to_thread(_write, each.load)
            written += len(each.load)
            whole += each.last
        progress("written", written)
    progress("written", written, last=True)


def _write(data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(sys.stdout.fileno(), left) :]
