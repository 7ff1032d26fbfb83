"""What captured datagrams say: a small decoder of the wire format, for people and for the figures."""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .capture import Datagram

MAGIC = b"\x03\x05\x0b\x11"
TYPES = {1: "ping", 2: "pong", 3: "intro", 4: "join", 5: "publish", 6: "stream", 7: "sync", 8: "query"}
FIELDS = (
    *("clusterId", "subclusterId", "previousId", "packetId", "nextId"),
    *("usr1", "usr2", "usr3", "usr4", "message", "sig"),
)
JSON_TYPES = {"ping", "pong", "intro", "join", "query"}
# What a line of a trace shows of a message, in this order.
SHOWN = (
    *("natType", "isConnection", "isReflection", "isProbe", "probeExternalPort", "reflectionId", "pingId"),
    *("isRendezvous", "rendezvousAddress", "rendezvousPort", "rendezvousDeadline"),
)
ID_KEYS = ("requesterPeerId", "responderPeerId", "rendezvousPeerId", "rendezvousRequesterPeerId")


@dataclass(frozen=True)
class Packet:
    """A decoded packet. `fields` are the variable ones by name; `message` is {} where it is no JSON object."""

    kind: str
    clock: int
    hops: int
    fields: Mapping[str, bytes]
    message: Mapping[str, Any]


def decode(payload: bytes) -> Packet | None:
    """The packet in a datagram, or None when it is none (an opening byte, say)."""
    if payload[:4] != MAGIC or len(payload) < 23:
        return None
    kind, _version, clock, hops, _index, _ttl = struct.unpack_from("!BHIIiI", payload, 4)
    at, fields = 23, {}
    for name in FIELDS:
        if at + 2 > len(payload):
            return None
        (length,) = struct.unpack_from("!H", payload, at)
        fields[name] = payload[at + 2 : at + 2 + length]
        at += 2 + length
    message: Mapping[str, Any] = {}
    if TYPES.get(kind) in JSON_TYPES:
        try:
            parsed = json.loads(fields["message"])
        except ValueError:
            parsed = None
        if isinstance(parsed, dict):
            message = parsed
    return Packet(TYPES.get(kind, str(kind)), clock, hops, fields, message)


def describe(payload: bytes, names: Mapping[str, str]) -> str:
    """One line about a datagram; `names` maps peer ids to short names."""
    packet = decode(payload)
    if packet is None:
        return f"{len(payload)} bytes" + (f" 0x{payload.hex()}" if len(payload) <= 4 else "")
    words = [packet.kind]
    message = packet.message
    for key in ID_KEYS:
        if key in message:
            peer = str(message[key])
            words.append(f"{key.removesuffix('PeerId')}={names.get(peer, peer[:6])}")
    words += [f"{key}={json.dumps(message[key])}" for key in SHOWN if key in message]
    if "address" in message or "port" in message:
        words.append(f"says={message.get('address')}:{message.get('port')}")
    words.append(f"hops={packet.hops} clock={packet.clock}")
    words.append(f"id={packet.fields['packetId'].hex()[:8]}")
    if len(packet.fields["clusterId"]) == 32:
        words.append("cluster" + ("+sub" if len(packet.fields["subclusterId"]) == 32 else ""))
    return " ".join(words)


def _arrivals(datagrams: Sequence[Datagram]) -> dict[int, Datagram]:
    """For the index of each sent datagram the same one as some host received it, its addresses rewritten by NATs."""
    travelling: dict[bytes, list[int]] = {}
    found: dict[int, Datagram] = {}
    for index, datagram in enumerate(datagrams):
        waiting = travelling.setdefault(datagram.payload, [])
        if datagram.sent:
            waiting.append(index)
            continue
        # The same bytes can be under way to several targets: an equal target tells them apart, unless it was rewritten.
        candidates = [i for i in waiting if datagrams[i].host != datagram.host]
        same_target = [i for i in candidates if datagrams[i].target == datagram.target]
        for match in (same_target or candidates)[:1]:
            waiting.remove(match)
            found[match] = datagram
    return found


def lines(datagrams: Sequence[Datagram], names: Mapping[str, str]) -> list[tuple[int, str]]:
    """The trace: for each datagram its time and a text with hosts, endpoints and content.

    A datagram that was sent and received is one line, `a > b`; where NATs rewrote its addresses both ends are shown.
    One that nobody received is `a > ?`. A run of equal datagrams from one endpoint to one address is folded.
    """
    arrivals = _arrivals(datagrams)
    arrived = {id(datagram) for datagram in arrivals.values()}
    made: list[tuple[int, str]] = []
    folded: tuple[object, ...] | None = None
    count = 0
    for index, datagram in enumerate(datagrams):
        if id(datagram) in arrived:
            continue
        arrival = arrivals.get(index)
        key = (datagram.host, datagram.sent, datagram.source, datagram.target[0], datagram.payload, arrival is None)
        count = count + 1 if key == folded else 1
        folded = key
        if count > 1:
            made[-1] = (made[-1][0], made[-1][1].partition("  and ")[0] + f"  and {count - 1} more like it")
            continue
        ends = [(datagram.source, datagram.target)]
        if arrival is not None and (arrival.source, arrival.target) != ends[0]:
            ends.append((arrival.source, arrival.target))
        route = " as ".join(f"{s[0]}:{s[1]} > {t[0]}:{t[1]}" for s, t in ends)
        who = f"{datagram.host} > {arrival.host if arrival else '?'}" if datagram.sent else f"? > {datagram.host}"
        made.append((datagram.at_ns, f"{who}  {route}  {describe(datagram.payload, names)}"))
    return made
