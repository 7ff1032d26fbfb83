"""Compiling the C files on their own, and running what is under fuzz/ over inputs of a file."""

import struct
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Wshadow", "-Wpedantic", "-Werror"]


def compile_with(arguments: Sequence[str], output: Path) -> None:
    """Runs the compiler with warnings as errors."""
    done = subprocess.run(
        ["cc", *WARNINGS, f"-I{ROOT / 'cext'}", *arguments, "-o", str(output)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def write_inputs(path: Path, inputs: Iterable[bytes]) -> int:
    """Writes a file for `replay`: of each input its length, four bytes big-endian, then itself. Returns how many."""
    count = 0
    with path.open("wb") as file:
        for data in inputs:
            file.write(struct.pack(">I", len(data)) + data)
            count += 1
    return count


def replay(target: str, needs: Iterable[str], inputs: Path, folder: Path) -> int:
    """Runs fuzz/fuzz_TARGET.c over all inputs under ASan and UBSan, compiled with the cext files that it needs. Returns how many ran."""
    sources = [ROOT / "fuzz" / f"fuzz_{target}.c", ROOT / "fuzz" / "replay.c", *(ROOT / "cext" / f"{name}.c" for name in needs)]
    sanitize = ["-g", "-O1", "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"]
    compile_with([*sanitize, *map(str, sources), "-lcrypto"], folder / "replay")
    done = subprocess.run([folder / "replay", inputs], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return int(done.stdout)
