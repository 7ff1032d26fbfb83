"""The metrics page for Prometheus, from the same figures as `srpnode status`.

prometheus_client takes megabytes, so it is loaded by the first scrape: a node that nobody scrapes never pays for it.
Labels come from fixed sets only (identity, packet type, reason), so that no stranger can make the page grow.
"""

import selectors
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from srpnode.streams import StreamServer

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

REQUEST_MAX = 8_192  # bytes of an HTTP request


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


def serve(
    selector: selectors.BaseSelector,
    address: str,
    status: Callable[[], dict[str, Any]],
    failed: Callable[[str], object],
) -> StreamServer:
    """Serves the page at ADDRESS:PORT from the thread that drives the selector; `failed` is told of faults of ours.

    Raises MetricsError.
    """
    return StreamServer(selector, listen(address), handler(status, failed), REQUEST_MAX, keep_open=False)


def handler(
    status: Callable[[], dict[str, Any]], failed: Callable[[str], object]
) -> Callable[[bytes], tuple[bytes, int] | None]:
    """Answers HTTP requests: GET /metrics with the page, everything else with 404."""

    def answer(path: bytes) -> tuple[str, str, bytes]:
        if path.partition(b"?")[0] != b"/metrics":
            return "404 Not Found", "text/plain", b"see /metrics\n"
        try:
            kind, body = page(status())
        except Exception as error:  # a page that fails must not end the node
            failed(f"metrics page: {type(error).__name__}: {error}")
            return "500 Internal Server Error", "text/plain", b"see the journal\n"
        return "200 OK", kind, body

    def handle(received: bytes) -> tuple[bytes, int] | None:
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return None
        words = received.split(b"\r\n", 1)[0].split(b" ")
        asked = words[1] if len(words) == 3 and words[0] in (b"GET", b"HEAD") else b""
        state, kind, body = answer(asked)
        head = f"HTTP/1.1 {state}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return head.encode() + (b"" if words[0] == b"HEAD" else body), end + 4

    return handle


def page(status: dict[str, Any]) -> tuple[str, bytes]:
    """(content type, the whole page) for one status."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    from prometheus_client.registry import Collector

    class Figures(Collector):
        def collect(self) -> "Iterator[Metric]":
            return families(status)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Figures())
    return CONTENT_TYPE_LATEST, generate_latest(registry)


def families(status: dict[str, Any]) -> "Iterator[Metric]":
    """One status as metric families, in the order of the page."""
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    identities = status["identities"]

    def by(family: "CounterMetricFamily | GaugeMetricFamily", part: str) -> "Metric":
        for identity in identities:
            for item, value in identity[part].items():
                family.add_metric((identity["name"], item), value)
        return family

    def traffic(name: str, text: str, item: str) -> "Metric":
        family = CounterMetricFamily(name, text, labels=("identity",))
        for identity in identities:
            family.add_metric((identity["name"],), identity["udp"].get(item, 0))
        return family

    version = GaugeMetricFamily("srpnode_info", "Version of the node.", labels=("version",))
    version.add_metric((status["version"],), 1)
    yield version
    yield GaugeMetricFamily("srpnode_uptime_seconds", "Time since the start.", value=status["uptime"])
    yield by(CounterMetricFamily("srpnode_received", "Packets received, by type.", labels=("identity", "type")), "received")
    yield by(CounterMetricFamily("srpnode_sent", "Packets sent, by type.", labels=("identity", "type")), "sent")
    yield by(CounterMetricFamily("srpnode_dropped", "Packets dropped, by reason.", labels=("identity", "reason")), "drops")
    yield by(CounterMetricFamily("srpnode_events", "What the core did, by kind.", labels=("identity", "event")), "events")
    yield by(CounterMetricFamily("srpnode_udp", "System calls and datagrams, by kind.", labels=("identity", "event")), "udp")
    yield traffic("srpnode_received_bytes", "UDP payload received.", "in_bytes")
    yield traffic("srpnode_sent_bytes", "UDP payload sent.", "out_bytes")
    yield by(GaugeMetricFamily("srpnode_peers", "Known peers, by state.", labels=("identity", "state")), "peers")
    yield by(GaugeMetricFamily("srpnode_cache", "Stored packets, bytes and limit.", labels=("identity", "measure")), "cache")
    strangers = GaugeMetricFamily(
        "srpnode_strangers_per_second",
        "Pings and joins of unproven sources answered in a second, as far as the machine allows; 0: any number.",
        labels=("identity",),
    )
    for identity in identities:
        strangers.add_metric((identity["name"],), identity["strangersPerSecond"])
    yield strangers
    handling = HistogramMetricFamily(
        "srpnode_handling_seconds",
        "Time from the arrival of a batch of datagrams to the departure of what came of it.",
        labels=("identity",),
    )
    for identity in identities:
        total, buckets = 0, []
        for below_us, batches in identity["handling_us"]:
            total += batches
            buckets.append(("+Inf" if below_us is None else f"{below_us / 1e6:g}", total))
        handling.add_metric((identity["name"],), buckets, identity["udp"].get("handling_us", 0) / 1e6)
    yield handling
