from collections.abc import Iterable, Sequence
from typing import Any, final

JOIN: int
LEAVE: int
PUBLISH: int
STREAM: int
QUERY: int
REFLECT: int
APP: int
GREET: int
PEERS: int
LIMITS: int
ADDRESS: int
RULES: int
EVENTS: int
GAUGES: int
PEERS_BYTES: int
EVENTS_BYTES: int
GAUGES_BYTES: int
LIMIT_DEFAULTS: dict[str, int | bool]
EVENT_KINDS: dict[int, str]

Endpoint = tuple[str, int]
Rule = tuple[str, int, bool]

@final
class Node:
    table_bytes: int

    def __init__(
        self,
        *,
        peer_id: bytes,
        seed: bytes,
        address: int = 0,
        port: int = 0,
        probe_port: int = 0,
        nat_type: int = 31,
        keep_alive: float = 30.0,
        mono_us: int = 0,
        wall_ms: int = 0,
        indexed_peers: Sequence[tuple[int, int, bytes]] = (),
        peers: int = 100000,
        gate_entries: int = 262144,
        meter_entries: int = 65536,
        parked: int = 1024,
        return_routes: int = 16384,
        sync_jobs: int = 256,
        deferred_joins: int = 256,
        queue_datagrams: int = 16384,
        queue_bytes: int = 0,
        spare_peers: int = 64,
        clusters: int = 0,
        subclusters: int = 64,
        unpublished: int = 4096,
        challenges: int = 64,
        events: int = 256,
        access_rules: int = 256,
        cache_max_bytes: int = 16000000,
        cache_ttl: int = 21600,
        app_bytes: int = 0,
        attempts: int = 0,
        pool_open: int = 0,
        selection: str = "weighed",
        **limits: int | bool,
    ) -> None: ...
    def receive(
        self, data: bytes, source: Endpoint, local: str = "0.0.0.0", socket: int = 0, *, mono_us: int, wall_ms: int
    ) -> None: ...
    def tick(self, mono_us: int, wall_ms: int) -> None: ...
    def pressed(self, mono_us: int, wall_ms: int) -> None: ...
    def next_due_us(self) -> int: ...
    def take(self) -> list[tuple[bytes, Endpoint, str, int]]: ...
    def counters(self) -> dict[str, int]: ...
    def peers(self) -> list[dict[str, Any]]: ...
    def gauges(self) -> dict[str, Any]: ...
    def events(self) -> list[dict[str, Any]]: ...
    def join(self, cluster: bytes, subcluster: bytes) -> None: ...
    def leave(self, cluster: bytes, subcluster: bytes) -> None: ...
    def publish(self, datagram: bytes) -> int: ...
    def stream(self, datagram: bytes) -> None: ...
    def query(self, datagram: bytes) -> int: ...
    def reflect(self) -> None: ...
    def app_events(self) -> list[tuple[Any, ...]]: ...
    def set_limits(self, **limits: int | bool) -> None: ...
    def set_rules(
        self,
        prefixes: Iterable[Rule] = (),
        default_allow: bool = True,
        clusters: Sequence[bytes] = (),
        clusters_allow: bool = False,
    ) -> None: ...

def pack_limits(**limits: int | bool) -> bytes: ...
def pack_address(text: str) -> bytes: ...
def pack_greeting(text: str, port: int) -> bytes: ...
def pack_rules(
    prefixes: Iterable[Rule] = (),
    default_allow: bool = True,
    clusters: Sequence[bytes] = (),
    clusters_allow: bool = False,
) -> bytes: ...
def unpack_app(data: bytes | bytearray) -> list[tuple[Any, ...]]: ...
def unpack_peers(data: bytes | bytearray) -> list[dict[str, Any]]: ...
def unpack_events(data: bytes | bytearray) -> list[dict[str, Any]]: ...
def unpack_gauges(data: bytes | bytearray) -> dict[str, Any]: ...
