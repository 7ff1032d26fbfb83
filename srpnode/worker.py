"""One identity at work: its sockets, its core and the loop that drives it in a thread of its own."""

import os
from typing import Any

from srpnode import info, service
from srpnode.core.node import Node
from srpnode.identity import Identity
from srpnode.interfaces import Snapshot
from srpnode.net.loop import Loop
from srpnode.net.sockets import Inherited, SocketError
from srpnode.schema import Config, Limits, Listen, entries

PACKET_TYPES = ("ping", "pong", "intro", "join", "publish", "stream", "sync", "query")


class StartError(Exception):
    """The identity cannot start, or does not answer; the text is for the operator."""


class Worker:
    """Made and used by the daemon's thread. The loop's thread runs between start() and stop()."""

    def __init__(
        self,
        config: Config,
        listen: Listen,
        key: Identity,
        siblings: list[Identity],
        addresses: Snapshot,
        kept: Inherited,
    ) -> None:
        """Binds the sockets, or takes them out of `kept`, and makes the core. Raises StartError."""
        self.listen = listen
        self.key = key
        self.advertised = addresses.advertised(listen)
        try:
            main = kept.open_udp(listen.address, listen.port)
            probe = kept.open_udp(listen.address, listen.probe_port)
        except SocketError as error:
            raise StartError(f"listen {listen.name}: {error.strerror}") from None
        known = [
            (addresses.advertised(other), other.port, sibling.peer_id, True)
            for other, sibling in zip(config.listen, siblings, strict=True)
            if sibling is not key
        ]
        known += [(peer.address, peer.port, bytes.fromhex(peer.peer_id), True) for peer in config.peer]
        try:
            self.node = Node(
                peer_id=key.peer_id,
                seed=os.urandom(32),
                address=self.advertised,
                port=listen.port,
                probe_port=listen.probe_port,
                keep_alive=config.keep_alive,
                max_bytes=config.cache.max_bytes,
                ttl=config.cache.ttl,
                peers_known=known,
                **limits(config.limits),
            )
        except MemoryError:
            raise StartError(
                f"listen {listen.name}: not enough memory for its tables; lower [limits] or [cache]"
            ) from None
        self.loop = Loop(self.node, main, probe)
        for sock in (main, probe):
            service.store(sock)

    def start(self) -> None:
        """Starts the loop's thread."""
        self.loop.start(f"srp-{self.listen.name}")

    def beat(self, timeout_s: float) -> None:
        """Has the loop handle a datagram of its own. Raises StartError when it does not in time."""
        try:
            self.loop.beat(timeout_s)
        except (TimeoutError, RuntimeError, OSError) as error:
            raise StartError(
                f"{self.listen.name}: port {self.listen.port} did not hear its own datagram ({error}); "
                "a firewall that drops what the machine sends to itself can do that"
            ) from None

    def stop(self, timeout_s: float) -> bool:
        """Sends what is queued and ends the thread; False when it did not end in time."""
        return self.loop.stop(timeout_s)

    def entry(self) -> dict[str, Any]:
        """This identity as an application lists it."""
        return info.entry(self.listen, self.advertised, self.key.peer_id)


def limits(table: Limits) -> dict[str, Any]:
    """The keys of [limits] by their names."""
    return {entry.name: getattr(table, entry.name) for entry in entries(Limits)}
