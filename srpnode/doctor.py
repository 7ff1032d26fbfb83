"""`srpnode doctor`: is the node reachable, how do others see it, is the system in its way? With remedies."""

import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from srpnode import config as configuration
from srpnode import interfaces, ping
from srpnode.control import ControlError, connect
from srpnode.core import codec
from srpnode.schema import Config

FINE, WARNING, BAD = "fine", "warning", "bad"
RECEIVE_BUFFER_BYTES = 8 << 20
KNOCKS = 3
FILL = bytes(32)
KNOCK_WAIT_S = 1.5
FREE_DISK_BYTES = 16 << 20
CONNTRACK_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `remedy` is a command or an edit, empty when all is fine."""

    check: str
    state: str
    text: str
    remedy: str = ""


def examine(path: str | None, via: list[tuple[str, int]]) -> list[dict[str, str]]:
    """All findings, as dictionaries. `via`: peers that look at us from outside; the configured ones by default."""
    try:
        config = configuration.load(path).config
    except configuration.ConfigError as error:
        return [asdict(Finding("configuration", BAD, problem, "edit that line")) for problem in error.problems]
    findings = [Finding("configuration", FINE, "valid")]
    status: dict[str, Any] | None = None
    try:
        client = connect(config, 5.0)
        try:
            status = client.ask("status")
        finally:
            client.close()
        findings.append(Finding("node", FINE, f"runs as process {status['pid']}"))
    except ControlError as error:
        findings.append(Finding("node", BAD, str(error), "systemctl start srpnode; journalctl -u srpnode"))
    findings += _system(config)
    if status is not None:
        findings += _running(status)
        others = via or [(peer.address, peer.port) for peer in config.peer]
        try:
            findings += _outside(config, status, others)
        except ControlError as error:
            findings.append(Finding("node", BAD, str(error), "journalctl -u srpnode"))
    return [asdict(finding) for finding in findings]


def _system(config: Config) -> Iterator[Finding]:
    rmem = _number("/proc/sys/net/core/rmem_max")
    if rmem is not None and rmem < RECEIVE_BUFFER_BYTES:
        yield Finding(
            "receive buffer",
            WARNING,
            f"net.core.rmem_max is {rmem}: bursts of datagrams are lost",
            f"sysctl -w net.core.rmem_max={2 * RECEIVE_BUFFER_BYTES} (lasting: a file in /etc/sysctl.d), then restart",
        )
    elif rmem is not None:
        yield Finding("receive buffer", FINE, f"net.core.rmem_max is {rmem}")
    count = _number("/proc/sys/net/netfilter/nf_conntrack_count")
    most = _number("/proc/sys/net/netfilter/nf_conntrack_max")
    if count is not None and most:
        if count > CONNTRACK_SHARE * most:
            yield Finding(
                "connection tracking",
                BAD,
                f"{count} of {most} entries are in use: a full table drops datagrams of new peers",
                "exempt the ports: `notrack` for their udp in a raw prerouting chain of nftables, or raise "
                "net.netfilter.nf_conntrack_max",
            )
        else:
            yield Finding("connection tracking", FINE, f"{count} of {most} entries are in use")
    try:
        free = shutil.disk_usage(config.state_dir).free
    except OSError as error:
        yield Finding(
            "state directory", BAD, f"{config.state_dir}: {error.strerror}", "start the node once, as its user"
        )
    else:
        if free < FREE_DISK_BYTES:
            yield Finding("state directory", WARNING, f"{config.state_dir}: {free} bytes free", "make room on the disk")
        else:
            yield Finding("state directory", FINE, f"{config.state_dir}: enough room")


def _number(path: str) -> int | None:
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _running(status: dict[str, Any]) -> Iterator[Finding]:
    for identity in status["identities"]:
        name, udp, drops = identity["name"], identity["udp"], identity["drops"]
        lost = udp.get("in_kernel_drops_now", 0)
        if lost and identity["filter"] == "on":
            yield Finding(
                f"{name}: kernel drops", FINE, f"{lost}, what the filter dropped among them; an overrun is told in the journal"
            )
        elif lost:
            yield Finding(
                f"{name}: kernel drops",
                WARNING,
                f"{lost} datagrams were lost before the node could read them",
                "raise net.core.rmem_max and restart; if they still grow, the machine is too slow",
            )
        else:
            yield Finding(f"{name}: kernel drops", FINE, "none")
        failed = sum(count for key, count in udp.items() if key.startswith("out_drop_"))
        if udp.get("out_drop_forbidden", 0):
            yield Finding(
                f"{name}: sending",
                BAD,
                f"{udp['out_drop_forbidden']} datagrams were forbidden on their way out",
                "let udp out in the firewall of this machine: nft list ruleset",
            )
        elif failed:
            yield Finding(
                f"{name}: sending", WARNING, f"{failed} datagrams could not be sent", "srpnode status --json: udp"
            )
        limited = sum(count for key, count in drops.items() if key.startswith("rate_") or key == "bandwidth")
        if limited:
            yield Finding(
                f"{name}: limits",
                WARNING,
                f"{limited} packets were above a limit",
                "srpnode top shows which; [limits] of /etc/srpnode.toml, or srpnode block for a single source",
            )
        refused = [key for key, on in identity["features"].items() if not on]
        if refused:
            yield Finding(f"{name}: kernel", FINE, f"works without {', '.join(refused)}")


def _outside(config: Config, status: dict[str, Any], others: list[tuple[str, int]]) -> Iterator[Finding]:
    """How it looks from other peers."""
    if not others:
        yield Finding(
            "reachable",
            WARNING,
            "nobody outside can be asked",
            "srpnode doctor --via HOST:PORT with any other indexed peer, or list some as [[peer]]",
        )
        return
    seen: dict[str, str] = {}
    for other in others:
        try:
            result = ping.ping(other, 1, None)
        except ping.PingError as error:
            yield Finding(f"peer {other[0]}:{other[1]}", WARNING, str(error), "check its address")
            continue
        if not result["received"]:
            yield Finding(
                f"peer {other[0]}:{other[1]}", WARNING, "does not answer", "check its address and our firewall"
            )
        elif result["seenAs"]:
            seen[f"{other[0]}:{other[1]}"] = result["seenAs"].rpartition(":")[0]
    if not seen:
        yield Finding("reachable", BAD, "no other peer answered", "let udp out and its answers in: nft list ruleset")
        return
    for identity in status["identities"]:
        yield from _address(identity, seen)
        yield _knock(config, identity, others[0])


def _address(identity: dict[str, Any], seen: dict[str, str]) -> Iterator[Finding]:
    name, advertised = identity["name"], identity["address"]
    views = sorted(set(seen.values()))
    if len(views) > 1:
        yield Finding(
            f"{name}: address",
            BAD,
            f"peers see different addresses of this machine: {', '.join(views)}",
            "several ways out, or a NAT with several addresses: bind [[listen]] address to one of them",
        )
    elif views[0] == advertised:
        yield Finding(f"{name}: address", FINE, f"{advertised}, as others see it")
    elif interfaces.is_private(views[0]) and not interfaces.is_private(advertised):
        yield Finding(f"{name}: address", FINE, f"{advertised}; the peers asked are inside our own network")
    else:
        yield Finding(
            f"{name}: address",
            BAD,
            f"advertised as {advertised}, but others see {views[0]}",
            f'set advertise = "{views[0]}" in its [[listen]], then systemctl reload srpnode',
        )


def _knock(config: Config, identity: dict[str, Any], other: tuple[str, int]) -> Finding:
    """Has another peer send to our main port from a port that we never talked to: its probe socket's second pong.

    The node drops these pongs, nobody asked for them there, and counts them: that is how we know that they arrived.
    """
    name, port = f"{identity['name']}: reachable", identity["port"]
    before = _unasked(config, identity["name"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(KNOCKS):
            text = codec.write_message(
                codec.PING,
                {
                    "requesterPeerId": secrets.token_hex(32),
                    "probeExternalPort": port,
                    "reflectionId": secrets.token_hex(6),
                    "isReflection": True,
                },
            )
            try:
                # Filled up: a peer sends a stranger at most three bytes for each of ours, and two pongs are wanted.
                sock.sendto(codec.encode(codec.PING, message=text, usr3=FILL, usr4=FILL, sig=2 * FILL), other)
            except OSError as error:
                return Finding(name, WARNING, f"{other[0]}:{other[1]}: {error.strerror}", "check its address")
            time.sleep(KNOCK_WAIT_S / KNOCKS)
    arrived = _unasked(config, identity["name"]) - before
    if arrived >= 1:
        return Finding(name, FINE, f"udp port {port} hears {other[0]} from a port that it never talked to")
    return Finding(
        name,
        BAD,
        f"udp port {port} did not hear {other[0]} from a port that it never talked to",
        f"let udp {port} and {identity['probePort']} in: `ufw allow srpnode`, the provider's firewall, port forwarding",
    )


def _unasked(config: Config, name: str) -> int:
    client = connect(config, 5.0)
    try:
        status = client.ask("status")
    finally:
        client.close()
    return sum(
        int(identity["drops"].get("pong_unasked", 0)) for identity in status["identities"] if identity["name"] == name
    )


def text(findings: list[dict[str, str]], colour: bool) -> str:
    """The findings for people."""
    signs = {FINE: ("32", "fine   "), WARNING: ("33", "warning"), BAD: ("31", "bad    ")}
    lines = []
    for finding in findings:
        code, sign = signs[finding["state"]]
        shown = f"\x1b[{code}m{sign}\x1b[0m" if colour else sign
        lines.append(f"{shown}  {finding['check']}: {finding['text']}")
        if finding["remedy"]:
            lines.append(f"         -> {finding['remedy']}")
    return "\n".join(lines)


def use_colour() -> bool:
    """Whether standard output wants colours."""
    return os.isatty(1) and "NO_COLOR" not in os.environ
