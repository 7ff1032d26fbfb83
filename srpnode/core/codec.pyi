from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

PING: int
PONG: int
INTRO: int
JOIN: int
PUBLISH: int
STREAM: int
SYNC: int
QUERY: int
FIELDS: tuple[str, ...]
UNSET: bytes
VERDICTS: tuple[str, ...]
TYPES: tuple[str, ...]
KEYS: dict[str, tuple[int, int]]
FRAGMENT_BYTES: int
TTL_MS: int
EMPTY_SUMMARY: bytes

class Malformed(ValueError):  # noqa: N818 - it names a datagram, not a mistake of ours
    verdict: str
    def __init__(self, verdict: str) -> None: ...

class Frame(TypedDict):
    type: int
    clock: int
    hops: int
    index: int
    ttl: int
    size: int
    cluster_id: bytes
    subcluster_id: bytes
    previous_id: bytes
    packet_id: bytes
    next_id: bytes
    usr1: bytes
    usr2: bytes
    usr3: bytes
    usr4: bytes
    message: bytes
    sig: bytes

class Fragment(TypedDict):
    index: int
    message: bytes
    packet_id: bytes
    previous_id: bytes
    next_id: bytes

def verdict(data: bytes) -> str: ...
def decode(data: bytes) -> Frame: ...
def encode(
    kind: int,
    *,
    clock: int = 1,
    hops: int = 0,
    index: int = -1,
    ttl: int = ...,
    cluster_id: bytes | None = None,
    subcluster_id: bytes | None = None,
    previous_id: bytes | None = None,
    packet_id: bytes | None = None,
    next_id: bytes | None = None,
    usr1: bytes | None = None,
    usr2: bytes | None = None,
    usr3: bytes | None = None,
    usr4: bytes | None = None,
    message: bytes | None = None,
    sig: bytes | None = None,
) -> bytes: ...
def read_message(data: bytes) -> dict[str, Any]: ...
def write_message(kind: int, message: Mapping[str, Any]) -> bytes: ...
def sha256(*parts: bytes) -> bytes: ...
def sha1(*parts: bytes) -> bytes: ...
def siphash(key: bytes, data: bytes, rounds: int = 2) -> int: ...
def summarize(packet_ids: Iterable[bytes], prefix: str = "") -> tuple[bytes, list[bytes | None]]: ...
def encode_summary(prefix: str, digest: bytes, buckets: Sequence[bytes | None]) -> bytes: ...
def decode_summary(data: bytes) -> tuple[str, bytes, list[bytes | None]]: ...
def split(message: bytes, meta: str = "{}", *, ts: int) -> list[Fragment]: ...
