"""The C files of the core's tables on their own: under the sanitizers against plain models, without warnings, asking nobody."""

from __future__ import annotations

import random
import re
import struct
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Wshadow", "-Wpedantic", "-Werror"]
TARGETS = {"table": [], "peers": ["peers", "digest"], "store": ["store", "peers", "digest"]}
# target: inputs, bytes of the longest. Together about five seconds of running.
AMOUNT = {"table": (3000, 400), "peers": (400, 3000), "store": (150, 2400)}
ALLOWED = re.compile(r"srp_\w+|mem(cpy|move|set|cmp)|SHA(1|256)_(Init|Update|Final)|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_")


def compile_with(arguments: list[str], output: Path) -> None:
    done = subprocess.run(
        ["cc", *WARNINGS, f"-I{ROOT / 'cext'}", *arguments, "-o", str(output)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def inputs(target: str, path: Path) -> int:
    """Random sequences of operations: short and long, of few and of many different values."""
    count, longest = AMOUNT[target]
    rng = random.Random(target)
    with path.open("wb") as file:
        for i in range(count):
            length = rng.randrange(1, longest)
            few = rng.sample(range(256), rng.choice([2, 5, 20, 256]))
            data = bytes([i % 256]) + bytes(rng.choices(few, k=length))
            file.write(struct.pack(">I", len(data)) + data)
    return count


@pytest.mark.parametrize("target", TARGETS)
def test_agrees_with_a_plain_model(target: str, tmp_path: Path) -> None:
    """Every operation checked by fuzz/check.h and against a search over everything, under ASan and UBSan."""
    sources = [ROOT / "fuzz" / f"fuzz_{target}.c", ROOT / "fuzz" / "replay.c"]
    sources += [ROOT / "cext" / f"{name}.c" for name in TARGETS[target]]
    sanitize = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    compile_with([*sanitize, *map(str, sources), "-lcrypto"], tmp_path / "replay")
    count = inputs(target, tmp_path / "inputs")
    done = subprocess.run([tmp_path / "replay", tmp_path / "inputs"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout) == count


@pytest.mark.parametrize("name", ["peers", "store"])
@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3"])
def test_compiles_without_warnings(name: str, level: str, tmp_path: Path) -> None:
    compile_with([level, "-c", str(ROOT / "cext" / f"{name}.c")], tmp_path / "object")


@pytest.mark.parametrize("name", ["peers", "store"])
def test_asks_nobody_and_keeps_nothing(name: str, tmp_path: Path) -> None:
    compile_with(["-O2", "-fno-pic", "-fno-pie", "-c", str(ROOT / "cext" / f"{name}.c")], tmp_path / "object")
    table = subprocess.run(["nm", tmp_path / "object"], capture_output=True, text=True, check=True, timeout=30).stdout
    symbols = [line.split()[-2:] for line in table.splitlines()]
    assert any(kind == "T" for kind, _ in symbols)
    for kind, symbol in symbols:
        assert kind not in "BbDdCGgSs", f"{symbol}: a variable that lives on"
        assert kind != "U" or ALLOWED.fullmatch(symbol), f"{symbol}: not asked for"
