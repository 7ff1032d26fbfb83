"""The watchdog is fed by loops that serve: a flood does not starve it, a loop that stands still does."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.command import srpnode
from tests.app.node import Node
from tests.hostile import flood
from tests.interop.reference import Entry

WATCHDOG_S = 3.0
PTRACE_INTERRUPT, PTRACE_SEIZE, PTRACE_DETACH = 0x4207, 0x4206, 17
WALL = 0x40000000  # __WALL: also threads


class Manager:
    """Listens as a service manager does; counts how often the watchdog was fed."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(0.1)
        self.fed: list[float] = []
        self._over = False
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._over:
            with contextlib.suppress(TimeoutError):
                if b"WATCHDOG=1" in self.socket.recv(65536):
                    self.fed.append(time.monotonic())

    def wait(self, more: int) -> None:
        """Until it was fed so many times more."""
        wanted = len(self.fed) + more
        deadline = time.monotonic() + 60
        while len(self.fed) < wanted:
            assert time.monotonic() < deadline, "the watchdog is not fed"
            time.sleep(0.05)

    def close(self) -> None:
        self._over = True
        self._thread.join()
        self.socket.close()


@pytest.fixture
def watched() -> Iterator[tuple[Node, Manager]]:
    node = Node()
    manager = Manager(node.directory / "notify")
    try:
        node.write()
        environment = {"NOTIFY_SOCKET": str(node.directory / "notify"), "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
        node.start(environment=environment)
        yield node, manager
    finally:
        node.close()
        manager.close()


@contextlib.contextmanager
def thread_stopped(pid: int, name: str) -> Iterator[None]:
    """Holds one thread of a process, as a scheduler that never comes back to it would. ptrace wants one calling thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    tid = next(
        int(task.name) for task in Path(f"/proc/{pid}/task").iterdir() if (task / "comm").read_text().strip() == name
    )
    if libc.ptrace(PTRACE_SEIZE, tid, None, None) != 0:
        pytest.skip(f"ptrace: {os.strerror(ctypes.get_errno())}")
    try:
        assert libc.ptrace(PTRACE_INTERRUPT, tid, None, None) == 0
        os.waitpid(tid, WALL)
        yield
    finally:
        libc.ptrace(PTRACE_DETACH, tid, None, None)


def test_a_loop_that_stands_still_starves_it(watched: tuple[Node, Manager]) -> None:
    node, manager = watched
    manager.wait(2)
    assert node.process is not None
    with thread_stopped(node.process.pid, "srp-b"):
        node.wait_for("heard neither its own datagram nor any other")
        before = len(manager.fed)
        node.wait_for("heard neither its own datagram nor any other")
        assert len(manager.fed) == before
    manager.wait(2)


def test_a_process_that_stood_still_goes_on(watched: tuple[Node, Manager]) -> None:
    """SIGSTOP, as when a machine is suspended: nobody feeds it; after SIGCONT everything is as before."""
    node, manager = watched
    manager.wait(1)
    assert node.process is not None
    entries = node.ask("info")
    node.process.send_signal(signal.SIGSTOP)
    time.sleep(0.3)
    before = len(manager.fed)
    time.sleep(WATCHDOG_S)
    assert len(manager.fed) == before
    node.process.send_signal(signal.SIGCONT)
    manager.wait(2)
    assert node.ask("info") == entries
    assert srpnode("ping", "-n", "1", f"127.0.0.1:{node.ports[0]}").returncode == 0


def test_a_flood_does_not_starve_it(watched: tuple[Node, Manager]) -> None:
    """As fast as the attacker can: where the node is slower, the receive buffers run over, and with them most heartbeats are lost."""
    node, manager = watched
    manager.wait(1)
    entries = [Entry("", "127.0.0.1", port, 0, "") for port in node.ports[:2]]
    since = time.monotonic()
    attacker = flood.flood("pings", entries, 0, 8.0)
    _, words = attacker.communicate(timeout=60)
    assert attacker.returncode == 0, words
    fed = [moment for moment in manager.fed if moment > since]
    assert len(fed) >= 2
    udp = [identity["udp"] for identity in node.ask("status")["identities"]]
    came = sum(figures["in_datagrams"] + figures["in_kernel_drops_now"] for figures in udp)
    assert came > 100_000, "there was no flood"
    assert not [line for line in node.lines if "heard neither" in line]
