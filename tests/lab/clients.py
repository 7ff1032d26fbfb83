"""Peers under test. A kind of client is a program that serves the commands and tells the events below.

Commands (lines of JSON on standard input, see programs.Speaker):

start {introducers: [{address, port, peerId}], cluster, subcluster, keepAliveMs?}
send {text}    to every peer met, directly or by proxy as the client thinks fit
stop

Events (each with id and atNs, the monotonic clock in nanoseconds):

up {peerId}
ready {natType, address, port}                the NAT type and the endpoint that the client has discovered
join {peerId, address, port, proxy}           the application learns of a peer of its subcluster
message {peerId, text, address, port}         a text arrived in a datagram from address and port
error {what}
stopped
"""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ..node import node
from .namespaces import Namespace
from .programs import Message, Speaker
from .requirements import missing_reference
from .world import INTERNET

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Known:
    """An introducer as an application lists it."""

    address: str
    port: int
    peer_id: str


@dataclass(frozen=True)
class ClientKind:
    """How to run one kind of client: its command line, its environment, and why it cannot run here (None: it can)."""

    name: str
    command: Callable[[], Sequence[str]]
    environment: Mapping[str, str]
    missing: Callable[[], str | None]


KINDS: Mapping[str, ClientKind] = MappingProxyType(
    {
        "reference": ClientKind(
            "reference",
            lambda: [node(), str(HERE / "reference_client.mjs")],
            {"JSREF_NETS": str(INTERNET)},
            missing_reference,
        ),
        "srpnode": ClientKind(
            "srpnode",
            lambda: [sys.executable, "-m", "tests.lab.srpnode_client"],
            {"PYTHONPATH": str(HERE.parents[1])},
            lambda: None,
        ),
    }
)


@dataclass(frozen=True)
class Ready:
    """A client knows its NAT type (31, 15, 7 or 5) and its public endpoint."""

    at_ns: int
    nat_type: int
    address: str
    port: int


@dataclass(frozen=True)
class Joined:
    """The application was told of a peer, reachable at an endpoint or by proxy."""

    at_ns: int
    address: str
    port: int
    proxy: bool


@dataclass(frozen=True)
class Received:
    """A text from a peer; `source` is the endpoint that the datagram came from."""

    at_ns: int
    peer_id: str
    text: str
    source: tuple[str, int]


class ClientHost:
    """The program of one kind of client on one host; it runs any number of clients, one after the other or at once."""

    def __init__(self, kind: ClientKind, speaker: Speaker) -> None:
        self.kind = kind
        self.speaker = speaker

    @classmethod
    async def start(cls, kind: ClientKind, name: str, namespace: Namespace) -> "ClientHost":
        """Start the program inside the namespace."""
        command = kind.command()
        speaker = await Speaker.start(f"{kind.name} client {name}", namespace, command, kind.environment)
        assert isinstance(speaker, Speaker)
        return cls(kind, speaker)

    async def client(
        self, introducers: Sequence[Known], cluster: str, subcluster: str, keep_alive_ms: int | None = None
    ) -> "Client":
        """A new peer that joins a subcluster through some introducers."""
        client = Client(self)
        command: Message = {
            "introducers": [{"address": i.address, "port": i.port, "peerId": i.peer_id} for i in introducers],
            "cluster": cluster,
            "subcluster": subcluster,
        }
        if keep_alive_ms is not None:
            command["keepAliveMs"] = keep_alive_ms
        await client.tell("start", command)
        return client

    async def stop(self) -> None:
        """End the program."""
        await self.speaker.stop()


class Client:
    """One peer: what it has told so far. `joins` holds the first #join for each peer id."""

    def __init__(self, host: ClientHost) -> None:
        self.host = host
        self.peer_id = ""
        self.ready: Ready | None = None
        self.joins: dict[str, Joined] = {}
        self.messages: list[Received] = []
        self.errors: list[str] = []
        self.stopped = False
        self._changed = asyncio.Event()
        self._id = host.speaker.listen(self._on_event)

    def _on_event(self, event: Message) -> None:
        match event["event"]:
            case "up":
                self.peer_id = event["peerId"]
            case "ready" if self.ready is None:
                self.ready = Ready(event["atNs"], event["natType"], event["address"], event["port"])
            case "join":
                joined = Joined(event["atNs"], event["address"], event["port"], event["proxy"])
                self.joins.setdefault(event["peerId"], joined)
            case "message":
                source = (event["address"], event["port"])
                self.messages.append(Received(event["atNs"], event["peerId"], event["text"], source))
            case "error":
                self.errors.append(event["what"])
            case "stopped" | "gone":
                self.stopped = True
        self._changed.set()

    async def tell(self, what: str, more: Message | None = None) -> None:
        """Give the client a command."""
        await self.host.speaker.tell({"do": what, "id": self._id, **(more or {})})

    async def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until the condition about this client holds; False when the time was not enough."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self.host.speaker.check()
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self, timeout_s: float = 5.0) -> None:
        """The peer closes its sockets."""
        await self.tell("stop")
        if not await self.wait(lambda: self.stopped, timeout_s):
            raise self.host.speaker.failure("a client does not stop")
        self.host.speaker.forget(self._id)
