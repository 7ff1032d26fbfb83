"""What is measured: processes that answer on a UDP port of 127.0.0.1, each pinned to the server's core.

A server is described by a `Spec` (cheap, no process yet) and started by `Server`, a context manager that waits until
the port is bound and ends the process however the measurement ends.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

ADDRESS = "127.0.0.1"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
REFERENCE_DIRECTORY = "SRPNODE_BENCH_REFERENCE"  # environment: where its harness is installed
REFERENCE_CACHE_PACKETS = 6604  # what fills the reference's cache: ceil(16e6 / 2423)

# What the bench raises for the node; everything else stands at its default. 0 is "unlimited".
UNLIMITED = (
    "replicated_per_minute",
    "control_per_minute",
    "address_per_minute",
    "prefix_per_minute",
    "introductions_per_minute",
    "sync_per_minute",
    "carried_per_minute",
    "unproven_per_second",
    "peers_per_address",
    "peers_per_prefix",
)


@dataclass(frozen=True)
class Spec:
    """How to start one server: `command` gets an empty directory and the ports it is to bind."""

    label: str
    command: Callable[[Path, Sequence[int]], list[str]]
    srp: bool  # speaks SRP: its endpoints must become known peers first
    ports: int = 1  # how many of its ports take load


class Server:
    """A running `Spec`; `ports` are the bound ones, `pid` is the process whose CPU time counts."""

    def __init__(
        self,
        spec: Spec,
        first_port: int,
        core: int | None,
        wrapper: Sequence[str] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        self.spec = spec
        self.ports = [first_port + i for i in range(spec.ports)]
        self.core = core
        self.wrapper = list(wrapper)
        self.env = {**os.environ, **(env or {})}
        self.start_s = 0.0
        self.log = ""

    def __enter__(self) -> "Server":
        self.directory = Path(tempfile.mkdtemp(prefix="srpbench-"))
        command = self.wrapper + self.spec.command(self.directory, self.ports)
        if self.core is not None:
            command = ["taskset", "-c", str(self.core), *command]
        begin = time.monotonic()
        with (self.directory / "log").open("w") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.directory,
                env=self.env,
            )
        try:
            while not all(bound(port) for port in self.ports):
                if self.process.poll() is not None:
                    raise RuntimeError(f"{self.spec.label} ended at start: {self._read_log()}")
                if time.monotonic() - begin > START_TIMEOUT_S:
                    raise RuntimeError(f"{self.spec.label} did not bind {self.ports}: {self._read_log()}")
                time.sleep(0.002)
        except BaseException:
            self._stop()
            raise
        self.start_s = time.monotonic() - begin
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu_s(self) -> float:
        """CPU time spent so far by all its threads, in seconds, to the nanosecond (clock_getcpuclockid's formula)."""
        return time.clock_gettime(~self.pid << 3 | 2)

    def check(self) -> None:
        """Raises RuntimeError with its last words when it is no longer running."""
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.spec.label} ended with {self.process.returncode}: {self._read_log()}")

    def resident_kb(self) -> int:
        """Resident memory in kB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        return 0

    def _read_log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")[-2000:].strip()

    def _stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log = self._read_log()
        shutil.rmtree(self.directory, ignore_errors=True)


def bound(port: int) -> bool:
    """Whether some UDP socket of this network namespace is bound to the port."""
    wanted = f"{port:04X}"
    lines = Path("/proc/net/udp").read_text().splitlines()[1:]
    return any(line.split()[1].rpartition(":")[2] == wanted for line in lines)


def bare(program: Path, mode: str, *options: str, label: str = "bare") -> Spec:
    """A bare program; options without --listen."""

    def command(_directory: Path, ports: Sequence[int]) -> list[str]:
        return [str(program), mode, "--listen", f"{ADDRESS}:{ports[0]}", *options]

    return Spec(label, command, srp=False)


def node(
    label: str = "srpnode",
    *,
    identities: int = 1,
    cache_bytes: int | None = None,
    peers: int | None = None,
    address: str = "0.0.0.0",
) -> Spec:
    """A node with rate limits off, and cache or peer table raised where a row needs it: by configuration only."""

    def command(directory: Path, ports: Sequence[int]) -> list[str]:
        (directory / "srpnode.toml").write_text(config(directory, ports, address, cache_bytes, peers))
        return [*srpnode_command(), "run", "-c", str(directory / "srpnode.toml")]

    return Spec(label, command, srp=True, ports=identities)


def config(directory: Path, ports: Sequence[int], address: str, cache_bytes: int | None, peers: int | None) -> str:
    """The configuration file that a row's node runs with."""
    lines = [f'state_dir = "{directory}/state"']
    for number, port in enumerate(ports):
        lines += ["[[listen]]", f'name = "{"abcdefgh"[number]}"', f'address = "{address}"', f"port = {port}"]
        lines += [f"probe_port = {port + 1000}", f'advertise = "{ADDRESS}"']
    if cache_bytes is not None:
        lines += ["[cache]", f"max_bytes = {cache_bytes}"]
    lines += ["[limits]", *(f"{key} = 0" for key in UNLIMITED)]
    if peers is not None:
        lines.append(f"peers = {peers}")
    lines += ["[metrics]", f'listen = "{ADDRESS}:{ports[0] + 2000}"']
    lines += ["[control]", f'socket = "{directory}/control.sock"']
    return "\n".join(lines) + "\n"


def srpnode_command() -> list[str]:
    """How srpnode is started: the words of SRPNODE_COMMAND, the program beside this interpreter, the one of the PATH.

    Raises RuntimeError when there is none.
    """
    named = os.environ.get("SRPNODE_COMMAND")
    if named:
        return named.split()
    beside = Path(sys.executable).with_name("srpnode")
    found = str(beside) if beside.exists() else shutil.which("srpnode")
    if found is None:
        raise RuntimeError("no srpnode program: make build, or set SRPNODE_COMMAND")
    return [found]


def reference(*, cache_full: bool = False) -> Spec:
    """The unmodified reference peer as an introducer, under Node."""

    def command(_directory: Path, ports: Sequence[int]) -> list[str]:
        from tests.node import node as node_program

        directory = os.environ.get(REFERENCE_DIRECTORY)
        if not directory:
            raise RuntimeError("the reference peer is not installed")
        script = Path(__file__).parent / "reference_node.mjs"
        fill = REFERENCE_CACHE_PACKETS if cache_full else 0
        return [node_program(), str(script), directory, ADDRESS, str(ports[0]), str(fill)]

    return Spec("reference", command, srp=True)


def install_reference() -> None:
    """Installs the reference peer if need be: before the bench enters its namespace, which has no way to a registry.

    Raises RuntimeError when it cannot be installed.
    """
    from tests.node import reference_dir

    if REFERENCE_DIRECTORY not in os.environ:
        try:
            os.environ[REFERENCE_DIRECTORY] = str(reference_dir())
        except subprocess.SubprocessError as error:
            raise RuntimeError(str(error)) from error


def coturn() -> Spec | None:
    """coturn answering STUN bindings, one relay thread; None when it is not installed."""
    program = shutil.which("turnserver")
    if program is None:
        return None

    def command(directory: Path, ports: Sequence[int]) -> list[str]:
        options = ["-n", "--stun-only", "--no-tls", "--no-dtls", "--no-tcp", "--no-cli", "--no-auth"]
        options += ["--log-file=stdout", "--relay-threads=1", f"--pidfile={directory}/pid", f"--userdb={directory}/db"]
        return [str(program), *options, "--listening-ip", ADDRESS, "--listening-port", str(ports[0])]

    return Spec("coturn", command, srp=False)
