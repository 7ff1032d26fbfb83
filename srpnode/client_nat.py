"""The command `srpnode nat`: how the network sees us, what that means, and who said so."""

from __future__ import annotations

import argparse
from typing import Any

from srpnode import nat_words
from srpnode.client import ClientError, Clock, show
from srpnode.crypto import Encryption
from srpnode.find import find_peers
from srpnode.peer import Info, network


async def nat(options: argparse.Namespace) -> int:
    """Discovers the NAT as every peer does. Raises NetworkError, ClientError."""
    clock = Clock(options.timeout)
    via = options.via or _configured(options)
    peers = await find_peers(via, clock.left_s())
    if len(peers) < 2:
        raise ClientError("two different peers are needed: name a second one with --via HOST:PORT")
    async with await network(cluster_id=Encryption.create_cluster_id(), peers=peers) as net:
        info = await net.ready(clock.left_s())
    said = findings(info)
    show(options, said, text(said))
    return 0


def _configured(options: argparse.Namespace) -> list[tuple[str, int]]:
    """The other nodes that this machine's own node is told of."""
    from srpnode import config

    try:
        peers = config.load(None).config.peer
    except config.ConfigError as error:
        raise ClientError(str(error)) from None
    if len(peers) < 2:
        raise ClientError("who shall say so? Name two peers with --via HOST:PORT, best at different addresses")
    return [(str(peer.address), peer.port) for peer in peers]


def findings(info: Info) -> dict[str, Any]:
    """What was found out, as JSON."""
    words = nat_words.describe(info.nat_type)
    warnings = []
    if len({reflector.peer[0] for reflector in info.reflectors}) == 1:
        warnings.append(nat_words.ONE_ADDRESS)
    if len({reflector.seen[0] for reflector in info.reflectors}) > 1:
        warnings.append(nat_words.TWO_ADDRESSES)
    return {
        "natType": info.nat_type,
        "name": words.name,
        "mapping": words.mapping,
        "firewall": words.firewall,
        "means": words.means,
        "address": info.address,
        "port": info.port,
        "saidBy": [
            {
                "peer": f"{reflector.peer[0]}:{reflector.peer[1]}",
                "sees": f"{reflector.seen[0]}:{reflector.seen[1]}",
                "knocked": reflector.knocked,
            }
            for reflector in info.reflectors
        ],
        "warnings": warnings,
    }


def text(said: dict[str, Any]) -> str:
    """The same for people."""
    lines = [
        f"type      {said['natType']}, {said['name']}",
        f"mapping   {said['mapping']}",
        f"firewall  {said['firewall']}",
        f"address   {said['address']}:{said['port']}",
        f"means     {said['means']}",
    ]
    for each in said["saidBy"]:
        knock = "its second socket reached us" if each["knocked"] else "its second socket did not reach us"
        lines.append(f"said by   {each['peer']}: sees us at {each['sees']}, {knock}")
    return "\n".join(lines + [f"warning   {warning}" for warning in said["warnings"]])
