"""The runs of flood.py as tables: for each workload the median and, where runs differ, the range.

    python -m tests.hostile.figures FILE…            files that flood.py --json wrote

Runs of one workload with the same share, limits and multiple of the capacity are one row. p99 is compared with that of the runs without
a flood of the same share, which must be among them, and with the idle node's in the same runs; what refusing costs with what a
stranger's ping does that is answered, in the runs of pings.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.hostile.pinger import quantile

Run = dict[str, Any]


def spread(runs: list[Run], value: Callable[[Run], float], form: str) -> str:
    """Median, and the range when it shows."""
    values = sorted(value(run) for run in runs)
    low, middle, high = (format(v, form) for v in (values[0], statistics.median(values), values[-1]))
    return middle if low == high else f"{middle} ({low} to {high})"


def grouped(runs: list[Run]) -> list[list[Run]]:
    """In the order of their first run."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        times = round(run["flood"] / run["capacity"]) if run["capacity"] else 0
        groups.setdefault((run["workload"], run["clients"], run["share"], tuple(run["limits"]), times), []).append(run)
    return list(groups.values())


def p99(run: Run) -> float:
    return quantile(run["ping_ms"], 0.99)


def memory_mb(at: int, run: Run) -> float:
    return float(run["memory_kb"][at]) / 1024


Column = tuple[str, Callable[[list[Run]], str]]


def median(name: str, value: Callable[[Run], float], form: str, *, flooded: bool = False) -> Column:
    """flooded: nothing for runs without a flood."""
    return name, lambda runs: "" if flooded and not runs[0]["capacity"] else spread(runs, value, form)


def name_of(runs: list[Run]) -> str:
    return " ".join([runs[0]["workload"], *runs[0]["limits"]]) + f", {runs[0]['share']:g}"


def columns(runs: list[Run]) -> tuple[list[Column], list[Column]]:
    """What honest peers notice, and what it costs the node; compared with what these runs have of calm nodes and of pings."""

    def calm_ms(run: Run) -> float:
        same = [p99(other) for other in runs if other["workload"] == "none" and other["share"] == run["share"]]
        return statistics.median(same or [float("nan")])

    accepted_us = statistics.median([run["served_us"] for run in runs if run["workload"] == "pings"] or [float("nan")])
    notice: list[Column] = [
        ("flood, node's part of a core", name_of),
        ("runs", lambda group: str(len(group))),
        median("datagrams/s", lambda run: run["flood"], ",.0f", flooded=True),
        median("times what it could serve", lambda run: run["flood"] / run["capacity"], ".1f", flooded=True),
        median("slowest ready, s", lambda run: max(run["ready_s"], default=float("nan")), ".1f"),
        ("pairs met", lambda group: f"{sum(run['pairs_met'] for run in group)}/{sum(run['pairs_wanted'] for run in group)}"),
        median("events in 60 s, %", lambda run: 100 * run["events_arrived"] / run["events_wanted"], ".1f"),
        median("99 % of them after, s", lambda run: run["enough_s"], ".1f"),
        ("pings", lambda group: str(sum(run["ping_sent"] for run in group))),
        median("answered, %", lambda run: 100 * len(run["ping_ms"]) / run["ping_sent"], ".1f"),
        median("p50, ms", lambda run: quantile(run["ping_ms"], 0.5), ".2f"),
        median("p99, ms", p99, ".2f"),
        median("times p99 without flood", lambda run: p99(run) / calm_ms(run), ".1f"),
        median("times p99 of the idle node", lambda run: p99(run) / quantile(run["idle_ms"], 0.99), ".1f"),
    ]
    cost: list[Column] = [
        ("flood, node's part of a core", name_of),
        median("could serve/s", lambda run: run["capacity"], ",.0f", flooded=True),
        median("each served, us", lambda run: run["served_us"], ".2f", flooded=True),
        median("each refused, us", lambda run: run["alone_us"], ".2f", flooded=True),
        median("of an accepted ping", lambda run: run["alone_us"] / accepted_us, ".2f", flooded=True),
        median("lost in the kernel, %", lambda run: 100 * run["lost_in_kernel"], ".1f"),
        median("used of its part, %", lambda run: 100 * run["used"], ".0f"),
        ("memory: idle, flooded alone, end, MB", memory),
        median("honest peers' core idle, %", lambda run: 100 * run["others_idle"], ".0f"),
    ]
    return notice, cost


def memory(runs: list[Run]) -> str:
    return ", ".join(spread(runs, partial(memory_mb, at), ".0f") for at in range(len(runs[0]["memory_kb"])))


def main() -> None:
    runs = [json.loads(line) for name in sys.argv[1:] for line in Path(name).read_text().splitlines()]
    for table in columns(runs):
        rows = [[name for name, _ in table], ["---"] * len(table)]
        rows += [[cell(group) for _, cell in table] for group in grouped(runs)]
        for cells in rows:
            print("| " + " | ".join(cells) + " |")
        print()


if __name__ == "__main__":
    main()
