"""One measurement: the load program against a running server, and what its figures mean."""

import json
import math
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.servers import ADDRESS, Server

LOAD_PORT = 20000
FIRST_ADDRESS = (127 << 24) | (1 << 16) | 1  # 127.1.0.1
LAST_ADDRESS_OFFSET = 1 << 23
# Two-sided 95 % quantiles of Student's t for 1, 2, … degrees of freedom; beyond the table 2.0.
T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)


@dataclass(frozen=True)
class Sample:
    """One run of the load program. Rates are datagrams *handled* by the server: received by it and, where a workload
    has answers, answered (answers divided by the fan-out)."""

    handled_per_s: float
    handled_per_cpu_s: float  # of the server's CPU time, all its threads
    cpu_us: float  # of the server, for each datagram handled
    fanout: float
    server_busy: float  # share of the measured time that the server computed
    load_busy: float  # the same of the load, which never waits: below 1 somebody else had its core
    p50_us: float
    p99_us: float  # median of the p99 of 20 ms each
    stalled: int  # datagrams given up in a closed loop
    raw: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def endpoint_base(index: int) -> str:
    """The address of a load endpoint as text."""
    value = FIRST_ADDRESS + index
    return ".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0))


def run_load(
    program: Path,
    core: int | None,
    server: Server,
    workload: str,
    options: Sequence[str],
    *,
    fanout: float,
    silent: bool,
) -> Sample:
    """Runs the load program against the server and reads its figures.

    fanout: answers for each datagram; silent: the workload has none, so what was not lost on the way in was handled.
    Raises RuntimeError when the load or the server failed.
    """
    targets = ",".join(f"{ADDRESS}:{port}" for port in server.ports)
    command = [str(program), workload, "--to", targets, "--server-pid", str(server.pid), *options]
    if server.spec.srp:
        command.append("--srp")
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    server.check()
    if done.returncode != 0:
        raise RuntimeError(f"load against {server.spec.label}: {done.stderr.strip() or done.returncode}")
    return sample(json.loads(done.stdout), fanout, silent)


def sample(raw: dict[str, Any], fanout: float, silent: bool) -> Sample:
    """Reads the JSON object that the load program printed."""
    seconds, cpu = float(raw["seconds"]), float(raw["server_cpu_s"])
    answers = raw["answers"] + raw["own_drops"]  # what the kernel dropped at the load's door had been sent
    accepted = max(raw["sent"] - raw["server_overruns"], 0)
    handled = accepted if silent else answers / fanout
    work = handled + raw["pongs_given"]  # keep-alive pings of a node are work, too
    return Sample(
        handled_per_s=handled / seconds,
        handled_per_cpu_s=handled / cpu if cpu else 0.0,
        cpu_us=cpu / work * 1e6 if work else 0.0,
        fanout=answers / raw["sent"] if raw["sent"] else 0.0,
        server_busy=cpu / seconds,
        load_busy=float(raw["own_cpu_s"]) / seconds,
        p50_us=float(raw["p50_us"]),
        p99_us=float(raw["p99_us"]),
        stalled=int(raw["forgiven"]),
        raw=raw,
    )


@dataclass(frozen=True)
class Figure:
    """A median with what surrounds it."""

    median: float
    low: float  # smallest, largest
    high: float
    ci_low: float  # 95 % confidence interval of the mean of the logarithms, so of the geometric mean
    ci_high: float
    n: int

    @property
    def spread(self) -> float:
        """Half the range, relative to the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


def figure(values: Sequence[float]) -> Figure | None:
    """Median, range and confidence of repeated measurements; None without any positive one."""
    good = [v for v in values if v > 0 and math.isfinite(v)]
    if not good:
        return None
    logs = [math.log(v) for v in good]
    half = 0.0
    if len(good) > 1:
        t = T95[len(good) - 2] if len(good) - 2 < len(T95) else 2.0
        half = t * statistics.stdev(logs) / math.sqrt(len(good))
    mean = statistics.fmean(logs)
    return Figure(
        statistics.median(good), min(good), max(good), math.exp(mean - half), math.exp(mean + half), len(good)
    )


def paired(values: Sequence[float], base: Sequence[float]) -> Figure | None:
    """The ratio of measurements taken side by side, repetition by repetition."""
    return figure([v / b for v, b in zip(values, base, strict=False) if b > 0])


def strip(options: Sequence[str], name: str) -> tuple[str, ...]:
    """The options without `name` and its value."""
    found = list(options)
    if name in found:
        at = found.index(name)
        del found[at : at + 2]
    return tuple(found)
