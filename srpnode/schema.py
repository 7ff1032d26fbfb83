"""Every key of srpnode.toml, once: type, default, range, unit, explanation and whether a change needs a restart.

The dataclasses below are the validated configuration; the metadata of their fields drives validation (config.py), the
text of conf/srpnode.toml and the man page srpnode.toml(5) (both generated here).
"""

import dataclasses
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin, get_type_hints

from srpnode import __version__

DEFAULT_FILE = "/etc/srpnode.toml"
DEFAULT_STATE_DIR = "/var/lib/srpnode"
DEFAULT_SOCKET = "/run/srpnode/control.sock"

TYPE_NAMES = {int: "an integer", float: "a number", str: "a string", bool: "true or false", list: "a list of strings"}


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of one key, besides its name and type, which are the dataclass field's own."""

    doc: str
    low: float | None = None
    high: float | None = None
    unit: str = ""
    restart: bool = False
    choices: tuple[str, ...] = ()
    form: str = ""  # how to read a string: ipv4, listen, cluster, prefix, peer_id, path, name, socket; see config.py
    required: bool = False
    example: str = ""  # TOML text shown in place of the default
    core: bool = True  # [limits]: a limit of each identity's core, not of the process
    zero: str = "unlimited"  # what 0 means, where the range begins there
    derived: str = ""  # how the default follows from other keys, where it is not a constant


def about(doc: str, **known: Any) -> dict[str, Key]:
    """Metadata of a dataclass field."""
    return {"key": Key(doc, **known)}


def key(default: Any, doc: str, **known: Any) -> Any:
    """A dataclass field with a default and its Key."""
    return field(default=default, metadata=about(doc, **known))


def size(default: int, doc: str, low: int, high: int) -> Any:
    """Size of a table, allocated at the start."""
    return key(default, doc, low=low, high=high, restart=True)


def rate(default: int, doc: str, high: int = 1_000_000_000, unit: str = "") -> Any:
    """Something counted and compared; 0 is unlimited."""
    return key(default, doc, low=0, high=high, unit=unit)


@dataclass(slots=True)
class Listen:
    """One identity: an address, a main and a probe port, a key of its own. Two by default: applications need two."""

    name: str = key(
        "",
        "Names the identity: its key is state_dir/NAME.key. Letters, digits, - and _.",
        form="name",
        restart=True,
        derived="a, b, c … by position",
        example='"a"',
    )
    address: str = key(
        "0.0.0.0", "IPv4 address to bind; 0.0.0.0 is every address of the machine.", form="ipv4", restart=True
    )
    port: int = key(
        0,
        "Main UDP port, the one that applications list.",
        low=1,
        high=65535,
        restart=True,
        derived="3511 plus the position",
        example="3511",
    )
    probe_port: int = key(
        0,
        "Second UDP port: peers learn from it how their own firewall works.",
        low=1,
        high=65535,
        restart=True,
        derived="port + 2",
        example="3513",
    )
    advertise: str = key(
        "auto",
        "IPv4 address that other peers are told. auto takes the bound address, or the one that the default route uses; "
        "behind a 1:1 NAT give the public one.",
        form="advertise",
    )
    nat: str = key(
        "static",
        "static: everybody can reach this node. auto: find out by reflection through other indexed peers.",
        choices=("static", "auto"),
        restart=True,
    )


@dataclass(slots=True)
class Peer:
    """Another indexed peer to know from the start."""

    address: str = key("", "Its IPv4 address.", form="ipv4", required=True, restart=True, example='"203.0.113.9"')
    port: int = key(0, "Its main UDP port.", low=1, high=65535, required=True, restart=True, example="3511")
    peer_id: str = key(
        "",
        "Its peerId, 64 hexadecimal digits; `srpnode info` prints it there.",
        form="peer_id",
        required=True,
        restart=True,
        example='"' + "0123456789abcdef" * 4 + '"',
    )


@dataclass(slots=True)
class Cache:
    """Published packets that are stored and forwarded, in memory only, per identity."""

    max_bytes: int = key(
        16_000_000, "Memory for stored packets.", low=65_536, high=64_000_000_000, unit="bytes", restart=True
    )
    ttl: int = key(
        21_600,
        "Longest time that a packet is kept; it may ask for less.",
        low=1,
        high=604_800,
        unit="seconds",
        restart=True,
    )


@dataclass(slots=True)
class Limits:
    """Sizes of tables and rates, per identity. 0 switches a rate limit off; a table always has a size."""

    peers: int = size(100_000, "Known peers.", 16, 1_000_000)
    peers_per_address: int = rate(4_096, "Known peers behind one IPv4 address (a carrier's NAT has many).")
    peers_per_prefix: int = rate(16_384, "Known peers in one /24.")
    gate_entries: int = size(262_144, "Packet ids remembered, so that a packet is handled once.", 1_024, 100_000_000)
    parked: int = size(
        1_024, "Joins and connection pings that wait for their sender's proof of address.", 16, 1_000_000
    )
    return_routes: int = size(16_384, "Queries whose answers find their way back.", 16, 10_000_000)
    sync_jobs: int = size(256, "Cache synchronisations served at the same time.", 1, 65_535)
    sync_per_minute: int = rate(
        512,
        "Stored packets sent to one peer by synchronisation, and half as many of clusters that are not its own. A peer drops "
        "what is above its replicated_per_minute, live packets too.",
    )
    sync_summaries_per_minute: int = rate(2_048, "Summaries of the cache sent to one peer.")
    queue_datagrams: int = size(16_384, "Output queue: datagrams that one batch may cause.", 1_024, 1_000_000)
    replicated_per_minute: int = rate(1_024, "Packets that are passed on (publish and join) from one endpoint.")
    control_per_minute: int = rate(1_048_576, "All other packets from one endpoint.")
    address_per_minute: int = rate(4_194_304, "Packets from one IPv4 address.")
    prefix_per_minute: int = rate(16_777_216, "Packets from one /24.")
    introductions: int = key(16, "Peers introduced to the sender of one join.", low=1, high=64)
    introductions_per_minute: int = rate(
        600, "Introductions that one peer takes part in, a sixteenth of them with peers of other clusters."
    )
    relayed_joins_per_minute: int = rate(60, "Joins that others relayed to us, passed on towards one /24.")
    deferred_joins_per_peer: int = rate(64, "Joins that one peer has wait here, to be passed on or echoed.")
    unproven_per_second: int = rate(
        40_000,
        "Pings and joins answered to endpoints whose address is not proven yet, in total. Three eighths are for all "
        "of them, one for those not answered lately, one for those refused a moment ago, two for those refused three times, "
        "one for addresses where another endpoint is proven. When the receive buffer fills or the node works more than half "
        "of the time, fewer, down to a thirty-second of it; more again when not.",
    )
    bandwidth_out_bytes_per_second: int = rate(
        0, "UDP payload sent; what is above is dropped and counted.", 100_000_000_000, "bytes per second"
    )
    peer_out_bytes_per_second: int = rate(0, "UDP payload sent to one peer.", 4_000_000_000, "bytes per second")
    publish_fan_out: int = key(
        108, "Members of a subcluster that a published packet is sent to, those heard last first.", low=3, high=120
    )
    fan_out_packets_per_second: int = rate(
        5_000, "Published packets sent in that way; beyond it each goes to three members, as from every peer."
    )
    carried_per_minute: int = rate(
        120,
        "Packets handed to peers outside their cluster, because few are known that are in it, or by synchronisation, and as "
        "many joins: these carry them on to all that they know. Half is for endpoints that publish and join little.",
    )
    privileged_ports: bool = key(False, "Send to ports below 1024 that another peer told us.")
    kernel_filter: str = key(
        "auto",
        "Have the kernel drop what is no packet (no magic, or too short) before it takes a place in the receive buffer. "
        "What it drops is counted together with what found the buffer full: in_kernel_drops, and no reason is told. "
        "auto: while a flood of it makes the buffer run over, until a minute after.",
        choices=("auto", "on", "off"),
        core=False,
    )
    kept_peers: int = key(
        1_000,
        "Peers of each identity that state_dir/NAME.peers remembers: those heard last, pinged after a restart.",
        low=0,
        high=20_000,
        zero="none",
        core=False,
    )
    volume_bytes_per_month: int = key(
        0,
        "UDP payload of all identities in a calendar month (UTC), both ways.",
        low=0,
        high=10**15,
        unit="bytes",
        core=False,
    )
    volume_warn_percent: int = key(
        80, "Share of the month's volume that is worth a warning.", low=1, high=100, core=False
    )
    volume_action: str = key(
        "warn",
        "When it is used up: warn only; throttle each identity to 16 KiB a second; refuse all packets.",
        choices=("warn", "throttle", "refuse"),
        core=False,
    )


@dataclass(slots=True)
class Access:
    """Who is served. An empty allow list allows everybody; deny wins over allow."""

    allow_clusters: list[str] = field(
        default_factory=list, metadata=about("Only these clusters: ids of 64 hexadecimal digits.", form="cluster")
    )
    deny_clusters: list[str] = field(default_factory=list, metadata=about("None of these clusters.", form="cluster"))
    allow_prefixes: list[str] = field(
        default_factory=list,
        metadata=about("Only sources in these IPv4 prefixes, such as 198.51.100.0/24.", form="prefix"),
    )
    deny_prefixes: list[str] = field(
        default_factory=list, metadata=about("No source in these IPv4 prefixes.", form="prefix")
    )


@dataclass(slots=True)
class Metrics:
    """Figures for Prometheus."""

    listen: str = key(
        "127.0.0.1:9511",
        'TCP address and port of the text page /metrics; "" switches it off.',
        form="listen",
        restart=True,
    )


@dataclass(slots=True)
class Control:
    """Where `srpnode status`, `peers`, `top`, `reload` and `doctor` find the running node."""

    socket: str = key(DEFAULT_SOCKET, "Unix socket, mode 0660.", form="socket", restart=True)


@dataclass(slots=True)
class Log:
    """What is told, to the journal or to a terminal."""

    level: str = key("info", "Least severity that is told.", choices=("debug", "info", "warning", "error"))
    addresses: str = key(
        "full",
        "How addresses of peers appear: full; prefix, the /24; hash, keyed anew at every start; none.",
        choices=("full", "prefix", "hash", "none"),
    )


@dataclass(slots=True)
class Config:
    """The whole file. Times in seconds, sizes in bytes, as each key says."""

    state_dir: str = key(
        DEFAULT_STATE_DIR, "Directory of identity keys and known peers; never a packet.", form="path", restart=True
    )
    keep_alive: float = key(
        30.0,
        "How often each known peer is pinged; after four of them without a sign of life a peer is forgotten.",
        low=0.1,
        high=3_600,
        unit="seconds",
        restart=True,
    )
    listen: list[Listen] = field(default_factory=list)
    peer: list[Peer] = field(default_factory=list)
    cache: Cache = field(default_factory=Cache)
    limits: Limits = field(default_factory=Limits)
    access: Access = field(default_factory=Access)
    metrics: Metrics = field(default_factory=Metrics)
    control: Control = field(default_factory=Control)
    log: Log = field(default_factory=Log)


TABLES: dict[str, type] = {
    "cache": Cache,
    "limits": Limits,
    "access": Access,
    "metrics": Metrics,
    "control": Control,
    "log": Log,
}
ARRAYS: dict[str, type] = {"listen": Listen, "peer": Peer}
LISTEN_MAX = 16  # identities of one process: each is a thread


def default_listen() -> list[Listen]:
    """The two identities that a configuration without [[listen]] has."""
    return [complete(Listen(), position) for position in range(2)]


def complete(listen: Listen, position: int) -> Listen:
    """Fills in what follows from the position in the file (0, 1, …); changes and returns `listen`."""
    listen.name = listen.name or chr(ord("a") + position)
    listen.port = listen.port or 3511 + position
    listen.probe_port = listen.probe_port or min(listen.port + 2, 65535)
    return listen


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as validation and documentation see it."""

    name: str
    kind: type  # int, float, str, bool or list (of strings)
    default: Any
    known: Key


def entries(table: type) -> Iterator[Entry]:
    """The keys of one dataclass above, in the order of the file. Tables inside it are left out."""
    hints = get_type_hints(table)
    for item in dataclasses.fields(table):
        if "key" not in item.metadata:
            continue
        hint = hints[item.name]
        default = item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
        yield Entry(item.name, get_origin(hint) or hint, default, item.metadata["key"])


def array_type(name: str) -> type:
    """The dataclass behind [[name]]."""
    (inner,) = get_args(get_type_hints(Config)[name])
    assert isinstance(inner, type)
    return inner


def toml_value(value: Any) -> str:
    """TOML text of a scalar or a list of strings; big integers with _ between thousands."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:_}" if value >= 10_000 else str(value)
    if isinstance(value, float):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _remarks(entry: Entry) -> str:
    """Range, unit and what a change needs, in one bracket."""
    known, parts = entry.known, []
    if known.choices:
        parts.append(" or ".join((", ".join(known.choices[:-1]), known.choices[-1])))
    if known.low is not None and known.high is not None:
        zero = f"0 = {known.zero}, else up to {number(known.high)}"
        parts.append(zero if known.low == 0 else f"{number(known.low)} to {number(known.high)}")
    if known.unit:
        parts.append(known.unit)
    if known.required:
        parts.append("required")
    if known.derived:
        parts.append("default: " + known.derived)
    if known.restart:
        parts.append("a change needs a restart")
    return f" ({'; '.join(parts)})" if parts else ""


def number(value: float) -> str:
    """A number for people: _ between the thousands of a big one."""
    return f"{value:_}" if value >= 100_000 else str(value)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 118, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _assignments(table: type, values: Any = None, explain: bool = True) -> Iterator[str]:
    for entry in entries(table):
        if explain:
            yield from _comment(entry.known.doc + _remarks(entry))
        value = entry.default if values is None else getattr(values, entry.name)
        text = entry.known.example if values is None and entry.known.example else toml_value(value)
        yield f"#{entry.name} = {text}"


def configuration_text() -> str:
    """conf/srpnode.toml: every key with its default, commented out and explained; it means the same without these #."""
    lines = [
        "# Configuration of srpnode. Every key is shown with its default: remove the # before it to change it.",
        "# `srpnode check` validates this file, `systemctl reload srpnode` applies it to the running node.",
        f"# Files {DEFAULT_FILE}.d/*.toml are read after it, in the order of their names: a later value wins,",
        "# a later [[listen]] or [[peer]] replaces all earlier ones of its kind. See also srpnode.toml(5).",
        "",
    ]
    lines += [*_assignments(Config), ""]
    first, second = default_listen()
    lines += [*_comment(_doc(Listen)), "#[[listen]]", *_assignments(Listen, first), "", "#[[listen]]"]
    lines += [*_assignments(Listen, second, explain=False), ""]
    lines += [*_comment(_doc(Peer) + " None by default; an example:"), "##[[peer]]"]
    lines += ["#" + line if line.startswith("#") and not line.startswith("# ") else line for line in _assignments(Peer)]
    for name, table in TABLES.items():
        lines += ["", *_comment(_doc(table)), f"[{name}]", *_assignments(table)]
    return "\n".join(lines) + "\n"


def _doc(table: type) -> str:
    return " ".join((table.__doc__ or "").split())


def _roff(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...").replace('"', "\\(dq")
    return "\\&" + text if text.startswith((".", "'")) else text


def man_page(version: str) -> str:
    """The man page srpnode.toml(5)."""
    out = [
        f'.TH SRPNODE.TOML 5 "" "srpnode {version}" "File formats"',
        ".SH NAME",
        "srpnode.toml \\- configuration of srpnode",
        ".SH SYNOPSIS",
        f".I {_roff(DEFAULT_FILE)}",
        ".br",
        f".I {_roff(DEFAULT_FILE + '.d/*.toml')}",
        ".SH DESCRIPTION",
        "A TOML file. Every key is optional unless it says otherwise; an unknown key is an error.",
        "Files of the directory are read after the main file, in the order of their names.",
        "A later value wins; a later [[listen]] or [[peer]] replaces all earlier ones of its kind.",
        ".PP",
        "Errors are reported one a line as",
        ".IR FILE:LINE:\\ key:\\ reason .",
        ".SH KEYS OUTSIDE OF TABLES",
        *_man_keys(Config),
    ]
    for name, table in ARRAYS.items():
        out += [f'.SH "[[{name}]]"', _roff(_doc(table)), *_man_keys(table)]
    for name, table in TABLES.items():
        out += [f'.SH "[{name}]"', _roff(_doc(table)), *_man_keys(table)]
    out += [".SH SEE ALSO", ".BR srpnode (8)"]
    return "\n".join(out) + "\n"


def _man_keys(table: type) -> Iterator[str]:
    for entry in entries(table):
        known = entry.known
        default = "" if known.required or known.derived else " = " + toml_value(entry.default)
        yield ".TP"
        yield f".B {_roff(entry.name + default)}"
        yield _roff(known.doc + _remarks(entry))


def main(configuration_file: str, man_file: str) -> None:
    """Writes both texts (make conf)."""
    for path, text in ((configuration_file, configuration_text()), (man_file, man_page(__version__))):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
