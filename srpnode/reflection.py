"""How other indexed peers see this machine: behind a 1:1 NAT the public address is found here, not on an interface.

Pings from a socket of its own to the configured [[peer]] entries. Only pongs that carry our pingId and come from the
endpoint with the peerId that we asked count; when they do not all name one address, none is believed.
"""

import contextlib
import secrets
import selectors
import socket
import time
from collections.abc import Mapping

from srpnode.core import codec
from srpnode.schema import Peer

INTERVAL_S = 60.0
RETRY_S = 5.0  # until the first answer
ANSWER_S = 4.0
ASKED_MAX = 8
DATAGRAM_MAX = 2_048


class Reflection:
    """Driven by the daemon's selector; due() now and then, seen holds the answer."""

    def __init__(self, selector: selectors.BaseSelector, peers: list[Peer]) -> None:
        self.seen = ""  # address, "" while unknown or disputed
        self.views: dict[str, str] = {}  # peerId -> address of ours that it saw in the last round with answers
        self._peers = peers[:ASKED_MAX]
        self._selector = selector
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._selector.register(self._socket, selectors.EVENT_READ, lambda _mask: self._on_readable())
        self._open: dict[str, Peer] = {}  # pingId -> whom it went to
        self._answers: dict[str, str] = {}  # peerId -> address of ours that it sees
        self._next_s = self._round_end_s = 0.0

    def ask_again(self) -> None:
        """The machine's addresses have changed: what was seen may be wrong."""
        self._next_s = 0.0

    def due(self) -> bool:
        """Sends pings when it is time, closes a round when it is over; True when `seen` has changed."""
        now = time.monotonic()
        changed = False
        if self._open and now >= self._round_end_s:
            changed = self._close_round()
        if now >= self._next_s and not self._open:
            self._next_s = now + INTERVAL_S
            self._round_end_s = now + ANSWER_S
            for peer in self._peers:
                self._ask(peer)
        return changed

    def _ask(self, peer: Peer) -> None:
        ping_id = secrets.token_hex(6)
        text = codec.write_message(codec.PING, {"requesterPeerId": secrets.token_hex(32), "pingId": ping_id})
        self._open[ping_id] = peer
        with contextlib.suppress(OSError):  # no way to it at this moment: as if it had not answered
            self._socket.sendto(codec.encode(codec.PING, message=text), (peer.address, peer.port))

    def _on_readable(self) -> None:
        for _ in range(64):
            try:
                data, source = self._socket.recvfrom(DATAGRAM_MAX)
            except BlockingIOError:
                return
            except OSError:
                continue
            with contextlib.suppress(codec.Malformed):
                if codec.decode(data)["type"] == codec.PONG:
                    self._on_pong(codec.read_message(data), source)

    def _on_pong(self, message: Mapping[str, object], source: tuple[str, int]) -> None:
        peer = self._open.get(str(message.get("pingId")))
        if peer is None or (peer.address, peer.port) != source or peer.peer_id != message.get("responderPeerId"):
            return
        address = message.get("address")
        if isinstance(address, str):
            self._answers[peer.peer_id] = address

    def _close_round(self) -> bool:
        self._open.clear()
        answers = set(self._answers.values())
        self.views, self._answers = self._answers or self.views, {}
        if not answers:  # silence proves nothing: keep what was seen before
            self._next_s = time.monotonic() + RETRY_S
            return False
        before, self.seen = self.seen, answers.pop() if len(answers) == 1 else ""
        return self.seen != before

    def close(self) -> None:
        """Closes the socket."""
        self._selector.unregister(self._socket)
        self._socket.close()
