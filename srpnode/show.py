"""Status and peers of a running node, as text for people."""

import textwrap
from collections.abc import Iterator
from typing import Any

from srpnode.info import NAT_NAMES

TRAFFIC = ("in_datagrams", "in_bytes", "out_datagrams", "out_bytes")  # shown on a line of their own


def duration(seconds: float) -> str:
    """1 d 3 h, 5 min, 12 s: two units at most."""
    left = int(seconds)
    parts = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if left >= size:
            parts.append(f"{left // size} {unit}")
            left %= size
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(parts) or "0 s"


def amount(number: float, unit: str = "") -> str:
    """12 345 as 12.3 k: four characters or so."""
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= limit:
            scale = limit / 10 if letter == "k" else limit
            return f"{number / scale:.1f} {letter}{unit}"
    return f"{number:.0f}{' ' + unit if unit else ''}"


def status(figures: dict[str, Any]) -> str:
    """The text of `srpnode status`."""
    return "\n".join(_status(figures))


def _status(figures: dict[str, Any]) -> Iterator[str]:
    yield f"srpnode {figures['version']}, process {figures['pid']}, up {duration(figures['uptime'])}"
    for identity in figures["identities"]:
        yield ""
        yield (
            f"{identity['name']}  {identity['address']}:{identity['port']}  probe port {identity['probePort']}  "
            f"peerId {identity['peerId']}  NAT {NAT_NAMES.get(identity['natType'], 'unknown')}"
        )
        peers, cache = identity["peers"], identity["cache"]
        yield "  peers     " + ", ".join(f"{value} {name}" for name, value in peers.items())
        yield (
            f"  cache     {cache['packets']} packets, {amount(cache['bytes'], 'B')} of "
            f"{amount(cache['max_bytes'], 'B')}, {cache['clusters']} clusters"
        )
        strangers = identity["strangersPerSecond"]
        yield f"  strangers {f'{amount(strangers)} a second' if strangers else 'any number'}"
        if identity["filter"] != "off":
            yield f"  filter    in the kernel, {identity['filter']}"
        udp = identity["udp"]
        yield (
            f"  traffic   in {amount(udp['in_datagrams'])} datagrams, {amount(udp['in_bytes'], 'B')}; "
            f"out {amount(udp['out_datagrams'])} datagrams, {amount(udp['out_bytes'], 'B')}"
        )
        for title, part in (("received", "received"), ("sent", "sent"), ("dropped", "drops"), ("did", "events")):
            named = [(name, value) for name, value in identity[part].items() if value and name not in TRAFFIC]
            named.sort(key=lambda item: -item[1])
            text = ", ".join(f"{name} {amount(value)}" for name, value in named) or "nothing"
            yield from _wrapped(f"  {title:<9} ", text)


def _wrapped(head: str, text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, 118, initial_indent=head, subsequent_indent=" " * len(head))


def peers(rows: list[dict[str, Any]]) -> str:
    """The text of `srpnode peers`."""
    head = ("IDENTITY", "ADDRESS", "PEER", "NAT", "STATE", "DISTANCE", "SEEN", "CLUSTERS")
    table = [head, *(_peer(row) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table
    )


def _peer(row: dict[str, Any]) -> tuple[str, ...]:
    states = [name for name in ("indexed", "connected", "proven") if row.get(name)]
    distance = row.get("distance")
    return (
        str(row["identity"]),
        f"{row['address']}:{row['port']}",
        (row.get("peerId") or "-")[:16],
        str(row.get("natType") or "-"),
        ",".join(states) or "-",
        "-" if distance is None else f"{distance} ms",
        duration(row.get("age") or 0),
        " ".join(row.get("clusters") or ["-"]),
    )
