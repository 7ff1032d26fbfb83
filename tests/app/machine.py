"""A Debian of its own with systemd as process 1 (systemd-nspawn), in a network namespace of its own. Needs root."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "build/machine/root.tar"  # made by `make machine`
BOOT_S = 120.0
COMMAND_S = 180.0


class MachineError(Exception):
    """The machine cannot be had here."""


class Machine:
    """Booted when the constructor returns. Its network is loopback only, shared with whoever enters the namespace."""

    def __init__(self) -> None:
        self.namespace = f"srpnode-{os.getpid()}"
        self.directory = Path(tempfile.mkdtemp(prefix="srpnode-machine-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        try:
            self._run("tar", "-C", str(self.directory), "-xf", str(IMAGE))
            self._run("ip", "netns", "add", self.namespace)
            self._run("ip", "-n", self.namespace, "link", "set", "lo", "up")
            self._boot()
        except BaseException:
            self.close()
            raise

    def _run(self, *words: str) -> None:
        done = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_S)
        if done.returncode != 0:
            raise MachineError(f"{words[0]}: {done.stderr.strip()}")

    def _boot(self) -> None:
        log = (self.directory.parent / f"{self.directory.name}.log").open("wb")
        self._process = subprocess.Popen(
            [
                "systemd-nspawn",
                "--quiet",
                f"--directory={self.directory}",
                "--boot",
                f"--network-namespace-path=/run/netns/{self.namespace}",
                f"--machine={self.namespace}",
                "--register=no",
                "--keep-unit",
                "--console=pipe",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()
        deadline = time.monotonic() + BOOT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                said = Path(log.name).read_text(errors="replace")[-500:]
                raise MachineError(f"systemd-nspawn ended: {said}")
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            if children:
                self._leader = int(children[0])
                state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
                if state in ("running", "degraded"):
                    return
            time.sleep(0.2)
        raise AssertionError("the machine did not boot in time")

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command inside, as root."""
        done = subprocess.run(
            [
                "nsenter",
                "--target",
                str(self._leader),
                "--all",
                "env",
                "-i",
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                *words,
            ],
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def network(self, *words: str) -> list[str]:
        """The command line that runs `words` of ours, not the machine's, in the machine's network."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *words]

    def path(self, inside: str) -> Path:
        """A file of the machine, seen from here."""
        return self.directory / inside.lstrip("/")

    def close(self) -> None:
        """Switches it off and removes all of it."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(Exception):
                self.run("systemctl", "poweroff", "--force", "--force", check=False)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True, timeout=COMMAND_S)
        shutil.rmtree(self.directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.unlink(f"{self.directory}.log")
