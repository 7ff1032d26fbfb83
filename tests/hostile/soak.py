"""A bounded run with churn: peers that live 24 s, publish and leave, over and over; memory and descriptors are sampled.

    python -m tests.hostile.soak [--minutes M] [--rate N]

One `srpnode run` on loopback. Each generation is a run of bench/load with endpoints of its own: they prove themselves,
publish at the rate (datagrams a second) for their life, and fall silent. Prints samples; exit status 1 when memory or
descriptors grew in the second half; the tables had their chance to fill in the first.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from bench import programs
from tests.hostile.flood import Pinger, memory_kb
from tests.interop import sut

LIFE_S: Final = 24.0
ENDPOINTS: Final = 150
PORTS_FROM: Final = 20_000
GROWTH: Final = 1.05  # of memory in the second half
SPARE_DESCRIPTORS: Final = 2


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def generation(load: Path, node: sut.SrpNode, number: int, rate: int) -> subprocess.Popen[str]:
    """A hundred and fifty peers on ports that nobody had before."""
    targets = ",".join(f"{entry.address}:{entry.port}" for entry in node.entries)
    command = [str(load), "publish", "--srp", "--to", targets, "--endpoints", str(ENDPOINTS), "--rate", str(rate)]
    command += ["--port", str(PORTS_FROM + number % 40_000), "--seconds", str(LIFE_S), "--warm-seconds", "0.1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def soak(minutes: float, rate: int) -> list[dict[str, Any]]:
    net = f"127.{random.SystemRandom().randrange(64, 250)}"
    load = programs.build()["load"]
    node = sut.SrpNode((f"{net}.0.2", f"{net}.0.3"), f"{net}.0.4", sut.Settings())
    samples: list[dict[str, Any]] = []
    running: list[subprocess.Popen[str]] = []
    end = time.monotonic() + 60 * minutes
    started = time.monotonic()
    number = sent = 0
    try:
        while time.monotonic() < end:
            running.append(generation(load, node, number, rate))
            number += 1
            pinger = Pinger(f"{net}.0.5", node.entries[0])
            time.sleep(LIFE_S / 2)  # two generations live at a time
            pinger.close()
            for process in [process for process in running if process.poll() is not None]:
                output, words = process.communicate()
                if process.returncode != 0:
                    raise AssertionError(f"load: {words}")
                sent += json.loads(output)["sent"]
                running.remove(process)
            ordered = sorted(pinger.times_ms) or [float("nan")]
            samples.append(
                {
                    "minute": round((time.monotonic() - started) / 60, 2),
                    "generations": number,
                    "published": sent,
                    "memory_kb": memory_kb(node.pid),
                    "descriptors": descriptors(node.pid),
                    "peers": len(node.peers()),
                    "ping_p50_ms": round(ordered[len(ordered) // 2], 2),
                    "ping_p99_ms": round(ordered[int(0.99 * (len(ordered) - 1))], 2),
                }
            )
            print("  ".join(f"{key} {value}" for key, value in samples[-1].items()), flush=True)
    finally:
        for process in running:
            process.kill()
            process.wait()
        node.close()
    return samples


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=int, default=1500, help="publishes a second of each generation; two live at a time")
    options = parser.parse_args()
    if not 0.5 <= options.minutes <= 24 * 60:
        parser.error("--minutes: 0.5 to 1440")
    samples = soak(options.minutes, options.rate)
    half = samples[len(samples) // 2 :]
    grown = half[-1]["memory_kb"] / half[0]["memory_kb"]
    more = half[-1]["descriptors"] - half[0]["descriptors"]
    print(f"second half: memory x {grown:.3f}, descriptors {more:+d}")
    return 0 if grown <= GROWTH and more <= SPARE_DESCRIPTORS else 1


if __name__ == "__main__":
    sys.exit(main())
