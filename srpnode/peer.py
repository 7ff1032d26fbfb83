"""A peer for Python programs: the same core as the node, driven by asyncio.

    net = await network(cluster_id=…, signing_keys=…, peers=[…])
    greetings = await net.subcluster(shared_key)
    greetings.on("hello, world", lambda value: print(value))
    await greetings.emit("hello, world", {"language": "english"})

The core runs in the loop's thread. This side splits, seals, opens and composes; it talks to the core by commands, and
wakes up when the core has something for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import ipaddress
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from srpnode.compose import Composer
from srpnode.core import codec, node
from srpnode.core.node import Node
from srpnode.crypto import Encryption, KeyPair, Sealer, SealError, sign, verify, wanted
from srpnode.net.loop import Loop
from srpnode.net.sockets import SocketError, open_udp

if TYPE_CHECKING:
    from srpnode.core.codec import Frame

COMMAND_TIMEOUT_S = 2.0
APP_BYTES = 8 << 20  # what may wait for the application in the core
TAKE_BYTES = 1 << 20  # of it, taken at once
MESSAGE_BYTES_MAX = 8_000_000  # half of a default cache: larger ones would push themselves out
TTL_S_MAX = 21_600.0
BURST_PACKETS = 32  # published before other work gets its turn
BURST_PAUSE_S = 0.008
REPAIR_S = 1.0  # a message that stands still for so long is asked for
EVENTS_MAX = 1024  # that wait in one iterator

Value = bytes | str | dict[str, Any] | list[Any]
Callback = Callable[..., Awaitable[None] | None]


class NetworkError(Exception):
    """Something that the network or the caller has to change; the text says what."""


class NoPeersError(NetworkError):
    """There is nobody to start from."""


class NotReadyError(NetworkError):
    """The peer did not become ready in time."""


class UnreachableError(NetworkError):
    """No way to this peer is known."""


class TooLargeError(NetworkError):
    """The message is larger than peers keep."""


class Message(bytes):
    """The payload of an event, with where it came from."""

    event: str
    packet_id: bytes
    public_key: bytes
    verified: bool

    def json(self) -> Any:
        """The payload as JSON. Raises ValueError."""
        return json.loads(self)


@dataclass(frozen=True)
class Info:
    """What the network sees of us. nat_type: 31 static, 15 and 7 easy, 5 hard."""

    peer_id: str
    address: str
    port: int
    nat_type: int


class Emitter:
    """Callbacks and iterators by event name. Names that begin with # are the peer's own."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._callbacks: dict[str, list[Callback]] = {}
        self._queues: dict[str, list[asyncio.Queue[Any]]] = {}
        self._names: dict[bytes, str] = {}

    def on(self, event: str, callback: Callback) -> None:
        """Calls back for each event of that name; a coroutine function is run as a task."""
        self._names[sha256(event.encode()).digest()] = event
        self._callbacks.setdefault(event, []).append(callback)

    def off(self, event: str, callback: Callback) -> None:
        """Ends it; nothing happens when it was not there."""
        with contextlib.suppress(ValueError):
            self._callbacks.get(event, []).remove(callback)

    async def events(self, event: str) -> AsyncIterator[Any]:
        """Iterates over the events of that name, from now on. At most EVENTS_MAX wait; then the oldest is dropped."""
        queue: asyncio.Queue[Any] = asyncio.Queue(EVENTS_MAX)
        self._names[sha256(event.encode()).digest()] = event
        self._queues.setdefault(event, []).append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues[event].remove(queue)

    def _name(self, digest: bytes) -> str | None:
        return self._names.get(digest)

    def _hand_out(self, event: str, value: Any) -> None:
        for queue in self._queues.get(event, ()):
            if queue.full():
                queue.get_nowait()
                self._network.dropped += 1
            queue.put_nowait(value)
        for callback in tuple(self._callbacks.get(event, ())):
            self._network._call(callback, value)


class Peer(Emitter):
    """Another peer of a subcluster, directly connected or reached through a proxy."""

    def __init__(
        self, subcluster: Subcluster, peer_id: bytes, address: str, port: int, nat_type: int, direct: bool
    ) -> None:
        super().__init__(subcluster._network)
        self._subcluster = subcluster
        self._id = peer_id
        self.peer_id = peer_id.hex()
        self.address = address
        self.port = port
        self.nat_type = nat_type
        self.direct = direct

    async def emit(self, event: str, value: Value) -> None:
        """Streams an event to this peer alone. Raises UnreachableError, TooLargeError."""
        packets = self._subcluster._pack(event, value, None)
        await self._network._stream(self._subcluster, packets, self._id)


class Subcluster(Emitter):
    """A partition of the cluster: all who hold its shared key."""

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

    async def emit(self, event: str, value: Value, *, ttl_s: float | None = None) -> list[bytes]:
        """Publishes an event to all members, present or not; the ids of its packets. Raises TooLargeError.

        ttl_s: how long peers keep it, at most six hours.
        """
        return await self._network._publish(self, self._pack(event, value, ttl_s))

    async def stream(self, event: str, value: Value) -> int:
        """Streams an event to all members that are connected now; to how many."""
        reached = 0
        for peer in tuple(self.peers.values()):
            with contextlib.suppress(UnreachableError):
                await peer.emit(event, value)
                reached += 1
        return reached

    def leave(self) -> None:
        """Stops being a member."""
        self._network._leave(self)

    def _pack(self, event: str, value: Value, ttl_s: float | None) -> list[dict[str, Any]]:
        if not event:
            raise ValueError("an event needs a name")
        if isinstance(value, bytes | bytearray | memoryview):
            plain = bytes(value)
        elif isinstance(value, str):
            plain = value.encode()
        else:
            plain = json.dumps(value, separators=(",", ":")).encode()
        if len(plain) > MESSAGE_BYTES_MAX:
            raise TooLargeError(f"{len(plain)} bytes: at most {MESSAGE_BYTES_MAX}; send it in parts")
        keys = self._network._signing_keys
        self._clock += 1
        common = {
            "cluster_id": self._network.cluster_id,
            "subcluster_id": self.subcluster_id,
            "clock": self._clock,
            "usr1": sha256(event.encode()).digest(),
            "usr2": keys.public_key,
            "sig": sign(plain, keys.private_key),
        }
        if ttl_s is not None:
            common["ttl"] = int(1000 * min(ttl_s, TTL_S_MAX))
        return [{**common, **part} for part in codec.split(self._sealer.seal(plain), ts=time.time_ns() // 1_000_000)]

    def _receive(self, frame: Frame, streamed: bool) -> Message | None:
        """Takes a packet of this subcluster in; the event when it is whole, and news."""
        self._clock = max(self._clock, frame["clock"])
        composer = self._streamed if streamed else self._published
        sealed = composer.add(frame, time.monotonic())
        if sealed is None:
            return None
        key = sha256(sealed).digest()
        if key in self._seen:
            return None
        self._seen[key] = None
        while len(self._seen) > 4096:
            del self._seen[next(iter(self._seen))]
        try:
            message = Message(self._sealer.open(sealed))
        except SealError:
            self.unopened += 1
            return None
        message.packet_id = frame["packet_id"]
        message.public_key = frame["usr2"]
        message.verified = verify(message, frame["sig"], frame["usr2"])
        return message


class Network(Emitter):
    """One peer of one cluster. Made by network(); an async context manager."""

    def __init__(
        self,
        *,
        cluster_id: bytes,
        signing_keys: KeyPair | None = None,
        peer_id: str | None = None,
        peers: Iterable[Mapping[str, Any]] = (),
        address: str = "0.0.0.0",
        port: int = 0,
        keep_alive_s: float = 30.0,
        cache_bytes: int = 16_000_000,
        max_peers: int = 1024,
        privileged_ports: bool = False,
    ) -> None:
        """Opens the sockets; start() sets it going. peers: what `srpnode info --json` prints. Raises NetworkError."""
        super().__init__(self)
        self.cluster_id = wanted(cluster_id, 32, "cluster_id")
        self.peer_id = peer_id or Encryption.create_id()
        self._id = wanted(_unhex(self.peer_id), 32, "peer_id")
        self._signing_keys = signing_keys or Encryption.create_key_pair()
        wanted(self._signing_keys.private_key, 64, "signing_keys.private_key")
        self.info: Info | None = None
        self.dropped = 0
        self.subclusters: dict[bytes, Subcluster] = {}
        self._ready = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._repairing: asyncio.Task[None] | None = None
        self._closed = False
        known = [_indexed(peer) for peer in peers]
        if not known:
            raise NoPeersError("no peers given: name at least two, as `srpnode info --json` prints them")
        self._notify_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._sockets = []
        try:
            main = open_udp(address, port)
            self._sockets.append(main)
            probe = open_udp(address, 0)
            self._sockets.append(probe)
        except SocketError as error:
            self._close_descriptors()
            raise NetworkError(str(error.strerror)) from error
        self._node = Node(
            peer_id=self._id,
            seed=os.urandom(32),
            nat_type=0,
            port=main.getsockname()[1],
            probe_port=probe.getsockname()[1],
            keep_alive=keep_alive_s,
            mono_us=time.monotonic_ns() // 1000,
            wall_ms=time.time_ns() // 1_000_000,
            indexed_peers=known,
            peers=max_peers,
            gate_entries=65536,
            meter_entries=8192,
            parked=64,
            return_routes=4096,
            sync_jobs=64,
            queue_datagrams=8192,
            cache_max_bytes=cache_bytes,
            app_bytes=APP_BYTES,
            attempts=64,
            privileged_ports=privileged_ports,
        )
        self._loop = Loop(self._node, main, probe, notify_fd=self._notify_fd)

    # --- life ---

    async def start(self) -> Self:
        """Sets the peer going; it becomes ready by itself."""
        asyncio.get_running_loop().add_reader(self._notify_fd, self._wake)
        self._loop.start("srp-peer")
        self._repairing = asyncio.create_task(self._repair())
        return self

    async def ready(self, timeout_s: float | None = 30.0) -> Info:
        """Waits until the network has told us who we are. Raises NotReadyError."""
        try:
            await asyncio.wait_for(self._ready.wait(), timeout_s)
        except TimeoutError:
            raise NotReadyError(
                f"not ready after {timeout_s} s: two of the given peers must answer; try `srpnode ping HOST:PORT`"
            ) from None
        assert self.info is not None
        return self.info

    async def close(self) -> None:
        """Ends the peer. Callbacks that run are cancelled."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(ValueError, OSError):
            asyncio.get_running_loop().remove_reader(self._notify_fd)
        tasks = [*self._tasks, *([self._repairing] if self._repairing else [])]
        for task in tasks:
            if task is not asyncio.current_task():
                task.cancel()
        await asyncio.gather(*(t for t in tasks if t is not asyncio.current_task()), return_exceptions=True)
        await asyncio.to_thread(self._loop.stop, 1.0)
        self._close_descriptors()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    def _close_descriptors(self) -> None:
        for sock in self._sockets:
            sock.close()
        if self._notify_fd >= 0:
            os.close(self._notify_fd)
            self._notify_fd = -1

    # --- what a program asks for ---

    async def subcluster(self, shared_key: bytes) -> Subcluster:
        """Joins the subcluster of this key. Raises KeyLengthError, NetworkError."""
        sub = Subcluster(self, shared_key)
        if sub.subcluster_id in self.subclusters:
            return self.subclusters[sub.subcluster_id]
        self._command(node.JOIN, self.cluster_id + sub.subcluster_id)
        self.subclusters[sub.subcluster_id] = sub
        return sub

    def peers(self) -> list[dict[str, Any]]:
        """The peers that we know, as `srpnode peers --json` shows them."""
        rows: list[dict[str, Any]] = []
        question = bytes(node.PEERS_BYTES)
        while True:
            result, question = self._ask(node.PEERS, question)
            rows += node.unpack_peers(question)
            if result != 1:
                return rows

    def counters(self) -> dict[str, int]:
        """Everything that the core counts."""
        return self._node.counters()

    def reconnect(self) -> None:
        """The network has changed: discovers address and NAT anew. Noticed without it after one and a half keep-alives."""
        self._command(node.REFLECT)

    def _leave(self, sub: Subcluster) -> None:
        if self.subclusters.pop(sub.subcluster_id, None) is not None:
            self._command(node.LEAVE, self.cluster_id + sub.subcluster_id)

    async def _publish(self, sub: Subcluster, packets: list[dict[str, Any]]) -> list[bytes]:
        for i, packet in enumerate(packets):
            with _told_already():
                self._command(node.PUBLISH, codec.encode(codec.PUBLISH, **packet))
            if i % BURST_PACKETS == BURST_PACKETS - 1:
                await asyncio.sleep(BURST_PAUSE_S)
        return [packet["packet_id"] for packet in packets]

    async def _stream(self, sub: Subcluster, packets: list[dict[str, Any]], to: bytes) -> None:
        for i, packet in enumerate(packets):
            self._command(node.STREAM, codec.encode(codec.STREAM, usr3=to, usr4=self._id, hops=1, **packet))
            if i % BURST_PACKETS == BURST_PACKETS - 1:
                await asyncio.sleep(BURST_PAUSE_S)

    def _query(self, packet_id: bytes) -> None:
        self._command(
            node.QUERY,
            codec.encode(
                codec.QUERY,
                usr1=str(time.time_ns() // 1_000_000).encode(),
                usr3=secrets.token_bytes(32),
                usr4=b"1",
                message=json.dumps({"packetId": packet_id.hex()}, separators=(",", ":")).encode(),
            ),
        )

    # --- the core ---

    def _ask(self, kind: int, data: bytes = b"", size: int = 0) -> tuple[int, bytes]:
        if self._closed:
            raise NetworkError("this peer is closed")
        try:
            return self._loop.command(kind, data, size, COMMAND_TIMEOUT_S)
        except (TimeoutError, RuntimeError, BlockingIOError) as error:
            raise NetworkError(f"the peer's loop does not answer: {error}") from error

    def _command(self, kind: int, data: bytes = b"") -> int:
        result, _ = self._ask(kind, data)
        if result >= 0:
            return result
        if result == -errno.EHOSTUNREACH:
            raise UnreachableError("no way to this peer is known: wait for its #join")
        raise NetworkError(f"refused by the core: {os.strerror(-result)}")

    def _wake(self) -> None:
        """The core has something for us."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._notify_fd)
        while not self._closed:
            try:
                filled, data = self._ask(node.APP, size=TAKE_BYTES)
            except NetworkError:
                return
            if filled <= 0:
                return
            for record in node.unpack_app(data[:filled]):
                self._take(record)

    def _take(self, record: tuple[Any, ...]) -> None:
        kind = record[0]
        if kind == "ready":
            _, nat_type, address, port = record
            self.info = Info(self.peer_id, address, port, nat_type)
            self._ready.set()
            self._hand_out("#ready", self.info)
        elif kind == "join":
            self._joined(*record[1:])
        elif kind == "leave":
            self._left(record[1].hex())
        else:
            self._packet(kind, codec.decode(record[1]))

    def _joined(
        self, peer_id: bytes, cluster: bytes, subcluster: bytes, nat_type: int, direct: bool, address: str, port: int
    ) -> None:
        sub = self.subclusters.get(subcluster)
        if sub is None or cluster != self.cluster_id:
            return
        peer = sub.peers.get(peer_id.hex())
        if peer is None:
            peer = sub.peers[peer_id.hex()] = Peer(sub, peer_id, address, port, nat_type, direct)
            sub._hand_out("#join", peer)
            self._hand_out("#join", peer)
        peer.address, peer.port, peer.nat_type = address, port, nat_type
        peer.direct = peer.direct or direct

    def _left(self, peer_id: str) -> None:
        for sub in self.subclusters.values():
            peer = sub.peers.pop(peer_id, None)
            if peer is not None:
                sub._hand_out("#leave", peer)
                self._hand_out("#leave", peer)

    def _packet(self, kind: str, frame: Frame) -> None:
        sub = self.subclusters.get(frame["subcluster_id"])
        if sub is None or frame["cluster_id"] != self.cluster_id:
            return
        message = sub._receive(frame, kind == "stream")
        if message is None:
            return
        peer = sub.peers.get(frame["usr4"].hex()) if kind == "stream" else None
        for emitter in (sub, peer):
            name = emitter._name(frame["usr1"]) if emitter is not None else None
            if emitter is not None and name is not None:
                message.event = name
                emitter._hand_out(name, message)

    async def _repair(self) -> None:
        """Asks for packets of messages that stand still: what was lost on the way is somewhere else."""
        while True:
            await asyncio.sleep(REPAIR_S)
            for sub in tuple(self.subclusters.values()):
                for packet_id in sub._published.missing(time.monotonic(), REPAIR_S):
                    with contextlib.suppress(NetworkError):
                        self._query(packet_id)

    def _call(self, callback: Callback, value: Any) -> None:
        try:
            result = callback(value)
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "an event's callback failed", "exception": error}
            )
            return
        if inspect.iscoroutine(result):
            task = asyncio.create_task(result)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


@contextlib.contextmanager
def _told_already() -> Any:
    """A message published twice is in the cache already: fine."""
    try:
        yield
    except NetworkError as error:
        if os.strerror(errno.EEXIST) not in str(error):
            raise


def _unhex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _indexed(peer: Mapping[str, Any]) -> tuple[int, int, bytes]:
    try:
        address = int(ipaddress.IPv4Address(peer["address"]))
        port = int(peer["port"])
        peer_id = bytes.fromhex(peer["peerId"])
    except (KeyError, ValueError, TypeError) as error:
        raise NoPeersError(f"peers: each needs address (IPv4), port and peerId (64 hex digits): {error}") from None
    if not 0 < port < 65536 or len(peer_id) != 32:
        raise NoPeersError("peers: ports are 1 to 65535, a peerId has 64 hex digits")
    return address, port, peer_id


async def network(**options: Any) -> Network:
    """A running peer; see Network for its options. Ready when its ready() or #ready says so."""
    return await Network(**options).start()
