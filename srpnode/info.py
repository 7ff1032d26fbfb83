"""What applications need to know of this node: address, port and peerId of each identity."""

import json
from typing import Any

from srpnode import identity, interfaces
from srpnode.control import ControlError, connect
from srpnode.schema import Config, Listen

NAT_UNRESTRICTED = 31
NAT_NAMES = {31: "unrestricted", 15: "address-restricted", 7: "port-restricted", 5: "symmetric", 0: "unknown"}


class InfoError(Exception):
    """The identities cannot be told; the text says why."""


def entry(listen: Listen, address: str, peer_id: bytes, nat_type: int = NAT_UNRESTRICTED) -> dict[str, Any]:
    """One identity as an application lists it. An indexed peer counts as unrestricted unless it found out otherwise."""
    return {
        "name": listen.name,
        "address": address,
        "port": listen.port,
        "probePort": listen.probe_port,
        "peerId": peer_id.hex(),
        "natType": nat_type,
        "indexed": True,
    }


def collect(config: Config) -> tuple[list[dict[str, Any]], list[str]]:
    """(entries, remarks for the operator): of the running node if there is one, else from configuration and keys, which
    are made when they do not exist yet. Raises InfoError."""
    try:
        client = connect(config, 2.0)
        try:
            entries: list[dict[str, Any]] = client.ask("info")
        finally:
            client.close()
    except ControlError:
        try:
            identity.prepare(config.state_dir)
            keys = [identity.load_or_make(config.state_dir, listen.name) for listen in config.listen]
        except identity.StateError as error:
            raise InfoError(str(error)) from None
        snapshot = interfaces.snapshot()
        entries = [
            entry(listen, snapshot.advertised(listen), key.peer_id)
            for listen, key in zip(config.listen, keys, strict=True)
        ]
    return entries, remarks(entries)


def remarks(entries: list[dict[str, Any]]) -> list[str]:
    """What an operator should know before pasting these entries."""
    private = sorted({item["address"] for item in entries if interfaces.is_private(item["address"])})
    if not private:
        return []
    return [
        f"{', '.join(private)} cannot be reached from the Internet; "
        "behind a 1:1 NAT set advertise to the public address"
    ]


def text(entries: list[dict[str, Any]]) -> str:
    """The entries for people: one line each, valid JSON as a whole, ready to paste."""
    return "[\n" + ",\n".join("  " + json.dumps(item) for item in entries) + "\n]"
