"""The metrics page: Prometheus text format, written from the same figures as `srpnode status`.

Labels come from fixed sets only (identity, packet type, reason), so that no stranger can make the page grow.
"""

import selectors
import socket
from collections.abc import Callable, Iterator
from typing import Any

from srpnode.streams import StreamServer

REQUEST_MAX = 8_192  # bytes of an HTTP request
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricsError(Exception):
    """The metrics page cannot be served."""


def listen(address: str) -> socket.socket:
    """A listening TCP socket at ADDRESS:PORT. Raises MetricsError."""
    host, _, port = address.rpartition(":")
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, int(port)))
        sock.listen(16)
    except OSError as error:
        sock.close()
        raise MetricsError(
            f"metrics.listen: TCP port {port} of {host} cannot be bound ({error.strerror}); set another one, or "
            f"\"\" for none; `ss -tlpn 'sport = :{port}'` as root names who holds it"
        ) from None
    return sock


def serve(selector: selectors.BaseSelector, address: str, status: Callable[[], dict[str, Any]]) -> StreamServer:
    """Serves the page at ADDRESS:PORT from the thread that drives the selector. Raises MetricsError."""
    return StreamServer(selector, listen(address), handler(status), REQUEST_MAX, keep_open=False)


def handler(status: Callable[[], dict[str, Any]]) -> Callable[[bytes], tuple[bytes, int] | None]:
    """Answers HTTP requests: GET /metrics with the page, everything else with 404."""

    def handle(received: bytes) -> tuple[bytes, int] | None:
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return None
        words = received.split(b"\r\n", 1)[0].split(b" ")
        if len(words) == 3 and words[0] in (b"GET", b"HEAD") and words[1].split(b"?")[0] == b"/metrics":
            body, head = page(status()).encode(), f"HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE}"
        else:
            body, head = b"see /metrics\n", "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain"
        head += f"\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return head.encode() + (b"" if words[0] == b"HEAD" else body), end + 4

    return handle


def page(status: dict[str, Any]) -> str:
    """The whole page for one status."""
    return "\n".join(_lines(status)) + "\n"


def _lines(status: dict[str, Any]) -> Iterator[str]:
    identities = status["identities"]

    def family(name: str, kind: str, text: str, samples: list[tuple[dict[str, str], Any]]) -> Iterator[str]:
        yield f"# HELP {name} {text}"
        yield f"# TYPE {name} {kind}"
        for labels, value in samples:
            inner = ",".join(f'{label}="{_escape(item)}"' for label, item in labels.items())
            yield f"{name}{{{inner}}} {value}" if inner else f"{name} {value}"

    def by(part: str, label: str) -> list[tuple[dict[str, str], Any]]:
        return [
            ({"identity": identity["name"], label: name}, value)
            for identity in identities
            for name, value in identity[part].items()
        ]

    def one(part: str, name: str) -> list[tuple[dict[str, str], Any]]:
        return [({"identity": identity["name"]}, identity[part].get(name, 0)) for identity in identities]

    yield from family("srpnode_info", "gauge", "Version of the node.", [({"version": status["version"]}, 1)])
    yield from family("srpnode_uptime_seconds", "gauge", "Time since the start.", [({}, status["uptime"])])
    yield from family("srpnode_received_total", "counter", "Packets received, by type.", by("received", "type"))
    yield from family("srpnode_sent_total", "counter", "Packets sent, by type.", by("sent", "type"))
    yield from family("srpnode_dropped_total", "counter", "Packets dropped, by reason.", by("drops", "reason"))
    yield from family("srpnode_events_total", "counter", "What the core did, by kind.", by("events", "event"))
    yield from family("srpnode_udp_total", "counter", "System calls and datagrams, by kind.", by("udp", "event"))
    yield from family("srpnode_received_bytes_total", "counter", "UDP payload received.", one("udp", "in_bytes"))
    yield from family("srpnode_sent_bytes_total", "counter", "UDP payload sent.", one("udp", "out_bytes"))
    yield from family("srpnode_peers", "gauge", "Known peers, by state.", by("peers", "state"))
    yield from family("srpnode_cache", "gauge", "Stored packets, their bytes and the limit.", by("cache", "measure"))
    name = "srpnode_handling_seconds"
    yield f"# HELP {name} Time from the arrival of a batch of datagrams to the departure of what came of it."
    yield f"# TYPE {name} histogram"
    for identity in identities:
        total = 0
        label = f'identity="{_escape(identity["name"])}"'
        for below_us, batches in identity["handling_us"]:
            total += batches
            bound = "+Inf" if below_us is None else f"{below_us / 1e6:g}"
            yield f'{name}_bucket{{{label},le="{bound}"}} {total}'
        yield f"{name}_sum{{{label}}} {identity['udp'].get('handling_us', 0) / 1e6:g}"
        yield f"{name}_count{{{label}}} {total}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
