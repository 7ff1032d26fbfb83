"""Builds the C programs of the bench: `bare`, the yardstick, and `load`, which makes and counts the traffic."""

import os
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
OUT = HERE.parent / "build" / "bench"
FLAGS = ["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Wshadow", "-Wpedantic", "-Werror"]
# The low-level SHA interface is the fastest way to hash one short buffer; OpenSSL 3 calls it deprecated.
FLAGS += ["-Wno-deprecated-declarations"]
SOURCES = {"bare": ["bare.c"], "load": ["load.c", "send.c", "receive.c", "frame.c"]}
LIBRARIES = {"bare": [], "load": ["-lcrypto", "-lm"]}


def build() -> dict[str, Path]:
    """Compiles what is older than its sources; name -> path. Raises RuntimeError with the compiler's words."""
    OUT.mkdir(parents=True, exist_ok=True)
    newest = max(path.stat().st_mtime for pattern in ("*.c", "*.h") for path in HERE.glob(pattern))
    paths = {}
    for name, sources in SOURCES.items():
        target = OUT / name
        if not target.exists() or target.stat().st_mtime <= newest:
            command = [os.environ.get("CC", "gcc"), *FLAGS, *(str(HERE / s) for s in sources), "-o", str(target)]
            done = subprocess.run(command + LIBRARIES[name], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        paths[name] = target
    return paths
