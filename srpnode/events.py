"""Events for programs: callbacks and iterators by name, and the payload that they get."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload
from weakref import WeakSet

from srpnode.errors import ClosedError, SilentError

if TYPE_CHECKING:
    from srpnode.peer import Network

EVENTS_MAX = 1024  # that wait in one iterator

Callback = Callable[[Any], Awaitable[Any] | object]
C = TypeVar("C", bound=Callback)


class Message(bytes):
    """The payload of an event, with where it came from.

    event         its name; "" when nobody here listens to it by name: only a hash of it travels
    event_id      that hash, SHA-256 of the name
    packet_id     32 bytes; of a split message that of the packet that arrived last
    public_key    the sender's Ed25519 key, 32 bytes
    verified      whether the sender's signature holds
    peer_id       of a stream: who sent it, 64 hex digits; "" of a published event, which names no peer
    source        (address, port) of the peer that handed it to us, the sender's own or a relay's
    hops          how many peers it came through, as it says itself
    """

    event: str
    event_id: bytes
    packet_id: bytes
    public_key: bytes
    verified: bool
    peer_id: str
    source: tuple[str, int]
    hops: int

    def json(self) -> Any:
        """The payload as JSON. Raises ValueError."""
        return json.loads(self)


class Emitter:
    """Callbacks and iterators by event name. Names that begin with # are the peer's own."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._callbacks: dict[str, list[Callback]] = {}
        self._iterators: dict[str, WeakSet[Events]] = {}
        self._closed = False
        self._names: dict[bytes, str] = {}

    @overload
    def on(self, event: str) -> Callable[[C], C]: ...
    @overload
    def on(self, event: str, callback: C) -> C: ...
    def on(self, event: str, callback: Callback | None = None) -> Any:
        """Calls back for each event of that name; also a decorator. A coroutine that it returns is run as a task.

        A callback for #ready is called at once when the peer is ready already.
        """
        if callback is None:
            return lambda function: self.on(event, function)
        self._listen(event)
        self._callbacks.setdefault(event, []).append(callback)
        if event == "#ready" and self._network is self and self._network.info is not None:
            self._network._call(callback, self._network.info)
        return callback

    def off(self, event: str, callback: Callback) -> None:
        """Ends it; nothing happens when it was not there."""
        with contextlib.suppress(ValueError):
            self._callbacks.get(event, []).remove(callback)

    def events(self, event: str) -> Events:
        """Iterates over the events of that name, from this call on, until the peer is closed.

        At most EVENTS_MAX wait; then the oldest is dropped and counted (Network.dropped).
        """
        self._listen(event)
        waiting = Events(self._closed)
        self._iterators.setdefault(event, WeakSet()).add(waiting)
        return waiting

    async def once(self, event: str, timeout_s: float | None = 60.0) -> Any:
        """The next event of that name. Raises SilentError; ClosedError when the peer is closed meanwhile."""
        try:
            async with asyncio.timeout(timeout_s):
                async for value in self.events(event):
                    return value
        except TimeoutError:
            raise SilentError(
                f"no {event!r} within {timeout_s:g} s: is anybody there who sends it? Wait longer with timeout_s"
            ) from None
        raise ClosedError("the peer was closed while it waited")

    def _listen(self, event: str) -> None:
        self._names[sha256(event.encode()).digest()] = event

    def _name(self, digest: bytes) -> str | None:
        return self._names.get(digest)

    def _hand_out(self, event: str, value: Any) -> None:
        for iterator in tuple(self._iterators.get(event, ())):
            self._network.dropped += iterator._put(value)
        for callback in tuple(self._callbacks.get(event, ())):
            self._network._call(callback, value)

    def _end(self) -> None:
        """Ends all iterators: what waits in them is still delivered."""
        self._closed = True
        for iterators in self._iterators.values():
            for iterator in tuple(iterators):
                iterator._end()


class Events:
    """The events of one name that are still to come: an asynchronous iterator, forgotten with its last reference."""

    def __init__(self, closed: bool = False) -> None:
        self._values: deque[Any] = deque()
        self._changed = asyncio.Event()
        self._closed = closed

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while not self._values:
            if self._closed:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._values.popleft()

    def _put(self, value: Any) -> int:
        """Adds one; how many were dropped for it."""
        full = len(self._values) >= EVENTS_MAX
        if full:
            self._values.popleft()
        self._values.append(value)
        self._changed.set()
        return int(full)

    def _end(self) -> None:
        self._closed = True
        self._changed.set()
