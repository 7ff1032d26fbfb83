"""An SRP datagram in plain Python: an encoder and decoder of the tests' own, so that what they forge and what they
read does not depend on the code under test. It can write what no honest peer would write."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field, replace
from typing import Any, Final

MAGIC: Final = b"\x03\x05\x0b\x11"
VERSION: Final = 6
HEAD: Final = struct.Struct(">BHIIiI")  # type, version, clock, hops, index, ttl
PING, PONG, INTRO, JOIN, PUBLISH, STREAM, SYNC, QUERY = range(1, 9)
JSON_TYPES: Final = frozenset({PING, PONG, INTRO, JOIN, QUERY})
UNSET: Final = b"\x00"
FIELDS: Final = (
    "cluster_id",
    "subcluster_id",
    "previous_id",
    "packet_id",
    "next_id",
    "usr1",
    "usr2",
    "usr3",
    "usr4",
    "message",
    "sig",
)


@dataclass(frozen=True)
class Packet:
    """One packet; fields not given go out as the wire's defaults (one zero byte)."""

    type: int
    version: int = VERSION
    clock: int = 1
    hops: int = 0
    index: int = -1
    ttl: int = 21_600_000
    cluster_id: bytes = UNSET
    subcluster_id: bytes = UNSET
    previous_id: bytes = UNSET
    packet_id: bytes = UNSET
    next_id: bytes = UNSET
    usr1: bytes = UNSET
    usr2: bytes = UNSET
    usr3: bytes = UNSET
    usr4: bytes = UNSET
    message: bytes = UNSET
    sig: bytes = UNSET
    json: dict[str, Any] = field(default_factory=dict)  # decoded message of the types that have one

    def encode(self) -> bytes:
        """The datagram. No length is checked: oversized fields are what some tests want."""
        message = json.dumps(self.json, separators=(",", ":")).encode("ascii") if self.json else self.message
        packet = replace(self, message=message)
        if packet.packet_id == UNSET:
            packet = replace(packet, packet_id=hashlib.sha256(packet.previous_id + message + packet.next_id).digest())
        parts = [MAGIC, HEAD.pack(packet.type, packet.version, packet.clock, packet.hops, packet.index, packet.ttl)]
        for name in FIELDS:
            value: bytes = getattr(packet, name)
            parts += [struct.pack(">H", len(value)), value]
        return b"".join(parts)

    def answer_to(self, question: Packet) -> Packet:
        """This packet as an answer to a query."""
        return replace(self, type=QUERY, usr3=question.usr3, usr4=b"2", hops=0)


def packet_id(message: bytes) -> bytes:
    """The id of a publish or stream packet in one piece."""
    return hashlib.sha256(message).digest()


def base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def decode(data: bytes) -> Packet | None:
    """The packet in `data`, None when it is none (or of another version)."""
    if data[:4] != MAGIC:
        return None
    try:
        kind, version, clock, hops, index, ttl = HEAD.unpack_from(data, 4)
        at = 4 + HEAD.size
        values: dict[str, bytes] = {}
        for name in FIELDS:
            (size,) = struct.unpack_from(">H", data, at)
            values[name] = data[at + 2 : at + 2 + size]
            at += 2 + size
    except struct.error:
        return None
    if version != VERSION:
        return None
    message: dict[str, Any] = {}
    if kind in JSON_TYPES:
        try:
            parsed = json.loads(values["message"])
        except ValueError:
            parsed = None
        if isinstance(parsed, dict):
            message = parsed
        elif kind != QUERY:  # an answer to a query carries the bytes of the packet asked for
            return None
    return Packet(kind, version, clock, hops, index, ttl, **values, json=message)
