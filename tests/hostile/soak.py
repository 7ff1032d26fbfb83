"""A bounded run with churn: peers that live 12 to 36 s, publish and leave, over and over; memory, descriptors and latency are sampled.

    python -m tests.hostile.soak [--minutes M] [--rate N] [--endpoints N] [--json FILE] [--svg FILE]

One `srpnode run` on loopback. Each generation is a run of bench/load with endpoints of its own: they prove themselves,
publish at the rate (datagrams a second) for their life, and fall silent. Prints samples; exit status 1 when memory or
descriptors grew in the second half, or the CPU time for a datagram; the tables had their chance to fill in the first. A machine that was suspended or a program
that was stopped meanwhile shows in the samples as time that passed twice.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from bench import programs
from srpnode.sim.chart import Chart, Line, svg
from tests.hostile import machine
from tests.hostile.pinger import Pinger, quantile
from tests.interop import sut

LIFE_S: Final = 24.0
SPREAD_S: Final = 12.0
ENDPOINTS: Final = 150
PORTS_FROM: Final = 20_000
GROWTH: Final = 1.05  # of memory in the second half
COST_GROWTH: Final = 1.25  # of the CPU time for a datagram, median of one half to the other
SPARE_DESCRIPTORS: Final = 2
SAMPLE_S: Final = LIFE_S / 2  # two generations live at a time
COUNTED: Final = ("in_datagrams", "out_datagrams", "in_kernel_drops_now", "in_calls", "rounds", "batches", "ticks", "naps")


def generation(
    load: Path, node: sut.SrpNode, number: int, rate: int, endpoints: int, life_s: float
) -> subprocess.Popen[str]:
    """So many peers on ports that nobody had before."""
    targets = ",".join(f"{entry.address}:{entry.port}" for entry in node.entries)
    command = [str(load), "publish", "--srp", "--to", targets, "--endpoints", str(endpoints), "--rate", str(rate)]
    command += ["--nap-us", "1000", "--port", str(PORTS_FROM + number % 40_000)]
    command += ["--seconds", f"{life_s:.1f}", "--warm-seconds", "0.1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def counted(node: sut.SrpNode) -> dict[str, int]:
    """What both loops have done so far, and what the cores refused as too much."""
    status = node.status()["identities"]
    did = {name: sum(identity["udp"][name] for identity in status) for name in COUNTED}
    did["refused"] = sum(count for identity in status for name, count in identity["drops"].items() if name.startswith("rate_"))
    return did


def soak(minutes: float, rate: int, endpoints: int) -> list[dict[str, Any]]:
    rng = random.Random(24)
    net = f"127.{random.SystemRandom().randrange(64, 190)}"
    load = programs.build()["load"]
    node = sut.SrpNode((f"{net}.0.2", f"{net}.0.3"), f"{net}.0.4", sut.Settings())
    samples: list[dict[str, Any]] = []
    running: list[subprocess.Popen[str]] = []
    started = time.monotonic()
    number = sent = failed = 0
    try:
        while time.monotonic() < started + 60 * minutes:
            running.append(generation(load, node, number, rate, endpoints, rng.uniform(LIFE_S - SPREAD_S, LIFE_S + SPREAD_S)))
            number += 1
            pinger = Pinger(f"{net}.0.5", node.entries[0])
            at, cpu, before = time.monotonic(), machine.cpu_s(node.pid), counted(node)
            time.sleep(SAMPLE_S)
            _, times_ms = pinger.close()
            for process in [process for process in running if process.poll() is not None]:
                output, _ = process.communicate()
                failed += process.returncode != 0  # its peers did not become known in time
                sent += json.loads(output)["sent"] if process.returncode == 0 else 0
                running.remove(process)
            used_s, passed = machine.cpu_s(node.pid) - cpu, time.monotonic() - at
            status = node.status()["identities"]
            did = {name: count - before[name] for name, count in counted(node).items()}
            handled = did["in_datagrams"] + did["out_datagrams"]
            samples.append(
                {
                    "minute": round((time.monotonic() - started) / 60, 2),
                    "passed_s": round(passed, 1),
                    "generations": number,
                    "failed": failed,
                    "published": sent,
                    "memory_kb": machine.memory_kb(node.pid),
                    "descriptors": machine.descriptors(node.pid),
                    "peers": sum(identity["peers"]["known"] for identity in status),
                    "packets": sum(identity["cache"]["packets"] for identity in status),
                    "cpu_percent": round(100 * used_s / passed, 1),
                    "received_s": round(did["in_datagrams"] / passed),
                    "sent_s": round(did["out_datagrams"] / passed),
                    "lost": did["in_kernel_drops_now"],
                    "refused": did["refused"],
                    "us_each": round(1e6 * used_s / max(handled, 1), 2),
                    "each_call": round(did["in_datagrams"] / max(did["in_calls"], 1), 2),
                    "rounds_s": round(did["rounds"] / passed),
                    "ticks_s": round(did["ticks"] / passed),
                    "naps_s": round(did["naps"] / passed),
                    "ping_p50_ms": round(quantile(times_ms, 0.5), 2),
                    "ping_p99_ms": round(quantile(times_ms, 0.99), 2),
                }
            )
            print("  ".join(f"{key} {value}" for key, value in samples[-1].items()), flush=True)
    finally:
        for process in running:
            process.kill()
            process.wait()
        node.close()
    return samples


def plot(samples: list[dict[str, Any]], title: str) -> str:
    """Memory, peers and latency over time."""

    def line(label: str, key: str, factor: float = 1.0) -> Line:
        return Line(label, [(row["minute"], factor * row[key]) for row in samples])

    def chart(name: str, unit: str, lines: list[Line]) -> Chart:
        top = 1.1 * max(y for one in lines for _, y in one.points) or 1.0
        return Chart(f"{title}: {name}", "minutes", unit, (0.0, samples[-1]["minute"]), (0.0, top), lines)

    return svg(
        [
            chart("resident memory", "MB", [line("resident memory", "memory_kb", 1 / 1024)]),
            chart("peers, descriptors", "number", [line("peers known", "peers"), line("open descriptors", "descriptors")]),
            chart("CPU time", "us", [line("for each datagram received or sent", "us_each")]),
            chart("round trip", "ms", [line("p50 of 12 s", "ping_p50_ms"), line("p99 of 12 s", "ping_p99_ms")]),
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=int, default=1500, help="publishes a second of each generation; two live at a time")
    parser.add_argument("--endpoints", type=int, default=ENDPOINTS, help="of each generation; each may send 1024 a minute")
    parser.add_argument("--json", type=Path, help="writes the samples there")
    parser.add_argument("--svg", type=Path, help="writes a plot there")
    options = parser.parse_args()
    if not 0.5 <= options.minutes <= 24 * 60:
        parser.error("--minutes: 0.5 to 1440")
    samples = soak(options.minutes, options.rate, options.endpoints)
    if options.json:
        options.json.write_text(json.dumps(samples))
    if options.svg:
        options.svg.write_text(plot(samples, f"{options.minutes:g} minutes, {2 * options.rate} publishes/s"))
    half = samples[len(samples) // 2 :]
    grown = half[-1]["memory_kb"] / half[0]["memory_kb"]
    more = half[-1]["descriptors"] - half[0]["descriptors"]
    first = samples[: len(samples) // 2] or samples
    median = [statistics.median(row["ping_p50_ms"] for row in part) for part in (first, half)]
    cost = [statistics.median(row["us_each"] for row in part) for part in (first, half)]
    lost = sum(row["lost"] for row in samples)
    print(f"second half: memory x {grown:.3f}, descriptors {more:+d}; median of p50, first and second half: {median} ms")
    print(f"CPU for each datagram, median of the first and second half: {cost} us; lost in the kernel: {lost}")
    return 0 if grown <= GROWTH and more <= SPARE_DESCRIPTORS and cost[1] <= COST_GROWTH * cost[0] else 1


if __name__ == "__main__":
    sys.exit(main())
