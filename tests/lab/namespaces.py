"""Network namespaces without a way out, the links between them, and their certain end.

A namespace has no name in the file system. It lives as long as its keeper, a `cat` that reads from a pipe of ours: when
this process ends, however it ends, the pipe closes, the keepers end, and the kernel takes namespaces, links and rules
with them. Programs inside are killed with us (PR_SET_PDEATHSIG). Links are created inside the namespaces, so nothing
ever appears in the one that we run in, and nothing connects to it.
"""

import ctypes
import itertools
import os
import secrets
import socket
import struct
import subprocess
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType

CLONE_NEWNET = 0x40000000
KEEPER_END_S = 5
# From <linux/netlink.h> and <linux/netfilter/nfnetlink_conntrack.h>.
NETLINK_NETFILTER = 12
NFNL_SUBSYS_CTNETLINK = 1
IPCTNL_MSG_CT_DELETE = 2
NLM_F_REQUEST = 1
NLM_F_ACK = 4
NETLINK_BYTES = 20

_runs = itertools.count()


class CommandError(RuntimeError):
    """A command inside a namespace ended with an error; the message holds the command and what it printed."""


class Namespace:
    """One network namespace. `label` is unique on this machine and stands in the keeper's process title."""

    def __init__(self, name: str, run: str) -> None:
        self.name = name
        self.label = f"srplab-{run}-{name}"
        # A bash for `exec -a`: the title tells in `ps` whose namespace this is.
        self.keeper = subprocess.Popen(
            ["unshare", "--net", "bash", "-c", 'ip link set lo up && echo && exec -a "$0" cat', self.label],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.keeper.stdout is not None
        if self.keeper.stdout.readline() != b"\n":
            raise CommandError(f"no namespace {self.label}: unshare ended with {self.keeper.wait()}")

    def enter(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs argv inside. It becomes argv, and dies with the thread that started it."""
        return ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/proc/{self.keeper.pid}/ns/net", "--", *argv]

    def run(self, *argv: str, stdin: str = "") -> str:
        """Run a short command inside to its end and give back what it printed."""
        done = subprocess.run(self.enter(argv), input=stdin, capture_output=True, text=True, check=False, timeout=30)
        if done.returncode:
            raise CommandError(f"{self.name}: {' '.join(argv)}: {done.stderr.strip()}\n{stdin}")
        return done.stdout

    def ip(self, *lines: str) -> None:
        """Run `ip` commands, one a line, without the word ip."""
        self.run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")

    def sysctl(self, values: Mapping[str, int]) -> None:
        """Set values of this namespace; keys are paths under /proc/sys/net."""
        self.run("bash", "-ec", "\n".join(f"echo {value} > /proc/sys/net/{key}" for key, value in values.items()))

    def nft(self, rules: str) -> None:
        """Replace all rules of the namespace."""
        self.run("nft", "-f", "-", stdin="flush ruleset\n" + rules)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket that belongs to this namespace, usable from any thread of ours."""
        made: list[socket.socket] = []
        failed: list[OSError] = []

        def enter_and_open() -> None:  # in a thread of its own: setns moves only the thread that calls it
            try:
                with open(f"/proc/{self.keeper.pid}/ns/net", "rb") as namespace:
                    if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                made.append(socket.socket(family, kind, protocol))
            except OSError as error:
                failed.append(error)

        thread = threading.Thread(target=enter_and_open)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return made[0]

    def forget_connections(self) -> None:
        """Flush the connection tracking of the namespace, and with it every mapping of its NAT."""
        kind = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE
        request = struct.pack("=IHHII4x", NETLINK_BYTES, kind, NLM_F_REQUEST | NLM_F_ACK, 1, 0)
        with self.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as handle:
            handle.send(request)
            answer = handle.recv(4096)
        (error,) = struct.unpack_from("=i", answer, 16)
        if error:
            raise OSError(-error, f"{self.name}: flushing the connection tracking")

    def close(self) -> None:
        """End the keeper; the namespace goes with the last program inside."""
        assert self.keeper.stdin is not None
        assert self.keeper.stdout is not None
        self.keeper.stdin.close()
        try:
            self.keeper.wait(KEEPER_END_S)
        except subprocess.TimeoutExpired:
            self.keeper.kill()
            self.keeper.wait()
        self.keeper.stdout.close()


class Namespaces:
    """A set of namespaces that are made together and end together; a context manager."""

    def __init__(self) -> None:
        self.run = f"{os.getpid()}-{next(_runs)}-{secrets.token_hex(2)}"
        self.all: list[Namespace] = []

    def __enter__(self) -> "Namespaces":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def add(self, name: str) -> Namespace:
        """A new namespace with its loopback up and nothing else."""
        namespace = Namespace(name, self.run)
        self.all.append(namespace)
        return namespace

    def link(self, one: Namespace, one_name: str, other: Namespace, other_name: str) -> None:
        """A cable between two namespaces, up on both ends.

        A capture must see datagrams as they travel, so no train of them (UDP_SEGMENT) may pass in one piece.
        """
        one.ip(f"link add {one_name} type veth peer name {other_name} netns {other.keeper.pid}")
        for namespace, name in ((one, one_name), (other, other_name)):
            namespace.ip(f"link set {name} up gso_max_segs 1")

    def close(self) -> None:
        """End every namespace, in reverse order."""
        while self.all:
            self.all.pop().close()
