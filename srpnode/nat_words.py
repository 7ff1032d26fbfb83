"""NAT types in words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """A type's name, and its two halves."""

    name: str
    mapping: str
    firewall: str
    means: str


MAPPINGS = {3: "the same for all peers", 1: "another for each peer"}
FIREWALLS = {
    28: "lets anybody in",
    12: "lets in whom we have written to, from any of their ports",
    4: "lets in only the address and port that we have written to",
}
NAMES = {
    31: ("static", "everybody can reach us; we can introduce others and be their proxy"),
    15: ("easy, address-restricted", "peers reach us when we write to their address first: an introduction is enough"),
    7: (
        "easy, port-restricted",
        "peers reach us when both sides write first: an introduction is enough, with a hard peer a second of trying",
    ),
    5: (
        "hard, symmetric",
        "a new port for every peer: with easy peers a second of trying, other hard peers are reached by proxy",
    ),
}
ONE_ADDRESS = (
    "both peers have one address: an address-restricted NAT looks like an open one (15 like 31). "
    "Name a second peer at another address"
)
TWO_ADDRESSES = "the two peers see different addresses of ours: several ways out, or a NAT with a pool of addresses"


def describe(nat_type: int) -> Words:
    """The words for a type; 13 and 29 are kinds of hard NAT that hardly exist."""
    name, means = NAMES.get(nat_type, ("hard" if nat_type & 3 == 1 else "unknown", NAMES[5][1]))
    return Words(name, MAPPINGS.get(nat_type & 3, "unknown"), FIREWALLS.get(nat_type & 28, "unknown"), means)
