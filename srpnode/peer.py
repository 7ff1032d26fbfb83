"""A peer for Python programs: the same core as the node, driven by asyncio.

    net = await network(cluster_id=…, signing_keys=…, peers=["192.0.2.1:3511", "192.0.2.1:3512"])
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
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Required, Self, TypedDict, Unpack

from srpnode.core import codec, node
from srpnode.core.node import Node
from srpnode.crypto import Encryption, KeyPair, wanted
from srpnode.errors import ClosedError, NetworkError, NoPeersError, NotReadyError, StalledError, UnreachableError
from srpnode.events import Callback, Emitter, Message
from srpnode.find import find_peers
from srpnode.net.loop import Loop
from srpnode.net.sockets import SocketError, open_udp
from srpnode.subcluster import Peer, Subcluster

if TYPE_CHECKING:
    from srpnode.core.codec import Frame

COMMAND_TIMEOUT_S = 2.0
APP_BYTES = 8 << 20  # what may wait for the application in the core
TAKE_BYTES = 1 << 16  # of it, taken at once
TASKS_MAX = 256  # callbacks under way; then the rest waits in the core
BURST_PACKETS = 32  # sent before other work gets its turn
BURST_PAUSE_S = 0.008
WAIT_S = 0.05  # for room in the core
REPAIR_S = 1.0  # a message that stands still for so long is asked for
PUBLISH_PER_MINUTE = 900  # for each indexed peer: nodes take 1024 from an endpoint
RANGES = {
    "port": (0, 65535),
    "keep_alive_s": (0.05, 3600),
    "cache_bytes": (16_384, 64_000_000_000),
    "max_peers": (1, 1_000_000),
    "publish_per_minute": (0, 1_000_000_000),
    "timeout_s": (0.001, 86_400),
}
PROXIED_KEEP_ALIVES = 6  # a peer behind a proxy that is not introduced again for so long has left


@dataclass(frozen=True)
class Reflector:
    """A peer that told us how the network sees us: (address, port) of the peer and of us as it sees us.

    knocked: whether a datagram from another port of it, that we had not written to from that socket, came through.
    """

    peer: tuple[str, int]
    seen: tuple[str, int]
    knocked: bool


@dataclass(frozen=True)
class Info:
    """What the network sees of us. nat_type: 31 static, 15 and 7 easy, 5 hard."""

    peer_id: str
    address: str
    port: int
    nat_type: int
    reflectors: tuple[Reflector, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A packet that somebody had: its frame, who handed it over, and how long it took."""

    frame: Frame
    source: tuple[str, int]
    seconds: float


class Options(TypedDict, total=False):
    """The settings of a peer.

    cluster_id      32 bytes: the application; Encryption.create_cluster_id()
    peers           at least two peers to start from: "HOST:PORT", or what `srpnode info --json` prints
    signing_keys    what this peer's events are signed with; new ones by default
    peer_id         64 hex digits, this peer's name; a new one by default. Keep both to be the same peer next time
    address, port   what to listen on: everything, on a port that the system chooses
    keep_alive_s    30; mappings of NATs are held open a little oftener
    cache_bytes     packets of others that this peer keeps and relays, in memory: 16 MB
    max_peers       that it knows at once: 1024
    publish_per_minute  packets; by default what the peers in `peers` take, 0: as fast as can be
    privileged_ports    whether peers may be on ports below 1024
    timeout_s       for "HOST:PORT" in `peers` to answer: 5
    """

    cluster_id: Required[bytes]
    peers: Required[Iterable[str | Mapping[str, Any]]]
    signing_keys: KeyPair | None
    peer_id: str | None
    address: str
    port: int
    keep_alive_s: float
    cache_bytes: int
    max_peers: int
    publish_per_minute: int | None
    privileged_ports: bool
    timeout_s: float


class Pace:
    """How many packets may leave: so many a minute, two fifths of them at once."""

    def __init__(self, per_minute: int) -> None:
        self._rate = 0.6 * per_minute / 60
        self._most = self._left = 0.4 * per_minute
        self._at_s = time.monotonic()

    def wait_s(self) -> float:
        """0: one more may leave (and counts); else how long to wait before the next question."""
        if self._rate == 0:
            return 0.0
        now_s = time.monotonic()
        self._left = min(self._most, self._left + self._rate * (now_s - self._at_s))
        self._at_s = now_s
        if self._left < 1:
            return (1 - self._left) / self._rate
        self._left -= 1
        return 0.0


class Network(Emitter):
    """One peer of one cluster. Made by network(); an async context manager.

    info        what the network sees of us, once it is ready
    subclusters by subcluster_id
    dropped     events that iterators were too slow for
    """

    def __init__(
        self,
        *,
        cluster_id: bytes,
        peers: Iterable[Mapping[str, Any]] = (),
        signing_keys: KeyPair | None = None,
        peer_id: str | None = None,
        address: str = "0.0.0.0",
        port: int = 0,
        keep_alive_s: float = 30.0,
        cache_bytes: int = 16_000_000,
        max_peers: int = 1024,
        publish_per_minute: int | None = None,
        privileged_ports: bool = False,
    ) -> None:
        """Opens the sockets; start() sets it going. See Options. Raises NetworkError, KeyLengthError, ValueError."""
        super().__init__(self)
        self._notify_fd = -1
        self._sockets: list[Any] = []
        self.cluster_id = wanted(cluster_id, 32, "cluster_id")
        self._id = wanted(_unhex(Encryption.create_id() if peer_id is None else peer_id), 32, "peer_id (64 hex digits)")
        self.peer_id = self._id.hex()
        self._signing_keys = Encryption.create_key_pair() if signing_keys is None else signing_keys
        wanted(getattr(self._signing_keys, "private_key", b""), 64, "signing_keys.private_key")
        for name, number in (("port", port), ("keep_alive_s", keep_alive_s), ("cache_bytes", cache_bytes)):
            _check(name, number)
        _check("max_peers", max_peers)
        _check("publish_per_minute", 0 if publish_per_minute is None else publish_per_minute)
        self.info: Info | None = None
        self.dropped = 0
        self.subclusters: dict[bytes, Subcluster] = {}
        self.keep_alive_s = keep_alive_s
        self._burst = 0
        self._records: deque[tuple[Any, ...]] = deque()  # taken from the core, not yet handed out
        self._pausing = False
        self._max_peers = max_peers
        self._ready = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._repairing: asyncio.Task[None] | None = None
        self._answers: dict[bytes, asyncio.Future[tuple[Frame, tuple[str, int]]]] = {}
        known = [_indexed(peer) for peer in peers]
        if not known:
            raise NoPeersError("no peers given: name at least two, as `srpnode info --json` prints them")
        per_minute = PUBLISH_PER_MINUTE * len(known) if publish_per_minute is None else publish_per_minute
        self._pace = Pace(per_minute)
        self._notify_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            main = open_udp(address, port)
            self._sockets.append(main)
            probe = open_udp(address, 0)
            self._sockets.append(probe)
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
        except SocketError as error:
            self._close_descriptors()
            raise NetworkError(str(error.strerror)) from error
        except ValueError as error:
            self._close_descriptors()
            raise (NoPeersError if "two peers" in str(error) else ValueError)(str(error)) from None
        except BaseException:
            self._close_descriptors()
            raise

    # --- life ---

    async def start(self) -> Self:
        """Sets the peer going; it becomes ready by itself."""
        asyncio.get_running_loop().add_reader(self._notify_fd, self._wake)
        self._loop.start("srp-peer")
        self._repairing = asyncio.create_task(self._repair())
        return self

    async def ready(self, timeout_s: float | None = 30.0) -> Info:
        """Waits until the network has told us who we are. Raises NotReadyError, ClosedError."""
        if self._closed:
            raise ClosedError("this peer is closed")
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        except TimeoutError:
            raise NotReadyError(
                f"not ready after {timeout_s:g} s: two of the given peers must answer; try `srpnode ping HOST:PORT`"
            ) from None
        if self.info is None:
            raise ClosedError("this peer was closed")
        return self.info

    async def close(self) -> None:
        """Ends the peer: what it has queued still leaves, callbacks that run are cancelled, iterators end."""
        if self._closed:
            return
        self._end()
        for sub in self.subclusters.values():
            sub._end()
            for peer in sub.peers.values():
                peer._end()
        self._ready.set()
        for future in self._answers.values():
            future.cancel()
        with contextlib.suppress(ValueError, OSError):
            asyncio.get_running_loop().remove_reader(self._notify_fd)
        tasks = [*self._tasks, *([self._repairing] if self._repairing else [])]
        others = [task for task in tasks if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        try:
            await asyncio.gather(*others, return_exceptions=True)
            await asyncio.to_thread(self._loop.stop, 1.0)
        finally:
            if self._loop.stop(1.0):
                self._close_descriptors()
                del self._loop  # its own descriptors, and the pool's

    async def __aenter__(self) -> Self:
        if self._repairing is None:
            await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        await self.close()

    def __del__(self) -> None:
        if getattr(self, "_repairing", None) is None and hasattr(self, "_sockets"):  # never started
            self._close_descriptors()

    def _close_descriptors(self) -> None:
        for sock in self._sockets:
            sock.close()
        if self._notify_fd >= 0:
            os.close(self._notify_fd)
            self._notify_fd = -1

    # --- what a program asks for ---

    async def subcluster(self, shared_key: bytes) -> Subcluster:
        """Joins the subcluster of this key (32 bytes). Raises KeyLengthError, NetworkError (at most 32 at a time)."""
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
        """The network has changed: discovers address and NAT anew. Noticed without it within a keep-alive or two."""
        self._command(node.REFLECT)

    async def fetch(self, packet_id: bytes, timeout_s: float = 5.0) -> Answer:
        """Asks the network for one packet (32 bytes), again every second. Raises UnreachableError: nobody has it."""
        wanted(packet_id, 32, "packet_id")
        started_s = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    query_id = self._query(packet_id)
                    future = asyncio.get_running_loop().create_future()
                    self._answers[query_id] = future
                    try:
                        async with asyncio.timeout(1.0):
                            frame, source = await future
                        return Answer(frame, source, time.monotonic() - started_s)
                    except TimeoutError:
                        continue
                    finally:
                        del self._answers[query_id]
        except TimeoutError:
            raise UnreachableError(f"nobody answered with this packet within {timeout_s:g} s") from None

    # --- sending ---

    def _leave(self, sub: Subcluster) -> None:
        if self.subclusters.get(sub.subcluster_id) is sub:
            del self.subclusters[sub.subcluster_id]
            sub._end()
            for peer in sub.peers.values():
                peer._end()
            if not self._closed:
                self._command(node.LEAVE, self.cluster_id + sub.subcluster_id)

    async def _publish(self, packets: list[dict[str, Any]], timeout_s: float | None) -> list[bytes]:
        self._check_open(packets[0]["subcluster_id"])
        for packet in packets:
            while (wait_s := self._pace.wait_s()) > 0:
                await asyncio.sleep(wait_s)
            await self._send(node.PUBLISH, codec.encode(codec.PUBLISH, **packet), timeout_s)
        return [packet["packet_id"] for packet in packets]

    async def _stream(self, packets: list[dict[str, Any]], to: bytes, timeout_s: float | None) -> None:
        self._check_open(packets[0]["subcluster_id"])
        for packet in packets:
            data = codec.encode(codec.STREAM, usr3=to, usr4=self._id, hops=1, **packet)
            await self._send(node.STREAM, data, timeout_s)

    def _check_open(self, subcluster_id: bytes) -> None:
        if self._closed or subcluster_id not in self.subclusters:
            raise ClosedError("this peer is closed" if self._closed else "this subcluster was left: join it again")

    async def _send(self, kind: int, data: bytes, timeout_s: float | None) -> None:
        """Hands a packet to the core; waits while it has no room."""
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            result, _ = self._ask(kind, data)
            if result >= 0 or result == -errno.EEXIST:
                break
            if result not in (-errno.EAGAIN, -errno.ENOBUFS):
                self._refuse(result)
            if end_s is not None and time.monotonic() >= end_s:
                raise StalledError(
                    f"nothing left for {timeout_s:g} s and no more can be kept: is the network there? "
                    "What was emitted before is sent when it returns"
                )
            await asyncio.sleep(WAIT_S)
        self._burst += 1
        if self._burst % BURST_PACKETS == 0:
            await asyncio.sleep(BURST_PAUSE_S)

    def _query(self, packet_id: bytes) -> bytes:
        query_id = secrets.token_bytes(32)
        self._command(
            node.QUERY,
            codec.encode(
                codec.QUERY,
                usr1=str(time.time_ns() // 1_000_000).encode(),
                usr3=query_id,
                usr4=b"1",
                message=json.dumps({"packetId": packet_id.hex()}, separators=(",", ":")).encode(),
            ),
        )
        return query_id

    # --- the core ---

    def _ask(self, kind: int, data: bytes = b"", size: int = 0) -> tuple[int, bytes]:
        if self._closed or self._repairing is None:
            raise ClosedError("this peer is closed" if self._closed else "this peer is not started: use `async with`")
        try:
            return self._loop.command(kind, data, size, COMMAND_TIMEOUT_S)
        except (TimeoutError, RuntimeError, BlockingIOError) as error:
            raise NetworkError(f"the peer's loop does not answer: {self._loop.failure or error}") from error

    def _command(self, kind: int, data: bytes = b"") -> int:
        result, _ = self._ask(kind, data)
        return result if result >= 0 else self._refuse(result)

    def _refuse(self, result: int) -> int:
        if result == -errno.EHOSTUNREACH:
            raise UnreachableError("no way to this peer is known: wait for its #join")
        if result == -errno.ENOSPC:
            raise NetworkError("too many subclusters at a time: leave one first")
        raise NetworkError(f"refused by the core: {os.strerror(-result)}")

    def _wake(self) -> None:
        """The core has something for us."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._notify_fd)
        if not self._pausing:
            self._work()

    def _resume(self) -> None:
        self._pausing = False
        self._work()

    def _work(self) -> None:
        """Hands out what the core has, as long as callbacks keep up."""
        while not self._closed and len(self._tasks) < TASKS_MAX:
            while self._records:
                if self._take(self._records.popleft()):
                    # Somebody new: the program has its turn, to say what it wants to hear of this peer.
                    self._pausing = True
                    asyncio.get_running_loop().call_soon(self._resume)
                    return
            try:
                filled, data = self._ask(node.APP, size=TAKE_BYTES)
            except NetworkError:
                return
            if filled <= 0:
                return
            self._records.extend(node.unpack_app(data[:filled]))

    def _take(self, record: tuple[Any, ...]) -> bool:
        """Handles one record; True when it brought a new peer."""
        kind = record[0]
        if kind == "ready":
            _, nat_type, address, port, reflectors = record
            self.info = Info(self.peer_id, address, port, nat_type, tuple(Reflector(*each) for each in reflectors))
            self._ready.set()
            self._hand_out("#ready", self.info)
        elif kind == "join":
            return self._joined(*record[1:])
        elif kind == "leave":
            self._left(record[1].hex())
        elif kind == "message":
            self._deliver(*record[1:])
        else:
            try:
                frame = codec.decode(record[1])
            except codec.Malformed:
                return False
            return self._packet(kind, frame, record[2])
        return False

    def _joined(
        self, peer_id: bytes, cluster: bytes, subcluster: bytes, nat_type: int, direct: bool, address: str, port: int
    ) -> bool:
        sub = self.subclusters.get(subcluster)
        if sub is None or cluster != self.cluster_id:
            return False
        peer = sub.peers.get(peer_id.hex())
        if peer is not None:
            peer.address, peer.port, peer.nat_type, peer.direct = address, port, nat_type, direct
            peer._heard_s = time.monotonic()
            return False
        peer = sub.peers[peer_id.hex()] = Peer(sub, peer_id, address, port, nat_type, direct)
        sub._hand_out("#join", peer)
        self._hand_out("#join", peer)
        return True

    def _left(self, peer_id: str) -> None:
        for sub in self.subclusters.values():
            peer = sub.peers.pop(peer_id, None)
            if peer is not None:
                sub._hand_out("#leave", peer)
                self._hand_out("#leave", peer)
                peer._end()

    def _packet(self, kind: str, frame: Frame, source: tuple[str, int]) -> bool:
        """Takes a packet in; True when it brought a new peer."""
        if kind == "answer":
            future = self._answers.get(frame["usr3"])
            if future is not None and not future.done():
                future.set_result((frame, source))
        sub = self.subclusters.get(frame["subcluster_id"])
        if sub is None or frame["cluster_id"] != self.cluster_id:
            return False
        streamed = kind == "stream"
        message = sub._receive(frame, streamed, source)
        if message is None:
            if kind == "answer":  # one hole after the other, without waiting for silence
                for packet_id in sub._published.after(frame):
                    self._ask_for(packet_id)
            return False
        if streamed and message.peer_id not in sub.peers and len(sub.peers) < self._max_peers:
            # A member that we have not been told of may stream to us already: it is met now.
            self._records.appendleft(("message", sub, message))
            return self._joined(frame["usr4"], frame["cluster_id"], frame["subcluster_id"], 0, False, *source)
        self._deliver(sub, message)
        return False

    def _deliver(self, sub: Subcluster, message: Message) -> None:
        """Hands a message to all who listen."""
        peer = sub.peers.get(message.peer_id)
        if peer is not None:
            peer._heard_s = time.monotonic()
        message.event = sub._name(message.event_id) or (peer and peer._name(message.event_id)) or ""
        for emitter in (sub, peer):
            if emitter is not None and emitter._name(message.event_id) and not message.event.startswith("#"):
                emitter._hand_out(message.event, message)
        sub._hand_out("#message", message)

    async def _repair(self) -> None:
        """Asks for packets of messages that stand still: what was lost on the way is somewhere else."""
        while True:
            await asyncio.sleep(REPAIR_S)
            now_s = time.monotonic()
            silent_s = PROXIED_KEEP_ALIVES * self.keep_alive_s
            for sub in tuple(self.subclusters.values()):
                for packet_id in sub._published.missing(now_s, REPAIR_S):
                    self._ask_for(packet_id)
                for peer in tuple(sub.peers.values()):
                    if not peer.direct and now_s - peer._heard_s > silent_s:
                        self._left(peer.peer_id)

    def _ask_for(self, packet_id: bytes) -> None:
        with contextlib.suppress(NetworkError):
            self._query(packet_id)

    def _call(self, callback: Callback, value: Any) -> None:
        try:
            result = callback(value)
        except Exception as error:
            self._complain(error)
            return
        if inspect.iscoroutine(result):
            task = asyncio.get_running_loop().create_task(result)
            self._tasks.add(task)
            task.add_done_callback(self._called)

    def _called(self, task: asyncio.Task[Any]) -> None:
        full = len(self._tasks) >= TASKS_MAX
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._complain(error)
        if full and not self._closed and not self._pausing:
            self._work()

    def _complain(self, error: BaseException) -> None:
        asyncio.get_running_loop().call_exception_handler({"message": "an event's callback failed", "exception": error})


def _unhex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except (ValueError, TypeError):
        return b""


def _check(name: str, value: float) -> None:
    """Raises ValueError for a setting that is no number or out of range."""
    least, most = RANGES[name]
    if not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f"{name}: {least} to {most}, not {value!r}")


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


async def network(**options: Unpack[Options]) -> Network:
    """A running peer; see Options. Ready when its ready() or #ready says so.

    Raises NoPeersError, UnreachableError (places in `peers` that do not answer), KeyLengthError, NetworkError.
    """
    settings: dict[str, Any] = dict(options)
    timeout_s = settings.pop("timeout_s", 5.0)
    _check("timeout_s", timeout_s)
    given = settings.pop("peers", None) or ()
    if isinstance(given, str | bytes | Mapping):
        raise NoPeersError(
            f"peers: a list of at least two, each HOST:PORT or as `srpnode info --json` prints it, not {given!r}"
        )
    peers = list(given)
    places = [peer for peer in peers if isinstance(peer, str)]
    found = await find_peers(places, timeout_s) if places else []
    return await Network(peers=[*(p for p in peers if not isinstance(p, str)), *found], **settings).start()
