"""After construction the core takes no memory: counted by an interpreter whose malloc and mmap count."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(os.environ.get("SRPNODE_SANITIZE") == "1", reason="the sanitizer brings its own malloc")
def test_no_allocation_after_construction(tmp_path: Path) -> None:
    """Datagrams of every kind, honest and not, ticks, ejection, expiry, sync: not one call of malloc or mmap."""
    interpreter = tmp_path / "counting"
    library = sysconfig.get_config_var("LDVERSION")
    directories = [sysconfig.get_config_var("LIBPL"), sysconfig.get_config_var("LIBDIR")]
    done = subprocess.run(
        [
            "cc",
            "-O1",
            f"-I{sysconfig.get_paths()['include']}",
            str(ROOT / "tests" / "core" / "counting.c"),
            *(f"-L{directory}" for directory in directories),
            f"-Wl,-rpath,{sysconfig.get_config_var('LIBDIR')}",
            "-Wl,--export-dynamic",
            f"-lpython{library}",
            "-ldl",
            "-o",
            str(interpreter),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    paths = [str(ROOT), sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [interpreter, "-m", "tests.core.allocate"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["control"] >= 10, "the interpreter counts nothing"
    assert report["received"] > 10_000
    assert report["sent"] > 10_000
    assert all(report["counters"][f"in_{name}"] > 0 for name in ("ping", "pong", "join", "publish", "stream", "sync", "query"))
    assert report["allocations"] == 0
