"""The Node.js that the reference peer runs under, and where the reference peer is installed."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

REFERENCE = Path(__file__).parent / "reference"


@cache
def node() -> str:
    """Path of a Node.js of version 20.6 or newer."""
    found = shutil.which("node")
    if found is None:
        raise RuntimeError("no Node.js found")
    return found


@cache
def reference_dir() -> Path:
    """The directory of the reference peer, its packages installed."""
    if not (REFERENCE / "node_modules" / "@socketsupply").is_dir():
        subprocess.run(
            ["npm", "install", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=REFERENCE,
            check=True,
            capture_output=True,
        )
    return REFERENCE
