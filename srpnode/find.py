"""From HOST:PORT to the peer that answers there: its address and peerId, by a ping."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Iterable
from typing import Any

from srpnode.core import codec
from srpnode.errors import NoPeersError, UnreachableError

AGAIN_S = 0.25  # between two pings to one who is silent


class _Asker(asyncio.DatagramProtocol):
    """Collects the pongs to our pings."""

    def __init__(self, wanted: set[tuple[str, int]]) -> None:
        self.wanted = wanted
        self.found: dict[tuple[str, int], dict[str, Any]] = {}
        self.changed = asyncio.Event()
        self.our_id = secrets.token_hex(32)  # nobody's: the answer needs no more
        self.ping_id = secrets.token_hex(6)

    def ping(self) -> bytes:
        text = codec.write_message(codec.PING, {"requesterPeerId": self.our_id, "pingId": self.ping_id})
        return codec.encode(codec.PING, message=text)

    def datagram_received(self, data: bytes, source: tuple[str | Any, int]) -> None:
        place = (str(source[0]), source[1])
        if place not in self.wanted:
            return
        try:
            if codec.decode(data)["type"] != codec.PONG:  # it pings us too, to learn whether we are where we seem to be
                return
            pong = codec.read_message(data)
        except codec.Malformed:
            return
        if pong.get("pingId") == self.ping_id and "responderPeerId" in pong:
            self.found[place] = {"address": place[0], "port": place[1], "peerId": pong["responderPeerId"]}
            self.changed.set()

    def error_received(self, exc: Exception) -> None:
        """An ICMP error: it is as silent as the others."""


def endpoint(text: str) -> tuple[str, int]:
    """(host, port) of HOST:PORT. Raises NoPeersError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise NoPeersError(f"{text!r} is no peer: name it HOST:PORT")
    return host, int(port)


async def find_peers(places: Iterable[str | tuple[str, int]], timeout_s: float = 5.0) -> list[dict[str, Any]]:
    """The peers that answer at these places, each {"address", "port", "peerId"}, in their order.

    Waits until all have answered, at most timeout_s. Raises NoPeersError for what is no place, UnreachableError when
    fewer than two (or the only one) answered.
    """
    asked = [place if isinstance(place, tuple) else endpoint(place) for place in places]
    if not asked:
        raise NoPeersError("no peers given: name at least two, HOST:PORT each")
    loop = asyncio.get_running_loop()
    targets: list[tuple[str, int]] = []
    try:
        async with asyncio.timeout(timeout_s):
            for host, port in asked:
                try:
                    info = await loop.getaddrinfo(host, port, family=socket.AF_INET, type=socket.SOCK_DGRAM)
                except (socket.gaierror, UnicodeError) as error:
                    raise UnreachableError(f"{host}: {error}: check the name") from None
                targets.append((str(info[0][4][0]), int(info[0][4][1])))
    except TimeoutError:
        raise UnreachableError(f"{asked[len(targets)][0]}: the name is not resolved after {timeout_s:g} s") from None
    asker = _Asker(set(targets))
    transport, _ = await loop.create_datagram_endpoint(lambda: asker, family=socket.AF_INET, local_addr=("0.0.0.0", 0))
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while len(asker.found) < len(asker.wanted):
                    for target in targets:
                        if target not in asker.found:
                            transport.sendto(asker.ping(), target)
                    asker.changed.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(AGAIN_S):
                            await asker.changed.wait()
    finally:
        transport.close()
    places_once = list(dict.fromkeys(targets))
    found = [asker.found[target] for target in places_once if target in asker.found]
    if len(found) < min(2, len(places_once)):
        silent = ", ".join(f"{target[0]}:{target[1]}" for target in places_once if target not in asker.found)
        raise UnreachableError(f"no answer from {silent} within {timeout_s:g} s: is the port right, does a firewall drop UDP?")
    return found
