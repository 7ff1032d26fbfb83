"""What several runs of one scenario say together: means with confidence intervals, and the text for people.

Definitions (docs/simulation.md explains them):
  reach        part of those who wanted a packet, were ready at its publication and did not leave before they had it
  strict       the same over all who were on or away, ready or not
  redundancy   copies of published packets received, less the first ones, per first one (relative message redundancy)
  packet bytes UDP payload of publish datagrams sent by all hosts, per packet and per subscriber
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from srpnode.sim.experiment import GRID_MS

Result = dict[str, Any]


def interval(values: Iterable[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % confidence interval (normal approximation, over runs)."""
    given = list(values)
    if not given:
        return float("nan"), 0.0
    mean = statistics.fmean(given)
    if len(given) < 2:
        return mean, 0.0
    return mean, 1.96 * statistics.stdev(given) / len(given) ** 0.5


def per_run(result: Result) -> dict[str, float]:
    """The figures of one run that are averaged over runs."""
    packets = result["packets_published"]
    traffic = result["traffic"]
    online = sum(traffic[name]["online_s"] for name in ("peers", "silent", "flooders")) or 1.0
    sent = sum(group["sent_bytes"] for group in traffic.values())
    packet_bytes = sum(group["packets_sent_bytes"] for group in traffic.values())
    first = sum(packet["delivered"] + packet["late"] for packet in packets)
    sizes = [size for size, _, _ in result["sizes"]]
    figures = {
        "size": statistics.fmean(sizes) if sizes else 0.0,
        "change_percent": 100 * (result["joins"] + result["leaves"]) / result["initial"],
        "bytes_per_peer_s": sent / online,
        "packet_bytes_per_peer_s": packet_bytes / online,
        "introducer_bytes_per_s": traffic["introducers"]["sent_bytes"] / (traffic["introducers"]["online_s"] or 1),
    }
    for row in result["away"]:
        name = f"{row['for_s']:g}"
        if row["wanted"]:
            figures[f"away_{name}_s"] = row["got"] / row["wanted"]
        if row["got"]:
            figures[f"away_{name}_s_half_after_s"] = row["half_after_s"]
            figures[f"away_{name}_s_last_after_s"] = row["last_after_s"]
    if packets:
        wanted = sum(packet["wanted"] for packet in packets) or 1
        hops = [sum(column) for column in zip(*(packet["hops"] for packet in packets), strict=True)]
        early = sum(packet["copies_sent_early"] * packet["bytes"] for packet in packets)
        figures |= {
            "reach_720_ms": statistics.fmean(packet["in_720_ms"] for packet in packets),
            "reach_720_ms_new": statistics.fmean(packet["in_720_ms_new"] for packet in packets),
            "reach_end_new": statistics.fmean(packet["in_watch_new"] for packet in packets),
            "reach_720_ms_strict": statistics.fmean(packet["in_720_ms_strict"] for packet in packets),
            "reach_end": statistics.fmean(packet["in_watch"] for packet in packets),
            "reach_end_strict": statistics.fmean(packet["in_watch_strict"] for packet in packets),
            "median_ms": statistics.fmean(packet["median_ms"] or 0.0 for packet in packets),
            "redundancy": sum(packet["copies_received"] for packet in packets) / first - 1 if first else 0.0,
            "copies_2s_per_subscriber": sum(packet["copies_sent_early"] for packet in packets) / wanted,
            "bytes_2s_per_subscriber": early / wanted,
            "hops": sum(i * n for i, n in enumerate(hops)) / (sum(hops) or 1),
            "hops_most": max(i for i, n in enumerate(hops) if n or i == 0),
            "copies_per_delivery": sum(packet["copies_sent"] for packet in packets) / first if first else 0.0,
        }
    return figures


def summarize(results: list[Result]) -> dict[str, tuple[float, float]]:
    """Each figure over the runs: mean and half width of the 95 % interval."""
    rows = [per_run(result) for result in results]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: interval(row[name] for row in rows if name in row) for name in names}


def curve(results: list[Result], kind: str = "ready") -> list[tuple[float, float, float]]:
    """Reach over time: (milliseconds, mean, half width) over runs, each run being the mean over its packets."""
    runs = [result["packets_published"] for result in results if result["packets_published"]]
    points = []
    for i, at_ms in enumerate(GRID_MS):
        values = [statistics.fmean(packet[kind][i] for packet in packets) for packets in runs]
        if values:
            points.append((at_ms, *interval(values)))
    return points


ROWS = (
    ("reach_720_ms", "reach in 0.72 s", 100, "%"),
    ("reach_720_ms_strict", "… of all, ready or not", 100, "%"),
    ("reach_720_ms_new", "… of those ready for less than 30 s", 100, "%"),
    ("reach_end", "reach at the end of the watch", 100, "%"),
    ("reach_end_new", "… of those ready for less than 30 s", 100, "%"),
    ("reach_end_strict", "… of all, ready or not", 100, "%"),
    ("median_ms", "median delay", 1, "ms"),
    ("hops", "hops of a packet, mean", 1, ""),
    ("hops_most", "… most", 1, ""),
    ("redundancy", "redundant copies per delivery", 1, ""),
    ("copies_2s_per_subscriber", "copies sent in 2 s per subscriber", 1, ""),
    ("bytes_2s_per_subscriber", "… in bytes", 1, "B"),
    ("copies_per_delivery", "all copies sent per delivery", 1, ""),
    ("packet_bytes_per_peer_s", "published packets, per peer", 1, "B/s"),
    ("bytes_per_peer_s", "everything sent, per peer", 1, "B/s"),
    ("introducer_bytes_per_s", "everything sent, per introducer", 1, "B/s"),
    ("size", "mean size", 1, "peers"),
    ("change_percent", "total change", 1, "% of the initial size"),
)


def _spread(runs: list[dict[str, float | None]], name: str, factor: float = 1) -> str:
    """The values of all runs, in order; "never" for what was not reached."""
    values = sorted((run[name] for run in runs), key=lambda value: (value is None, value or 0.0))
    return " ".join("never" if value is None else f"{factor * value:.1f}" for value in values)


def paired(ours: list[Result], others: list[Result]) -> str:
    """What the same seeds gave with our rules less what they gave with the others, for people."""
    by_seed = {result["seed"]: per_run(result) for result in others}
    pairs = [(per_run(result), by_seed[result["seed"]]) for result in ours if result["seed"] in by_seed]
    lines = [f"difference for the same seed: {len(pairs)} pair{'s' if len(pairs) != 1 else ''}"]
    for name, label, factor, unit in ROWS:
        values = [a[name] - b[name] for a, b in pairs if name in a and name in b]
        if values:
            mean, half = interval(values)
            lines.append(f"  {label:36} {factor * mean:+12.3f} ± {factor * half:.3f} {unit}".rstrip())
    return "\n".join(lines)


def text(title: str, results: list[Result]) -> str:
    """The summary for people."""
    figures = summarize(results)
    events, wall = sum(r["events"] for r in results), sum(r["wall_s"] for r in results)
    broken = ", interrupted" if any(r["interrupted"] for r in results) else ""
    lines = [f"{title}: {len(results)} run{'s' if len(results) != 1 else ''}{broken}"]
    for name, label, factor, unit in ROWS:
        if name in figures:
            mean, half = figures[name]
            lines.append(f"  {label:36} {factor * mean:12.3f} ± {factor * half:.3f} {unit}".rstrip())
    for name, (mean, half) in figures.items():
        if name.startswith("away_"):
            label, factor, unit = name.replace("_", " "), 1 if "after" in name else 100, "s" if "after" in name else "%"
            lines.append(f"  {label:36} {factor * mean:12.3f} ± {factor * half:.3f} {unit}")
    for i, fault in enumerate(results[0]["recovery"]):
        same = [result["recovery"][i] for result in results]
        lines.append(
            f"  {fault['kind']}: at worst {_spread(same, 'lowest_720_ms', 100)} % in 0.72 s, 95 % for good after"
            f" {_spread(same, 'usual_after_s')} s; what was published meanwhile: after {_spread(same, 'caught_up_after_s')} s"
        )
    core = results[0]["core_bytes"]
    lines.append(
        f"  memory: {core['peers'] / 1000:.1f} kB a peer's core, {core['introducers'] / 1e6:.1f} MB an introducer's,"
        f" {max(r['peak_memory_bytes'] for r in results) / 1e6:.0f} MB the largest process"
    )
    lines.append(f"  {events} events in {wall:.1f} s of computing, {events / wall if wall else 0:.0f} a second")
    lines.append("  runs: " + ", ".join(f"{r['seed']}:{r['trace']}" for r in results[:4]) + (" …" if len(results) > 4 else ""))
    return "\n".join(lines)
