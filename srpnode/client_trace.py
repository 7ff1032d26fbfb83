"""The command `srpnode trace`: how a packet flows. Two peers of ours, and the network in between.

The one publishes a probe, asks for it back and streams to the other; the other tells when it came, from whom and over
how many hops. That is all that the protocol can tell: a packet names no relays.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import time
from typing import Any

from srpnode.client import Clock, joined, opened, show
from srpnode.errors import UnreachableError
from srpnode.events import Events, Message
from srpnode.peer import Network
from srpnode.subcluster import Subcluster

EVENT = "srpnode-trace"
QUERIES = 3
TTL_S = 60.0


async def trace(options: argparse.Namespace) -> int:
    """Traces a publish, queries and a stream. Exit status 1 when one of them failed. Raises NetworkError."""
    clock = Clock(options.timeout)
    async with opened(options, clock) as near, opened(options, clock) as far:
        near_sub, far_sub = await joined(near, options), await joined(far, options)
        await asyncio.gather(near.ready(clock.left_s()), far.ready(clock.left_s()))
        published, packet_id = await _publish(near, near_sub, far_sub, options.timeout)
        asked = [await _query(near, packet_id, options.timeout) for _ in range(QUERIES)]
        streamed = await _stream(near_sub, far, far_sub, options.timeout)
        told = {"peers": _peers(near), "steps": [published, *asked, streamed]}
    show(options, told, _text(told))
    return 0 if all(step["ok"] for step in told["steps"]) else 1


def _peers(net: Network) -> list[dict[str, Any]]:
    keys = ("peerId", "address", "port", "natType", "indexed", "distance")
    return [{key: peer[key] for key in keys} for peer in net.peers() if peer["proven"]]


def _done(what: str, started_s: float, source: tuple[str, int], hops: int, **more: Any) -> dict[str, Any]:
    took_ms = round(1000 * (time.monotonic() - started_s), 3)
    return {"step": what, "ok": True, "ms": took_ms, "hops": hops, "from": f"{source[0]}:{source[1]}", **more}


def _failed(what: str, why: str, **more: Any) -> dict[str, Any]:
    return {"step": what, "ok": False, "why": why, **more}


async def _arrival(events: Events, load: bytes, timeout_s: float) -> Message | None:
    """The message with this load, None when it does not come in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            async for message in events:
                if message == load:
                    assert isinstance(message, Message)
                    return message
    return None


async def _publish(near: Network, sub: Subcluster, far: Subcluster, timeout_s: float) -> tuple[dict[str, Any], bytes]:
    load = os.urandom(16)
    events = far.events(EVENT)
    before = near.counters()["out_publish"]
    started_s = time.monotonic()
    (packet_id,) = await sub.emit(EVENT, load, ttl_s=TTL_S, timeout_s=timeout_s)
    more = {"packetId": packet_id.hex(), "sentTo": near.counters()["out_publish"] - before}
    message = await _arrival(events, load, timeout_s)
    if message is None:
        return _failed("publish", f"did not arrive within {timeout_s:g} s", **more), packet_id
    return _done("publish", started_s, message.source, message.hops, **more), packet_id


async def _query(near: Network, packet_id: bytes, timeout_s: float) -> dict[str, Any]:
    started_s = time.monotonic()
    try:
        answer = await near.fetch(packet_id, timeout_s)
    except UnreachableError as error:
        return _failed("query", str(error))
    return _done("query", started_s, answer.source, answer.frame["hops"])


async def _stream(sub: Subcluster, far: Network, far_sub: Subcluster, timeout_s: float) -> dict[str, Any]:
    load = os.urandom(16)
    events = far_sub.events(EVENT)
    try:
        async with asyncio.timeout(timeout_s):
            while far.peer_id not in sub.peers:
                await asyncio.sleep(0.02)
    except TimeoutError:
        return _failed("stream", f"our two peers were not introduced to each other within {timeout_s:g} s")
    peer = sub.peers[far.peer_id]
    started_s = time.monotonic()
    await peer.emit(EVENT, load, timeout_s=timeout_s)
    message = await _arrival(events, load, timeout_s)
    if message is None:
        return _failed("stream", f"did not arrive within {timeout_s:g} s", direct=peer.direct)
    return _done("stream", started_s, message.source, message.hops, direct=peer.direct)


def _text(told: dict[str, Any]) -> str:
    lines = []
    for peer in told["peers"]:
        away = "?" if peer["distance"] is None else peer["distance"]
        kind = "indexed" if peer["indexed"] else "met"
        lines.append(f"peer     {peer['address']}:{peer['port']}, {kind}, type {peer['natType']}, {away} ms away")
    for step in told["steps"]:
        line = f"{step['step']:<8} "
        if step["ok"]:
            hops = f"{step['hops']} hop{'s' if step['hops'] != 1 else ''}"
            line += f"{step['ms']:.1f} ms, {hops}, handed over by {step['from']}"
        else:
            line += step["why"]
        if "sentTo" in step:
            line += f"; sent to {step['sentTo']} peers"
        if "direct" in step:
            line += "; direct" if step["direct"] else "; by proxy"
        lines.append(line)
    return "\n".join(lines)
