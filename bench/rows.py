"""The rows of the table: which contestants, under which load, and the bar each has to reach."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import servers
from bench.measure import LOAD_PORT, endpoint_base
from bench.servers import Spec

ENDPOINTS = 1000
TRAIN = 32
ROOM_BYTES = 1_000_000_000  # more than four seconds of publishing fill
FILL_16_MB = 16_000  # full packets: more than 16 MB hold
FILL_1_GB = 900_000
INTRODUCTIONS = 32  # datagrams that a join leads to: 16 members of its cluster by default, both sides of each


@dataclass(frozen=True)
class Contestant:
    """A server, the load it gets and how that load is read."""

    label: str
    spec: Spec
    workload: str
    fanout: float = 1.0  # expected answers for each datagram; counted before the first repetition
    silent: bool = False
    flood: bool = False  # open loop beyond what the server can take; else a closed loop
    window: int = 1024
    endpoints: int = ENDPOINTS
    options: tuple[str, ...] = ()
    follow: Callable[[int, int], Spec] | None = None  # the spec once srpnode's fan-out and bytes per answer are known

    def load_options(self) -> list[str]:
        pace = ["--flood"] if self.flood else ["--window", str(self.window)]
        return [*pace, "--endpoints", str(self.endpoints), "--port", str(LOAD_PORT), *self.options]


@dataclass(frozen=True)
class Bar:
    """`who` compared with `against`; figure is speed (datagrams/s), cpu (CPU time per datagram) or p99 (half load)."""

    who: str
    against: str
    figure: str
    at_least: float | None = None
    at_most: float | None = None

    def text(self) -> str:
        sign, value = ("≥", self.at_least) if self.at_least is not None else ("≤", self.at_most)
        names = {"speed": "", "cpu": "CPU time ", "p99": "p99 "}
        return f"{names[self.figure]}{sign} {value:.3g} x {self.against}"


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    contestants: Callable[[Path], list[Contestant]]  # gets the bare program
    bars: tuple[Bar, ...] = ()
    latency: bool = False  # also p50 and p99 at half load
    default: bool = True  # part of a run that names no workload
    note: str = ""


def _fan(program: Path, copies: int, out_bytes: int = 0) -> Spec:
    destinations = ["--to", f"{endpoint_base(0)}:{LOAD_PORT}", "--spread", str(ENDPOINTS), "--copies", str(copies)]
    return servers.bare(program, "fan", *destinations, "--out-bytes", str(out_bytes))


def _ping(program: Path) -> list[Contestant]:
    return [
        Contestant("bare", servers.bare(program, "echo"), "ping", flood=True),
        Contestant("srpnode", servers.node(), "ping", flood=True),
        Contestant("reference", servers.reference(), "ping", window=16),
    ]


def _publish_room(program: Path) -> list[Contestant]:
    return [
        Contestant("bare", _fan(program, 3), "publish", 3),
        Contestant("srpnode", servers.node(cache_bytes=ROOM_BYTES), "publish", 3),
        Contestant("reference", servers.reference(), "publish", 3, window=16),
    ]


def _publish_full(program: Path) -> list[Contestant]:
    fill = ("--fill", str(FILL_16_MB))
    return [
        Contestant("bare", _fan(program, 6), "publish", 6),
        Contestant("srpnode", servers.node(), "publish", 6, options=fill),
        Contestant("reference", servers.reference(cache_full=True), "publish", 6, window=16),
    ]


def _stream(program: Path) -> list[Contestant]:
    last = f"{endpoint_base(ENDPOINTS - 1)}:{LOAD_PORT}"
    train = ("--train", str(TRAIN))
    single = servers.bare(program, "fan", "--to", last, label="bare-single")
    return [
        Contestant("bare", servers.bare(program, "train", "--to", last), "stream", options=train),
        Contestant("bare-single", single, "stream", options=train),
        Contestant("srpnode", servers.node(), "stream", options=train),
        Contestant("reference", servers.reference(), "stream", window=16, options=("--train", "1")),
    ]


def _join(program: Path) -> list[Contestant]:
    return [
        Contestant(
            "bare",
            _fan(program, INTRODUCTIONS),
            "join",
            INTRODUCTIONS,
            window=128,
            follow=lambda n, size: _fan(program, n, out_bytes=size),
        ),
        Contestant("srpnode", servers.node(), "join", INTRODUCTIONS, window=128),
        Contestant("reference", servers.reference(), "join", 8, window=8),
    ]


def _duplicate(program: Path) -> list[Contestant]:
    return [
        Contestant("bare", servers.bare(program, "echo"), "duplicate", flood=True, silent=True),
        Contestant("srpnode", servers.node(), "duplicate", flood=True, silent=True),
    ]


def _garbage(program: Path) -> list[Contestant]:
    return [
        Contestant("bare", servers.bare(program, "echo"), "garbage", flood=True, silent=True),
        Contestant("srpnode", servers.node(), "garbage", flood=True, silent=True),
    ]


def _identities(_program: Path) -> list[Contestant]:
    return [
        Contestant("srpnode", servers.node(), "ping", flood=True),
        Contestant("srpnode-2", servers.node("srpnode-2", identities=2), "ping", flood=True),
    ]


def _stun(_program: Path) -> list[Contestant]:
    coturn = servers.coturn()
    node = Contestant("srpnode", servers.node(), "ping", flood=True)
    return [Contestant("coturn", coturn, "stun", flood=True), node] if coturn else []


def _peers(program: Path) -> list[Contestant]:
    found = []
    for peers in (1, 1_000, 100_000, 1_000_000):
        found.append(
            Contestant(
                f"bare-{peers}",
                servers.bare(program, "echo", label=f"bare-{peers}"),
                "ping",
                flood=True,
                endpoints=peers,
            )
        )
        spec = servers.node(f"srpnode-{peers}", peers=min(max(2 * peers, 100_000), 1_000_000))  # as large as a table may be
        found.append(Contestant(f"srpnode-{peers}", spec, "ping", flood=True, endpoints=peers))
    return found


def _cache(_program: Path) -> list[Contestant]:
    gigabyte = 1_000_000_000
    shapes = [
        ("empty-16MB", None, 0),
        ("full-16MB", None, FILL_16_MB),
        ("empty-1GB", gigabyte, 0),
        ("full-1GB", gigabyte, FILL_1_GB),
    ]
    return [
        Contestant(
            f"srpnode-{label}",
            servers.node(f"srpnode-{label}", cache_bytes=size),
            "ping",
            flood=True,
            options=("--fill", str(fill)) if fill else (),
        )
        for label, size, fill in shapes
    ]


ROWS = (
    Row(
        "ping",
        "ping → pong, reference-shaped pings",
        _ping,
        (
            Bar("srpnode", "bare", "speed", at_least=0.9),
            Bar("srpnode", "reference", "speed", at_least=200),
            Bar("srpnode", "bare", "p99", at_most=3),
        ),
        latency=True,
    ),
    Row(
        "publish-room",
        "publish, unique full packets to 3 peers, room in the cache",
        _publish_room,
        (Bar("srpnode", "bare", "speed", at_least=0.9), Bar("srpnode", "reference", "speed", at_least=200)),
        latency=True,
    ),
    Row(
        "publish-full",
        "the same, cache full: each insertion ejects and multicasts another",
        _publish_full,
        (Bar("srpnode", "bare", "speed", at_least=0.9), Bar("srpnode", "reference", "speed", at_least=200)),
        latency=True,
    ),
    Row(
        "stream",
        f"stream forward, trains of {TRAIN} to one destination",
        _stream,
        (Bar("srpnode", "bare", "speed", at_least=1.0), Bar("srpnode", "reference", "speed", at_least=200)),
        latency=True,
        note="bare forwards whole trains (UDP_GRO, UDP_SEGMENT), bare-single each datagram by itself",
    ),
    Row(
        "join",
        "join → introductions",
        _join,
        (Bar("srpnode", "bare", "speed", at_least=0.6), Bar("srpnode", "reference", "speed", at_least=200)),
        latency=True,
        note="bare sends as many datagrams for each join as srpnode sends introductions",
    ),
    Row("duplicate", "duplicate publish: gate hit", _duplicate, (Bar("srpnode", "bare", "cpu", at_most=1 / 2),)),
    Row("garbage", "garbage rejected", _garbage, (Bar("srpnode", "bare", "cpu", at_most=1 / 3),)),
    Row(
        "identities",
        "ping → pong, one identity and two, on one core",
        _identities,
        (Bar("srpnode-2", "srpnode", "cpu", at_most=1.1),),
    ),
    Row(
        "stun",
        "ping → pong against STUN bindings on coturn, requests of about equal size",
        _stun,
        (Bar("srpnode", "coturn", "speed", at_least=1.5),),
    ),
    Row(
        "peers",
        "ping → pong, every one of 1 … 1 000 000 known peers pinging",
        _peers,
        tuple(Bar(f"srpnode-{n}", "srpnode-1000", "cpu", at_most=1.15) for n in (1, 100_000, 1_000_000)),
        default=False,
    ),
    Row(
        "cache",
        "ping → pong, cache empty and full",
        _cache,
        tuple(
            Bar(f"srpnode-{n}", "srpnode-empty-16MB", "cpu", at_most=1.15)
            for n in ("full-16MB", "empty-1GB", "full-1GB")
        ),
        default=False,
    ),
)
