"""What a datagram does not cost: no Python object, no allocation, no lock of Python's."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.net.conftest import HERE, Compile

ROOT = HERE.parent.parent
DIRECTIVES = ("boundscheck=False", "wraparound=False", "cdivision=True", "initializedcheck=False")  # as in setup.py
# The way of a datagram; every other function that runs without the GIL is looked at as well.
PATH = {"_serve", "_wait", "_timeout_us", "_read_clock", "_receive", "_hand_over", "_flush", "_tick", "_count_time"}
LINE = re.compile(r'<pre class="cython line score-(\d+)"[^>]*>\+?(.*?)</pre>', re.DOTALL)
FUNCTION = re.compile(r" *cdef .*?(\w+)\(.*\) noexcept nogil:$")


def scores(module: Path, folder: Path) -> dict[int, int]:
    """Cython's own measure of how much Python each line touches, by line number."""
    command = [sys.executable, "-m", "cython", "-3", "-a", str(module), "-o", str(folder / "annotated.c")]
    command += [option for directive in DIRECTIVES for option in ("-X", directive)]
    subprocess.run(command, check=True, cwd=ROOT, timeout=120)
    found = {}
    for match in LINE.finditer((folder / "annotated.html").read_text(encoding="utf-8")):
        text = html.unescape(re.sub("<[^>]+>", "", match[2])).replace("+", "")
        found[int(text.strip().split(":")[0])] = int(match[1])
    return found


def functions_without_gil(module: Path) -> dict[str, list[int]]:
    """The lines of each, by its name."""
    found: dict[str, list[int]] = {}
    name, indent = "", 0
    for number, line in enumerate(module.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            name = ""
        if match := FUNCTION.match(line):
            name, indent = match[1], len(line) - len(line.lstrip())
            found[name] = []
        if name:
            found[name].append(number)
    return found


def test_the_way_of_a_datagram_touches_no_python_object(tmp_path: Path) -> None:
    module = ROOT / "srpnode/net/loop.pyx"
    score = scores(module, tmp_path)
    functions = functions_without_gil(module)
    assert set(functions) >= PATH
    assert max(score.values()) > 10  # the rest of the module does
    touching = {
        f"{name}, line {number}": score[number]
        for name, lines in functions.items()
        for number in lines
        if score.get(number, 0) > 0
    }
    assert touching == {}
    assert sum(number in score for lines in functions.values() for number in lines) > 200


def test_a_running_loop_allocates_nothing(compile_c: Compile) -> None:
    counting = compile_c("count_malloc.so", [HERE / "count_malloc.c"], "-shared", "-fPIC")
    environment = {**os.environ, "LD_PRELOAD": str(counting), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.net.allocations"],
        env=environment,
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    counted = json.loads(done.stdout)
    assert counted["starting"] > 0  # a new thread of Python's: the counting works
    assert counted["datagrams"] >= 2 * 5100
    assert counted["running"] == 0
