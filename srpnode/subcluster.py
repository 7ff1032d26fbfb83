"""A subcluster as a program sees it: what it publishes, what it gets, and the other peers in it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from srpnode.compose import Composer
from srpnode.core import codec
from srpnode.crypto import Encryption, Sealer, SealError, sign, verify, wanted
from srpnode.errors import TooLargeError, UnreachableError
from srpnode.events import Emitter, Message

if TYPE_CHECKING:
    from srpnode.core.codec import Frame
    from srpnode.peer import Network

MESSAGE_BYTES_MAX = 8_000_000  # half of a default cache: larger ones would push themselves out
TTL_S_MAX = 21_600.0
CLOCK_END = 2_000_000_000  # clocks start again there
SEEN_MAX = 4096  # messages that are recognized when they come again
EMIT_TIMEOUT_S = 60.0

Value = bytes | bytearray | memoryview | str | dict[str, Any] | list[Any]


class Peer(Emitter):
    """Another peer of a subcluster, directly connected or reached through a proxy.

    peer_id (64 hex digits), address, port, nat_type (31 static, 15 and 7 easy, 5 hard) as the network tells them;
    direct: whether it is reached without a proxy. They change when the network does. `on` hears what it streams to us.
    """

    def __init__(self, subcluster: Subcluster, peer_id: bytes, address: str, port: int, nat_type: int, direct: bool) -> None:
        super().__init__(subcluster._network)
        self._subcluster = subcluster
        self._id = peer_id
        self._heard_s = time.monotonic()
        self.peer_id = peer_id.hex()
        self.address = address
        self.port = port
        self.nat_type = nat_type
        self.direct = direct

    def __repr__(self) -> str:
        how = "" if self.direct else ", by proxy"
        return f"<Peer {self.peer_id[:12]} at {self.address}:{self.port}{how}>"

    async def emit(self, event: str, value: Value, *, timeout_s: float | None = EMIT_TIMEOUT_S) -> None:
        """Streams an event to this peer alone; it may get lost, like any datagram, when the way there is bad.

        Raises UnreachableError, TooLargeError, StalledError, ClosedError.
        """
        packets = self._subcluster._pack(event, value, None)
        await self._network._stream(packets, self._id, timeout_s)


class Subcluster(Emitter):
    """A partition of the cluster: all who hold its shared key. Made by Network.subcluster(); an async context manager.

    subcluster_id (32 bytes), peers (those met, by peer_id), unopened (messages that its key did not open).
    Events of its own: #join and #leave (of a Peer), #message (every message of any name, published or streamed).
    """

    def __init__(self, network: Network, shared_key: bytes) -> None:
        super().__init__(network)
        keys = Encryption.create_key_pair(wanted(shared_key, 32, "shared_key"))
        self.subcluster_id = keys.public_key
        self.peers: dict[str, Peer] = {}
        self.unopened = 0
        self._sealer = Sealer(keys)
        self._clock = 0
        self._published = Composer()
        self._streamed = Composer()
        self._seen: dict[bytes, None] = {}

    async def __aenter__(self) -> Subcluster:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    async def emit(
        self, event: str, value: Value, *, ttl_s: float | None = None, timeout_s: float | None = EMIT_TIMEOUT_S
    ) -> list[bytes]:
        """Publishes an event to all members, present or not; the ids of its packets.

        value    bytes, a text, or what JSON can hold
        ttl_s    how long peers keep it, at most and by default six hours
        timeout_s  for the whole of it to leave or, while nobody can be reached, to be kept for later; waiting is how a
                 program is slowed down to what the network takes

        Raises TooLargeError, StalledError, ClosedError.
        """
        return await self._network._publish(self._pack(event, value, ttl_s), timeout_s)

    async def stream(self, event: str, value: Value, *, timeout_s: float | None = EMIT_TIMEOUT_S) -> int:
        """Streams an event to all members that are met now; to how many."""
        reached = 0
        for peer in tuple(self.peers.values()):
            with contextlib.suppress(UnreachableError):
                await peer.emit(event, value, timeout_s=timeout_s)
                reached += 1
        return reached

    def leave(self) -> None:
        """Stops being a member; iterators end."""
        self._network._leave(self)

    def _pack(self, event: str, value: Value, ttl_s: float | None) -> list[dict[str, Any]]:
        """The packets of one event: sealed, signed, split."""
        if not isinstance(event, str) or not event or event.startswith("#"):
            raise ValueError("an event needs a name (a text), and those that begin with # are the peer's own")
        if ttl_s is not None and not 0 < ttl_s <= TTL_S_MAX:
            raise ValueError(f"ttl_s: more than 0, at most {TTL_S_MAX:g} seconds")
        if isinstance(value, bytes | bytearray | memoryview):
            plain = bytes(value)
        elif isinstance(value, str):
            plain = value.encode()
        else:
            plain = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
        if len(plain) > MESSAGE_BYTES_MAX:
            raise TooLargeError(f"{len(plain)} bytes: at most {MESSAGE_BYTES_MAX}; send it in parts")
        keys = self._network._signing_keys
        self._clock = (self._clock + 1) % CLOCK_END
        common = {
            "cluster_id": self._network.cluster_id,
            "subcluster_id": self.subcluster_id,
            "clock": self._clock,
            "usr1": sha256(event.encode()).digest(),
            "usr2": keys.public_key,
            "sig": sign(plain, keys.private_key),
        }
        if ttl_s is not None:
            common["ttl"] = max(1, round(1000 * ttl_s))
        # A split message goes by the hash of its head: two of one size in one millisecond must not share it.
        meta = f'{{"id":"{os.urandom(8).hex()}"}}'
        parts = codec.split(self._sealer.seal(plain), meta, ts=time.time_ns() // 1_000_000)
        return [{**common, **part} for part in parts]

    def _receive(self, frame: Frame, streamed: bool, source: tuple[str, int]) -> Message | None:
        """Takes a packet of this subcluster in; the event when it is whole, and news."""
        if self._clock < frame["clock"] < CLOCK_END:  # ours are later than what we have seen of our siblings
            self._clock = frame["clock"]
        composer = self._streamed if streamed else self._published
        sealed = composer.add(frame, time.monotonic())
        if sealed is None:
            return None
        key = sha256(sealed).digest()
        if key in self._seen:
            return None
        self._seen[key] = None
        while len(self._seen) > SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        try:
            message = Message(self._sealer.open(sealed))
        except SealError:
            self.unopened += 1
            return None
        message.event_id = frame["usr1"]
        message.packet_id = frame["packet_id"]
        message.public_key = frame["usr2"]
        message.verified = verify(message, frame["sig"], frame["usr2"])
        message.peer_id = frame["usr4"].hex() if streamed else ""
        message.source = source
        message.hops = frame["hops"]
        return message
