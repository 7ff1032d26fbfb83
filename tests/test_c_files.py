"""Each C file alone: without warnings at any level of optimisation, asking nobody for anything, without variables that live on."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.c_files import ROOT, compile_with

FILES = sorted(path.stem for path in (ROOT / "cext").glob("*.c"))
PURE = [name for name in FILES if name != "udp"]  # that one is system calls
# What they may take from outside: memory moves, one number parser without allocation, SHA's low level.
ALLOWED = re.compile(
    r"srp_\w+|mem(cpy|move|set|cmp)|strtod|SHA(1|256)_(Init|Update|Final)|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_"
)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3"])
def test_compiles_without_warnings(name: str, level: str, tmp_path: Path) -> None:
    compile_with([level, "-c", str(ROOT / "cext" / f"{name}.c")], tmp_path / "object")


@pytest.mark.parametrize("name", PURE)
def test_asks_nobody_and_keeps_nothing(name: str, tmp_path: Path) -> None:
    # Not position-independent: there a constant table of pointers counts as data, since the loader fills it in.
    compile_with(["-O2", "-fno-pic", "-fno-pie", "-c", str(ROOT / "cext" / f"{name}.c")], tmp_path / "object")
    table = subprocess.run(["nm", tmp_path / "object"], capture_output=True, text=True, check=True, timeout=30).stdout
    symbols = [line.split()[-2:] for line in table.splitlines()]
    assert any(kind == "T" for kind, _ in symbols)
    for kind, symbol in symbols:
        assert kind not in "BbDdCGgSs", f"{symbol}: a variable that lives on"
        assert kind != "U" or ALLOWED.fullmatch(symbol), f"{symbol}: not asked for"
