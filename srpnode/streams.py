"""A small server for short requests on stream sockets, driven by a selector: control socket and metrics page.

One request, one answer, in one thread that must never block: everything is bounded and a slow client is dropped.
"""

import contextlib
import selectors
import socket
import time
from collections.abc import Callable

CONNECTIONS_MAX = 32
IDLE_S = 30.0
CHUNK = 65_536

# Gets what arrived so far; returns (answer, bytes used) or None while the request is not complete.
Handler = Callable[[bytes], tuple[bytes, int] | None]


class _Connection:
    """One client: what it sent and what it has still to get."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""
        self.waiting = memoryview(b"")
        self.closing = False
        self.last = time.monotonic()


class StreamServer:
    """Serves `listener` with `handler`. Register it by add(); call sweep() now and then."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        listener: socket.socket,
        handler: Handler,
        request_max: int,
        keep_open: bool,
    ) -> None:
        """`keep_open`: further requests on one connection (control); else it is closed after the answer (metrics)."""
        self._selector = selector
        self._listener = listener
        self._handler = handler
        self._request_max = request_max
        self._keep_open = keep_open
        self._connections: set[_Connection] = set()
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ, self._accept)

    def _accept(self, _mask: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if len(self._connections) >= CONNECTIONS_MAX:
            self._close(min(self._connections, key=lambda connection: connection.last))
        sock.setblocking(False)
        connection = _Connection(sock)
        self._connections.add(connection)
        self._selector.register(sock, selectors.EVENT_READ, lambda mask: self._ready(connection, mask))

    def _ready(self, connection: _Connection, mask: int) -> None:
        connection.last = time.monotonic()
        try:
            if mask & selectors.EVENT_WRITE:
                self._flush(connection)
            if mask & selectors.EVENT_READ:
                data = connection.sock.recv(CHUNK)
                if not data:
                    self._close(connection)
                    return
                connection.received += data
                self._serve(connection)
        except BlockingIOError:
            pass
        except OSError:
            self._close(connection)

    def _serve(self, connection: _Connection) -> None:
        """Answers complete requests, one at a time: the next waits until the answer has left."""
        while connection.received and not connection.waiting and not connection.closing:
            result = self._handler(connection.received)
            if result is None:
                if len(connection.received) > self._request_max:
                    self._close(connection)
                return
            answer, used = result
            connection.received = connection.received[used:]
            connection.waiting = memoryview(answer)
            connection.closing = not self._keep_open
            self._flush(connection)

    def _flush(self, connection: _Connection) -> None:
        with contextlib.suppress(BlockingIOError):
            while connection.waiting:
                sent = connection.sock.send(connection.waiting[: 4 * CHUNK])
                connection.waiting = connection.waiting[sent:]
        if connection not in self._connections:
            return
        if not connection.waiting and connection.closing:
            self._close(connection)
            return
        events = selectors.EVENT_WRITE if connection.waiting else selectors.EVENT_READ
        self._selector.modify(connection.sock, events, self._selector.get_key(connection.sock).data)
        if not connection.waiting and connection.received:
            self._serve(connection)

    def _close(self, connection: _Connection) -> None:
        if connection in self._connections:
            self._connections.discard(connection)
            self._selector.unregister(connection.sock)
            connection.sock.close()

    def sweep(self) -> None:
        """Drops clients that have been silent for long."""
        limit = time.monotonic() - IDLE_S
        for connection in [connection for connection in self._connections if connection.last < limit]:
            self._close(connection)

    def close(self) -> None:
        """Closes the listener and all clients."""
        for connection in list(self._connections):
            self._close(connection)
        self._selector.unregister(self._listener)
        self._listener.close()
