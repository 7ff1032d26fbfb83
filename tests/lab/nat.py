"""The kinds of NAT, as nftables rules for a router with an interface `lan` inside and `wan` outside.

Every kind drops what comes to the router itself from outside (chain `in`). Without that an unsolicited datagram leaves
a conntrack entry of the router's own, and the later punch from inside to that endpoint loses its port.
"""

from dataclasses import dataclass
from enum import StrEnum

LAN = "192.168.1.0/24"  # the same behind every router, as in real homes


class NatKind(StrEnum):
    """What stands between a host and the internet."""

    NONE = "none"
    FULL_CONE = "full-cone"
    ADDRESS_RESTRICTED = "address-restricted"
    PORT_RESTRICTED = "port-restricted"
    SYMMETRIC = "symmetric"
    DOUBLE = "double"  # a port-restricted router behind a port-restricted one of the provider


# What a peer behind it has to discover (with two introducers on two addresses).
NAT_TYPE = {
    NatKind.NONE: 31,
    NatKind.FULL_CONE: 31,
    NatKind.ADDRESS_RESTRICTED: 15,
    NatKind.PORT_RESTRICTED: 7,
    NatKind.SYMMETRIC: 5,
    NatKind.DOUBLE: 7,
}


@dataclass(frozen=True)
class NatOptions:
    """How a router departs from the plain kind.

    hairpin: a host inside reaches another one inside through the outside address.
    unreplied_timeout_s, replied_timeout_s: life of an idle mapping before and after an answer passed.
    """

    hairpin: bool = False
    unreplied_timeout_s: int = 30
    replied_timeout_s: int = 120


def rules(kind: NatKind, wan_address: str, options: NatOptions) -> str:
    """The rules of one router. NONE has no router, DOUBLE is two routers: both are errors here.

    A mapping that ignores the remote side cannot be said with conntrack alone: `cone` remembers which host inside uses
    an outside port (hosts of one router must use distinct ports), `seen` whom that port has sent to. Hairpinned
    datagrams pass unfiltered, as in most routers that do it at all.
    """
    if kind in (NatKind.NONE, NatKind.DOUBLE):
        raise ValueError(f"{kind} is not one router")
    if kind is NatKind.SYMMETRIC and options.hairpin:
        raise ValueError("a symmetric router has no outside port that a neighbour could use")
    life = f"flags dynamic,timeout; timeout {options.replied_timeout_s}s;"
    to_cone = "dnat to udp dport map @cone"
    tables, track, pre, post = [], [], [], []
    if kind in (NatKind.FULL_CONE, NatKind.ADDRESS_RESTRICTED) or options.hairpin:
        tables.append(f"map cone {{ type inet_service : ipv4_addr; {life} }}")
        track.append("update @cone { udp sport : ip saddr }")
    if kind is NatKind.FULL_CONE:
        pre.append(f'iifname "wan" ip daddr {wan_address} meta l4proto udp {to_cone}')
    if kind is NatKind.ADDRESS_RESTRICTED:
        tables.append(f"set seen {{ type ipv4_addr . inet_service; {life} }}")
        track.append("update @seen { ip daddr . udp sport }")
        pre.append(f'iifname "wan" ip daddr {wan_address} meta l4proto udp ip saddr . udp dport @seen {to_cone}')
    if options.hairpin:
        pre.append(f'iifname "lan" ip daddr {wan_address} meta l4proto udp {to_cone}')
        post.append(f"ip saddr {LAN} ip daddr {LAN} ct status dnat snat to {wan_address}")
    post.append(f'oifname "wan" masquerade{" random" if kind is NatKind.SYMMETRIC else ""}')
    lines = ["table ip nat {", *tables]
    lines += ["chain in {", "type filter hook input priority filter", 'iifname "wan" drop']
    lines += [f"ip daddr {wan_address} drop", "}"]
    lines += ["chain track {", "type filter hook forward priority 0"]
    lines += [f'iifname "lan" oifname "wan" meta l4proto udp {statement}' for statement in track]
    lines += ["}", "chain pre {", "type nat hook prerouting priority dstnat", *pre, "}"]
    lines += ["chain post {", "type nat hook postrouting priority srcnat", *post, "}", "}"]
    return "\n".join(lines) + "\n"


def loss_rules(per_mille: int) -> str:
    """Rules of a bridge that loses this many of every thousand UDP datagrams that cross it, at random."""
    if not 0 <= per_mille <= 1000:
        raise ValueError(f"loss of {per_mille} in a thousand")
    if not per_mille:
        return ""
    drop = f"ether type ip ip protocol udp numgen random mod 1000 < {per_mille} counter drop"
    return f"table bridge loss {{\nchain forward {{\ntype filter hook forward priority 0\n{drop}\n}}\n}}\n"


def parted_rules(one: str, other: str) -> str:
    """Rules of a bridge that lets nothing pass between two addresses."""
    drops = "\n".join(f"ether type ip ip saddr {a} ip daddr {b} drop" for a, b in ((one, other), (other, one)))
    return f"table bridge parted {{\nchain forward {{\ntype filter hook forward priority 0\n{drops}\n}}\n}}\n"
