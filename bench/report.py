"""The table and the JSON object that a run of the bench ends with."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.measure import Figure, Sample, figure, paired
from bench.rows import Bar, Row
from bench.servers import UNLIMITED

BUSY = 0.9  # a server that computed less of the time was not the limit
QUIET = 0.95  # a load that had less of its core shared it with somebody else
HEAD = (
    "workload",
    "program",
    "datagrams/s",
    "± %",
    "CPU µs each",
    "of first",
    "95 %",
    "by CPU time",
    "of reference",
    "p50 µs",
    "p99 µs",
    "busy",
)


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": done.stdout.strip(),
        "raised": [f"limits.{key} = 0 (unlimited)" for key in UNLIMITED],
    }


class Result:
    """What one row measured: for each contestant its samples at capacity and at half load, in order of repetition."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.capacity: dict[str, list[Sample]] = {}
        self.half: dict[str, list[Sample]] = {}
        self.extra: dict[str, dict[str, float]] = {}
        self.errors: list[str] = []
        self.notes: list[str] = []

    @property
    def base(self) -> str | None:
        return next(iter(self.capacity), None)

    def speeds(self, label: str) -> list[float]:
        return [s.handled_per_s for s in self.capacity.get(label, [])]

    def costs(self, label: str) -> list[float]:
        return [s.cpu_us for s in self.capacity.get(label, [])]

    def delays(self, label: str) -> list[float]:
        return [s.p99_us for s in self.half.get(label, [])]

    def disturbed(self, label: str) -> bool:
        """Whether others had so much of the load's core that rates mean little, and only CPU time can be compared."""
        load = figure([s.load_busy for s in self.capacity.get(label, [])])
        return load is not None and load.median < QUIET

    def compare(self, bar: Bar) -> Figure | None:
        if bar.figure == "speed" and bar.against != "reference" and self.disturbed(bar.who):
            return paired(self.costs(bar.against), self.costs(bar.who))
        if bar.figure == "speed":
            return paired(self.speeds(bar.who), self.speeds(bar.against))
        if bar.figure == "cpu":
            return paired(self.costs(bar.who), self.costs(bar.against))
        return paired(self.delays(bar.who), self.delays(bar.against))

    def verdicts(self) -> list[dict[str, Any]]:
        found = []
        for bar in self.row.bars:
            ratio = self.compare(bar)
            if ratio is None:
                continue
            remark = ""
            if bar.figure != "cpu" and self.disturbed(bar.who):
                by_cpu = bar.figure == "speed" and bar.against != "reference"
                remark = " (disturbed: by CPU time)" if by_cpu else " (disturbed)"
            met = ratio.median >= bar.at_least if bar.at_least is not None else ratio.median <= (bar.at_most or 0)
            found.append(
                {
                    "bar": f"{bar.who}: {bar.text()}{remark}",
                    "ratio": ratio.median,
                    "low": ratio.low,
                    "high": ratio.high,
                    "ci": [ratio.ci_low, ratio.ci_high],
                    "met": met,
                }
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.row.name,
            "title": self.row.title,
            "capacity": {label: [s.as_dict() for s in samples] for label, samples in self.capacity.items()},
            "half_load": {label: [s.as_dict() for s in samples] for label, samples in self.half.items()},
            "extra": self.extra,
            "bars": self.verdicts(),
            "notes": [note for note in (self.row.note, *self.notes) if note],
            "errors": self.errors,
        }

    def lines(self) -> list[tuple[str, ...]]:
        """A table line for each contestant, cells as in HEAD."""
        found: list[tuple[str, ...]] = []
        for label, samples in self.capacity.items():
            speed, cost = figure(self.speeds(label)), figure(self.costs(label))
            if speed is None or cost is None:
                continue
            ratio = by_cpu = None
            if self.base and label != self.base:
                ratio = paired(self.speeds(label), self.speeds(self.base))
                by_cpu = paired(self.costs(self.base), self.costs(label))
            reference = paired(self.speeds(label), self.speeds("reference")) if label != "reference" else None
            half = self.half.get(label, [])
            p50, p99 = figure([s.p50_us for s in half]), figure([s.p99_us for s in half])
            busy = sum(s.server_busy for s in samples) / len(samples)
            found.append(
                (
                    self.row.name,
                    label,
                    number(speed.median),
                    f"{speed.spread * 100:.0f}",
                    f"{cost.median:.2f}",
                    f"{ratio.median:.2f}" if ratio else "",
                    f"{ratio.ci_low:.2f}-{ratio.ci_high:.2f}" if ratio else "",
                    f"{by_cpu.median:.2f}" if by_cpu else "",
                    f"{reference.median:.0f}" if reference else "",
                    number(p50.median) if p50 else "",
                    number(p99.median) if p99 else "",
                    f"{busy:.2f}",
                )
            )
        return found

    def remarks(self) -> list[str]:
        """What a reader must know about the lines: disturbed or load-limited measurements, stalls, notes."""
        found = [f"{self.row.name}: {note}" for note in (self.row.note, *self.notes) if note]
        for label, samples in self.capacity.items():
            who = f"{self.row.name}, {label}"
            load = figure([s.load_busy for s in samples])
            busy = figure([s.server_busy for s in samples])
            stalled = max(s.stalled for s in samples)
            if load and load.median < QUIET:
                found.append(f"{who}: the load had {load.median:.2f} of its core, others were at work")
            elif busy and busy.median < BUSY and label != "reference":
                found.append(f"{who}: computed {busy.median:.2f} of the time, the load was the limit: compare CPU time")
            if stalled:
                found.append(f"{who}: {stalled} answers overdue by 100 ms in a closed loop")
        return found


def number(value: float) -> str:
    """Three significant digits or whole numbers, thousands parted by a thin space."""
    return f"{value:,.0f}".replace(",", " ") if value >= 100 else f"{value:.3g}"


def table(results: list[Result]) -> str:
    """The markdown table, the bars and the remarks."""
    lines = [HEAD, *(line for result in results for line in result.lines())]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    text = []
    for n, line in enumerate(lines):
        cells = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        text.append("| " + " | ".join(cells) + " |")
        if n == 0:
            rules = ["-" * (w + 2) if i < 2 else "-" * (w + 1) + ":" for i, w in enumerate(widths)]
            text.append("|" + "|".join(rules) + "|")
    verdicts = [
        f"- {result.row.name}, {v['bar']}: {v['ratio']:.3g} ({v['low']:.3g} to {v['high']:.3g}), "
        + ("met" if v["met"] else "NOT met")
        for result in results
        for v in result.verdicts()
    ]
    remarks = [f"- {remark}" for result in results for remark in result.remarks()]
    errors = [f"- {result.row.name}: {error}" for result in results for error in result.errors]
    parts = ["\n".join(text)]
    for title, items in (("Bars", verdicts), ("Remarks", remarks), ("Failed", errors)):
        if items:
            parts.append(f"{title}:\n\n" + "\n".join(items))
    return "\n\n".join(parts)
