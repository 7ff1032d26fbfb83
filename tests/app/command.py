"""Runs the real command, as an operator would."""

import os
import subprocess
import sys
from pathlib import Path

TIMEOUT_S = 60.0
EXECUTABLE = str(Path(sys.executable).with_name("srpnode"))
SERVICE_VARIABLES = ("JOURNAL_STREAM", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS")


def clean_environment() -> dict[str, str]:
    """Our environment without what a service manager may have put there."""
    return {name: value for name, value in os.environ.items() if name not in SERVICE_VARIABLES}


def srpnode(*arguments: str, cwd: Path | None = None, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs srpnode to its end."""
    return subprocess.run(
        [EXECUTABLE, *arguments],
        cwd=cwd,
        check=check,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=clean_environment(),
    )


def refused(config: Path, *arguments: str) -> list[str]:
    """`srpnode check` must refuse that file: the lines it says, without traceback and with exit status 1."""
    done = srpnode("check", "-c", str(config), *arguments)
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()
