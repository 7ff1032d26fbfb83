"""Builds tests/core/inside, the view into a Node, when it is older than what it is made of: python -m tests.core.build"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent


def inputs() -> list[Path]:
    """What the extension is made of. The layout of a Node's state is compiled into it."""
    return [
        HERE / "inside.pyx",
        HERE / "steps.h",
        HERE / "build.py",
        *(ROOT / "fuzz").glob("*.h"),
        *(ROOT / "cext").glob("*.[ch]"),
        *(ROOT / "srpnode" / "core").glob("*.pxd"),
    ]


def stale() -> bool:
    """Whether it is missing, older than its sources, or built otherwise (with or without sanitizers)."""
    built = list(HERE.glob("inside.*.so"))
    stamp = HERE / "inside.built"
    if not built or not stamp.exists() or stamp.read_text() != os.environ.get("SRPNODE_SANITIZE", "0"):
        return True
    return built[0].stat().st_mtime < max(path.stat().st_mtime for path in inputs())


def ensure() -> None:
    """Builds it if it is stale. Raises CalledProcessError with the compiler's output on the terminal."""
    if stale():
        environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
        environment.pop("LD_PRELOAD", None)
        subprocess.run([sys.executable, "-m", "tests.core.build"], cwd=ROOT, env=environment, check=True)


def build() -> None:
    """Compiles it beside its source."""
    from setuptools import Extension
    from setuptools.dist import Distribution

    sanitize = os.environ.get("SRPNODE_SANITIZE") == "1"
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"] if sanitize else []
    cythonize = importlib.import_module("Cython.Build").cythonize
    os.chdir(ROOT)
    for old in HERE.glob("inside.*.so"):
        old.unlink()
    extension = Extension(
        "tests.core.inside",
        ["tests/core/inside.pyx", *(f"cext/{name}.c" for name in ("wire", "json", "message", "digest", "peers", "store"))],
        include_dirs=["cext", "fuzz", "tests/core"],
        libraries=["crypto"],
        extra_compile_args=["-std=gnu11", "-O1", "-g", "-w", "-fvisibility=hidden", *flags],
        extra_link_args=flags,
    )
    distribution = Distribution(
        {
            "ext_modules": cythonize(
                [extension],
                build_dir="build/tests",
                force=True,
                quiet=True,
                compiler_directives={"language_level": "3", "cdivision": True},
            )
        }
    )
    command = distribution.get_command_obj("build_ext")
    assert command is not None
    for name, value in {"inplace": True, "build_temp": "build/tests", "force": True}.items():
        setattr(command, name, value)
    command.ensure_finalized()
    command.run()
    (HERE / "inside.built").write_text(os.environ.get("SRPNODE_SANITIZE", "0"))


if __name__ == "__main__":
    build()
