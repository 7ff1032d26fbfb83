"""The performance table.

Every workload is measured with several programs under the same load, one after the other and again (A B C A B C …),
the server pinned to one core and the load to another, in a network namespace of its own. Ratios are taken within a
repetition; the table shows medians.
"""

import argparse
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import footprint, instructions, programs, servers
from bench.measure import Sample, run_load, strip
from bench.report import Result, machine, table
from bench.rows import ROWS, Contestant, Row
from bench.servers import Server

INSIDE = "SRPNODE_BENCH_NAMESPACE"
FIRST_PORT = 3500
CALIBRATION_COUNT = 2000
REFERENCE_CALIBRATION_COUNT = 100


class Progress:
    """A line on standard error that says what runs, and how long it may still take."""

    def __init__(self, steps: int) -> None:
        self.steps, self.done, self.begin = steps, 0, time.monotonic()
        self.live = sys.stderr.isatty()

    def step(self, text: str) -> None:
        spent = time.monotonic() - self.begin
        left = f", {spent / self.done * (self.steps - self.done):.0f} s left" if self.done else ""
        line = f"[{self.done + 1}/{self.steps}] {text}{left}"
        print(f"\r\033[K{line}" if self.live else line, end="" if self.live else "\n", file=sys.stderr, flush=True)
        self.done += 1

    def end(self) -> None:
        if self.live:
            print("\r\033[K", end="", file=sys.stderr)


class Bench:
    """Measures rows with the settings of one run."""

    def __init__(self, arguments: argparse.Namespace, paths: dict[str, Path], progress: Progress) -> None:
        self.arguments, self.paths, self.progress = arguments, paths, progress
        cores = sorted(os.sched_getaffinity(0))
        pinned = len(cores) > 1
        self.server_core = (cores[0] if arguments.server_core is None else arguments.server_core) if pinned else None
        self.load_core = (cores[1] if arguments.load_core is None else arguments.load_core) if pinned else None

    def load(self, server: Server, contestant: Contestant, options: Sequence[str]) -> Sample:
        return run_load(
            self.paths["load"],
            self.load_core,
            server,
            contestant.workload,
            options,
            fanout=contestant.fanout,
            silent=contestant.silent,
        )

    def serve(self, contestant: Contestant, number: int) -> Server:
        return Server(contestant.spec, FIRST_PORT + 10 * number, self.server_core)

    def contestants(self, row: Row) -> list[Contestant]:
        wanted = self.arguments.program
        return [c for c in row.contestants(self.paths["bare"]) if not wanted or c.label in wanted]

    def measure(self, row: Row) -> Result:
        """All repetitions of one row. A contestant that fails is left out from then on and named in the errors."""
        result = Result(row)
        contestants = self.contestants(row)
        if not contestants:
            result.notes.append("nothing to measure: not installed, or not among --program")
            return result
        contestants, rates = self.calibrate(row, contestants, result)
        failed: set[str] = set()
        for repetition in range(self.arguments.repetitions):
            for number, contestant in enumerate(contestants):
                if contestant.label in failed:
                    continue
                self.progress.step(f"{row.name}: {contestant.label}, {repetition + 1} of {self.arguments.repetitions}")
                try:
                    self.repeat(contestant, number, rates, result)
                except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                    failed.add(contestant.label)
                    result.errors.append(str(error))
        return result

    def repeat(self, contestant: Contestant, number: int, rates: dict[str, int], result: Result) -> None:
        seconds = ["--seconds", str(self.arguments.seconds), "--warm-seconds", str(self.arguments.seconds / 4)]
        with self.serve(contestant, number) as server:
            before_kb = server.resident_kb()
            sample = self.load(server, contestant, [*contestant.load_options(), *seconds])
            result.capacity.setdefault(contestant.label, []).append(sample)
            extra = result.extra.setdefault(contestant.label, {})
            extra |= {"start_s": server.start_s, "idle_rss_kb": before_kb, "rss_kb": server.resident_kb()}
            if contestant.label in rates:
                paced = replace(contestant, flood=False, options=strip(contestant.options, "--fill"))
                options = [*paced.load_options(), "--rate", str(rates[contestant.label]), *seconds]
                result.half.setdefault(contestant.label, []).append(self.load(server, paced, options))

    def calibrate(
        self, row: Row, contestants: list[Contestant], result: Result
    ) -> tuple[list[Contestant], dict[str, int]]:
        """Counts fan-outs, and takes from short runs the rates that are half load."""
        found: list[Contestant] = []
        capacity: dict[str, float] = {}
        fanout: tuple[int, int] | None = None  # srpnode's, with the bytes of one answer
        leaders_first = sorted(enumerate(contestants), key=lambda pair: pair[1].follow is not None)
        for number, contestant in leaders_first:
            if contestant.follow is not None and fanout is not None:
                contestant = replace(contestant, spec=contestant.follow(*fanout), fanout=float(fanout[0]))
            needs_fanout = contestant.spec.srp and contestant.fanout != 1
            if needs_fanout or row.latency:
                self.progress.step(f"{row.name}: {contestant.label}, calibration")
                try:
                    with self.serve(contestant, number) as server:
                        if needs_fanout:
                            contestant, size = self.find_fanout(server, contestant, result)
                            if contestant.label == "srpnode":
                                fanout = (round(contestant.fanout), size)
                        if row.latency:
                            options = [*contestant.load_options(), "--seconds", "0.4"]
                            if contestant.spec.srp and needs_fanout:
                                options = list(strip(options, "--fill"))
                            sample = self.load(server, contestant, options)
                            waits = contestant.label == "reference"  # on its send timer, not on its core
                            capacity[contestant.label] = sample.handled_per_s if waits else sample.handled_per_cpu_s
                except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                    result.errors.append(str(error))
                    continue
            found.append(contestant)
        found.sort(key=lambda c: [x.label for x in contestants].index(c.label))
        rates: dict[str, int] = {}
        fast = [rate for label, rate in capacity.items() if label != "reference"]
        for label, rate in capacity.items():
            half = (rate if label == "reference" else min(fast)) / 2
            rates[label] = max(int(half), 1)
        if rates:
            result.notes.append("half load: " + ", ".join(f"{label} {rate}/s" for label, rate in rates.items()))
        return found, rates

    def find_fanout(self, server: Server, contestant: Contestant, result: Result) -> tuple[Contestant, int]:
        slow = contestant.label == "reference"
        count = REFERENCE_CALIBRATION_COUNT if slow else CALIBRATION_COUNT
        options = [*contestant.load_options(), "--count", str(count)]
        sample = self.load(server, contestant, options)
        if abs(sample.fanout - contestant.fanout) > 0.02 * contestant.fanout:
            result.notes.append(
                f"{contestant.label} sends {sample.fanout:.2f} for each datagram, {contestant.fanout:g} expected"
            )
        if sample.fanout <= 0:
            raise RuntimeError(f"{contestant.label} answers nothing to {contestant.workload}")
        size = round(sample.raw["answer_bytes"] / max(sample.raw["answers"], 1))
        return replace(contestant, fanout=sample.fanout), size


def enter_namespace() -> bool:
    """Runs this program again in a network namespace of its own, without others' traffic; False if not allowed."""
    if os.environ.get(INSIDE) or not shutil.which("unshare"):
        return bool(os.environ.get(INSIDE))
    command = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0:
        return False
    sys.stdout.flush()
    return os.execvpe(
        command[0],
        [*command, sys.executable, str(Path(__file__).with_name("run.py")), *sys.argv[1:]],
        {**os.environ, INSIDE: "1"},
    )


def loopback_up() -> None:
    """Sets the namespace's loopback interface up (SIOCSIFFLAGS: IFF_UP, IFF_LOOPBACK, IFF_RUNNING)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, 0x8914, struct.pack("16sH22x", b"lo", 0x1 | 0x8 | 0x40))


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*(row.name for row in ROWS), footprint.NAME]
    p.add_argument("--workload", nargs="+", choices=names, metavar="NAME", help="only these: " + ", ".join(names))
    p.add_argument("--program", nargs="+", metavar="LABEL", help="only these programs, for example bare srpnode")
    p.add_argument("--all", action="store_true", help="also the long workloads (peers, cache)")
    p.add_argument("--quick", action="store_true", help="3 short repetitions: a look, not a figure")
    p.add_argument("--repetitions", type=int, default=0, metavar="N", help="default 5")
    p.add_argument("--seconds", type=float, default=0.0, metavar="S", help="measured time of one repetition, default 1")
    p.add_argument("--json", type=Path, metavar="FILE", help="write everything measured; - is standard output")
    p.add_argument("--callgrind", action="store_true", help="instructions for each datagram instead of time (valgrind)")
    p.add_argument("--no-namespace", action="store_true", help="stay in this network namespace")
    p.add_argument("--server-core", type=int, metavar="CORE")
    p.add_argument("--load-core", type=int, metavar="CORE")
    return p


def main() -> int:
    arguments = parser().parse_args()
    arguments.repetitions = arguments.repetitions or (3 if arguments.quick else 5)
    arguments.seconds = arguments.seconds or (0.4 if arguments.quick else 1.0)
    if not 1 <= arguments.repetitions <= 1000 or not 0.05 <= arguments.seconds <= 60:
        print("bench: 1 to 1000 repetitions, 0.05 to 60 seconds", file=sys.stderr)
        return 2
    if not arguments.callgrind and (not arguments.program or "reference" in arguments.program):
        try:
            servers.install_reference()
        except RuntimeError as error:
            print(f"bench: no reference peer: {error}", file=sys.stderr)
    if not arguments.no_namespace:
        if enter_namespace():
            loopback_up()
        else:
            print("bench: no network namespace of its own: others' traffic may disturb", file=sys.stderr)

    def wanted(row: Row) -> bool:
        return row.name in arguments.workload if arguments.workload else row.default or bool(arguments.all)

    rows = [row for row in ROWS if wanted(row)]
    try:
        paths = programs.build()
    except RuntimeError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if arguments.callgrind:
        return instructions.main(paths, rows)
    bench = Bench(arguments, paths, Progress(0))
    steps = sum(len(bench.contestants(row)) * (arguments.repetitions + row.latency) for row in rows)
    bench.progress.steps = steps
    results = []
    failed = False
    try:
        for row in rows:
            results.append(bench.measure(row))
    except KeyboardInterrupt:
        print("interrupted: what there is", file=sys.stderr)
    start_and_memory: dict[str, list[float]] | None = None
    if arguments.all or footprint.NAME in (arguments.workload or ()):
        bench.progress.step(footprint.NAME)
        try:
            start_and_memory = footprint.measure(
                paths["load"], FIRST_PORT, bench.server_core, min(arguments.repetitions, 5)
            )
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            failed = True
            print(f"footprint: {error}", file=sys.stderr)
    bench.progress.end()
    facts = machine()
    if arguments.json:
        everything: dict[str, Any] = {"machine": facts, "rows": [r.as_dict() for r in results]}
        if start_and_memory:
            everything[footprint.NAME] = footprint.as_dict(start_and_memory)
        text = json.dumps(everything, indent=1)
        if str(arguments.json) == "-":
            print(text)
        else:
            arguments.json.write_text(text + "\n")
    if str(arguments.json) != "-":
        pinned = f"server on core {bench.server_core}, load on core {bench.load_core}"
        runs = f"medians of {arguments.repetitions} runs of {arguments.seconds:g} s, {pinned}"
        print(f"{facts['cpu']}, {facts['cores']} cores, Linux {facts['kernel']}, {facts['date']}, {facts['commit']}")
        print(runs)
        print(f"srpnode's configuration: {', '.join(facts['raised'])}; all else as shipped\n")
        if results:
            print(table(results))
        if start_and_memory:
            print("\n" + footprint.text(start_and_memory))
    return 1 if failed or any(result.errors for result in results) or len(results) < len(rows) else 0
