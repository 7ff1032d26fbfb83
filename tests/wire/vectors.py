"""The committed vectors of tests/vectors, and datagrams framed without the code under test."""

import json
import struct
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parents[1] / "vectors"
MAXIMA = {
    "cluster_id": 32,
    "subcluster_id": 32,
    "previous_id": 32,
    "packet_id": 32,
    "next_id": 32,
    "usr1": 32,
    "usr2": 32,
    "usr3": 32,
    "usr4": 32,
    "message": 1024,
    "sig": 64,
}


def load(name: str) -> list[dict[str, Any]]:
    """The vectors of one file."""
    vectors: list[dict[str, Any]] = json.loads((DIRECTORY / f"{name}.json").read_text(encoding="utf-8"))["vectors"]
    return vectors


def frame(
    type: int,  # noqa: A002
    message: bytes,
    fields: dict[str, bytes] | None = None,
    *,
    clock: int = 1,
    hops: int = 0,
    index: int = -1,
    ttl: int = 1000,
    version: int = 6,
    magic: bytes = b"\x03\x05\x0b\x11",
) -> bytes:
    """A datagram; nothing is checked."""
    out = magic + struct.pack(">BHIIiI", type, version, clock, hops, index, ttl)
    for name in MAXIMA:
        value = message if name == "message" else (fields or {}).get(name, b"\0")
        out += struct.pack(">H", len(value)) + value
    return out


def datagram(vector: dict[str, Any]) -> bytes:
    """The datagram of a vector of verdicts.json or packets.json."""
    if "text" in vector:
        return frame(vector["type"], vector["text"].encode("utf-8"))
    return bytes.fromhex(vector["hex"])
