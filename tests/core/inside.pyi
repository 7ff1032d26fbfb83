from collections.abc import Sequence

from srpnode.core.node import Node

Datagram = tuple[bytes, int, int, int]

def check(node: Node) -> None: ...
def packets(node: Node) -> dict[bytes, bytes]: ...
def receive_batch(
    node: Node, datagrams: Sequence[Datagram], mono_us: int, wall_ms: int
) -> list[tuple[bytes, int, int, int, int, int]]: ...
def wind_application_ring(node: Node, position: int) -> None: ...
def crowd(node: Node, count: int, first_address: int, clusters: int, mono_us: int, wall_ms: int) -> int: ...
def instructions(node: Node, datagrams: Sequence[Datagram] | None, mono_us: int, wall_ms: int) -> int: ...
def allocations(
    node: Node, batches: Sequence[Sequence[Datagram]], ticks: int, mono_us: int, wall_ms: int
) -> tuple[int, int, int]: ...

class Stopwatch:
    mono_us: int
    wall_ms: int
    def __init__(self, node: Node, peers: int, first: int, clusters: int, mono_us: int, wall_ms: int) -> None: ...
    def run(
        self,
        template: bytes,
        count: int,
        *,
        hex_at: int = -1,
        id_at: int = -1,
        cluster: bool = True,
        fresh: Sequence[int] = (),
        batch: int = 64,
        cold_bytes: int = 0,
    ) -> tuple[float, float]: ...
