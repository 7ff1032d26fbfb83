"""A running node for tests: the real command with a configuration and a state directory of its own, on loopback."""

import contextlib
import json
import queue
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.app.command import EXECUTABLE, clean_environment, srpnode

DEADLINE_S = 60.0


def free_ports(count: int) -> list[int]:
    """UDP and TCP ports of 127.0.0.1 that nobody has at this moment."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            tcp = stack.enter_context(socket.socket())
            udp = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            tcp.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                udp.bind(tcp.getsockname())
                found.append(tcp.getsockname()[1])
    return found


class Node:
    """`srpnode run -c FILE`; close() ends it, whatever state it is in."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="srpnode-"))  # short: a control socket's path is limited
        self.ports = free_ports(5)
        self.file = self.directory / "srpnode.toml"
        self.process: subprocess.Popen[str] | None = None
        self.lines: list[str] = []
        self._said: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def write(self, *extra: str, top: str = "", log: str = "") -> None:
        """Writes the configuration: two identities on loopback, `extra` lines behind it."""
        a, b, a_probe, b_probe, page = self.ports
        text = [f'state_dir = "{self.directory}/state"', top]
        for port, probe in ((a, a_probe), (b, b_probe)):
            text += ["[[listen]]", 'address = "127.0.0.1"', f"port = {port}", f"probe_port = {probe}"]
        text += ["[metrics]", f'listen = "127.0.0.1:{page}"', "[control]", f'socket = "{self.directory}/control.sock"']
        self.file.write_text("\n".join([*text, *extra]) + "\n")

    def command(self, *words: str) -> list[str]:
        """The command line of srpnode."""
        return [EXECUTABLE, *words]

    def start(
        self,
        *,
        inside: str = "",
        through: Sequence[str] = (),
        fds: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts the process; returns when it says that it serves.

        inside: a network namespace. through: words before the command. fds: descriptors that stay open in it.
        """
        prefix = ["ip", "netns", "exec", inside] if inside else [*through]
        self.process = subprocess.Popen(
            [*prefix, *self.command("run", "-c", str(self.file))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=fds,
            env={**clean_environment(), **(environment or {})},
        )
        self._said = queue.SimpleQueue()  # a process that was killed may still be read from
        threading.Thread(target=self._read, args=(self.process, self._said), daemon=True).start()
        self.wait_for(" ready: ")

    @staticmethod
    def _read(process: "subprocess.Popen[str]", said: "queue.SimpleQueue[str | None]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.put(line.rstrip("\n"))
        said.put(None)

    def wait_for(self, part: str) -> str:
        """The next line that has this part."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                line = self._said.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                raise AssertionError(f"no {part!r} in time; it said {self.lines}") from None
            if line is None:
                raise AssertionError(f"the node ended before {part!r}; it said {self.lines}")
            self.lines.append(line)
            if part in line:
                return line

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends the signal and waits; the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(DEADLINE_S)
        self.process = None
        while (line := self._said.get(timeout=DEADLINE_S)) is not None:
            self.lines.append(line)
        return status

    def ask(self, command: str) -> Any:
        """The JSON that `srpnode COMMAND --json` prints."""
        done = srpnode(command, "--json", "-c", str(self.file))
        assert done.returncode == 0, (command, done.stderr, self.lines)
        return json.loads(done.stdout)

    def close(self) -> None:
        """Ends the process and removes its files."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)
