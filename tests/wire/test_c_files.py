"""The C files of the codec alone: clean under the sanitizers, without warnings, and asking nobody for anything."""

import re
import struct
import subprocess
from itertools import islice
from pathlib import Path

import pytest

from tests.wire.generate import Generator
from tests.wire.vectors import datagram, load

ROOT = Path(__file__).parents[2]
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Wshadow", "-Wpedantic", "-Werror"]
FILES = ("wire", "message", "json", "digest")
TARGETS = {
    "wire": ["wire", "digest"],
    "message": ["message", "json", "digest"],
    "json": ["json"],
    "digest": ["digest"],
}
GENERATED = 20_000
# What the codec may take from outside: memory moves, one number parser without allocation, SHA's low level.
ALLOWED = re.compile(
    r"srp_\w+|mem(cpy|move|set|cmp)|strtod|SHA(1|256)_(Init|Update|Final)|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_"
)


def _compile(arguments: list[str], output: Path) -> None:
    done = subprocess.run(
        ["cc", *WARNINGS, f"-I{ROOT / 'cext'}", *arguments, "-o", str(output)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All vectors and many generated datagrams, each whole and as what the targets below the frame take."""
    path = tmp_path_factory.mktemp("fuzz") / "inputs"
    datagrams = [datagram(vector) for name in ("packets", "verdicts") for vector in load(name)]
    datagrams += islice(Generator(7), GENERATED)
    with path.open("wb") as file:
        for data in datagrams:
            brace = data.find(b"{")
            inner = data[brace : data.rfind(b"}") + 1] if brace >= 0 else data[87:]
            kind = data[4:5] or b"\0"
            for case in (data, kind + inner, inner):
                file.write(struct.pack(">I", len(case)) + case)
    return path


@pytest.mark.parametrize("target", TARGETS)
def test_clean_under_sanitizers(target: str, inputs: Path, tmp_path: Path) -> None:
    sources = [ROOT / "fuzz" / f"fuzz_{target}.c", ROOT / "fuzz" / "replay.c"]
    sources += [ROOT / "cext" / f"{name}.c" for name in TARGETS[target]]
    sanitize = ["-g", "-O1", "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"]
    _compile([*sanitize, *map(str, sources), "-lcrypto"], tmp_path / "replay")
    done = subprocess.run([tmp_path / "replay", inputs], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3 * GENERATED


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3"])
def test_compiles_without_warnings(name: str, level: str, tmp_path: Path) -> None:
    _compile([level, "-c", str(ROOT / "cext" / f"{name}.c")], tmp_path / "object")


@pytest.mark.parametrize("name", FILES)
def test_asks_nobody_and_keeps_nothing(name: str, tmp_path: Path) -> None:
    # Not position-independent: there a constant table of pointers counts as data, since the loader fills it in.
    _compile(["-O2", "-fno-pic", "-fno-pie", "-c", str(ROOT / "cext" / f"{name}.c")], tmp_path / "object")
    table = subprocess.run(["nm", tmp_path / "object"], capture_output=True, text=True, check=True, timeout=30).stdout
    symbols = [line.split()[-2:] for line in table.splitlines()]
    assert any(kind == "T" for kind, _ in symbols)
    for kind, symbol in symbols:
        assert kind not in "BbDdCGgSs", f"{symbol}: a variable that lives on"
        assert kind != "U" or ALLOWED.fullmatch(symbol), f"{symbol}: not asked for"
