"""The runs of flood.py as tables: for each workload the median and, where runs differ, the range.

    python -m tests.hostile.figures FILE…            files that flood.py --json wrote

Runs of one workload with the same share, limits and multiple of the capacity are one row. p99 is compared with that of the runs without a
flood of the same share, which must be among them, and with the idle node's in the same runs.
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
        times = round(run["flood"] / run["capacity"], 1) if run["capacity"] else 0
        groups.setdefault((run["workload"], run["clients"], run["share"], tuple(run["limits"]), times), []).append(run)
    return list(groups.values())


def p99(run: Run) -> float:
    return quantile(run["ping_ms"], 0.99)


def memory_mb(at: int, run: Run) -> float:
    return float(run["memory_kb"][at]) / 1024


def row(runs: list[Run], without: list[Run]) -> list[str]:
    first = runs[0]
    calm = statistics.median([p99(run) for run in without if run["share"] == first["share"]] or [float("nan")])
    flooded = bool(first["capacity"])
    name = " ".join([first["workload"], *first["limits"]])
    return [
        name,
        str(len(runs)),
        f"{first['share']:g}",
        spread(runs, lambda r: r["capacity"], ",.0f") if flooded else "",
        spread(runs, lambda r: r["flood"], ",.0f") if flooded else "",
        spread(runs, lambda r: r["flood"] / r["capacity"], ".2f") if flooded else "",
        spread(runs, lambda r: 100 * r["lost_in_kernel"], ".1f"),
        spread(runs, lambda r: 100 * r["used"], ".0f"),
        spread(runs, lambda r: max(r["ready_s"], default=float("nan")), ".1f"),
        f"{sum(r['pairs_met'] for r in runs)}/{sum(r['pairs_wanted'] for r in runs)}",
        spread(runs, lambda r: 100 * r["events_arrived"] / r["events_wanted"], ".1f"),
        spread(runs, lambda r: r["enough_s"], ".1f"),
        str(sum(r["ping_sent"] for r in runs)),
        spread(runs, lambda r: 100 * len(r["ping_ms"]) / r["ping_sent"], ".1f"),
        spread(runs, lambda r: quantile(r["ping_ms"], 0.5), ".2f"),
        spread(runs, p99, ".1f"),
        spread(runs, lambda r: p99(r) / calm, ".1f"),
        spread(runs, lambda r: p99(r) / quantile(r["idle_ms"], 0.99), ".0f"),
        " / ".join(spread(runs, partial(memory_mb, i), ".0f") for i in range(len(first["memory_kb"]))),
        spread(runs, lambda r: r["served_us"], ".1f") if flooded else "",
        spread(runs, lambda r: r["alone_us"], ".2f") if flooded else "",
        spread(runs, lambda r: 100 * r["others_idle"], ".0f"),
    ]


HEAD = [
    "flood",
    "runs",
    "node's share",
    "could serve/s",
    "flood/s",
    "times",
    "lost in kernel, %",
    "share used, %",
    "slowest ready, s",
    "pairs met",
    "events in 60 s, %",
    "99 % of them, s",
    "pings",
    "answered, %",
    "p50, ms",
    "p99, ms",
    "p99 / without flood",
    "p99 / idle node",
    "memory, MB",
    "served, us",
    "refused, us",
    "others' core idle, %",
]


def main() -> None:
    runs = [json.loads(line) for name in sys.argv[1:] for line in Path(name).read_text().splitlines()]
    without = [run for run in runs if run["workload"] == "none"]
    for cells in [HEAD, ["---"] * len(HEAD), *(row(group, without) for group in grouped(runs))]:
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
