"""One bounded measurement, as the tests of the bench need it."""

import socket
from pathlib import Path

from bench.measure import Sample, run_load
from bench.servers import Server, Spec

COUNT = 2000
ENDPOINTS = 1000


def free_port() -> int:
    """A UDP port that nobody has on any address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("0.0.0.0", 0))
        return int(s.getsockname()[1])


def send(
    built: dict[str, Path], spec: Spec, workload: str, *options: str, port: int | None = None
) -> tuple[Sample, str]:
    """Sends COUNT datagrams to a server of this kind; what came of it, and what the server printed."""
    with Server(spec, free_port(), None) as server:
        fixed = ["--port", str(port or free_port()), "--endpoints", str(ENDPOINTS), "--count", str(COUNT)]
        fixed += ["--window", "64"]
        sample = run_load(built["load"], None, server, workload, [*fixed, *options], fanout=1, silent=False)
    return sample, server.log
