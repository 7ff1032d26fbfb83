"""A whole life of the node under valgrind's memcheck: start, pings, publishes, joins, syncs, reload, stop.

    python -m tests.hostile.memcheck [--seconds S]

Prints how many errors memcheck found that have a frame in our compiled modules, and the first of them; exit status 1 when there
are any. Python's own are left out: its allocator is replaced by malloc, the rest is suppressed or has no frame of ours.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from bench import programs
from tests.app.command import EXECUTABLE, srpnode
from tests.app.node import Node

SUPPRESSIONS: Final = Path("/usr/lib/valgrind/python3.supp")
OURS: Final = ("/srpnode/core/", "/srpnode/net/", "(node.", "srp_")


def valgrind(log: Path) -> list[str]:
    words = ["valgrind", "--tool=memcheck", "--leak-check=no", "--num-callers=20", f"--log-file={log}"]
    if SUPPRESSIONS.exists():
        words.append(f"--suppressions={SUPPRESSIONS}")
    return [*words, sys.executable]


def traffic(node: Node, seconds: float) -> dict[str, int]:
    """What the bench's load sends as proven peers, and strangers' pings; datagrams sent by kind."""
    targets = ",".join(f"127.0.0.1:{port}" for port in node.ports[:2])
    sent = {}
    for kind, options in {"ping": [], "garbage": [], "publish": ["--srp"], "join": ["--srp"], "stream": ["--srp", "--train", "8"]}.items():
        command = [str(programs.build()["load"]), kind, "--to", targets, "--endpoints", "40", "--rate", "100", *options]
        done = subprocess.run([*command, "--seconds", str(seconds)], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, (kind, done.stderr)
        sent[kind] = int(done.stdout.partition('"sent":')[2].partition(",")[0])
    attack = [sys.executable, "-m", "tests.hostile.attack", "sync", "--to", targets, "--peers", "10", "--rate", "50"]
    done = subprocess.run([*attack, "--seconds", str(seconds)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    sent["sync"] = int(done.stdout.split()[1])
    return sent


def errors(log: str) -> list[str]:
    """Blocks of memcheck's report that have a frame of ours."""
    blocks, block = [], []
    for line in log.splitlines():
        text = line.partition("== ")[2]
        if text.strip():
            block.append(text)
            continue
        if any(name in frame for frame in block for name in OURS) and any("at 0x" in frame for frame in block):
            blocks.append("\n".join(block))
        block = []
    return blocks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each kind of traffic")
    options = parser.parse_args()
    node = Node()
    log = node.directory / "memcheck"
    try:
        node.write("[cache]", "max_bytes = 200_000")
        start = time.monotonic()
        node.start(through=valgrind(log), environment={"PYTHONMALLOC": "malloc"})
        ready_s = time.monotonic() - start
        sent = traffic(node, options.seconds)
        assert srpnode("reload", "-c", str(node.file)).returncode == 0
        counters = [identity["events"] for identity in node.ask("status")["identities"]]
        status = node.end()
        text = log.read_text()
    finally:
        node.close()
    found = errors(text)
    print(f"{EXECUTABLE}: ready after {ready_s:.0f} s, sent {sent}, exit status {status}")
    print({name: sum(c[name] for c in counters) for name in ("proofs", "introductions", "cache_ejected", "sync_summaries")})
    print(f"memcheck: {len(found)} errors in our modules;", text.strip().splitlines()[-1].partition("== ")[2])
    print("\n\n".join(found[:5]))
    return 1 if found or status != 0 else 0


if __name__ == "__main__":
    sys.exit(main())
