"""srpnode sim SCENARIO: runs a scenario with one seed or several, and shows what came of it."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

from srpnode.sim import chart, report, scenario
from srpnode.sim.experiment import simulate
from srpnode.sim.scenario import Scenario, ScenarioError

Job = tuple[Scenario, int]


def parser() -> argparse.ArgumentParser:
    """The grammar of the command."""
    made = argparse.ArgumentParser(
        prog="srpnode sim",
        description="Simulates whole networks on the node's own core, the same run on every machine for the same seed.",
        epilog=f"Shipped scenarios: {', '.join(scenario.shipped())}.",
    )
    made.add_argument("scenario", metavar="SCENARIO", help="a TOML file, or the name of a shipped scenario")
    made.add_argument("--seed", type=_number, default=1, metavar="N", help="seed of the first run (1)")
    made.add_argument("--seeds", type=_count, default=1, metavar="K", help="number of runs, with seeds N, N + 1, … (1)")
    made.add_argument("--jobs", type=_count, default=os.cpu_count() or 1, metavar="J", help="runs at the same time")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replaces a key, such as peers.count=50")
    made.add_argument("--compare", action="store_true", help="run each seed with the reference's selection too")
    made.add_argument("--json", action="store_true", help="print everything as JSON")
    made.add_argument("--svg", metavar="FILE", help="draw size and reach over time")
    made.add_argument("--png", metavar="FILE", help="likewise; needs rsvg-convert (Debian: librsvg2-bin)")
    return made


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= 1 << 63:
        raise argparse.ArgumentTypeError(f"must be a number from 0, not {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"must be 1 to 100000, not {text!r}")
    return int(text)


def _override(given: dict[str, Any], setting: str) -> None:
    import tomllib

    name, equals, value = setting.partition("=")
    if not equals or not name:
        raise ScenarioError(f"--set {setting}: must be KEY=VALUE")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    table, _, key = name.rpartition(".")
    target = given if not table else given.setdefault(table, {})
    if not isinstance(target, dict):
        raise ScenarioError(f"{name}: unknown key")
    target[key] = parsed


def _load(options: argparse.Namespace) -> Scenario:
    loaded = scenario.load(options.scenario)
    if not options.set:
        return loaded
    for setting in options.set:
        _override(loaded, setting)
    return scenario.complete(loaded)


def _run(job: Job, add: Callable[[float], None]) -> dict[str, Any]:
    """One run; add() is told how much more of it is done."""
    what, seed = job
    last = 0.0

    def tell(part: float) -> None:
        nonlocal last
        add(part - last)
        last = part

    result = simulate(what, seed, tell)
    result["selection"] = what["peers"]["selection"]
    return result


_share: SimpleQueue[float] | None = None
_stopped = False


def _stop(number: int, frame: object) -> None:
    global _stopped
    first, _stopped = not _stopped, True
    if first:
        raise KeyboardInterrupt


def _worker(queue: SimpleQueue[float]) -> None:
    global _share
    _share = queue
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # how the pool ends its processes; a handler in Python may come too late
    signal.signal(signal.SIGUSR1, _stop)


def _work(job: Job) -> dict[str, Any] | None:
    """One run in a process of its own; None when the whole was interrupted before."""
    assert _share is not None
    try:
        return None if _stopped else _run(job, _share.put)
    except KeyboardInterrupt:  # between two runs
        return None


class Bar:
    """A progress bar on standard error; nothing when that is no terminal."""

    def __init__(self, total: float) -> None:
        self.total = total
        self.done = 0.0
        self.shown = sys.stderr.isatty()
        self.started = time.monotonic()

    def add(self, part: float) -> None:
        """That much more is done."""
        self.done += part
        if self.shown:
            width = max(10, shutil.get_terminal_size().columns - 30)
            filled = round(width * min(1.0, self.done / self.total))
            spent = time.monotonic() - self.started
            left = spent * (self.total / self.done - 1) if self.done > 0 else 0.0
            bar = "#" * filled + "." * (width - filled)
            sys.stderr.write(f"\r[{bar}] {100 * self.done / self.total:3.0f} % {left:5.0f} s left")
            sys.stderr.flush()

    def end(self) -> None:
        """Clears the line."""
        if self.shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def _all(jobs: list[Job], parallel: int) -> list[dict[str, Any]]:
    """All runs; fewer when interrupted. On an interrupt every process ends its run and hands in what it has."""
    bar = Bar(len(jobs))
    queue: SimpleQueue[float] = multiprocessing.get_context("fork").SimpleQueue()
    results: list[dict[str, Any]] = []
    try:
        if parallel == 1 or len(jobs) == 1:
            for job in jobs:
                results.append(_run(job, bar.add))
                if results[-1]["interrupted"]:
                    break
            return results
        with multiprocessing.get_context("fork").Pool(min(parallel, len(jobs)), _worker, (queue,)) as pool:
            waiting = [pool.apply_async(_work, (job,)) for job in jobs]
            try:
                while not all(one.ready() for one in waiting):
                    time.sleep(0.1)
                    while not queue.empty():
                        bar.add(queue.get())
            except KeyboardInterrupt:
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_IGN)
                for child in multiprocessing.active_children():
                    os.kill(child.pid or 0, signal.SIGUSR1)
                deadline = time.monotonic() + 10
                while time.monotonic() < deadline and not all(one.ready() for one in waiting):
                    time.sleep(0.1)
            for one in waiting:
                result = one.get() if one.ready() else None
                if result is not None:
                    results.append(result)
    finally:
        bar.end()
    return results


def charts(results: list[dict[str, Any]], title: str) -> list[chart.Chart]:
    """The draft's two charts: size over time of the first run, and the reach of a packet over time."""
    sizes = results[0]["sizes"]
    rates = [(i, float(b[1] - a[1]), float(b[2] - a[2])) for i, (a, b) in enumerate(zip(sizes, sizes[10:], strict=False))]
    top = max([size for size, _, _ in sizes] + [1]) * 1.15
    size = chart.Chart(
        f"{title}: network size (seed {results[0]['seed']})", "seconds", "peers", (0, max(1, len(sizes) - 1)), (0, top),
        [
            chart.Line("peers", [(i, s[0]) for i, s in enumerate(sizes)]),
            chart.Line("left in 10 s", [(i + 10, b) for i, _, b in rates]),
            chart.Line("joined in 10 s", [(i + 10, a) for i, a, _ in rates]),
        ],
    )  # fmt: skip
    lines = []
    for selection in ("weighed", "reference"):
        runs = [r for r in results if r["selection"] == selection]
        for kind, label in (("ready", ""), ("strict", ", of all")):
            points = report.curve(runs, kind) if runs else []
            if points:
                lines.append(
                    chart.Line(
                        selection + label,
                        [(ms / 1000, 100 * mean) for ms, mean, _ in points],
                        [(ms / 1000, 100 * (mean - half), 100 * (mean + half)) for ms, mean, half in points if ms <= 3000],
                        dashed=kind == "strict",
                    )
                )
    name = f"{title}: reach of one packet, {len(results)} runs"
    reach = chart.Chart(name, "seconds", "% of subscribers", (0, 3), (0, 100), lines)
    return [size, reach]


def main(argv: list[str] | None = None) -> int:
    """Runs the command; exit status 0 fine, 1 refused or interrupted, 2 usage."""
    options = parser().parse_args(argv)
    # Also where it is started in the background of a script, which has it ignored; SIGTERM ends a run likewise.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        what = _load(options)
    except ScenarioError as error:
        print(error, file=sys.stderr)
        return 1
    if options.png and shutil.which("rsvg-convert") is None:
        print("--png needs rsvg-convert (Debian: librsvg2-bin)", file=sys.stderr)
        return 1
    for file in (options.svg, options.png):
        if file and not (os.path.isdir(os.path.dirname(file) or ".") and os.access(os.path.dirname(file) or ".", os.W_OK)):
            print(f"{file}: no directory that can be written to", file=sys.stderr)
            return 1
    seeds = range(options.seed, options.seed + options.seeds)
    jobs: list[Job] = [(what, seed) for seed in seeds]
    if options.compare:
        jobs += [({**what, "peers": {**what["peers"], "selection": "reference"}}, seed) for seed in seeds]
    results = _all(jobs, options.jobs)
    if not results:
        print("interrupted before there was anything to show", file=sys.stderr)
        return 1
    title = what["title"] or options.scenario
    groups = {name: [r for r in results if r["selection"] == name] for name in ("weighed", "reference")}
    if options.json:
        summary = {name: report.summarize(runs) for name, runs in groups.items() if runs}
        print(json.dumps({"scenario": what, "summary": summary, "runs": results}))
    else:
        for name, runs in groups.items():
            if runs:
                print(report.text(f"{title} ({name} selection)", runs))
        if options.compare:
            print(report.paired(groups["weighed"], groups["reference"]))
    drawing = chart.svg(charts(results, title))
    if options.svg:
        Path(options.svg).write_text(drawing)
    if options.png:
        subprocess.run(["rsvg-convert", "-o", options.png], input=drawing.encode(), check=True)
    return 1 if len(results) < len(jobs) or any(r["interrupted"] for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
