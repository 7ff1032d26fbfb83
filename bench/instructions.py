"""Instructions for each datagram, counted by valgrind's callgrind: what timing on a noisy machine cannot tell.

The program runs under valgrind with counting off; the load makes its endpoints known; then a fixed number of datagrams is
counted, from the call that receives a batch to the one that has sent what came of it. Only user space is counted: what the
kernel does is not, nor ticks and other threads, which go by time.
"""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.measure import Sample, run_load, strip
from bench.rows import Contestant, Row
from bench.servers import Server

COUNT = 20_000
WINDOW = 64
TOP = 25
COUNTED = "__pyx_f_7srpnode_3net_4loop_4Loop__receive"  # Loop._receive of net/loop.pyx


def main(paths: dict[str, Path], rows: Sequence[Row]) -> int:
    if not shutil.which("valgrind"):
        print("bench: valgrind is not installed", file=sys.stderr)
        return 1
    status = 0
    for row in rows:
        for number, contestant in enumerate(c for c in row.contestants(paths["bare"]) if c.label.startswith("srpnode")):
            try:
                each, functions = count(paths["load"], contestant, 4500 + 10 * number)
            except (RuntimeError, OSError) as error:
                print(f"{row.name}: {contestant.label}: {error}", file=sys.stderr)
                status = 1
                continue
            print(f"{row.name}: {contestant.label}: {each:.0f} instructions for each datagram", flush=True)
            print(functions, flush=True)
    return status


def count(load: Path, contestant: Contestant, port: int, datagrams: int = COUNT) -> tuple[float, str]:
    """Instructions for each datagram, and the functions that spend most of them."""
    out = Path("callgrind.out")
    wrapper = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--toggle-collect={COUNTED}", "--quiet"]
    wrapper.append(f"--callgrind-out-file={out}")
    with Server(contestant.spec, port, None, wrapper) as server:
        options = ["--window", str(WINDOW), "--endpoints", str(contestant.endpoints), *contestant.options]

        def run(*more: str) -> Sample:
            return run_load(
                load,
                None,
                server,
                contestant.workload,
                [*options, *more],
                fanout=contestant.fanout,
                silent=contestant.silent,
            )

        run("--count", "64")
        control(server.pid, "on")
        time.sleep(0.2)
        options = list(strip(options, "--fill"))
        sample = run("--known", "--count", str(datagrams))
        control(server.pid, "off")
        server.process.terminate()
        server.process.wait(30)
        found = server.directory / out
        annotated = subprocess.run(
            ["callgrind_annotate", "--threshold=99", str(found)], capture_output=True, text=True, check=True
        ).stdout
    total = re.search(r"^([\d,]+)\s.*PROGRAM TOTALS", annotated, re.MULTILINE)
    if total is None:
        raise RuntimeError("callgrind_annotate printed no total")
    sent = sample.raw["sent"]
    functions: list[str] = []
    for line in annotated.splitlines():
        match = re.match(r"\s*([\d,]+) \(\s*[\d.]+%\)\s+(\S+):(\S+)", line)
        if match and len(functions) < TOP:
            each = int(match[1].replace(",", "")) / sent
            functions.append(f"  {each:9.1f}  {match[3]}  ({Path(match[2]).name})")
    return int(total[1].replace(",", "")) / sent, "\n".join(functions)


def control(pid: int, state: str) -> None:
    subprocess.run(["callgrind_control", "-i", state, str(pid)], check=True, capture_output=True, text=True)
