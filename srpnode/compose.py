"""Putting split messages together again, and knowing which packets are missing.

A head (index 0) says how many fragments there are; each fragment names the head as its previousId and the packet after
it as its nextId; its packetId hashes its message and the packetId before it. They arrive in any order, and anybody may
have sent some that do not belong: those are dropped, and the right ones asked for. What is kept is bounded in number,
bytes and time.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srpnode.core.codec import Frame


INDEXES_MAX = 65536


@dataclass
class Partial:
    """The packets of one split message that have arrived."""

    since_s: float
    touched_s: float
    head: Frame | None = None
    fragments: dict[int, Frame] = field(default_factory=dict)
    size: int = 0
    asked: int = 0

    def indexes(self) -> int | None:
        """How many fragments there are, once the head is here; 0 when the head makes no sense."""
        if self.head is None:
            return None
        try:
            count = json.loads(self.head["message"])["indexes"]
        except (ValueError, KeyError, TypeError):
            return 0
        return count if isinstance(count, int) and 0 < count <= INDEXES_MAX else 0

    def drop(self, index: int) -> int:
        """Forgets a fragment; its bytes."""
        size = len(self.fragments.pop(index)["message"])
        self.size -= size
        return size


class Composer:
    """Collects fragments until a message is whole."""

    def __init__(self, max_messages: int = 256, max_bytes: int = 64_000_000, lifetime_s: float = 300.0) -> None:
        self._partial: OrderedDict[bytes, Partial] = OrderedDict()
        self._bytes = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._lifetime_s = lifetime_s
        self.given_up = 0

    def add(self, frame: Frame, now_s: float) -> bytes | None:
        """Takes a packet in; the whole sealed message when this was the last one missing."""
        if frame["index"] < 0:
            return frame["message"] if frame["index"] == -1 else None
        head_id = frame["packet_id"] if frame["index"] == 0 else frame["previous_id"]
        partial = self._partial.get(head_id)
        if partial is None:
            partial = self._partial[head_id] = Partial(now_s, now_s)
        if frame["index"] == 0:
            # The reference may change a head's text after it made the id of it, so one that does not match is better than none.
            if partial.head is None or sha256(partial.head["message"]).digest() != head_id:
                partial.head = frame
        elif frame["index"] not in partial.fragments:
            partial.fragments[frame["index"]] = frame
            partial.size += len(frame["message"])
            self._bytes += len(frame["message"])
        partial.touched_s = now_s
        partial.asked = 0
        count = partial.indexes()
        whole = None
        if count == 0:
            partial.head = None
        elif count is not None and len(partial.fragments) >= count:
            whole = self._whole(head_id, partial, count)
        self._bound(now_s)
        return whole

    def _whole(self, head_id: bytes, partial: Partial, count: int) -> bytes | None:
        """The message, if each fragment is the one that the packet before it makes it; what is not is dropped."""
        for index in [index for index in partial.fragments if not 0 < index <= count]:
            self._bytes -= partial.drop(index)
        before: bytes | None = head_id
        for index in range(1, count + 1):
            frame = partial.fragments.get(index)
            if frame is None:
                before = None
                continue
            if before is not None:
                digest = sha256(sha256(before).digest() + sha256(frame["message"]).digest()).digest()
                if digest != frame["packet_id"]:
                    self._bytes -= partial.drop(index)
                    before = None
                    continue
            before = frame["packet_id"]
        if len(partial.fragments) < count:
            return None
        if len(partial.fragments[count]["next_id"]) == 32:  # it goes on: the head lies
            partial.head = None
            return None
        self._forget(head_id)
        return b"".join(partial.fragments[index]["message"] for index in range(1, count + 1))

    def missing(self, now_s: float, quiet_s: float, most: int = 64) -> list[bytes]:
        """Ids of packets to ask for: of messages that nothing was added to for quiet_s, longer after each asking."""
        ids: list[bytes] = []
        for head_id, partial in self._partial.items():
            if now_s - partial.touched_s < quiet_s * (1 << min(partial.asked, 5)):
                continue
            partial.touched_s = now_s
            partial.asked += 1
            ids += self._gaps(head_id, partial)
            if len(ids) >= most:
                break
        return ids[:most]

    def after(self, frame: Frame) -> list[bytes]:
        """The packet that one that has just been added names as its next, when it is missing."""
        partial = self._partial.get(frame["packet_id"] if frame["index"] == 0 else frame["previous_id"])
        if partial is None or len(frame["next_id"]) != 32 or frame["index"] + 1 in partial.fragments:
            return []
        return [frame["next_id"]]

    def _gaps(self, head_id: bytes, partial: Partial) -> list[bytes]:
        """What is known to be missing: the head, and what the packets that are here name as their next."""
        ids = [] if partial.head is not None else [head_id]
        known = dict(partial.fragments)
        if partial.head is not None:
            known[0] = partial.head
        for index, frame in sorted(known.items()):
            if index + 1 not in known and len(frame["next_id"]) == 32:
                ids.append(frame["next_id"])
        return ids

    def _forget(self, head_id: bytes) -> None:
        self._bytes -= self._partial.pop(head_id).size

    def _bound(self, now_s: float) -> None:
        while self._partial:
            oldest = next(iter(self._partial))
            late = now_s - self._partial[oldest].since_s > self._lifetime_s
            if not late and len(self._partial) <= self._max_messages and self._bytes <= self._max_bytes:
                return
            self._forget(oldest)
            self.given_up += 1
